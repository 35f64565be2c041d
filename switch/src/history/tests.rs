//! The history over files in a directory of its own.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that fails here has failed")]

mod events;
mod files;
mod keeping;
mod speed;

use std::collections::BTreeSet;

use jiff::SignedDuration;
use switch_common::DropReason;

use super::*;
use crate::flow::Labels;

/// A directory with a history in it.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn config(&self) -> HistoryConfig {
        let path = self.0.path().join("history.sqlite");
        HistoryConfig { path, max_age: Duration::from_hours(24 * 36_500), max_bytes: 1 << 30 }
    }

    fn start(&self) -> History {
        History::start(&self.config(), true).unwrap()
    }

    /// Names of the files, sorted.
    fn files(&self) -> Vec<String> {
        let names = std::fs::read_dir(self.0.path()).unwrap().map(|entry| entry.unwrap().file_name());
        let mut names: Vec<String> = names.map(|name| name.to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }
}

fn at(secs: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + secs).unwrap()
}

/// The conversation that the page about records shows, with another end.
fn sample(end: Timestamp) -> Record {
    let sample: Record = serde_json::from_str(include_str!("../export/sample.json")).unwrap();
    Record { end, ..sample }
}

/// Records that differ in everything that a filter looks at; the n-th is the same in every run.
fn varied(number: u64) -> Record {
    let mut dice = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x1234_5678;
    let mut roll = |sides: u64| {
        dice ^= dice << 13;
        dice ^= dice >> 7;
        dice ^= dice << 17;
        dice % sides
    };
    let mut record = sample(at(i64::try_from(roll(1000)).unwrap()));
    let small = |number: u64| u16::try_from(number).unwrap();
    let mac = |number: u64| format!("52:54:00:00:00:{number:02x}").parse().unwrap();
    record.id = format!("{number:x}");
    record.source_port_name = format!("web{}", roll(4));
    record.destination_port_name = (roll(3) > 0).then(|| format!("web{}", roll(4)));
    record.source_labels = if roll(2) == 0 { Labels::default() } else { record.source_labels };
    (record.source_mac, record.destination_mac) = (mac(roll(4)), mac(roll(4)));
    let address: [fn(u64) -> IpAddr; 2] = [
        |number| IpAddr::V4((0xc612_0000 + u32::try_from(number).unwrap()).into()),
        |number| IpAddr::V6(((0x2001_0db8 << 96) + u128::from(number)).into()),
    ];
    let network = usize::try_from(roll(3)).unwrap();
    (record.source_address, record.destination_address) =
        address.get(network).map_or((None, None), |address| (Some(address(roll(300))), Some(address(roll(300)))));
    record.network_type = ["ipv4", "ipv6", "arp"][network].to_owned();
    record.network_transport =
        (network < 2).then(|| ["tcp", "udp", "icmp"][usize::try_from(roll(3)).unwrap()].to_owned());
    let has_ports = record.network_transport.as_deref().is_some_and(|it| it != "icmp");
    record.source_port = has_ports.then(|| small(roll(4)));
    record.destination_port = has_ports.then(|| small(roll(4)));
    record.tcp = record.tcp.filter(|_| record.network_transport.as_deref() == Some("tcp"));
    record.vlan = (roll(2) == 0).then(|| small(roll(3)));
    record.inner_vlan = record.vlan.filter(|_| roll(2) == 0);
    record.verdict = [Verdict::Forwarded, Verdict::Flooded, Verdict::Dropped][usize::try_from(roll(3)).unwrap()];
    record.drop_reason = (record.verdict == Verdict::Dropped).then(|| DropReason::Hairpin.label().to_owned());
    record
}

use std::net::IpAddr;

use crate::flow::Verdict;

fn filter(words: &str) -> Filter {
    let mut filter = Filter::default();
    for word in words.split_whitespace() {
        let (flag, value) = word.split_once('=').unwrap();
        let (flag, negated) = flag.strip_prefix("not-").map_or((flag, false), |flag| (flag, true));
        filter.add(flag, value, negated, at(1000)).unwrap();
    }
    filter
}

/// A question that memory knows nothing of.
async fn ask(history: &History, words: &str, last: usize) -> Result<Vec<Arc<Record>>, HistoryError> {
    let remembered = Remembered { first: history.shared.offered.load(Ordering::Relaxed), ..Remembered::default() };
    let beyond = Remembered { forgotten: Some(Timestamp::MAX), ..remembered };
    history.complete(beyond, filter(words), last).await
}

#[test]
fn a_record_is_the_same_after_it_was_folded() {
    for record in std::iter::once(sample(at(0))).chain((0..300).map(varied)) {
        let (shape, body) = rows::folded(&record);
        assert_eq!(rows::unfolded(&shape, &body).as_ref(), Some(&record));
        assert!(body.len() * 2 < serde_json::to_string(&record).unwrap().len(), "{body}");
    }
    assert_eq!(rows::unfolded("id\n", "[1"), None);
}

#[tokio::test]
async fn the_file_answers_every_filter_as_the_filter_itself_does() {
    let place = Place::new();
    let history = place.start();
    let mut outlet = history.outlet();
    let records: Vec<_> = (0..2000).map(|number| Arc::new(varied(number))).collect();
    for record in &records {
        outlet.offer(record);
    }
    let words = [
        "port=web1",
        "from-port=web1",
        "to-port=web2",
        "port=web9",
        "mac=52:54:00:00:00:02",
        "ip=198.18.0.7",
        "ip=198.18.0.0/26",
        "ip=2001:db8::/120",
        "ip=0.0.0.0/0",
        "ip=::/0",
        "vlan=1",
        "protocol=udp",
        "protocol=arp",
        "protocol=ipv6",
        "l4-port=2",
        "verdict=dropped",
        "verdict=flooded",
        "drop-reason=hairpin",
        "drop-reason=too_big",
        "since=300s",
        "until=300s",
        "since=2027-01-15T08:05:00.0000005Z",
        "until=2027-01-15T08:05:00.0000005Z",
    ];
    let mut found = 0;
    for (index, one) in words.iter().enumerate() {
        let other = words[(index * 7 + 3) % words.len()];
        for asked in [
            format!("{one} since=0s"),
            format!("since=1h {one}"),
            format!("since=1h not-{one}"),
            format!("since=1h {one} {other}"),
            format!("since=1h {one} not-{other}"),
            format!("since=1h not-{one} not-{other} port=web1 port=web3"),
        ] {
            let filter = filter(&asked);
            let mut expected: Vec<_> = records.iter().filter(|record| filter.matches(record)).cloned().collect();
            expected.sort_by_key(|record| record.end);
            let answer = ask(&history, &asked, usize::MAX).await.unwrap();
            assert_eq!(answer, expected, "{asked}");
            found += answer.len();
            let last = ask(&history, &asked, 7).await.unwrap();
            assert_eq!(last, expected[expected.len().saturating_sub(7)..], "{asked}");
        }
    }
    assert!(found > 20_000, "{found} found: these filters ask for nothing");
    assert_eq!((history.lost(), history.status().problem), (0, None));
}

#[tokio::test]
async fn memory_and_file_together_have_every_record_once() {
    let place = Place::new();
    let history = place.start();
    let mut outlet = history.outlet();
    let all: Vec<_> =
        (0..100).map(|number| Arc::new(Record { id: number.to_string(), ..sample(at(number)) })).collect();
    for record in &all {
        outlet.offer(record);
    }
    // Memory forgot the first 60, and knows one that goes on.
    let live = Arc::new(Record { id: "live".to_owned(), end_reason: None, ..sample(at(200)) });
    let remembered = |words: &str| {
        let filter = filter(words);
        let mut records: Vec<_> =
            all[60..].iter().chain([&live]).filter(|record| filter.matches(record)).cloned().collect();
        records.drain(..records.len().saturating_sub(50));
        (Remembered { records, first: 60, forgotten: Some(at(59)) }, filter)
    };
    let ids = async |words: &str| {
        let (remembered, filter) = remembered(words);
        let found = history.complete(remembered, filter, 50).await.unwrap();
        found.iter().map(|record| record.id.clone()).collect::<Vec<_>>()
    };
    let numbers = |span: std::ops::Range<i64>| span.map(|number| number.to_string()).collect::<Vec<_>>();
    let with_live = |mut numbers: Vec<String>| {
        numbers.push("live".to_owned());
        numbers
    };
    assert_eq!(ids("since=1000s").await, with_live(numbers(51..100)));
    assert_eq!(ids("since=1000s until=900s").await, numbers(50..100));
    assert_eq!(ids("since=990s until=920s").await, numbers(30..80));
    assert_eq!(ids("until=960s").await, numbers(0..40));
    // What memory has whole is not asked of the file, nor is what names no time.
    assert_eq!(ids("since=940s").await, with_live(numbers(60..100)));
    assert_eq!(ids("").await, with_live(numbers(60..100)));
}

#[tokio::test]
async fn a_later_daemon_finds_what_an_earlier_one_kept_and_adds_to_it() {
    let place = Place::new();
    for daemon in 0..3_i64 {
        let history = place.start();
        let mut outlet = history.outlet();
        for number in 0..10 {
            outlet.offer(&Arc::new(Record { id: format!("{daemon}-{number}"), ..sample(at(daemon * 10 + number)) }));
        }
        history.stop().await;
        assert!(!history.is_alive());
        // What was asked while the first of it was not even open has the earlier ones, too.
        let again = place.start();
        let found = again.complete(Remembered::default(), filter("since=1000s"), usize::MAX).await.unwrap();
        let ids: BTreeSet<_> = found.iter().map(|record| record.id.clone()).collect();
        assert_eq!((found.len(), ids.len()), (usize::try_from(daemon + 1).unwrap() * 10, found.len()));
        again.stop().await;
    }
    assert_eq!(place.files(), ["history.sqlite"], "a log is left");
}

fn drops(rows: &[(&str, Side, &str, u64)]) -> Vec<DropInfo> {
    let info = |(port, side, reason, frames): &(&str, Side, &str, u64)| DropInfo {
        port: (*port).to_owned(),
        side: *side,
        reason: (*reason).to_owned(),
        description: String::new(),
        frames: *frames,
        bytes: frames * 100,
        evidence: Vec::new(),
    };
    rows.iter().map(info).collect()
}

#[tokio::test]
async fn drops_are_kept_as_what_came_since_the_look_before_over_daemons_and_resets() {
    let place = Place::new();
    let sums = async |history: &History, since: Option<i64>, until: Option<i64>| {
        let found = history.drops(since.map(at), until.map(at)).await.unwrap();
        found.into_iter().map(|row| (row.port, row.reason, row.frames, row.bytes)).collect::<Vec<_>>()
    };
    let row = |port: &str, frames: u64| (port.to_owned(), "hairpin".to_owned(), frames, frames * 100);
    let history = place.start();
    // Nobody knows when the first were dropped: they were counted before the history began.
    history.offer_drops(at(0), drops(&[("a", Side::Ingress, "hairpin", 5)]));
    history.offer_drops(at(60), drops(&[("a", Side::Ingress, "hairpin", 7), ("b", Side::Egress, "hairpin", 1)]));
    history.offer_drops(at(120), drops(&[("a", Side::Ingress, "hairpin", 7), ("b", Side::Egress, "hairpin", 4)]));
    assert_eq!(sums(&history, None, None).await, [row("a", 2), row("b", 4)]);
    assert_eq!(sums(&history, Some(60), None).await, [row("b", 3)]);
    assert_eq!(sums(&history, None, Some(60)).await, [row("a", 2), row("b", 1)]);
    history.stop().await;
    // The next daemon adopts the counters; b was removed and made again.
    let history = place.start();
    history.offer_drops(at(180), drops(&[("a", Side::Ingress, "hairpin", 17), ("b", Side::Egress, "hairpin", 2)]));
    assert_eq!(sums(&history, Some(120), None).await, [row("a", 10), row("b", 2)]);
    history.stop().await;
    // This one began with counters at 0.
    let history = History::start(&place.config(), false).unwrap();
    let now = Timestamp::now() + SignedDuration::from_secs(1);
    history.offer_drops(now, drops(&[("a", Side::Ingress, "hairpin", 100)]));
    let found = history.drops(Some(at(180)), None).await.unwrap();
    let later = if now > at(180) { 100 } else { 0 };
    assert_eq!(found.iter().map(|row| row.frames).sum::<u64>(), later);
    assert_eq!(history.drops(None, None).await.unwrap().iter().map(|row| row.frames).sum::<u64>(), 118);
}
