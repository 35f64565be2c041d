//! Explanations over facts made by hand.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use jiff::Timestamp;
use switch_common::{MacAddr, PairKey, PairVerdict, PortId, VERDICT_ARMED, VERDICT_FORWARD, VlanId};

use super::{Explanation, Facts, Question, explain};
use crate::api::ControlError;
use crate::api::schema::{PortInfo, StationInfo, Traffic};
use crate::events::{Event, EventKind};
use crate::fdb::{FdbLimits, Nanos};
use crate::forwarding::{PortView, Tables};
use crate::frame::Trust;
use crate::names::Holder;
use crate::port::spec::{Mac, Origin, PortState, Role};

const A: Mac = Mac(MacAddr([2, 0, 0, 0, 0, 1]));
const B: Mac = Mac(MacAddr([2, 0, 0, 0, 0, 2]));
const STRANGER: Mac = Mac(MacAddr([2, 0, 0, 0, 0, 9]));

/// Ports `a`, `b` and `c`; stations behind the first two.
fn facts() -> Facts {
    let mut tables = Tables::new(FdbLimits::default());
    let (mut ports, mut stations) = (Vec::new(), Vec::new());
    for (id, name) in [(1, "a"), (2, "b"), (3, "c")] {
        tables.set_port(view(id));
        ports.push(port(id, name));
    }
    for (id, name, mac) in [(1, "a", A), (2, "b", B)] {
        tables.fdb.learn(VlanId::default(), mac.0, PortId::new(id).unwrap(), None, Nanos::default());
        let port = name.parse().unwrap();
        stations.push(StationInfo { mac, vlan: 0, port, is_static: false, age_secs: 1, moves: 0 });
    }
    Facts {
        ports,
        stations,
        tables,
        of_sender: vec![],
        of_receiver: vec![],
        drops: vec![],
        holders: vec![],
        events: vec![],
        now: Nanos(1),
    }
}

fn view(id: u16) -> PortView {
    PortView {
        id: PortId::new(id).unwrap(),
        up: true,
        carrier: true,
        role: Role::Guest,
        macs: Vec::new(),
        station_limit: Some(8),
        flood_per_sec: 1,
        frame_bytes_max: 1514,
        trust: Trust::Guest,
    }
}

fn port(id: u16, name: &str) -> PortInfo {
    PortInfo {
        name: name.parse().unwrap(),
        id,
        kind: "tap".to_owned(),
        role: Role::Guest,
        origin: Origin::Command,
        netdev: name.to_owned(),
        ifindex: Some(id.into()),
        state: PortState::Up,
        problem: None,
        mtu: Some(1500),
        macs: Vec::new(),
        labels: BTreeMap::default(),
        ingress: Traffic::default(),
        egress: Traffic::default(),
        drops: BTreeMap::default(),
    }
}

fn ask(facts: &Facts, from: &str, to: &str, source: Option<Mac>) -> Explanation {
    let question = Question { from: from.to_owned(), to: to.to_owned(), source };
    explain(&question, facts, |_| Ok(None)).unwrap()
}

#[test]
fn two_stations_that_are_known_reach_each_other() {
    let facts = facts();
    for (from, to) in [("a", "b"), ("a", "02:00:00:00:00:02"), ("02:00:00:00:00:01", "b")] {
        let said = ask(&facts, from, to, None);
        assert!(said.reachable && said.there.arrives() && said.back.arrives(), "{said:?}");
        assert_eq!(said.there.next.as_ref().unwrap().ports, ["b"]);
        assert!(said.there.longest.as_ref().unwrap().arrives);
        assert_eq!(said.words.first().unwrap(), &format!("{from} can reach {to}."));
    }
}

/// The bucket of a port holds one flood: a question that took it would starve the next one.
#[test]
fn a_question_changes_nothing() {
    let facts = facts();
    let before = format!("{:?}", facts.tables);
    for _ in 0..3 {
        let said = ask(&facts, "a", "c", Some(STRANGER));
        let next = said.there.next.unwrap();
        assert_eq!((next.ports, next.learned.as_str()), (vec!["b".to_owned(), "c".to_owned()], "added"));
    }
    assert_eq!(format!("{:?}", facts.tables), before);
}

#[test]
fn what_stops_a_frame_is_said_with_its_place() {
    let mut facts = facts();
    let mut refused = |change: fn(&mut PortView), from: &str, to: &str, source| {
        let mut one = view(2);
        change(&mut one);
        facts.tables.set_port(one);
        let said = ask(&facts, from, to, source);
        assert!(!said.reachable, "{said:?}");
        let refused = said.there.next.unwrap().refused.unwrap();
        (refused.port, refused.reason)
    };
    let found = refused(|view| view.macs = vec![B.0], "b", "a", Some(STRANGER));
    assert_eq!(found, ("b".to_owned(), "spoofed_source".to_owned()));
    let found = refused(|view| view.up = false, "b", "a", None);
    assert_eq!(found, ("b".to_owned(), "port_down".to_owned()));
    assert_eq!(refused(|_| {}, "a", "02:00:00:00:00:01", None), ("a".to_owned(), "hairpin".to_owned()));
}

#[test]
fn a_smaller_mtu_stops_long_frames_alone() {
    let mut facts = facts();
    facts.tables.set_port(PortView { frame_bytes_max: 1014, ..view(2) });
    facts.stations.truncate(2);
    let said = ask(&facts, "a", "b", None);
    // Nothing was flushed: only the MTU is another.
    assert!(said.reachable, "{said:?}");
    let refused = said.there.longest.unwrap().refused.unwrap();
    assert_eq!((refused.port.as_str(), refused.reason.as_str()), ("b", "too_big"));
    assert!(said.words.iter().any(|word| word.starts_with("One of 1514 bytes")), "{:?}", said.words);
}

#[test]
fn a_station_that_nobody_knows_is_flooded_to_and_nobody_is_not_found() {
    let facts = facts();
    let said = ask(&facts, "a", "02:00:00:00:00:09", None);
    assert!(!said.reachable && said.to.port.is_none() && said.back.next.is_none(), "{said:?}");
    assert!(said.words.first().unwrap().starts_with("Nobody knows whether"), "{:?}", said.words);
    for nobody in ["nobody", "198.18.0.9", "2001:db8::9", "", "\u{1b}[2J"] {
        let question = Question { from: "a".to_owned(), to: nobody.to_owned(), source: None };
        let refusal = explain(&question, &facts, |_| Ok(None)).unwrap_err();
        assert!(matches!(&refusal, ControlError::NotFound(why) if !why.contains('\u{1b}')), "{refusal:?}");
    }
}

#[test]
fn what_the_kernel_would_do_is_looked_up_for_the_pair_and_named() {
    let facts = facts();
    let question = Question { from: "a".to_owned(), to: "b".to_owned(), source: None };
    let key = PairKey { destination: B.0.0, source: A.0.0, ingress: 1, vlan: 0 };
    let action = VERDICT_FORWARD | VERDICT_ARMED;
    let verdict = PairVerdict { key, action, egress: 2, frame_bytes_max: 1514, ..PairVerdict::default() };
    let said = explain(&question, &facts, |asked| Ok((asked == key).then_some(verdict))).unwrap();
    let cached = said.there.cached.unwrap();
    assert_eq!((cached.port.as_deref(), cached.frame_bytes_max), (Some("b"), 1514));
    assert!(said.back.cached.is_none());
}

/// Whoever has the address now is asked about, not who used it in a conversation.
#[test]
fn an_ip_address_is_looked_up_in_the_register_of_names_and_what_happened_is_told() {
    let mut facts = facts();
    let address: IpAddr = "198.18.0.2".parse().unwrap();
    let holder = |mac, port: &str, is_latest| Holder {
        address: Some(address),
        mac,
        vlan: None,
        port: port.to_owned(),
        from: Timestamp::UNIX_EPOCH,
        until: Timestamp::UNIX_EPOCH,
        source: "arp".to_owned(),
        claims: 1,
        is_latest,
        names: Vec::new(),
    };
    facts.holders = vec![holder(B, "b", true), holder(A, "a", false)];
    let happened = |kind, port: &str, other: Option<&str>| {
        let event = Event::new(Timestamp::UNIX_EPOCH, kind, Some(port.to_owned()));
        Arc::new(Event { other_port: other.map(str::to_owned), ..event })
    };
    facts.events = vec![
        happened(EventKind::DnsAnswer, "a", None),
        happened(EventKind::PortAwake, "c", None),
        happened(EventKind::StationMoved, "c", Some("b")),
        happened(EventKind::PortDormant, "a", None),
    ];
    let said = ask(&facts, "a", "198.18.0.2", None);
    assert!(said.reachable && said.to.mac == B && said.to.address == Some(address), "{said:?}");
    let kinds: Vec<_> = said.events.iter().map(|event| event.kind).collect();
    assert_eq!(kinds, [EventKind::StationMoved, EventKind::PortDormant]);
    assert!(said.words.last().unwrap().starts_with("At 1970-01-01 00:00:00Z: port a has sent nothing"), "{said:?}");
}
