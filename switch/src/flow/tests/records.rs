//! Records: names, field names, directions; and the filters over them.

use std::collections::BTreeMap;

use serde_json::json;
use switch_common::flow::{FlowTail, KIND_LINK};
use utoipa::PartialSchema;

use super::*;
use crate::port::spec::Role;

/// Port 1 is a guest with labels, 2 a guest, 3 an uplink; others have no name.
struct Book(Labels);

impl Names for Book {
    fn port(&self, id: PortId) -> Option<Named<'_>> {
        let named = |name, role| Some(Named { name, labels: &self.0, role });
        match id.get() {
            1 => named("web1", Role::Guest),
            2 => named("db1", Role::Guest),
            3 => named("eth0", Role::Uplink),
            _ => None,
        }
    }
}

fn record_of(key: RawKey, egress: u16) -> Record {
    let mut tracker = tracker();
    tracker.sweep(&[Entry { key, value: value(10, egress, 3, MARK_OPENED | flags(TCP_SYN)) }], at(secs(1)));
    let book = Book(BTreeMap::from([("app".to_owned(), "x\"\n\u{1b}[31m".to_owned())]).into());
    Record::new(&live(&tracker)[0], "weft0", &book)
}

fn of(key: FlowKey4, egress: u16) -> Record {
    record_of(RawKey::V4(key), egress)
}

#[test]
fn a_record_has_the_documented_fields_and_is_read_back() {
    let mut key = request();
    key.pair.outer = 0x8064;
    let record = of(key, 2);
    let text = serde_json::to_string(&record).unwrap();
    assert_eq!(text.lines().count(), 1);
    assert_eq!(serde_json::from_str::<Record>(&text).unwrap(), record);
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    for (field, expected) in [
        ("start", json!("2027-01-15T08:00:00.01Z")),
        ("end", json!("2027-01-15T08:00:00.01Z")),
        ("end_reason", json!(null)),
        ("switch", json!("weft0")),
        ("vlan", json!(100)),
        ("source.port_name", json!("web1")),
        ("source.labels", json!({"app": "x\"\n\u{1b}[31m"})),
        ("source.mac", json!("02:00:00:00:00:01")),
        ("source.address", json!("198.18.0.1")),
        ("source.port", json!(40_000)),
        ("destination.port_name", json!("db1")),
        ("destination.port", json!(80)),
        ("network.type", json!("ipv4")),
        ("network.transport", json!("tcp")),
        ("direction", json!("east_west")),
        ("verdict", json!("forwarded")),
        ("forward.frames", json!(3)),
        ("forward.wire_frames", json!(3)),
        ("forward.bytes", json!(300)),
        ("reverse.frames", json!(0)),
        ("tcp.flags", json!(["syn"])),
        ("tcp.half_open", json!(true)),
        ("tcp.retransmits", json!(0)),
    ] {
        assert_eq!(json[field], expected, "{field}");
    }
    assert!(json["community_id"].as_str().unwrap().starts_with("1:"));
    assert!(serde_json::to_string(&Record::schema()).unwrap().contains("forward.wire_bytes"));
}

#[test]
fn direction_and_names_say_what_is_known() {
    assert_eq!(of(request(), 3).direction, Direction::NorthSouth);
    assert_eq!(of(key(1, 2, 1, 2, 6, 3), 1).direction, Direction::NorthSouth);
    let unknown = of(request(), 0);
    assert_eq!((unknown.direction, unknown.destination_port_name), (Direction::EastWest, None));
    assert_eq!(of(request(), 9).destination_port_name.as_deref(), Some("#9"));
}

#[test]
fn what_is_not_ip_is_named_by_its_type() {
    let mut link = request();
    (link.tail.kind, link.tail.protocol, link.tail.destination_port) = (KIND_LINK, 0, 0);
    for (ethertype, name) in [(0x0806, "arp"), (0x88cc, "lldp"), (0, "802.3"), (0x88b5, "0x88b5")] {
        link.tail.source_port = ethertype;
        let record = of(link, 0);
        let text = serde_json::to_string(&record).unwrap();
        assert_eq!(serde_json::from_str::<Record>(&text).unwrap(), record);
        assert_eq!((record.network_type.as_str(), record.community_id), (name, None));
        assert_eq!((record.source_port, record.tcp), (None, None));
    }
}

fn filter(words: &[(&str, &str, bool)]) -> Result<Filter, FilterError> {
    let mut filter = Filter::default();
    for (flag, value, negated) in words {
        filter.add(flag, value, *negated, at(secs(100)).wall)?;
    }
    Ok(filter)
}

#[test]
fn every_filter_finds_what_it_names_and_nothing_else() {
    let mut tagged = request();
    tagged.pair.outer = 0x8064;
    let record = of(tagged, 2);
    for (flag, hit, miss) in [
        ("port", "db1", "db"),
        ("from-port", "web1", "db1"),
        ("to-port", "db1", "web1"),
        ("mac", "02-00-00-00-00-02", "02:00:00:00:00:03"),
        ("ip", "198.18.0.0/15", "198.20.0.0/15"),
        ("ip", "198.18.0.2", "198.18.0.3"),
        ("ip", "0.0.0.0/0", "::/0"),
        ("vlan", "100", "0"),
        ("protocol", "TCP", "17"),
        ("protocol", "ipv4", "arp"),
        ("l4-port", "80", "81"),
        ("verdict", "forwarded", "dropped"),
        ("since", "2m", "90s"),
        ("since", "2027-01-15T08:00:00Z", "2027-01-15T08:00:01Z"),
    ] {
        assert!(filter(&[(flag, hit, false)]).unwrap().matches(&record), "{flag} {hit}");
        assert!(!filter(&[(flag, miss, false)]).unwrap().matches(&record), "{flag} {miss}");
        assert!(!filter(&[(flag, hit, true)]).unwrap().matches(&record), "not {flag} {hit}");
    }
    let dropped = Record { drop_reason: Some("too_big".to_owned()), ..record };
    assert!(filter(&[("drop-reason", "too_big", false)]).unwrap().matches(&dropped));
    assert!(!filter(&[("drop-reason", "hairpin", false)]).unwrap().matches(&dropped));
}

#[test]
fn the_same_flag_is_or_different_flags_are_and_each_negated_one_excludes() {
    let record = of(request(), 2);
    for (words, expected) in [
        (&[][..], true),
        (&[("l4-port", "81", false), ("l4-port", "80", false)][..], true),
        (&[("l4-port", "80", false), ("protocol", "udp", false)], false),
        (&[("l4-port", "80", false), ("port", "db1", true)], false),
        (&[("l4-port", "81", true), ("l4-port", "82", true)], true),
        (&[("l4-port", "81", true), ("l4-port", "80", true)], false),
    ] {
        let filter = filter(words).unwrap();
        assert_eq!(filter.matches(&record), expected, "{words:?}");
        let mut again = Filter::default();
        for (flag, value, negated) in filter.words() {
            again.add(flag, &value, negated, Timestamp::UNIX_EPOCH).unwrap();
        }
        assert_eq!(again, filter);
    }
}

#[test]
fn a_bad_filter_says_what_would_be_right() {
    for (flag, value, expected) in [
        ("ip", "198.18.0.300", "an IP address"),
        ("ip", "198.18.0.0/33", "an IP address"),
        ("mac", "52:54", "a MAC address"),
        ("vlan", "4095", "from 0 to 4094"),
        ("protocol", "tpc", "a protocol"),
        ("protocol", "256", "a protocol"),
        ("l4-port", "65536", "from 0 to 65535"),
        ("verdict", "lost", "forwarded, flooded or dropped"),
        ("drop-reason", "bad\u{1b}[31m", "a drop reason"),
        ("since", "5x", "how long ago"),
        ("since", "s", "how long ago"),
        ("port", "", "a port's name"),
        ("prot\n", "tcp", "there are port, from-port"),
    ] {
        let told = filter(&[(flag, value, false)]).unwrap_err().to_string();
        assert!(told.contains(expected), "{told}");
        assert!(!told.contains(char::is_control), "{told:?}");
    }
}

#[test]
fn a_conversation_has_the_facts_of_the_record_that_is_made_of_it() {
    let book = Book(Labels::default());
    let mut arp = request();
    arp.tail = FlowTail { source_port: 0, destination_port: 0x0806, protocol: 0, kind: KIND_LINK, inner: 0 };
    let mut strange = request();
    strange.tail.protocol = 200;
    let mut tagged = request();
    tagged.pair.outer = 0x8064;
    for (key, egress) in [(request(), 2), (request(), 0), (request(), 9), (arp, 0), (strange, 3), (tagged, 2)] {
        let mut tracker = tracker();
        tracker.sweep(&[Entry { key: RawKey::V4(key), value: value(10, egress, 3, 0) }], at(secs(1)));
        let conversation = &live(&tracker)[0];
        let record = Record::new(conversation, "weft0", &book);
        assert_eq!(Facts::of(conversation, &book), Facts::from(&record));
    }
}

#[test]
fn two_neighbouring_spans_share_no_record_and_leave_none_out() {
    let record = of(request(), 2);
    let told = |words: &[(&str, &str)]| {
        let mut filter = Filter::default();
        for (flag, value) in words {
            filter.add(flag, value, false, record.end).unwrap();
        }
        (filter.matches(&record), filter.span())
    };
    let end = record.end.to_string();
    assert_eq!(told(&[("since", &end)]), (true, (Some(record.end), None)));
    assert_eq!(told(&[("until", &end)]), (false, (None, Some(record.end))));
    assert!(told(&[("since", "1s"), ("until", "2027-01-16T00:00:00Z")]).0);
}
