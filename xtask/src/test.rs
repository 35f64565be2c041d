//! `cargo xtask test`: builds the binary and the tests, tells the tests where the binary is, runs them as root.
//!
//! A test that lacks what it needs says why and counts as skipped; `WEFT_TESTS_REQUIRE=root,bpf,qemu` turns such a
//! skip into a failure, and `cargo xtask ci` sets it.

use std::ffi::OsString;

use anyhow::Result;

use crate::workspace::{self, Profile};
use crate::{setup, shell};

/// Runs the tests whose name contains `filter`, with these variables set besides ours.
pub fn run(filter: Option<&str>, args: &[OsString], variables: &[(&str, OsString)]) -> Result<()> {
    setup::run(false)?;
    shell::need_root("the test suite")?;
    let variables = variables.iter().map(|(name, value)| (*name, value));
    let weft = workspace::weft(Profile::Debug, variables.clone())?;
    let mut command = shell::cargo(["test", "--locked", "--workspace", "--no-fail-fast"]);
    command.env("WEFT_BIN", weft).envs(variables);
    command.args(filter).arg("--").args(args);
    shell::run(&mut command)
}
