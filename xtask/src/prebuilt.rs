//! Keeps what is built for another machine ([`prebuilt`]) with where it comes from, and checks that the same toolchain makes
//! the same bytes of the same sources.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use prebuilt::{Prebuilt, sha256};
use serde::{Deserialize, Serialize};

use crate::workspace;

/// What a toolchain made.
pub struct Built {
    /// The file.
    pub bytes: Vec<u8>,
    /// What made it.
    pub toolchain: Toolchain,
}

/// Versions, each as the program says it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Toolchain {
    /// The compiler.
    pub rustc: String,
    /// Its LLVM.
    pub llvm: String,
    /// The linker.
    pub linker: String,
}

/// Where it comes from. Field order is the file's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Provenance {
    object_sha256: String,
    sources_sha256: String,
    #[serde(flatten)]
    toolchain: Toolchain,
}

impl Provenance {
    fn of(what: &Prebuilt, built: &Built) -> Result<Self> {
        Ok(Self {
            object_sha256: sha256(&built.bytes),
            sources_sha256: what.sources_sha256(workspace::root())?,
            toolchain: built.toolchain.clone(),
        })
    }
}

/// Replaces the one in the tree.
///
/// # Errors
/// It cannot be written.
pub fn keep(what: &Prebuilt, built: &Built) -> Result<()> {
    let root = workspace::root();
    let (file, provenance) = (root.join(what.file), Provenance::of(what, built)?);
    fs::create_dir_all(file.parent().context("a file at the root")?)?;
    fs::write(file, &built.bytes)?;
    let text = format!("# Written by `{}`.\n{}", what.command, toml::to_string(&provenance)?);
    fs::write(what.provenance(root), text)?;
    eprintln!("{}: {} bytes, sha256 {}", what.file, built.bytes.len(), provenance.object_sha256);
    Ok(())
}

/// Compares what was built anew with the one in the tree, in which nothing is written. `None`: they are the same. `Some`:
/// another toolchain made the one in the tree, so the bytes say nothing; the new one lies in `folder`, and the tests are to run on it.
///
/// # Errors
/// The one in the tree is stale, or the same toolchain made other bytes of the same sources.
pub fn verify(what: &Prebuilt, built: &Built, folder: &Path) -> Result<Option<PathBuf>> {
    let Prebuilt { file, command, .. } = what;
    let path = what.provenance(workspace::root());
    let text = fs::read_to_string(&path).with_context(|| format!("{}; run `{command}`", path.display()))?;
    let kept: Provenance = toml::from_str(&text)?;
    let new = Provenance::of(what, built)?;
    ensure!(
        kept.sources_sha256 == new.sources_sha256,
        "the sources of {} have changed since {file} was built; run `{command}`",
        what.what
    );
    if kept.toolchain == new.toolchain {
        ensure!(
            kept.object_sha256 == new.object_sha256,
            "the same toolchain made another {file} of the same sources: {} instead of {}",
            new.object_sha256,
            kept.object_sha256
        );
        eprintln!("{file}: bit for bit what {} makes of the sources", new.toolchain.rustc);
        return Ok(None);
    }
    let rebuilt = folder.join(what.name());
    fs::write(&rebuilt, &built.bytes)?;
    eprintln!("built by {}, prebuilt by {}: testing {}", new.toolchain.rustc, kept.toolchain.rustc, rebuilt.display());
    Ok(Some(rebuilt))
}
