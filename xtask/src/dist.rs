//! `cargo xtask dist`: what a package is made of, in `target/dist`.
//!
//! ```text
//! target/dist/bin/weft
//!             lib/systemd/system/weft.service
//!             share/man/man1/weft*.1
//!             share/completions/
//!             share/doc/weft/{LICENSE, README.md, weft.sample.toml}
//! ```

use std::fs;

use anyhow::{Context, Result};

use crate::shell;
use crate::workspace::{self, Profile};

/// Files taken as they are: from the repository, to the folder.
const FILES: &[(&str, &str)] = &[
    ("packaging/weft.service", "lib/systemd/system/weft.service"),
    ("LICENSE", "share/doc/weft/LICENSE"),
    ("README.md", "share/doc/weft/README.md"),
    ("switch/weft.sample.toml", "share/doc/weft/weft.sample.toml"),
];

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
    eprintln!("dist: {}", dist.display());
    Ok(())
}
