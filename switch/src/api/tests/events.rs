//! Events and the register over the API: listed, followed, asked, refused.

use jiff::Timestamp;
use serde_json::Value;

use super::*;
use crate::events::{Event, EventKind, Events, FOLLOW_MAX, Limit};
use crate::fdb::Nanos;
use crate::names::Holder;

fn event(kind: EventKind, port: &str) -> Event {
    Event::new(Timestamp::UNIX_EPOCH, kind, Some(port.to_owned()))
}

#[tokio::test]
async fn events_are_listed_as_the_query_asks_for_them() {
    let daemon = Daemon::start(Limits::default());
    let events = daemon.fake.world().events.clone();
    for (kind, port) in [(EventKind::NewStation, "a"), (EventKind::NewStation, "b"), (EventKind::PortDormant, "a")] {
        events.tell(event(kind, port), Nanos(0));
    }
    for (query, expected) in [
        ("", 3),
        ("?last=1", 1),
        ("?kind=new_station", 2),
        ("?kind=new_station&port=a", 1),
        ("?kind=new_station&kind=port_dormant&port=a", 2),
        ("?port=c", 0),
    ] {
        let found: Vec<Event> = daemon.client().get(&format!("/v1/events{query}")).await.unwrap();
        assert_eq!(found.len(), expected, "{query}");
    }
    for (query, complaint) in [
        ("kind=%1b%5b31m", "there is no kind of event '\\u{1b}[31m'; there are new_station"),
        ("last=0", "last: '0' is not a number from 1"),
        ("follow=maybe", "'maybe' is not true or false"),
        ("colour=red", "there is no filter 'colour'"),
    ] {
        match daemon.client().get::<Value>(&format!("/v1/events?{query}")).await {
            Err(ClientError::Refused { status: 422, message }) => assert!(message.contains(complaint), "{message}"),
            other => panic!("{query}: {other:?}"),
        }
    }
    daemon.assert_well().await;
}

#[tokio::test]
async fn who_follows_events_is_told_what_was_missed() {
    let daemon = Daemon::start(Limits::default());
    let events = Events::new(Limit { per_second: 1_000_000, burst: 1_000_000 });
    daemon.fake.world().events = events.clone();
    let client = daemon.client();
    let (lines, mut told) = tokio::sync::mpsc::unbounded_channel();
    let following = tokio::spawn(async move {
        let each = |line: &str| lines.send(line.to_owned()).map_err(|error| ClientError::Garbled(error.to_string()));
        client.follow("/v1/events?follow=true&kind=new_station", each).await
    });
    while events.followers() == 0 {
        tokio::task::yield_now().await;
    }
    // Without a pause in between: the server has no turn until all are told.
    let missed = 5;
    for _ in 0..FOLLOW_MAX - 1 + missed {
        events.tell(event(EventKind::PortDormant, "a"), Nanos(0));
    }
    events.tell(event(EventKind::NewStation, "b"), Nanos(0));
    assert_eq!(told.recv().await.unwrap(), format!("{{\"lost\":{missed}}}"));
    let last: Event = serde_json::from_str(&told.recv().await.unwrap()).unwrap();
    assert_eq!(last, event(EventKind::NewStation, "b"));
    assert_eq!(events.counts().follow_lost, missed as u64);
    following.abort();
}

#[tokio::test]
async fn the_register_is_asked_by_address_station_or_port_and_time() {
    let daemon = Daemon::start(Limits::default());
    let holder = Holder {
        address: Some("198.18.0.7".parse().unwrap()),
        mac: "02:00:00:00:00:01".parse().unwrap(),
        vlan: None,
        port: "a".to_owned(),
        from: Timestamp::UNIX_EPOCH,
        until: Timestamp::UNIX_EPOCH,
        source: "arp".to_owned(),
        claims: 1,
        is_latest: true,
        names: vec!["www.example".to_owned()],
    };
    daemon.fake.world().holders = vec![holder.clone()];
    for (subject, at) in [
        ("198.18.0.7", None),
        ("2001:db8::7", None),
        ("02:00:00:00:00:01", Some("2026-11-22T07:00:00Z")),
        ("web1", Some("1970-01-01T00:00:00Z")),
    ] {
        let query = at.map(|at| format!("?at={at}")).unwrap_or_default();
        let found: Vec<Holder> = daemon.client().get(&format!("/v1/who/{subject}{query}")).await.unwrap();
        assert_eq!(found, std::slice::from_ref(&holder));
        let (asked, when) = daemon.fake.world().asked.take().unwrap();
        assert_eq!((asked.to_string(), when.map(|it| it.to_string())), (subject.to_owned(), at.map(ToOwned::to_owned)));
    }
    for (subject, complaint) in [
        ("%1b%5b31m", "'\\u{1b}[31m' is neither an IP address nor a MAC address nor a port's name"),
        ("a?at=yesterday", "at: 'yesterday' is not a time"),
    ] {
        match daemon.client().get::<Value>(&format!("/v1/who/{subject}")).await {
            Err(ClientError::Refused { status: 422, message }) => assert!(message.contains(complaint), "{message}"),
            other => panic!("{subject}: {other:?}"),
        }
    }
    daemon.assert_well().await;
}
