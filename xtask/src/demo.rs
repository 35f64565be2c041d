//! `cargo xtask demo` and `cargo xtask run`: set up, build in release, and start the real thing.

use std::ffi::OsString;
use std::path::Path;

use anyhow::Result;

use crate::workspace::{self, Profile};
use crate::{guest, setup, shell};

/// Shows the switch at work: `weft demo`, with a micro guest where `/dev/kvm` is, and a Linux guest where one can be made.
pub fn run(args: &[OsString]) -> Result<()> {
    setup::run(false)?;
    shell::need_root("the demo")?;
    let weft = workspace::weft(Profile::Release, [])?;
    if Path::new("/dev/kvm").exists() {
        // The demo looks for it beside its own binary.
        workspace::monitor(Profile::Release)?;
    }
    let mut command = shell::command(weft);
    command.arg("demo");
    match guest::prepare() {
        Ok(guest) => {
            command.arg("--guest-kernel").arg(guest.kernel).arg("--guest-initrd").arg(guest.initrd);
        }
        Err(error) => eprintln!("demo: no Linux guest: {error:#}"),
    }
    shell::run(command.args(args))
}

/// Runs the daemon alone.
pub fn daemon(args: &[OsString]) -> Result<()> {
    setup::run(false)?;
    shell::need_root("the daemon")?;
    let weft = workspace::weft(Profile::Release, [])?;
    shell::run(shell::command(weft).arg("run").args(args))
}
