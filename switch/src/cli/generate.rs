//! `weft generate`: manual pages, shell completions and the flow record's schema, for packages, and the table of metrics.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::{Subcommand, ValueEnum};
use clap_complete::Shell;

use crate::export;
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
    /// Write what a flow record looks like: a JSON Schema and a page
    Schema {
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
        Command::Schema { dir } => {
            make(dir)?;
            let schema = serde_json::to_string_pretty(&export::flow_record_schema())? + "\n";
            fs::write(dir.join(export::SCHEMA_FILE), schema).with_context(|| refused(dir))?;
            fs::write(dir.join(export::PAGE_FILE), export::flow_record_page()).with_context(|| refused(dir))
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
