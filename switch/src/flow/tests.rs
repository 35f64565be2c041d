//! What the tracker makes of entries, story by story. That nothing is lost or told twice is `twin.rs`'s.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that fails here has failed")]

mod bounds;
mod keys;
mod records;

use std::time::Duration;

use jiff::Timestamp;
use switch_common::flow::{
    FLOW_ALTERNATE, FlowKey4, FlowValue, MARK_CLOSED, MARK_OPENED, MARK_SYN_AGAIN, Route, TCP_ACK, TCP_FIN, TCP_RST,
    TCP_SYN,
};
use switch_common::{DropReason, PortId, VERDICT_DROP, VERDICT_FORWARD, VERDICT_PUNT};

use super::twin::{HZ, key};
use super::*;

const START_NS: u64 = 5_000_000_000_000;
const MS: u64 = 1_000_000;

/// A moment some time after the start.
fn at(after: Duration) -> Moment {
    let ns = u64::try_from(after.as_nanos()).unwrap();
    Moment {
        wall: Timestamp::from_second(1_800_000_000).unwrap() + after,
        ktime_ns: START_NS + ns,
        jiffies: jiffies(after),
        hz: HZ,
    }
}

fn jiffies(after: Duration) -> u32 {
    u32::MAX.wrapping_sub(100).wrapping_add(u32::try_from(after.as_millis() * u128::from(HZ) / 1000).unwrap())
}

const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

/// What an entry says that began some ms after the start.
fn value(first_ms: u64, egress: u16, frames: u64, marks: u32) -> FlowValue {
    FlowValue {
        first_ns: START_NS + first_ms * MS,
        last_jiffies: jiffies(Duration::from_millis(first_ms)),
        frames,
        bytes: frames * 100,
        route: Route::new(9, egress, if egress == 0 { 0 } else { VERDICT_FORWARD }, 0).0,
        marks,
        ..FlowValue::default()
    }
}

fn entry(key: FlowKey4, value: FlowValue) -> Entry {
    Entry { key: RawKey::V4(key), value }
}

fn tracker() -> Tracker {
    let mut tracker = Tracker::new(Limits::default());
    tracker.sweep(&[], at(secs(0)));
    tracker
}

fn delete(tracker: &mut Tracker, entries: &[Entry]) {
    for entry in entries {
        tracker.deleted(&entry.key, &entry.value);
    }
}

fn live(tracker: &Tracker) -> Vec<Conversation> {
    let mut live: Vec<Conversation> = tracker.live().collect();
    live.sort_by_key(|conversation| conversation.number);
    live
}

/// A client on port 1 and a server on port 2, and what they send.
fn request() -> FlowKey4 {
    key(1, 2, 40_000, 80, 6, 1)
}

fn reply() -> FlowKey4 {
    key(2, 1, 80, 40_000, 6, 2)
}

/// The same flow, whose first segment behind its SYN came at `ns`.
fn acked_at(ns: u64, value: FlowValue) -> FlowValue {
    let after = (ns - value.first_ns) / switch_common::flow::ACK_UNIT_NS;
    FlowValue { ack_after: u32::try_from(after).unwrap(), ..value }
}

fn flags(flags: u8) -> u32 {
    u32::from(flags)
}

#[test]
fn both_directions_are_one_conversation_of_who_sent_the_syn() {
    let opened = MARK_OPENED | flags(TCP_SYN | TCP_ACK);
    let ours = acked_at(START_NS + 27 * MS, value(10, 2, 5, opened));
    let entries = [entry(reply(), value(22, 1, 4, opened)), entry(request(), ours)];
    for entries in [entries, [entries[1], entries[0]]] {
        let mut tracker = tracker();
        tracker.sweep(&entries, at(secs(1)));
        let [told] = &live(&tracker)[..] else { panic!("{:?}", live(&tracker)) };
        assert_eq!((told.key.ingress.get(), told.egress.map(PortId::get)), (1, Some(2)));
        assert_eq!((told.forward.tally.frames, told.reverse.tally.frames), (5, 4));
        assert_eq!((told.verdict, told.end_reason, told.resumed), (Verdict::Forwarded, None, false));
        let handshake = told.tcp.unwrap().handshake.unwrap();
        assert_eq!((handshake.source, handshake.destination), (Duration::from_millis(5), Duration::from_millis(12)));
        let health = &tracker.totals().ports;
        assert_eq!(health[&1].rtt.sum(), Duration::from_millis(5));
        assert_eq!(health[&2].rtt.sum(), Duration::from_millis(12));
        assert_eq!(told.started, Timestamp::from_second(1_800_000_000).unwrap() + Duration::from_millis(10));
    }
}

#[test]
fn a_handshake_is_measured_once_and_not_when_a_syn_was_repeated() {
    let opened = MARK_OPENED | flags(TCP_SYN | TCP_ACK);
    for (repeated, measured) in [(0, 1), (MARK_SYN_AGAIN, 0)] {
        let mut tracker = tracker();
        let ours = acked_at(START_NS + 27 * MS, value(10, 2, 5, opened));
        for more in 0..3 {
            let theirs = value(22, 1, 4 + more, opened | repeated);
            tracker.sweep(&[entry(request(), ours), entry(reply(), theirs)], at(secs(1 + more)));
        }
        assert_eq!(tracker.totals().ports[&1].rtt.count(), measured);
        assert_eq!(live(&tracker)[0].tcp.unwrap().handshake.is_some(), repeated == 0);
    }
}

#[test]
fn without_a_syn_who_was_seen_first_began_and_else_who_sends_to_the_lower_port() {
    for (ours_ms, theirs_ms, source) in [(10, 20, 1), (20, 10, 2), (10, 10, 1)] {
        let mut tracker = tracker();
        let entries = [entry(reply(), value(theirs_ms, 1, 1, 0)), entry(request(), value(ours_ms, 2, 1, 0))];
        tracker.sweep(&entries, at(secs(1)));
        assert_eq!(live(&tracker)[0].key.ingress.get(), source);
    }
}

#[test]
fn one_direction_at_two_ports_is_two_conversations_and_the_answer_belongs_to_one() {
    let elsewhere = FlowKey4 { pair: switch_common::flow::FlowPair { ingress: 3, ..request().pair }, ..request() };
    let mut tracker = tracker();
    let both = [entry(request(), value(10, 2, 1, 0)), entry(elsewhere, value(11, 2, 1, 0))];
    tracker.sweep(&both, at(secs(1)));
    assert_eq!(live(&tracker).len(), 2);
    // The answer goes to port 1, although the conversation of port 3 asked last.
    tracker.sweep(&[both[0], both[1], entry(reply(), value(12, 1, 7, 0))], at(secs(2)));
    let told = live(&tracker);
    assert_eq!(
        told.iter().map(|told| (told.key.ingress.get(), told.reverse.tally.frames)).collect::<Vec<_>>(),
        [(1, 7), (3, 0)]
    );
    // One that comes in elsewhere is no answer at all.
    let stranger = FlowKey4 { pair: switch_common::flow::FlowPair { ingress: 4, ..reply().pair }, ..reply() };
    tracker.sweep(&[both[0], both[1], entry(stranger, value(13, 3, 7, 0))], at(secs(3)));
    assert_eq!(live(&tracker).len(), 3);
}

#[test]
fn a_flooded_direction_takes_the_answer_from_wherever_it_comes() {
    let mut tracker = tracker();
    tracker.sweep(&[entry(request(), value(10, 0, 1, 0))], at(secs(1)));
    assert_eq!((live(&tracker)[0].verdict, live(&tracker)[0].egress), (Verdict::Flooded, None));
    tracker.sweep(&[entry(request(), value(10, 0, 1, 0)), entry(reply(), value(15, 1, 1, 0))], at(secs(2)));
    let [told] = &live(&tracker)[..] else { panic!("{:?}", live(&tracker)) };
    assert_eq!(told.egress.map(PortId::get), Some(2));
}

#[test]
fn ports_used_again_are_a_new_conversation_while_the_old_entries_still_lie_there() {
    let finished = MARK_OPENED | flags(TCP_SYN | TCP_ACK | TCP_FIN);
    let mut tracker = tracker();
    let old = [entry(request(), value(10, 2, 5, finished)), entry(reply(), value(11, 1, 5, finished))];
    tracker.sweep(&old, at(secs(1)));
    let again = |mut key: FlowKey4| {
        key.pair.ingress |= FLOW_ALTERNATE;
        key
    };
    let closed = |mut entry: Entry| {
        entry.value.marks |= MARK_CLOSED;
        entry
    };
    let opened = MARK_OPENED | flags(TCP_SYN | TCP_ACK);
    let new = [entry(again(reply()), value(3001, 1, 2, opened)), entry(again(request()), value(3000, 2, 3, opened))];
    let all = [new[0], closed(old[0]), closed(old[1]), new[1]];
    assert_eq!(tracker.sweep(&all, at(secs(4))).dead, []);
    let told = live(&tracker);
    assert_eq!(told.iter().map(|told| told.forward.tally.frames).collect::<Vec<_>>(), [5, 3]);
    assert_eq!(told.iter().map(|told| told.reverse.tally.frames).collect::<Vec<_>>(), [5, 2]);
    // Marked entries are dead once they have been seen so for the grace.
    let sweep = tracker.sweep(&all, at(secs(7)));
    assert_eq!(sweep.dead, [all[1].key, all[2].key]);
    assert_eq!(sweep.ended, []);
    delete(&mut tracker, &all[1..3]);
    let sweep = tracker.sweep(&new, at(secs(8)));
    assert_eq!(
        sweep.ended.iter().map(|told| (told.number, told.end_reason)).collect::<Vec<_>>(),
        [(1, Some(EndReason::Fin))]
    );
    assert_eq!(live(&tracker).len(), 1);
}

#[test]
fn a_tuple_used_twice_between_two_sweeps_is_two_conversations_in_whatever_order_it_is_read() {
    let begun = |key: FlowKey4, alternate: u16, first_ms, egress, frames, more| {
        let mut key = key;
        key.pair.ingress |= alternate;
        entry(key, value(first_ms, egress, frames, MARK_OPENED | flags(TCP_SYN | TCP_ACK) | more))
    };
    let over = flags(TCP_FIN) | MARK_CLOSED;
    let mut entries = [
        begun(request(), FLOW_ALTERNATE, 500, 2, 3, 0),
        begun(reply(), 0, 11, 1, 50, over),
        begun(request(), 0, 10, 2, 40, over),
        begun(reply(), FLOW_ALTERNATE, 501, 1, 4, 0),
    ];
    for _ in 0..entries.len() {
        entries.rotate_left(1);
        let mut tracker = tracker();
        tracker.sweep(&entries, at(secs(1)));
        let told = live(&tracker);
        let frames: Vec<_> = told.iter().map(|told| (told.forward.tally.frames, told.reverse.tally.frames)).collect();
        assert_eq!(frames, [(40, 50), (3, 4)]);
    }
}

#[test]
fn a_direction_that_slept_goes_on_in_its_conversation() {
    let mut tracker = tracker();
    let udp = |mut key: FlowKey4| {
        key.tail.protocol = 17;
        key
    };
    let (asks, answers) = (entry(udp(request()), value(10, 2, 5, 0)), entry(udp(reply()), value(11, 1, 1, 0)));
    tracker.sweep(&[asks, answers], at(secs(1)));
    let awake = |mut entry: Entry, ms: u64| {
        entry.value.last_jiffies = jiffies(Duration::from_millis(ms));
        entry
    };
    // The answering side is dead after 62 s; the asking one is not.
    let sweep = tracker.sweep(&[awake(asks, 61_000), answers], at(secs(63)));
    assert_eq!(sweep.dead, [answers.key]);
    tracker.deleted(&answers.key, &answers.value);
    assert_eq!(live(&tracker).len(), 1);
    let once_more = entry(udp(reply()), value(70_000, 1, 1, 0));
    let sweep = tracker.sweep(&[awake(asks, 70_000), once_more], at(secs(71)));
    assert_eq!((sweep.ended.len(), live(&tracker).len()), (0, 1));
    assert_eq!(live(&tracker)[0].reverse.tally.frames, 2);
}

#[test]
fn an_entry_smaller_than_before_or_begun_at_another_time_was_made_anew() {
    for again in [value(10, 2, 3, 0), value(500, 2, 900, 0)] {
        let mut tracker = tracker();
        tracker.sweep(&[entry(request(), value(10, 2, 800, 0))], at(secs(1)));
        let sweep = tracker.sweep(&[entry(request(), again)], at(secs(2)));
        assert_eq!(sweep.ended.iter().map(|told| told.forward.tally.frames).collect::<Vec<_>>(), [800]);
        assert_eq!(live(&tracker)[0].forward.tally.frames, again.frames);
    }
}

#[test]
fn an_entry_that_is_missing_is_forgotten_only_once_it_is_dead() {
    let mut tracker = tracker();
    let one = entry(request(), value(10, 2, 5, 0));
    tracker.sweep(&[one], at(secs(1)));
    assert_eq!(tracker.sweep(&[], at(secs(2))).ended, []);
    let more = Entry { value: FlowValue { frames: 8, bytes: 800, ..one.value }, ..one };
    tracker.sweep(&[more], at(secs(3)));
    assert_eq!(live(&tracker)[0].forward.tally.frames, 8);
    let sweep = tracker.sweep(&[], at(secs(90)));
    assert_eq!(sweep.ended.iter().map(|told| told.end_reason).collect::<Vec<_>>(), [Some(EndReason::Idle)]);
    assert!(tracker.is_empty());
}

#[test]
fn ends_have_their_reasons() {
    let syn = MARK_OPENED | flags(TCP_SYN);
    for (ours, theirs, reason, half_open) in [
        (flags(TCP_FIN), Some(flags(TCP_FIN)), EndReason::Fin, false),
        (flags(TCP_FIN), Some(flags(TCP_FIN | TCP_RST)), EndReason::Fin, false),
        (flags(TCP_FIN), Some(0), EndReason::Fin, false),
        (flags(TCP_ACK), Some(flags(TCP_RST)), EndReason::Reset, false),
        (syn, Some(flags(TCP_RST)), EndReason::Reset, false),
        (flags(TCP_ACK), Some(flags(TCP_ACK)), EndReason::Idle, false),
        (syn, None, EndReason::Idle, true),
    ] {
        let mut tracker = tracker();
        let mut entries = vec![entry(request(), value(10, 2, 1, ours))];
        entries.extend(theirs.map(|marks| entry(reply(), value(11, 1, 1, marks))));
        tracker.sweep(&entries, at(secs(1)));
        let dead = tracker.sweep(&entries, at(secs(63))).dead;
        assert_eq!(dead.len(), entries.len());
        delete(&mut tracker, &entries);
        let sweep = tracker.sweep(&[], at(secs(64)));
        let [told] = &sweep.ended[..] else { panic!("{:?}", sweep.ended) };
        assert_eq!((told.end_reason, told.tcp.unwrap().half_open), (Some(reason), half_open));
        assert_eq!(tracker.totals().ports.get(&1).map_or(0, |port| port.half_open), u64::from(half_open));
        assert_eq!((tracker.totals().closed.tcp, tracker.totals().active.tcp), (1, 0));
    }
}

#[test]
fn after_fin_an_entry_dies_sooner() {
    let mut tracker = tracker();
    let finished = [entry(request(), value(10, 2, 1, flags(TCP_FIN)))];
    assert_eq!(tracker.sweep(&finished, at(secs(11))).dead, []);
    assert_eq!(tracker.sweep(&finished, at(secs(13))).dead, [finished[0].key]);
}

#[test]
fn what_goes_on_is_given_out_in_deltas_with_one_source() {
    let limits = Limits { active: secs(10), ..Limits::default() };
    let mut tracker = Tracker::new(limits);
    tracker.sweep(&[], at(secs(0)));
    let grown = |frames, ms| FlowValue { last_jiffies: jiffies(Duration::from_millis(ms)), ..value(500, 2, frames, 0) };
    assert_eq!(tracker.sweep(&[entry(request(), grown(5, 900))], at(secs(1))).ended, []);
    let first = tracker.sweep(&[entry(request(), grown(9, 10_900))], at(secs(11))).ended;
    // The answer was there before, as is found now: the source stays who it was said to be.
    let late = [entry(request(), grown(12, 21_900)), entry(reply(), value(400, 1, 4, 0))];
    let second = tracker.sweep(&late, at(secs(22))).ended;
    let told: Vec<_> = first.iter().chain(&second).collect();
    assert_eq!(told.iter().map(|told| told.forward.tally.frames).collect::<Vec<_>>(), [9, 3]);
    assert!(told.iter().all(|told| told.end_reason == Some(EndReason::ActiveTimeout) && told.key.ingress.get() == 1));
    assert_eq!(told[1].since, told[0].ended);
    assert_eq!(told[1].reverse.tally.frames, 4);
    // With nothing to tell it keeps silent.
    assert_eq!(tracker.sweep(&late, at(secs(40))).ended, []);
}

#[test]
fn a_clock_that_jumps_turns_no_record_round() {
    let mut tracker = tracker();
    tracker.sweep(&[entry(request(), value(500, 2, 5, 0))], at(secs(1)));
    let later = FlowValue { frames: 6, last_jiffies: jiffies(secs(20)), ..value(500, 2, 5, 0) };
    let back = Moment { wall: Timestamp::UNIX_EPOCH, ..at(secs(21)) };
    tracker.sweep(&[entry(request(), later)], back);
    let told = &live(&tracker)[0];
    assert_eq!(told.ended.duration_since(told.started), jiff::SignedDuration::from_millis(19_500));
}

#[test]
fn a_port_that_goes_is_told_at_once_and_only_once() {
    let mut tracker = tracker();
    let entries = [entry(request(), value(10, 2, 5, 0)), entry(reply(), value(11, 1, 4, 0))];
    tracker.sweep(&entries, at(secs(1)));
    tracker.ports_gone(&[2].into());
    assert!(!tracker.totals().ports.contains_key(&2) && tracker.totals().pairs.is_empty());
    let told = tracker.sweep(&entries, at(secs(2))).ended;
    assert_eq!(told.iter().map(|told| told.end_reason).collect::<Vec<_>>(), [Some(EndReason::PortGone)]);
    tracker.sweep(&entries, at(secs(63)));
    delete(&mut tracker, &entries);
    assert_eq!(tracker.sweep(&[], at(secs(64))).ended, []);
    assert_eq!(tracker.totals().active.sum(), 0);
}

#[test]
fn what_went_on_before_the_start_is_told_whole_but_not_summed() {
    let mut tracker = Tracker::new(Limits::default());
    tracker.sweep(&[entry(request(), value(10, 2, 5, 0))], at(secs(1)));
    assert!(live(&tracker)[0].resumed && tracker.totals().pairs.is_empty());
    assert_eq!(live(&tracker)[0].forward.tally.frames, 5);
    tracker.sweep(&[entry(request(), value(10, 2, 7, 0))], at(secs(2)));
    assert_eq!(tracker.totals().pairs[&(1, 2)].frames, 2);
    assert_eq!(tracker.stop().iter().map(|told| told.forward.tally.frames).collect::<Vec<_>>(), [7]);
}

#[test]
fn drops_have_their_reason_in_both_datapaths() {
    let reason = DropReason::SpoofedSource;
    let route = |action| Route::new(0, 0, action, reason as u8).0;
    let by_reflex =
        FlowValue { route: route(VERDICT_DROP), dropped_frames: 3, drop_reason: reason as u8, ..value(10, 0, 3, 0) };
    let by_brain = FlowValue { route: route(VERDICT_DROP | VERDICT_PUNT), ..value(10, 0, 3, 0) };
    let some = FlowValue { dropped_frames: 1, drop_reason: DropReason::TooBig as u8, ..value(10, 2, 3, 0) };
    for (value, verdict, reason) in [
        (by_reflex, Verdict::Dropped, Some(reason)),
        (by_brain, Verdict::Dropped, Some(reason)),
        (some, Verdict::Forwarded, Some(DropReason::TooBig)),
        (value(10, 2, 3, 0), Verdict::Forwarded, None),
    ] {
        let mut tracker = tracker();
        tracker.sweep(&[entry(request(), value)], at(secs(1)));
        assert_eq!((live(&tracker)[0].verdict, live(&tracker)[0].drop_reason), (verdict, reason));
    }
}
