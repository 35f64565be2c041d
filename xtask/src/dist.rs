//! `cargo xtask dist`: what a package is made of, in `target/dist`.
//!
//! ```text
//! target/dist/bin/weft
//!             lib/systemd/system/weft.service
//!             share/man/man1/weft*.1
//!             share/completions/
//!             share/doc/weft/{LICENSE, README.md, …, runbooks/}
//!             share/weft/dashboards/    Grafana's and Prometheus' files
//! ```

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::shell;
use crate::workspace::{self, Profile};

/// Files taken as they are: from the repository, to the folder.
const FILES: &[(&str, &str)] = &[
    ("packaging/weft.service", "lib/systemd/system/weft.service"),
    ("LICENSE", "share/doc/weft/LICENSE"),
    ("README.md", "share/doc/weft/README.md"),
    ("switch/weft.sample.toml", "share/doc/weft/weft.sample.toml"),
    ("docs/dashboards.md", "share/doc/weft/dashboards.md"),
    ("docs/drops.md", "share/doc/weft/drops.md"),
];

/// Folders taken as they are, with everything in them.
const FOLDERS: &[(&str, &str)] =
    &[("dashboards", "share/weft/dashboards"), ("docs/runbooks", "share/doc/weft/runbooks")];

/// Builds and collects; an earlier collection is removed first.
pub fn run() -> Result<()> {
    let weft = workspace::weft(Profile::Release, [])?;
    let dist = workspace::target().join("dist");
    if dist.exists() {
        fs::remove_dir_all(&dist)?;
    }
    let bin = dist.join("bin");
    fs::create_dir_all(&bin)?;
    fs::copy(&weft, bin.join("weft")).with_context(|| format!("cannot copy {}", weft.display()))?;
    for (what, folder) in
        [("man", "share/man/man1"), ("completions", "share/completions"), ("schema", "share/doc/weft")]
    {
        let folder = dist.join(folder);
        fs::create_dir_all(&folder)?;
        shell::run(shell::command(&weft).args(["generate", what]).arg(&folder))?;
    }
    for (from, to) in FILES {
        let to = dist.join(to);
        fs::create_dir_all(to.parent().context("a file without a folder")?)?;
        fs::copy(workspace::root().join(from), &to).with_context(|| format!("cannot copy {from}"))?;
    }
    for (from, to) in FOLDERS {
        copy_all(&workspace::root().join(from), &dist.join(to)).with_context(|| format!("cannot copy {from}"))?;
    }
    eprintln!("dist: {}", dist.display());
    Ok(())
}

/// Copies a folder and those within it.
fn copy_all(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let place = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_all(&entry.path(), &place)?;
        } else {
            fs::copy(entry.path(), &place)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_is_there_and_folders_are_packed_whole() {
        for (from, _) in FILES.iter().chain(FOLDERS) {
            assert!(workspace::root().join(from).exists(), "{from} does not exist");
        }
        let packed = tempfile::tempdir().expect("a folder");
        copy_all(&workspace::root().join("dashboards"), packed.path()).expect("a copy");
        for file in
            ["grafana/weft-port.json", "grafana/provisioning/datasources/weft.yml", "prometheus/weft.alerts.yml"]
        {
            assert!(packed.path().join(file).is_file(), "{file} is not packed");
        }
    }
}
