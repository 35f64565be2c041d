//! Who is busiest, of a tracker whose sweeps are told.

use rustix::time::{ClockId, clock_gettime};

use super::super::busiest::choose;
use super::super::recent::Recent;
use super::*;
use crate::flow::{Record, Tracker};

const SEC: u64 = 1_000_000_000;

/// A datagram flow of port `ingress` to port 2 that began at `first_ns` and has carried so many frames of 100 bytes.
fn entry(ingress: u16, number: u32, first_ns: u64, frames: u64) -> Entry {
    let [_, high, source_port @ ..] = number.to_be_bytes();
    Entry {
        key: RawKey::V4(FlowKey4 {
            pair: FlowPair { destination: [2; 6], source: [4; 6], ingress, outer: 0 },
            source_address: [198, 18, high, 1],
            destination_address: [198, 18, 0, 2],
            tail: FlowTail {
                source_port: u16::from_be_bytes(source_port),
                destination_port: 53,
                protocol: 17,
                kind: KIND_IPV4,
                inner: 0,
            },
        }),
        value: FlowValue {
            first_ns,
            frames,
            bytes: frames * 100,
            last_jiffies: u32::try_from(first_ns / SEC).unwrap() * HZ,
            route: Route::new(1, 2, VERDICT_FORWARD, 0).0,
            ..FlowValue::default()
        },
    }
}

fn at(ktime_ns: u64) -> Moment {
    let clock = Duration::from_nanos(ktime_ns);
    Moment { wall: Timestamp::UNIX_EPOCH + clock, ktime_ns, jiffies: jiffies(clock), hz: HZ }
}

fn names() -> PortNames {
    let mut names = PortNames::default();
    for (number, name) in [(1, "zebra"), (2, "Two"), (3, "ant")] {
        names.insert(id(number), named(name));
    }
    names
}

fn ask(tracker: &Tracker, wanted: &Wanted) -> Busiest {
    choose(tracker, &Recent::default(), &names(), "weft-test", wanted)
}

fn wanted(by: BusiestBy, words: &[&str]) -> Wanted {
    let words = words.iter().map(ToString::to_string).collect();
    Wanted { by, descending: true, limit: 10, words, id: None }
}

fn source_ports(found: &Busiest) -> Vec<u16> {
    found.rows.iter().filter_map(|row| row.record.source_port).collect()
}

/// 10: old, and busy lately. 20: old, had much, and is silent. 30: began half a second ago.
fn three() -> Tracker {
    let mut tracker = Tracker::new(Limits::default());
    tracker.sweep(&[], at(SEC));
    tracker.sweep(&[entry(1, 10, 2 * SEC, 5), entry(3, 20, 2 * SEC, 9000)], at(3 * SEC));
    let last = [entry(1, 10, 2 * SEC, 25), entry(3, 20, 2 * SEC, 9000), entry(1, 30, 4 * SEC + SEC / 2, 7)];
    tracker.sweep(&last, at(5 * SEC));
    tracker
}

#[test]
fn a_rate_is_what_the_last_sweep_added_over_the_time_since_the_one_before() {
    let found = ask(&three(), &wanted(BusiestBy::Rate, &[]));
    assert_eq!((found.total, found.matched, source_ports(&found)), (3, 3, vec![10, 30, 20]));
    let rates: Vec<_> = found.rows.iter().map(|row| (row.forward.rate.frames, row.forward.rate.bytes)).collect();
    // 20 frames in two seconds; 7 in half a second, which counts as a whole one; none.
    assert_eq!(rates, [(10, 1000), (7, 700), (0, 0)]);
    let totals: Vec<_> = found.rows.iter().map(|row| row.forward.total.frames).collect();
    assert_eq!(totals, [25, 7, 9000]);
    assert_eq!(found.swept_at, at(5 * SEC).wall);
}

#[test]
fn totals_go_on_when_a_conversation_is_given_out() {
    let mut tracker = Tracker::new(Limits { active: Duration::from_secs(3), ..Limits::default() });
    tracker.sweep(&[], at(SEC));
    for (secs, frames) in [(2, 10), (6, 30), (7, 35)] {
        tracker.sweep(&[entry(1, 10, 2 * SEC, frames)], at(secs * SEC));
    }
    let found = ask(&tracker, &wanted(BusiestBy::Rate, &[]));
    let row = found.rows.first().unwrap();
    assert_eq!((row.record.forward_frames, row.forward.total.frames, row.forward.rate.frames), (5, 35, 5));
}

#[test]
fn the_first_in_an_order_are_chosen_and_no_more_than_are_wanted() {
    let tracker = three();
    for (by, descending, expected) in [
        (BusiestBy::Bytes, true, [20, 10, 30]),
        (BusiestBy::Bytes, false, [30, 10, 20]),
        (BusiestBy::Frames, true, [20, 10, 30]),
        (BusiestBy::FrameRate, true, [10, 30, 20]),
        // By the port's name, then by the number.
        (BusiestBy::Source, false, [20, 10, 30]),
        (BusiestBy::Source, true, [30, 10, 20]),
        (BusiestBy::Destination, false, [10, 20, 30]),
        (BusiestBy::Protocol, true, [10, 20, 30]),
        (BusiestBy::Age, true, [10, 20, 30]),
        (BusiestBy::Age, false, [30, 10, 20]),
        (BusiestBy::Idle, false, [30, 10, 20]),
        (BusiestBy::Rtt, true, [10, 20, 30]),
        (BusiestBy::Retransmits, true, [10, 20, 30]),
    ] {
        for limit in 1..=3 {
            let found = ask(&tracker, &Wanted { descending, limit, ..wanted(by, &[]) });
            assert_eq!(source_ports(&found), expected.get(..limit).unwrap(), "{by:?} {descending}");
            assert_eq!(found.matched, 3);
        }
    }
}

#[test]
fn each_word_is_looked_for_in_ports_addresses_stations_and_protocol() {
    let tracker = three();
    for (words, expected) in [
        (&["ant"][..], &[20][..]),
        (&["two"], &[10, 20, 30]),
        (&["zebra", "udp"], &[10, 30]),
        (&["ant", "zebra"], &[]),
        (&[":10"], &[10]),
        (&["198.18.0.1:20"], &[20]),
        (&["198.18.0.2:53", "zeb"], &[10, 30]),
        (&["04:04:04:04:04:04"], &[10, 20, 30]),
        (&["04:04:04:04:04:05"], &[]),
        (&["tcp"], &[]),
    ] {
        let found = ask(&tracker, &Wanted { descending: false, ..wanted(BusiestBy::Age, words) });
        let mut ports = source_ports(&found);
        ports.sort_unstable();
        assert_eq!((ports.as_slice(), found.matched), (expected, expected.len() as u64), "{words:?}");
    }
}

#[test]
fn one_is_found_by_its_id_while_it_lives_and_for_a_while_after() {
    let mut tracker = three();
    let record = ask(&tracker, &wanted(BusiestBy::Rate, &[])).rows.remove(1).record;
    let wanted = Wanted { id: Some(record.id.clone()), ..wanted(BusiestBy::Rate, &["nothing"]) };
    let found = ask(&tracker, &wanted);
    assert_eq!((found.matched, found.rows.first().map(|row| &row.record)), (1, Some(&record)));
    let ended: Record = Record { end_reason: Some(EndReason::Idle), ..record };
    tracker = Tracker::new(Limits::default());
    let mut recent = Recent::default();
    recent.push(Arc::new(ended.clone()));
    let found = choose(&tracker, &recent, &names(), "weft-test", &wanted);
    assert_eq!(found.rows.first().map(|row| (&row.record, row.forward.total.frames)), Some((&ended, 7)));
    assert_eq!(ask(&tracker, &wanted).rows, []);
    for id in ["", "-", "1", "zz-zz", "\u{1b}"] {
        let wanted = Wanted { id: Some(id.to_owned()), ..wanted.clone() };
        assert_eq!(ask(&three(), &wanted).rows, [], "{id}");
    }
}

/// What this thread has worked so far.
fn worked() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.cast_unsigned(), u32::try_from(time.tv_nsec).unwrap())
}

/// 10 % of the second between two questions is 100 ms. Code that is not optimised may take five times as long.
#[test]
fn of_a_hundred_thousand_conversations_the_busiest_are_chosen_in_little_time() {
    let most = Duration::from_millis(if cfg!(debug_assertions) { 500 } else { 100 });
    let mut tracker = Tracker::new(Limits::default());
    let entries = |frames| (0..100_000).map(move |number| entry(1, number, SEC, frames + u64::from(number))).collect();
    let (first, then): (Vec<Entry>, Vec<Entry>) = (entries(1), entries(9));
    tracker.sweep(&first, at(2 * SEC));
    tracker.sweep(&then, at(3 * SEC));
    for words in [&[][..], &["198.18.1.1:", "udp", "53"]] {
        let before = worked();
        let found = ask(&tracker, &Wanted { limit: 50, ..wanted(BusiestBy::Rate, words) });
        let took = worked().saturating_sub(before);
        eprintln!("{words:?}: {took:?}");
        assert_eq!((found.total, found.rows.len()), (100_000, 50));
        assert!(took <= most, "{words:?}: {took:?}");
    }
}
