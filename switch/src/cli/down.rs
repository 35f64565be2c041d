//! `weft down`: take an instance away.

use std::path::PathBuf;

use clap::Args;

use super::Global;
use crate::config::{STATE_DIR, state_dir};
use crate::daemon;

/// Take an instance away, whether its daemon lives or not
#[derive(Args, Debug)]
pub(super) struct Options {
    /// Where instances keep their state, as given to `weft run`
    #[arg(long, value_name = "DIR", default_value = STATE_DIR)]
    state_dir: PathBuf,
}

pub(super) fn run(global: &Global, options: &Options) -> anyhow::Result<()> {
    daemon::down(&global.name, &global.socket(), &state_dir(&options.state_dir, &global.name))
}
