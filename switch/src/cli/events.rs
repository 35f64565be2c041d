//! `weft events`: what happened, and what happens.

use std::fmt::Write as _;

use clap::Args;
use jiff::Timestamp;

use super::Global;
use super::drops::time;
use super::output::{Column, Format, is_about_losses, print, render};
use crate::api::events::{LAST, LAST_MAX};
use crate::events::{Event, EventKind};
use crate::port::spec::PortName;

/// List what happened: stations that are new or moved, addresses that two claim, silent ports, DNS
#[derive(Args, Debug)]
pub(super) struct Options {
    /// Go on: what happens from now on
    #[arg(short, long, conflicts_with_all = ["last", "since", "until"])]
    follow: bool,
    /// Only this kind; may be repeated
    #[arg(long, value_name = "KIND", help = kinds())]
    kind: Vec<EventKind>,
    /// Only this port, or the other one of an event; may be repeated
    #[arg(long, value_name = "NAME")]
    port: Vec<PortName>,
    /// Since a time, or so long ago, also from the history: 2026-11-22T07:00:00Z, or 90s, 5m, 2h, 1d
    #[arg(long, value_name = "TIME", value_parser = time)]
    since: Option<Timestamp>,
    /// Before a time, or so long ago
    #[arg(long, value_name = "TIME", value_parser = time)]
    until: Option<Timestamp>,
    /// So many at most, the latest
    #[arg(long, value_name = "N", default_value_t = LAST, value_parser = last)]
    last: usize,
}

fn kinds() -> String {
    let labels: Vec<_> = EventKind::ALL.iter().map(|kind| kind.label()).collect();
    format!("Only this kind; may be repeated: {}", labels.join(", "))
}

fn last(text: &str) -> Result<usize, String> {
    let within = |last: &usize| (1..=LAST_MAX).contains(last);
    text.parse().ok().filter(within).ok_or_else(|| format!("take a number from 1 to {LAST_MAX}"))
}

impl Options {
    fn query(&self) -> String {
        let mut query = String::new();
        for kind in &self.kind {
            write!(query, "kind={kind}&").expect("a string takes everything");
        }
        for port in &self.port {
            write!(query, "port={}&", port.as_str()).expect("a string takes everything");
        }
        for (word, time) in [("since", self.since), ("until", self.until)] {
            if let Some(time) = time {
                write!(query, "{word}={time}&").expect("a string takes everything");
            }
        }
        query
    }
}

pub(super) async fn run(global: &Global, options: &Options) -> anyhow::Result<()> {
    let (client, format, query) = (global.client(), global.output, options.query());
    if options.follow {
        return client.follow(&format!("/v1/events?{query}follow=true"), |line| one_line(format, line)).await;
    }
    let events: Vec<Event> = client.get(&format!("/v1/events?{query}last={}", options.last)).await?;
    print(&render(format, &events, COLUMNS)?)?;
    Ok(())
}

fn one_line(format: Format, line: &str) -> anyhow::Result<()> {
    if is_about_losses(line, "events") {
        return Ok(());
    }
    let text = match format {
        Format::Json | Format::Jsonl | Format::Hubble => format!("{line}\n"),
        Format::Table | Format::Wide => {
            let event: Event = serde_json::from_str(line)?;
            format!("{}  {:<17}  {}\n", shown(&event), event.kind.label(), event.sentence())
        }
    };
    print(&text)?;
    Ok(())
}

fn shown(event: &Event) -> String {
    event.time.strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string()
}

const COLUMNS: &[Column<Event>] = &[
    Column::text("TIME", shown),
    Column::text("KIND", |event: &Event| event.kind.to_string()),
    Column::text("PORT", |event: &Event| event.port.clone().unwrap_or_else(|| "-".to_owned())),
    Column::text("WHAT", Event::sentence),
];
