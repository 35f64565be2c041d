//! `weft flows`: who talks to whom, how much, and how well.

use std::fmt::Write as _;
use std::net::IpAddr;

use clap::Args;
use switch_common::flow::{TCP_FIN, TCP_RST};

use super::Global;
use super::filters::Filters;
use super::output::{Column, Format, is_about_losses, print, remark, render};
use crate::api::flows::{LAST, LAST_MAX};
use crate::export::hubble_line;
use crate::flow::{Direction, EndReason, Record, Verdict};
use crate::port::spec::Mac;

/// List conversations: those that go on, and those that ended not long ago
#[derive(Args, Debug)]
pub(super) struct Options {
    /// Go on: a line for each conversation as it ends, and every few minutes for those that go on
    #[arg(short, long, conflicts_with = "last")]
    follow: bool,
    /// So many at most, by the time of their last frame
    #[arg(long, value_name = "N", default_value_t = LAST, value_parser = last)]
    last: usize,
    #[command(flatten)]
    filters: Filters,
}

fn last(text: &str) -> Result<usize, String> {
    let within = |last: &usize| (1..LAST_MAX).contains(last);
    text.parse().ok().filter(within).ok_or_else(|| format!("take a number from 1 to {}", LAST_MAX - 1))
}

pub(super) async fn run(global: &Global, options: &Options) -> anyhow::Result<()> {
    let (client, format, query) = (global.client(), global.output, options.filters.query());
    if options.follow {
        if matches!(format, Format::Table | Format::Wide) {
            print(&padded(&SHOWN.map(|(heading, _, _)| heading.to_owned())))?;
        }
        return client.follow(&format!("/v1/flows?{query}follow=true"), |line| one_line(format, line)).await;
    }
    // One more than is shown tells whether something is left out.
    let mut records: Vec<Record> = client.get(&format!("/v1/flows?{query}last={}", options.last + 1)).await?;
    let more = records.len() > options.last;
    if more {
        records.remove(0);
    }
    print(&match format {
        Format::Hubble => records.iter().map(|record| hubble_line(record, &node())).collect(),
        Format::Table | Format::Wide | Format::Json | Format::Jsonl => render(format, &records, COLUMNS)?,
    })?;
    if more {
        remark(&format!(
            "only the last {} are shown; ask for more with --last, or for fewer with filters",
            options.last
        ));
    }
    Ok(())
}

fn one_line(format: Format, line: &str) -> anyhow::Result<()> {
    if is_about_losses(line, "records") {
        return Ok(());
    }
    let text = match format {
        Format::Json | Format::Jsonl => format!("{line}\n"),
        Format::Hubble => hubble_line(&serde_json::from_str(line)?, &node()),
        Format::Table | Format::Wide => {
            let record: Record = serde_json::from_str(line)?;
            padded(&SHOWN.map(|(_, _, cell)| cell(&record)))
        }
    };
    print(&text)?;
    Ok(())
}

/// This host's name.
fn node() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// Cells of one line of its own.
fn padded<const N: usize>(cells: &[String; N]) -> String {
    let mut line = String::new();
    for (cell, (_, width, _)) in cells.iter().zip(SHOWN) {
        write!(line, "{cell:<width$}  ").expect("a string takes everything");
    }
    format!("{}\n", line.trim_end())
}

/// A heading, how wide its cells are in lines of their own, and the cell.
type Shown = (&'static str, usize, fn(&Record) -> String);

/// What a line shows.
const SHOWN: [Shown; 9] = [
    ("TIME", 8, time),
    ("SOURCE", 23, source),
    ("DESTINATION", 23, destination),
    ("PROTO", 5, protocol),
    ("VERDICT", 9, verdict),
    ("FRAMES", 9, frames),
    ("BYTES", 11, bytes),
    ("RTT", 6, rtt),
    ("STATE", 9, state),
];

const COLUMNS: &[Column<Record>] = &[
    Column::text("TIME", time),
    Column::text("SOURCE", source),
    Column::text("DESTINATION", destination),
    Column::text("PROTO", protocol),
    Column::text("VERDICT", verdict),
    Column::number("FRAMES", frames),
    Column::number("BYTES", bytes),
    Column::number("RTT", rtt),
    Column::text("STATE", state),
    Column::text("BEGAN", |record: &Record| record.began.to_string()).wide(),
    Column::text("MACS", |record: &Record| format!("{} > {}", record.source_mac, record.destination_mac)).wide(),
    Column::text("VLAN", vlan).wide(),
    Column::text("DIRECTION", direction).wide(),
    Column::number("WIRE", |record: &Record| format!("{}/{}", record.forward_wire_frames, record.reverse_wire_frames))
        .wide(),
    Column::number("EXACT", |record: &Record| format!("{}/{}", record.forward_bytes, record.reverse_bytes)).wide(),
    Column::number("RETRANS", |record: &Record| tcp(record, |tcp| tcp.retransmits)).wide(),
    Column::number("ZEROWIN", |record: &Record| tcp(record, |tcp| tcp.zero_windows)).wide(),
    Column::text("LABELS", labels).wide(),
    Column::text("COMMUNITY", |record: &Record| record.community_id.clone().unwrap_or_default()).wide(),
];

fn time(record: &Record) -> String {
    record.end.strftime("%H:%M:%S").to_string()
}

fn end(port: &str, mac: Mac, address: Option<IpAddr>, number: Option<u16>) -> String {
    match (address, number) {
        (Some(IpAddr::V6(address)), Some(number)) => format!("{port}/[{address}]:{number}"),
        (Some(address), Some(number)) => format!("{port}/{address}:{number}"),
        (Some(address), None) => format!("{port}/{address}"),
        (None, _) => format!("{port}/{mac}"),
    }
}

pub(super) fn source(record: &Record) -> String {
    end(&record.source_port_name, record.source_mac, record.source_address, record.source_port)
}

pub(super) fn destination(record: &Record) -> String {
    let port = match (&record.destination_port_name, record.verdict) {
        (Some(name), _) => name,
        (None, Verdict::Flooded) => "*",
        (None, Verdict::Forwarded | Verdict::Dropped) => "-",
    };
    end(port, record.destination_mac, record.destination_address, record.destination_port)
}

pub(super) fn protocol(record: &Record) -> String {
    let name = record.network_transport.as_ref().unwrap_or(&record.network_type);
    let name = if name == "ipv6-icmp" { "icmp6" } else { name };
    if record.fragment { format!("{name}/frag") } else { name.to_owned() }
}

pub(super) fn verdict(record: &Record) -> String {
    let verdict = match record.verdict {
        Verdict::Forwarded => "forwarded",
        Verdict::Flooded => "flooded",
        Verdict::Dropped => "dropped",
    };
    record.drop_reason.as_ref().map_or_else(|| verdict.to_owned(), |reason| format!("{verdict}: {reason}"))
}

/// What was sent, and what was sent back.
fn both_ways(forward: u64, reverse: u64) -> String {
    format!("{}/{}", short(forward), short(reverse))
}

fn frames(record: &Record) -> String {
    both_ways(record.forward_frames, record.reverse_frames)
}

fn bytes(record: &Record) -> String {
    both_ways(record.forward_bytes, record.reverse_bytes)
}

/// A number in four digits or so; `wide` and JSON have all of them.
fn short(number: u64) -> String {
    let units = [(1_000_000_000_000, "T"), (1_000_000_000, "G"), (1_000_000, "M"), (1000, "k")];
    let large = units.into_iter().find(|(unit, _)| number >= 10 * unit);
    large.map_or_else(
        || number.to_string(),
        |(unit, sign)| format!("{}.{}{sign}", number / unit, number % unit * 10 / unit),
    )
}

fn rtt(record: &Record) -> String {
    match record.tcp.as_ref().and_then(|tcp| tcp.handshake_rtt_us) {
        Some(us @ 0..1000) => format!("{us}us"),
        Some(us) => format!("{}.{}ms", us / 1000, us % 1000 / 100),
        None => "-".to_owned(),
    }
}

pub(super) fn state(record: &Record) -> String {
    let is_half_open = record.tcp.as_ref().is_some_and(|tcp| tcp.half_open);
    let is_closing = record.tcp.as_ref().is_some_and(|tcp| tcp.flags.any(TCP_FIN | TCP_RST));
    match record.end_reason {
        None | Some(EndReason::Idle) if is_half_open => "half_open",
        None if is_closing => "closing",
        None => "live",
        Some(EndReason::Fin) => "fin",
        Some(EndReason::Reset) => "reset",
        Some(EndReason::Idle) => "idle",
        Some(EndReason::ActiveTimeout) => "goes_on",
        Some(EndReason::PortGone) => "port_gone",
        Some(EndReason::Forced) => "forced",
    }
    .to_owned()
}

fn vlan(record: &Record) -> String {
    let tags = [record.vlan, record.inner_vlan].into_iter().flatten();
    tags.map(|vlan| vlan.to_string()).collect::<Vec<_>>().join(".")
}

fn direction(record: &Record) -> String {
    match record.direction {
        Direction::EastWest => "east_west",
        Direction::NorthSouth => "north_south",
    }
    .to_owned()
}

fn tcp(record: &Record, count: fn(&crate::flow::TcpRecord) -> u64) -> String {
    record.tcp.as_ref().map(count).map_or_else(String::new, |count| count.to_string())
}

/// Both ports' labels. They are anybody's words, so what could steer a terminal is escaped.
fn labels(record: &Record) -> String {
    let said = |labels: &std::collections::BTreeMap<String, String>| {
        let words: Vec<_> =
            labels.iter().map(|(key, value)| format!("{key}={value}").escape_debug().to_string()).collect();
        words.join(",")
    };
    match (said(&record.source_labels), said(&record.destination_labels)) {
        (source, destination) if source.is_empty() && destination.is_empty() => String::new(),
        (source, destination) => format!("{source} > {destination}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short_and_never_more_than_there_was() {
        for (number, text) in [
            (0, "0"),
            (9_999, "9999"),
            (10_000, "10.0k"),
            (1_234_567, "1234.5k"),
            (12_345_678, "12.3M"),
            (99_999_999_999, "99.9G"),
            (u64::MAX, "18446744.0T"),
        ] {
            assert_eq!(short(number), text);
        }
    }
}
