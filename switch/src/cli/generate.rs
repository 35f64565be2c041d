//! `weft generate`: manual pages and shell completions, for packages.

use std::fs;
use std::path::PathBuf;

use anyhow::Context;
use clap::{Subcommand, ValueEnum};
use clap_complete::Shell;

/// Write what packages ship
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Write manual pages
    Man {
        /// Where to
        dir: PathBuf,
    },
    /// Write shell completions
    Completions {
        /// Where to
        dir: PathBuf,
    },
}

pub(super) fn run(mut weft: clap::Command, command: &Command) -> anyhow::Result<()> {
    let (Command::Man { dir } | Command::Completions { dir }) = command;
    let at = || format!("{}: cannot write there; name a directory that can be written to", dir.display());
    fs::create_dir_all(dir).with_context(at)?;
    match command {
        Command::Man { dir } => clap_mangen::generate_to(weft, dir).with_context(at),
        Command::Completions { dir } => {
            for shell in Shell::value_variants() {
                clap_complete::generate_to(*shell, &mut weft, "weft", dir).with_context(at)?;
            }
            Ok(())
        }
    }
}
