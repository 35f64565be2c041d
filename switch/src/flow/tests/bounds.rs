//! A hostile guest can fill the table; it can make neither time nor room grow faster than the entries.

use std::time::Instant;

use super::*;

/// As many entries as there are by default.
const ENTRIES: u32 = 262_144;

fn timed<T>(what: &str, work: impl FnOnce() -> T) -> T {
    let begun = Instant::now();
    let done = work();
    eprintln!("{what}: {:?}", begun.elapsed());
    done
}

fn full(entries: u32, of: impl Fn(u32) -> FlowKey4) -> Vec<Entry> {
    (0..entries).map(|number| entry(of(number), value(10, 2, 1, 0))).collect()
}

/// Every entry is a conversation of its own.
fn forged(number: u32) -> FlowKey4 {
    let mut key = request();
    (key.source_address, key.tail.protocol) = (number.to_be_bytes(), 17);
    key
}

/// Few tuples, each from every port there can be.
fn shared(number: u32) -> FlowKey4 {
    let (port, tuple) = (number % 4094 + 1, number / 4094);
    let mut key = request();
    (key.pair.ingress, key.tail.source_port) = (u16::try_from(port).unwrap(), u16::try_from(tuple).unwrap());
    key.tail.protocol = 17;
    key
}

#[test]
fn a_full_table_is_swept_in_a_time_and_a_room_that_follow_its_size() {
    let forged = ("forged sources", ENTRIES, forged as fn(u32) -> FlowKey4);
    for (what, entries, of) in [forged, ("tuples shared by all ports", ENTRIES / 8, shared)] {
        let mut tracker = tracker();
        let entries = full(entries, of);
        timed(&format!("{what}: the first sweep"), || tracker.sweep(&entries, at(secs(1))));
        assert_eq!(tracker.len(), entries.len());
        assert_eq!(tracker.live().count(), entries.len());
        assert!(tracker.expectations() <= 2 * entries.len());
        let grown: Vec<Entry> =
            entries.iter().map(|e| entry(of_raw(e.key), FlowValue { frames: 2, bytes: 200, ..e.value })).collect();
        timed(&format!("{what}: all have grown"), || tracker.sweep(&grown, at(secs(2))));
        timed(&format!("{what}: none has grown"), || tracker.sweep(&grown, at(secs(3))));
        let sweep = timed(&format!("{what}: all are dead"), || tracker.sweep(&grown, at(secs(70))));
        assert_eq!(sweep.dead.len(), entries.len());
        timed(&format!("{what}: all are deleted"), || {
            delete(&mut tracker, &grown);
        });
        assert_eq!(tracker.sweep(&[], at(secs(71))).ended.len(), entries.len());
        assert_eq!((tracker.len(), tracker.live().count(), tracker.expectations()), (0, 0, 0));
    }
}

fn of_raw(key: RawKey) -> FlowKey4 {
    match key {
        RawKey::V4(key) => key,
        RawKey::V6(_) => panic!("all of them are IPv4"),
    }
}

#[test]
fn tables_that_fill_again_and_again_need_no_more_room() {
    let mut tracker = tracker();
    let mut rooms = Vec::new();
    for round in 0..4u64 {
        let begin = secs(1 + round * 100);
        let many: Vec<Entry> = (0..20_000)
            .map(|number| {
                let first_ms = u64::try_from(begin.as_millis()).unwrap();
                entry(forged(number + u32::try_from(round).unwrap() * 20_000), value(first_ms, 2, 1, 0))
            })
            .collect();
        tracker.sweep(&many, at(begin));
        tracker.sweep(&many, at(begin + secs(63)));
        delete(&mut tracker, &many);
        assert_eq!(tracker.sweep(&[], at(begin + secs(64))).ended.len(), many.len());
        rooms.push(tracker.room());
    }
    assert!(rooms.iter().all(|room| *room == 20_000), "{rooms:?}");
    assert_eq!(tracker.totals().pairs.len(), 1);
}

#[test]
fn pairs_of_ports_beyond_the_bound_are_folded_and_none_is_lost() {
    let mut tracker = tracker();
    let many: Vec<Entry> = (1..=300u16)
        .flat_map(|from| (1..=300u16).map(move |to| (from, to)))
        .map(|(from, to)| {
            let mut key = request();
            (key.pair.ingress, key.tail.source_port) = (from, to);
            entry(key, value(10, to, 1, 0))
        })
        .collect();
    tracker.sweep(&many, at(secs(1)));
    let totals = tracker.totals();
    assert_eq!(totals.pairs.len(), PAIRS_MAX);
    let told: u64 = totals.pairs.values().map(|pair| pair.frames).sum();
    assert_eq!(told + totals.pairs_folded.frames, many.len() as u64);
}
