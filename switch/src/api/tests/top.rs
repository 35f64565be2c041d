//! Bounded answers: in order, searched, cut; and what is refused.

use super::*;
use crate::api::top::{Top, TopConversation, TopDrop, TopPort};
use crate::observer::{Busiest, BusiestBy, Wanted};
use crate::port::spec::Mac;

fn station(number: u8, port: &str, age_secs: u64, moves: u32) -> StationInfo {
    let mac = Mac(switch_common::MacAddr([2, 0, 0, 0, 0, number]));
    StationInfo { mac, vlan: 0, port: port.parse().unwrap(), is_static: number == 1, age_secs, moves }
}

#[tokio::test]
async fn stations_come_in_the_order_asked_for_and_no_more_than_are_asked_for() {
    let daemon = Daemon::start(Limits::default());
    daemon.fake.world().stations = vec![station(1, "Web1", 9, 0), station(2, "db", 3, 7), station(3, "web2", 5, 1)];
    for (query, matched, expected) in [
        ("", 3, &[2, 3, 1][..]),
        ("?by=mac&descending=true", 3, &[3, 2, 1]),
        ("?by=port", 3, &[1, 2, 3]),
        ("?by=kind", 3, &[2, 3, 1]),
        ("?by=moves&descending=true&limit=2", 3, &[2, 3]),
        ("?match=WEB", 2, &[3, 1]),
        ("?match=web%2000:03", 1, &[3]),
        ("?match=web%20db", 0, &[]),
    ] {
        let found: Top<StationInfo> = daemon.client().get(&format!("/v1/top/stations{query}")).await.unwrap();
        let numbers: Vec<u8> = found.rows.iter().map(|row| row.mac.0.0[5]).collect();
        assert_eq!((numbers.as_slice(), found.matched, found.total), (expected, matched, 3), "{query}");
    }
}

#[tokio::test]
async fn what_is_asked_of_conversations_reaches_the_observer() {
    let daemon = Daemon::start(Limits::default());
    daemon.fake.world().busiest = Busiest { total: 9, matched: 4, ..Busiest::default() };
    let found: Top<TopConversation> = daemon
        .client()
        .get("/v1/top/conversations?by=frame_rate&descending=true&limit=7&match=Web1%20%20tcp&id=1-a")
        .await
        .unwrap();
    assert_eq!((found.total, found.matched, found.rows.len()), (9, 4, 0));
    let words = vec!["web1".to_owned(), "tcp".to_owned()];
    let wanted = Wanted { by: BusiestBy::FrameRate, descending: true, limit: 7, words, id: Some("1-a".to_owned()) };
    assert_eq!(daemon.fake.world().wanted, [wanted]);
}

#[tokio::test]
async fn ports_and_drops_are_told_in_numbers_with_the_daemons_time() {
    let daemon = Daemon::start(Limits::default());
    let client = daemon.client();
    client.post_only("/v1/apply", &intent(vec![web1()])).await.unwrap();
    daemon.fake.world().drops = vec![dropped(3)];
    let ports: Top<TopPort> = client.get("/v1/top/ports").await.unwrap();
    assert_eq!((ports.rows[0].name.as_str(), ports.rows[0].in_frames, ports.rows[0].drops), ("web1", 12, 5));
    let drops: Top<TopDrop> = client.get("/v1/top/drops").await.unwrap();
    assert_eq!((drops.total, drops.rows[0].frames, drops.rows[0].bytes), (1, 3, 180));
    assert!(ports.at_ns > 0 && drops.at_ns > ports.at_ns);
}

#[tokio::test]
async fn an_answer_without_bounds_is_refused() {
    let daemon = Daemon::start(Limits::default());
    let long = format!("?match={}", "x".repeat(257));
    let many = format!("?match={}", "x%20".repeat(65));
    for view in ["stations", "conversations"] {
        for (query, status) in [
            ("?limit=0", 422),
            ("?limit=1001", 422),
            (&long, 422),
            (&many, 422),
            ("?by=colour", 400),
            ("?limit=many", 400),
            ("?colour=red", 400),
        ] {
            let answer = daemon.client().get::<serde_json::Value>(&format!("/v1/top/{view}{query}")).await;
            assert_eq!(status_of(answer.map(drop)), status, "{view}{query}");
        }
        let widest = format!("/v1/top/{view}?limit=1000&match={}", "x".repeat(256));
        daemon.client().get::<serde_json::Value>(&widest).await.unwrap();
    }
    assert_eq!(daemon.fake.world().wanted.len(), 1, "what is refused is not asked of the observer");
}
