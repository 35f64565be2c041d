//! `weft drops`: what did not arrive, and why.

use clap::Args;

use super::Global;
use super::output::{Column, Format, print, render};
use crate::api::schema::{DropInfo, Side};

/// List frames that did not arrive, by port and reason
#[derive(Args, Debug)]
pub(super) struct Options {
    /// Go on: a line for what is dropped from now on, looked at once a second
    #[arg(short, long)]
    follow: bool,
}

pub(super) async fn run(global: &Global, options: &Options) -> anyhow::Result<()> {
    let client = global.client();
    if options.follow {
        let format = global.output;
        return client.follow("/v1/drops?follow=true", |line| one_line(format, line)).await;
    }
    let drops: Vec<DropInfo> = client.get("/v1/drops").await?;
    print(&render(global.output, &drops, COLUMNS)?)?;
    Ok(())
}

fn one_line(format: Format, line: &str) -> anyhow::Result<()> {
    let text = match format {
        Format::Json | Format::Jsonl => format!("{line}\n"),
        Format::Table | Format::Wide => {
            let fresh: DropInfo = serde_json::from_str(line)?;
            let (port, side) = (port(&fresh), side(&fresh));
            format!("{port} {side} {} +{} frames +{} bytes\n", fresh.reason, fresh.frames, fresh.bytes)
        }
    };
    print(&text)?;
    Ok(())
}

fn port(info: &DropInfo) -> String {
    if info.port.is_empty() { "-".to_owned() } else { info.port.clone() }
}

fn side(info: &DropInfo) -> String {
    match info.side {
        Side::Ingress => "ingress",
        Side::Egress => "egress",
    }
    .to_owned()
}

const COLUMNS: &[Column<DropInfo>] = &[
    Column::text("PORT", port),
    Column::text("SIDE", side),
    Column::text("REASON", |info| info.reason.clone()),
    Column::number("FRAMES", |info| info.frames.to_string()),
    Column::number("BYTES", |info| info.bytes.to_string()),
    Column::text("DESCRIPTION", |info: &DropInfo| info.description.clone()).wide(),
];
