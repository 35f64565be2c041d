//! `weft generate`: manual pages, shell completions and the flow record's schema, for packages.

use std::fs;
use std::path::PathBuf;

use anyhow::Context;
use clap::{Subcommand, ValueEnum};
use clap_complete::Shell;

use crate::export;

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
}

pub(super) fn run(mut weft: clap::Command, command: &Command) -> anyhow::Result<()> {
    let (Command::Man { dir } | Command::Completions { dir } | Command::Schema { dir }) = command;
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
        Command::Schema { dir } => {
            let schema = serde_json::to_string_pretty(&export::flow_record_schema())? + "\n";
            fs::write(dir.join(export::SCHEMA_FILE), schema).with_context(at)?;
            fs::write(dir.join(export::PAGE_FILE), export::flow_record_page()).with_context(at)
        }
    }
}
