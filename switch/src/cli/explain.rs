//! `weft explain`: why one can, or cannot, reach the other.

use clap::Args;

use super::Global;
use super::filters::Quoted;
use super::output::{Format, print};
use crate::config::StationMac;
use crate::explain::Explanation;

/// Explain why one can, or cannot, reach the other, and what would become of the next frame
#[derive(Args, Debug)]
pub(super) struct Options {
    /// Who sends: a port's name, a MAC or an IP address
    from: String,
    /// Who is to receive: a port's name, a MAC or an IP address
    to: String,
    /// Take this for the source's MAC address, whatever is known of it
    #[arg(long, value_name = "MAC")]
    source: Option<StationMac>,
}

pub(super) async fn run(global: &Global, options: &Options) -> anyhow::Result<()> {
    let source = options.source.as_ref().map(|source| format!("&source={}", source.mac())).unwrap_or_default();
    let query = format!("from={}&to={}{source}", Quoted(&options.from), Quoted(&options.to));
    let explanation: Explanation = global.client().get(&format!("/v1/explain?{query}")).await?;
    print(&match global.output {
        Format::Json => serde_json::to_string_pretty(&explanation)? + "\n",
        Format::Jsonl => serde_json::to_string(&explanation)? + "\n",
        Format::Table | Format::Wide | Format::Hubble => explanation.words.join("\n") + "\n",
    })?;
    Ok(())
}
