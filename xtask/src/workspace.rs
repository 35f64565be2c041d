//! Where things are: the repository, its target folder, and the `weft` binary that is built there.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::shell;

/// How the binary is built.
#[derive(Clone, Copy)]
pub enum Profile {
    /// With assertions: what the tests run.
    Debug,
    /// With optimisations: what is shown, measured and shipped.
    Release,
}

/// The repository: the folder above `xtask/`.
pub fn root() -> &'static Path {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here)
}

/// Where cargo builds to.
pub fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// The cargo that started us.
pub fn cargo() -> PathBuf {
    std::env::var_os("CARGO").map_or_else(|| PathBuf::from("cargo"), PathBuf::from)
}

/// Builds `weft` with these variables set, and says where it is.
pub fn weft<'a>(profile: Profile, variables: impl IntoIterator<Item = (&'a str, &'a OsString)>) -> Result<PathBuf> {
    build("weft", "weft", profile, variables)
}

/// Builds the monitor of the test's guests, and says where it is.
pub fn monitor(profile: Profile) -> Result<PathBuf> {
    build("vmm-harness", "vmm-harness", profile, [])
}

/// Builds the brain alone, for who counts its instructions, and says where it is.
pub fn brain() -> Result<PathBuf> {
    build("weft-tests", "brain", Profile::Release, [])
}

/// Builds a package's binary.
fn build<'a>(
    package: &str,
    name: &str,
    profile: Profile,
    variables: impl IntoIterator<Item = (&'a str, &'a OsString)>,
) -> Result<PathBuf> {
    let mut command = shell::cargo(["build", "--locked", "--package", package, "--bin", name]);
    command.envs(variables);
    let folder = match profile {
        Profile::Debug => "debug",
        Profile::Release => {
            command.arg("--release");
            "release"
        }
    };
    shell::run(&mut command)?;
    Ok(target().join(folder).join(name))
}
