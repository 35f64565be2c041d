//! `weft check`: is this configuration right?

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use super::output::{print, render_one};
use super::{Global, read_config};

/// Validate a configuration file without a daemon
#[derive(Args, Debug)]
pub(super) struct Options {
    /// The configuration
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

#[derive(Serialize)]
struct Verdict {
    file: String,
    ports: usize,
}

pub(super) fn run(global: &Global, options: &Options) -> anyhow::Result<()> {
    let config = read_config(&options.file)?;
    let verdict = Verdict { file: options.file.display().to_string(), ports: config.ports.len() };
    print(&render_one(global.output, &verdict, |v| format!("{}: ok, ports: {}\n", v.file, v.ports))?)?;
    Ok(())
}
