//! What is told, and at what cost.

#![expect(clippy::unwrap_used, reason = "tests")]

mod scraping;
mod series;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use switch_common::{DropCell, DropReason, Tally};

use super::declared::{ALL, Kind};
use super::document;
use super::encode;
use super::pairs::Pairs;
use super::sample::{DropSample, MapSample, MirrorSample, PortSample, ProgramSample, Sample, Stage};
use super::scraper::cpu;
use crate::api::schema::Side;
use crate::clerk;
use crate::events::Events;
use crate::flow::{PortHealth, Totals};
use crate::names::{Port, PortDns};
use crate::observer::Seen;
use crate::reflex::HeardSums;

/// Processor time of a scrape of 1,000 ports, in a release build. A debug build may take so many times as much.
const BUDGET: Duration = Duration::from_millis(50);
const DEBUG_FACTOR: u32 = if cfg!(debug_assertions) { 4 } else { 1 };

fn tally(frames: u64) -> Tally {
    Tally { frames, bytes: frames * 1000, extra_frames: frames * 9, extra_bytes: frames * 54 }
}

fn drop(side: Side, reason: DropReason, frames: u64) -> DropSample {
    DropSample { side, reason: reason.label().into(), cell: DropCell { frames, bytes: frames * 60 } }
}

fn port(id: u16) -> PortSample {
    PortSample {
        id,
        name: format!("web{id}"),
        kind: "tap",
        role: "guest",
        origin: "file",
        netdev: format!("vnet{id}"),
        is_up: true,
        ingress: tally(u64::from(id)),
        egress: tally(2),
        overflow_frames: 3,
        unparsable_frames: 4,
        flood_frames: 5,
        punted_frames: 6,
        heard: HeardSums { produced: 9, delivered: 4, limited: 3, lost: 2 },
        drops: vec![drop(Side::Ingress, DropReason::SpoofedSource, 7), drop(Side::Egress, DropReason::TooBig, 8)],
    }
}

fn health() -> PortHealth {
    let mut health = PortHealth {
        retransmitted_segments: 1,
        retransmitted_bytes: 1448,
        zero_windows: 2,
        resets: 3,
        half_open: 4,
        last_useful: Some(Timestamp::from_millisecond(1_700_000_000_500).unwrap()),
        ..PortHealth::default()
    };
    health.rtt.observe(Duration::from_micros(80));
    health.rtt.observe(Duration::from_millis(20));
    health
}

/// Every port asks for names.
fn clerk(names: &[Port]) -> clerk::Seen {
    let mut dns = PortDns {
        queries: 4,
        answers: [1, 0, 0, 1, 0, 0, 0],
        timeouts: 1,
        malformed: 2,
        unmatched: 3,
        ..PortDns::default()
    };
    dns.latency.observe(Duration::from_micros(700));
    clerk::Seen {
        dns: names.iter().map(|port| (port.clone(), dns.clone())).collect(),
        dormant: names.iter().map(|port| (port.clone(), **port == *"web1")).collect(),
        bindings: 3,
        bindings_max: 16_384,
        evicted: 5,
    }
}

/// A switch with so many ports, each of which sends to the next one.
fn sample(ports: u16) -> Sample {
    let mut totals = Totals::default();
    totals.opened.tcp = 5;
    totals.closed.tcp = 3;
    totals.active.tcp = 2;
    for id in 1..=ports {
        totals.ports.insert(id, health());
        totals.pairs.insert((id, id % ports + 1), tally(u64::from(id)));
    }
    Sample {
        name: "weft0".to_owned(),
        datapath: "kernel".to_owned(),
        hook: "tcx".to_owned(),
        ports: (1..=ports).map(port).collect(),
        strangers: vec![drop(Side::Egress, DropReason::EgressGone, 9)],
        events: Events::default().counts(),
        clerk: Arc::new(clerk(&(1..=ports).map(|id| format!("web{id}").into()).collect::<Vec<_>>())),
        seen: Arc::new(Seen { totals, ..Seen::default() }),
        threads: vec![("observer", true), ("history", false)],
        mirrors: vec![MirrorSample { name: "look".to_owned(), is_up: true, delivered: tally(6), lost_frames: 1 }],
        lost: Stage::ALL.map(|stage| (stage, 0)).to_vec(),
        stations: 2,
        station_moves: 1,
        maps: vec![MapSample { map: "flows", entries: 4, entries_max: 393_216 }],
        programs: vec![ProgramSample { name: "port_ingress".to_owned(), runs: 10, run_time: Duration::from_micros(1) }],
        ..Sample::default()
    }
}

fn text(sample: Sample) -> String {
    String::from_utf8(encode(sample, &mut Pairs::default()).unwrap().to_vec()).unwrap()
}

#[test]
fn two_ports_are_told_like_this() {
    insta::assert_snapshot!(text(sample(2)).replace(env!("CARGO_PKG_VERSION"), "VERSION"));
}

#[test]
fn every_declared_metric_is_told_and_no_other() {
    let text = text(sample(2));
    let told: BTreeSet<&str> =
        text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    let declared: BTreeSet<&str> = ALL.iter().map(|about| about.name).collect();
    assert_eq!(told, declared);
    assert_eq!(declared.len(), ALL.len(), "a name is declared twice");
}

#[test]
fn names_and_help_follow_the_rules_of_prometheus() {
    for about in ALL {
        let name = about.name;
        assert_eq!(about.kind == Kind::Counter, name.ends_with("_total"), "{name}");
        assert!(name.starts_with("weft_") || name.starts_with("process_"), "{name}");
        assert!(about.help.trim().ends_with('.') && !about.help.contains("  "), "{name}: {}", about.help);
        if about.name.contains("gress") {
            assert!(about.help.contains("guest"), "{name}: whose view?");
        }
    }
}

#[test]
fn the_document_holds_the_table_of_the_declarations() {
    let document = include_str!("../../../docs/metrics.md");
    let (_, rest) = document.split_once(document::BEGIN).unwrap();
    let (table, _) = rest.split_once(document::END).unwrap();
    assert!(table.trim() == document::table().trim(), "run `weft generate metrics` and put it between the marks");
}

/// Port names are letters, digits and a few marks; but what becomes of a label must not rest on that alone.
#[test]
fn what_is_in_a_label_stays_in_it() {
    let hostile = "a\"} 1\nweft_port_up{port=\"b\\ü\u{1b}[31m{}";
    let mut evil = sample(1);
    evil.ports.iter_mut().for_each(|port| hostile.clone_into(&mut port.name));
    evil.ports.iter_mut().for_each(|port| hostile.clone_into(&mut port.netdev));
    evil.clerk = Arc::new(clerk(&[hostile.into()]));
    let (evil, good) = (text(evil), text(sample(1)));
    assert_eq!(evil.lines().count(), good.lines().count(), "a line was made");
    let escaped = r#"weft_port_up{port="a\"} 1\nweft_port_up{port=\"b\\ü"#;
    assert!(evil.lines().any(|line| line.starts_with(escaped) && line.ends_with("{}\"} 1")), "{evil}");
}

#[test]
fn a_thousand_ports_cost_less_than_the_budget() {
    let mut pairs = Pairs::default();
    // Filled once, so that both the first and a later scrape are measured.
    for round in ["first", "next"] {
        let sample = sample(1000);
        let start = cpu();
        let text = encode(sample, &mut pairs).unwrap();
        let took = cpu().saturating_sub(start);
        let lines = text.split(|byte| *byte == b'\n').count();
        eprintln!("{round}: {lines} lines, {} bytes, {took:?}", text.len());
        assert!(lines > 30_000, "{lines}");
        assert!(took <= BUDGET * DEBUG_FACTOR, "{took:?}");
    }
}

#[test]
fn a_port_that_is_gone_leaves_no_series() {
    let mut pairs = Pairs::default();
    let mut told = |sample| String::from_utf8(encode(sample, &mut pairs).unwrap().to_vec()).unwrap();
    assert!(told(sample(3)).contains("\"web3\""));
    assert!(!told(sample(2)).contains("\"web3\""));
    let mut renamed = sample(2);
    "db1".clone_into(&mut renamed.ports.last_mut().unwrap().name);
    let text = told(renamed);
    assert!(text.contains("\"db1\"") && !text.contains("\"web2\""), "{text}");
}
