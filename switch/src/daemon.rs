//! (the lead's: this stands in for it)

use std::path::Path;

use crate::config::Runtime;
use crate::port::spec::IfName;

/// Runs until told to stop.
pub fn run(runtime: &Runtime) -> anyhow::Result<()> {
    anyhow::bail!("the daemon of {} is not built yet", runtime.name)
}

/// Takes an instance away, living or dead.
pub fn down(name: &IfName, _socket: &Path, _state_dir: &Path) -> anyhow::Result<()> {
    anyhow::bail!("cannot take {name} away yet")
}
