//! `cargo xtask tidy`: what a compiler does not check, checked as plainly as it can be.
//!
//! Each check takes the repository's files and answers with faults; nothing is ever mended here. The files are those
//! that git knows or would take, so build output is never looked at.

mod papers;
mod sources;

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use crate::{shell, workspace};

/// A text file of the repository.
pub struct Text {
    /// Its path from the repository's root, with `/`.
    pub path: String,
    /// All of it.
    pub text: String,
}

impl Text {
    /// Whether the name ends like this.
    pub fn is(&self, extension: &str) -> bool {
        self.path.rsplit_once('.').is_some_and(|(_, end)| end == extension)
    }

    /// A fault at a line, counted from 0.
    fn fault(&self, line: usize, what: impl std::fmt::Display) -> String {
        format!("{}:{}: {what}", self.path, line + 1)
    }
}

/// What one check found, a line each.
type Faults = Vec<String>;

/// Looks at all files for faults of one kind.
type Check = fn(&[Text]) -> Faults;

/// Every check, with the sentence that says what must hold.
const CHECKS: &[(&str, Check)] = &[
    ("every source file opens with a `//!` header", sources::headers),
    ("no source file is longer than 450 lines", sources::lengths),
    ("no test sleeps: it waits for a condition with a deadline", sources::sleeps),
    ("nothing is left over from the workshop", sources::leftovers),
    ("every promise names its test or bench, or says why it is pending", papers::promises),
    ("every metric named in a document exists", papers::metrics),
    ("every drop reason is in the operator's table", papers::reasons),
    ("every link between documents leads somewhere", papers::links),
    ("the changelog has an Unreleased section", papers::changelog),
];

/// Runs every check and fails if one found anything.
pub fn run() -> Result<()> {
    let texts = texts()?;
    let mut faults = 0;
    for (holds, check) in CHECKS {
        let found = check(&texts);
        eprintln!("tidy: {} {holds}", if found.is_empty() { "ok  " } else { "FAIL" });
        for fault in &found {
            eprintln!("      {fault}");
        }
        faults += found.len();
    }
    if faults > 0 {
        bail!("tidy: {faults} faults");
    }
    Ok(())
}

/// Reads every text file that belongs to the repository.
fn texts() -> Result<Vec<Text>> {
    let list = shell::line("git ls-files --cached --others --exclude-standard")
        .context("tidy asks git which files belong to the repository")?;
    let mut texts = Vec::new();
    for path in list.lines() {
        let file: PathBuf = workspace::root().join(path);
        // Binary files, and files deleted but not yet committed, are not texts.
        if let Ok(text) = fs::read_to_string(&file) {
            texts.push(Text { path: path.to_owned(), text });
        }
    }
    Ok(texts)
}
