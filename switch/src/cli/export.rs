//! `weft export`: the running state as a file.

use clap::Args;

use super::Global;
use super::output::{Format, print};

/// Print what runs in the configuration file's format
#[derive(Args, Debug)]
pub(super) struct Options {}

pub(super) async fn run(global: &Global) -> anyhow::Result<()> {
    let text = global.client().get_text("/v1/config").await?;
    let text = match global.output {
        Format::Table | Format::Wide => text,
        Format::Json => serde_json::to_string_pretty(&toml::from_str::<toml::Table>(&text)?)? + "\n",
        Format::Jsonl | Format::Hubble => serde_json::to_string(&toml::from_str::<toml::Table>(&text)?)? + "\n",
    };
    print(&text)?;
    Ok(())
}
