//! Conversations over the API: listed, followed, refused.

use std::sync::Arc;

use serde_json::{Value, json};

use super::*;
use crate::api::fake::FOLLOW_MAX;
use crate::flow::Record;

/// A record of a datagram from the UDP port `number`.
fn record(number: u16) -> Arc<Record> {
    let record = json!({
        "id": format!("1-{number:x}"), "began": "2026-11-22T07:00:00Z", "start": "2026-11-22T07:00:00Z",
        "end": "2026-11-22T07:00:01Z", "end_reason": "idle", "resumed": false, "switch": "weft-test",
        "source.port_name": "web1", "source.mac": "52:54:00:00:00:01", "source.address": "198.18.0.1",
        "source.port": number, "destination.mac": "52:54:00:00:00:02", "destination.address": "198.18.0.2",
        "destination.port": 53, "network.type": "ipv4", "network.transport": "udp", "fragment": false,
        "direction": "east_west", "verdict": "forwarded",
        "forward.frames": 1, "forward.wire_frames": 1, "forward.bytes": 60, "forward.wire_bytes": 60,
        "forward.dropped_frames": 0, "reverse.frames": 0, "reverse.wire_frames": 0, "reverse.bytes": 0,
        "reverse.wire_bytes": 0, "reverse.dropped_frames": 0
    });
    Arc::new(serde_json::from_value(record).unwrap())
}

fn ports(records: &[Record]) -> Vec<u16> {
    records.iter().filter_map(|record| record.source_port).collect()
}

#[tokio::test]
async fn flows_are_listed_as_the_query_asks_for_them() {
    let daemon = Daemon::start(Limits::default());
    daemon.fake.world().records = (1..=5).map(record).collect();
    for (query, expected) in [
        ("", &[1, 2, 3, 4, 5][..]),
        ("?last=2", &[4, 5]),
        ("?l4-port=1&l4-port=4", &[1, 4]),
        ("?not-l4-port=1&last=9&port=web1&protocol=udp", &[2, 3, 4, 5]),
        ("?ip=198.18.0.0%2F15&not-verdict=forwarded", &[]),
    ] {
        let records: Vec<Record> = daemon.client().get(&format!("/v1/flows{query}")).await.unwrap();
        assert_eq!(ports(&records), expected, "{query}");
    }
}

#[tokio::test]
async fn a_query_that_cannot_be_meant_is_refused_and_says_why() {
    let daemon = Daemon::start(Limits::default());
    for (query, complaint) in [
        ("ip=198.18.0", "'198.18.0' is not an IP address"),
        ("last=0", "last: '0' is not a number"),
        ("colour=red", "there is no filter 'colour'"),
        ("not-=x", "there is no filter ''"),
        ("mac=%1b%5b31m", "'\\u{1b}[31m' is not a MAC address"),
    ] {
        match daemon.client().get::<Value>(&format!("/v1/flows?{query}")).await {
            Err(ClientError::Refused { status: 422, message }) => assert!(message.contains(complaint), "{message}"),
            other => panic!("{query}: {other:?}"),
        }
    }
    daemon.assert_well().await;
}

#[tokio::test]
async fn who_follows_flows_is_told_what_was_missed() {
    let daemon = Daemon::start(Limits::default());
    let ended = daemon.fake.world().ended.clone();
    let missed = 3;
    // Nobody reads yet, but the follower has its place once the head of the answer is out.
    let client = daemon.client();
    let (lines, mut told) = tokio::sync::mpsc::unbounded_channel();
    let following = tokio::spawn(async move {
        let each = |line: &str| lines.send(line.to_owned()).map_err(|error| ClientError::Garbled(error.to_string()));
        client.follow("/v1/flows?follow=true&not-l4-port=2", each).await
    });
    while ended.receiver_count() == 0 {
        tokio::task::yield_now().await;
    }
    // Without a pause in between: the server has no turn until all are sent.
    for number in 1..=u16::try_from(FOLLOW_MAX + missed).unwrap() {
        ended.send(record(number)).unwrap();
    }
    let mut lines = Vec::new();
    while lines.len() < FOLLOW_MAX + 1 {
        lines.push(told.recv().await.unwrap());
    }
    assert_eq!(lines[0], format!("{{\"lost\":{missed}}}"));
    let records: Vec<Record> = lines[1..].iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(ports(&records), [4, 5, 6, 7]);
    assert_eq!(daemon.fake.world().lagged, missed as u64);
    following.abort();
}

#[tokio::test]
async fn followers_of_flows_have_as_many_seats_as_all_others() {
    let daemon = Daemon::start(Limits { followers: 0, ..Limits::default() });
    match daemon.client().get::<Value>("/v1/flows?follow=true").await {
        Err(ClientError::Refused { status: 503, .. }) => {}
        other => panic!("{other:?}"),
    }
    daemon.assert_well().await;
}
