//! `weft ledger`: does everything add up?

use anyhow::ensure;
use clap::Args;

use super::Global;
use super::output::{Column, Format, print, render, render_one};
use crate::api::schema::{LawReport, LedgerReport};

/// How long quiet is waited for by default, in seconds.
const SETTLE_SECS: &str = "10";

/// Print the laws of the ledger; exit with 1 if one does not hold
#[derive(Args, Debug)]
pub(super) struct Options {
    /// Wait for quiet first, at most so long
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = SETTLE_SECS, require_equals = true)]
    settle: Option<u64>,
}

pub(super) async fn run(global: &Global, options: &Options) -> anyhow::Result<()> {
    let query = options.settle.map(|secs| format!("?settle_secs={secs}")).unwrap_or_default();
    let ledger: LedgerReport = global.client().get(&format!("/v1/ledger{query}")).await?;
    print(&match global.output {
        Format::Json => render_one(Format::Json, &ledger, |_| String::new())?,
        format => render(format, &ledger.laws, COLUMNS)?,
    })?;
    if options.settle.is_some() {
        ensure!(
            ledger.quiet,
            "the switch did not become quiet; stop the traffic, or wait longer with --settle=SECONDS"
        );
    }
    let broken = ledger.laws.iter().filter(|law| !law.holds).count();
    ensure!(
        ledger.holds,
        "{broken} laws do not hold: frames are lost or counted wrongly; this is a defect, please report it"
    );
    Ok(())
}

const COLUMNS: &[Column<LawReport>] = &[
    Column::text("LAW", |law| law.law.clone()),
    Column::text("WHAT", |law| law.what.clone()),
    Column::number("LEFT", |law| law.left.to_string()),
    Column::number("RIGHT", |law| law.right.to_string()),
    Column::text("HOLDS", |law| if law.holds { "yes" } else { "NO" }.to_owned()),
    Column::text("NOTE", |law| law.note.clone().unwrap_or_default()),
];
