//! Events are counted, limited and kept, whatever a guest does.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::time::Duration;

use serde_json::json;

use super::*;
use crate::fdb::Nanos;

fn event(kind: EventKind, port: &str, second: i64) -> Event {
    Event::new(Timestamp::from_second(second).unwrap(), kind, Some(port.to_owned()))
}

fn limited(per_second: u32, burst: u32) -> Events {
    Events::new(Limit { per_second, burst })
}

#[test]
fn a_flood_of_one_kind_at_one_port_is_counted_and_not_told() {
    let events = limited(10, 5);
    let mut follower = events.subscribe();
    for at in 0..1000 {
        events.tell(event(EventKind::StationMoved, "a", at), Nanos(0));
    }
    events.tell(event(EventKind::NewStation, "a", 2000), Nanos(0));
    events.tell(event(EventKind::StationMoved, "b", 2001), Nanos(0));
    let counts = events.counts();
    assert_eq!((counts.happened[&EventKind::StationMoved], counts.suppressed[&EventKind::StationMoved]), (1001, 995));
    assert_eq!((counts.happened[&EventKind::NewStation], counts.suppressed[&EventKind::NewStation]), (1, 0));
    assert_eq!(counts.happened.len(), EventKind::ALL.len(), "a kind that never happened is 0, not absent");
    let told = std::iter::from_fn(|| follower.try_recv().ok()).count();
    assert_eq!(told, 5 + 2, "another kind and another port are not limited by it");

    events.tell(event(EventKind::StationMoved, "a", 3000), Nanos(0) + Duration::from_millis(100));
    assert_eq!(follower.try_recv().unwrap().detail.suppressed, Some(995), "the next one says what is missing");
}

#[test]
fn the_noise_of_one_kind_pushes_no_other_out() {
    let events = limited(1_000_000, 1_000_000);
    events.tell(event(EventKind::DuplicateAddress, "a", 1), Nanos(0));
    for at in 0..5 * RECENT_MAX {
        events.tell(event(EventKind::DnsAnswer, "a", 2 + i64::try_from(at).unwrap()), Nanos(0));
    }
    let all = events.recent(&EventFilter::default(), usize::MAX);
    assert_eq!(all.len(), RECENT_MAX + 1);
    assert_eq!(all[0].kind, EventKind::DuplicateAddress);
    assert_eq!(events.recent(&EventFilter::default(), 3).len(), 3);
}

#[test]
fn a_filter_asks_for_kinds_and_ports() {
    let events = limited(100, 100);
    for (kind, port) in [(EventKind::NewStation, "a"), (EventKind::NewStation, "b"), (EventKind::PortDormant, "a")] {
        events.tell(event(kind, port, 1), Nanos(0));
    }
    let moved = Event { other_port: Some("a".to_owned()), ..event(EventKind::StationMoved, "c", 2) };
    events.tell(moved, Nanos(0));
    for (words, expected) in [
        (&[][..], 4),
        (&[("kind", "new_station")], 2),
        (&[("kind", "new_station"), ("kind", "port_dormant")], 3),
        (&[("port", "a")], 3),
        (&[("kind", "new_station"), ("port", "a")], 1),
        (&[("port", "d")], 0),
    ] {
        let mut filter = EventFilter::default();
        for (word, value) in words {
            filter.add(word, value).unwrap();
        }
        assert_eq!(events.recent(&filter, 100).len(), expected, "{words:?}");
        assert_eq!(filter.words().collect::<Vec<_>>(), words);
    }
    let mut filter = EventFilter::default();
    let error = filter.add("kind", "\u{1b}[2J").unwrap_err().to_string();
    assert!(error.contains("no kind of event '\\u{1b}[2J'; there are new_station, station_moved"), "{error}");
    let error = filter.add("colour", "red").unwrap_err().to_string();
    assert!(error.contains("no filter 'colour'"), "{error}");
}

#[test]
fn an_event_is_flat_json_and_a_sentence() {
    let told = Event {
        mac: Some("02:00:00:00:00:01".parse().unwrap()),
        address: Some("198.18.0.7".parse().unwrap()),
        other_port: Some("b".to_owned()),
        other_mac: Some("02:00:00:00:00:02".parse().unwrap()),
        detail: Detail { source: Some("arp".to_owned()), suppressed: Some(3), ..Detail::default() },
        ..event(EventKind::DuplicateAddress, "a", 0)
    };
    let expected = json!({
        "time": "1970-01-01T00:00:00Z", "kind": "duplicate_address", "port": "a", "mac": "02:00:00:00:00:01",
        "address": "198.18.0.7", "other_port": "b", "other_mac": "02:00:00:00:00:02", "source": "arp", "suppressed": 3
    });
    assert_eq!(serde_json::to_value(&told).unwrap(), expected);
    assert_eq!(serde_json::from_value::<Event>(expected).unwrap(), told);
    assert_eq!(
        told.sentence(),
        "198.18.0.7 is claimed by 02:00:00:00:00:01 at port a and by 02:00:00:00:00:02 at port b (arp); 3 more before it"
    );
    for kind in EventKind::ALL {
        assert_eq!(serde_json::to_value(kind).unwrap(), kind.label());
        assert!(!event(*kind, "a", 0).sentence().is_empty() && kind.describe().ends_with('.'), "{kind}");
    }
}
