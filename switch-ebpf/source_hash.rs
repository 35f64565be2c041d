//! One number for all sources of a prebuilt object: the kernel half's, or the micro guest's. Used by the build scripts that
//! refuse an object that is older than its sources, and by `cargo xtask`, which writes it beside the object.

use std::io;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

/// The files, sorted.
pub(crate) fn sources(root: &Path, places: &[&str]) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut left: Vec<PathBuf> = places.iter().map(|place| root.join(place)).collect();
    while let Some(path) = left.pop() {
        if path.is_dir() {
            for entry in std::fs::read_dir(&path)? {
                left.push(entry?.path());
            }
        } else {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// SHA-256 over the names, lengths and contents of all sources, in hexadecimal.
pub(crate) fn source_hash(root: &Path, places: &[&str]) -> io::Result<String> {
    let mut hash = Sha256::new();
    for path in sources(root, places)? {
        let text = std::fs::read(&path)?;
        let name = path.strip_prefix(root).unwrap_or(&path).to_string_lossy().into_owned();
        hash.update(format!("{name}\n{}\n", text.len()));
        hash.update(text);
    }
    Ok(hex(&hash.finalize()))
}

/// SHA-256 of some bytes, in hexadecimal.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

fn hex(bytes: &[u8]) -> String {
    let digit = |value: u8| char::from_digit(u32::from(value), 16).unwrap_or('?');
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}
