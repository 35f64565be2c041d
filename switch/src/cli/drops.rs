//! `weft drops`: what did not arrive, and why.

use std::fmt::Write as _;

use clap::Args;
use jiff::Timestamp;

use super::Global;
use super::output::{Column, Format, print, render};
use crate::api::schema::{DropInfo, Sample};
use crate::describe::describe;
use crate::flow::filter;

/// List frames that did not arrive, by port and reason
#[derive(Args, Debug)]
pub(super) struct Options {
    /// Go on: what is dropped from now on, and frames of it, looked at once a second
    #[arg(short, long)]
    follow: bool,
    /// Since a time, or so long ago, by the minute: 2026-11-22T07:00:00Z, or 90s, 5m, 2h, 1d
    #[arg(long, value_name = "TIME", value_parser = time, conflicts_with = "follow")]
    since: Option<Timestamp>,
    /// Before a time, or so long ago
    #[arg(long, value_name = "TIME", value_parser = time, conflicts_with = "follow")]
    until: Option<Timestamp>,
}

pub(super) async fn run(global: &Global, options: &Options) -> anyhow::Result<()> {
    let client = global.client();
    if options.follow {
        let format = global.output;
        return client.follow("/v1/drops?follow=true", |line| one_line(format, line)).await;
    }
    let mut query = String::new();
    for (word, time) in [("since", options.since), ("until", options.until)] {
        let Some(time) = time else { continue };
        write!(query, "{}{word}={time}", if query.is_empty() { '?' } else { '&' })?;
    }
    let drops: Vec<DropInfo> = client.get(&format!("/v1/drops{query}")).await?;
    print(&render(global.output, &drops, COLUMNS)?)?;
    Ok(())
}

/// Reads a time, or how long ago.
pub(super) fn time(text: &str) -> Result<Timestamp, String> {
    filter::time(text, Timestamp::now()).ok_or_else(|| format!("take {}", filter::A_TIME))
}

fn one_line(format: Format, line: &str) -> anyhow::Result<()> {
    let text = match format {
        Format::Json | Format::Jsonl | Format::Hubble => format!("{line}\n"),
        Format::Table | Format::Wide => {
            let fresh: DropInfo = serde_json::from_str(line)?;
            lines(&fresh)
        }
    };
    print(&text)?;
    Ok(())
}

/// A line for the numbers; with it the first frame, and a line for each other.
fn lines(fresh: &DropInfo) -> String {
    let start = format!("{} {} {}", port(fresh), side(fresh), fresh.reason);
    let numbers = format!("+{} frames +{} bytes", fresh.frames, fresh.bytes);
    let frame = |sample: &Sample| describe(&bytes(&sample.bytes), sample.length);
    let Some((first, others)) = fresh.evidence.split_first() else { return format!("- {start} {numbers}\n") };
    let mut text = format!("{} {start} {numbers}  {}\n", first.time, frame(first));
    for other in others {
        text.extend([&other.time, " ", &start, "  ", &frame(other), "\n"]);
    }
    text
}

/// Bytes out of hexadecimal digits; what is none ends them.
fn bytes(digits: &str) -> Vec<u8> {
    let pairs = digits.as_bytes().chunks_exact(2);
    pairs.map_while(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
}

fn port(info: &DropInfo) -> String {
    if info.port.is_empty() { "-".to_owned() } else { info.port.clone() }
}

fn side(info: &DropInfo) -> String {
    info.side.label().to_owned()
}

const COLUMNS: &[Column<DropInfo>] = &[
    Column::text("PORT", port),
    Column::text("SIDE", side),
    Column::text("REASON", |info| info.reason.clone()),
    Column::number("FRAMES", |info| info.frames.to_string()),
    Column::number("BYTES", |info| info.bytes.to_string()),
    Column::text("DESCRIPTION", |info: &DropInfo| info.description.clone()).wide(),
];
