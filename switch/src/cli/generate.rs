//! `weft generate`: manual pages and shell completions, for packages, and the table of metrics.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::{Subcommand, ValueEnum};
use clap_complete::Shell;

use crate::metrics::document;

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
    /// Print the table of metrics
    Metrics,
}

pub(super) fn run(mut weft: clap::Command, command: &Command) -> anyhow::Result<()> {
    match command {
        Command::Man { dir } => {
            make(dir)?;
            clap_mangen::generate_to(weft, dir).with_context(|| refused(dir))
        }
        Command::Completions { dir } => {
            make(dir)?;
            for shell in Shell::value_variants() {
                clap_complete::generate_to(*shell, &mut weft, "weft", dir).with_context(|| refused(dir))?;
            }
            Ok(())
        }
        Command::Metrics => Ok(write!(io::stdout(), "{}", document::table())?),
    }
}

fn make(dir: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(dir).with_context(|| refused(dir))
}

fn refused(dir: &Path) -> String {
    format!("{}: cannot write there; name a directory that can be written to", dir.display())
}
