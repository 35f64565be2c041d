//! Room in the table: shares of ports, an end to it, and what happens then; and processors that meet.

use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use switch_common::Tally;

use super::bench::{Bench, id, mac};
use super::books::plain;
use super::lab::{enter, patience};
use super::packets::{UDP, V4, V6, between, from_1, ipv4, ipv6, small, udp};
use super::tap::Tap;

#[test]
fn a_port_has_its_share_of_the_table_and_what_is_beyond_is_its_overflow() {
    let test = "flow_table::a_port_has_its_share_of_the_table_and_what_is_beyond_is_its_overflow";
    let Some(lab) = enter(test) else { return };
    let mut bench = Bench::new(&lab);
    bench.settings(|settings| settings.flow_port_max = 10);
    for port in 1000..1015 {
        bench.send(1, &small(port, 53));
        bench.send(3, &between(3, 2, &[&V6, &ipv6(UDP, &udp(port % 8, 53, 0))]));
    }
    // Those that are there go on.
    bench.send(1, &small(1009, 53));
    bench.send(1, &small(1010, 53));
    assert_eq!((bench.overflow(1), bench.overflow(3)), (plain(6, 360), plain(0, 0)));
    assert_eq!(bench.flows().len(), 10 + 8);
    bench.balance();
    // What is deleted makes room.
    let one = bench.flows().into_keys().find(|key| key.ingress() == 1).unwrap();
    bench.free([one]);
    bench.send(1, &small(2000, 53));
    bench.send(1, &small(2001, 53));
    assert_eq!(bench.overflow(1), plain(7, 420));
    bench.balance();
}

#[test]
fn a_full_table_overflows_exactly_and_the_flows_in_it_stay_whole() {
    let test = "flow_table::a_full_table_overflows_exactly_and_the_flows_in_it_stay_whole";
    let Some(lab) = enter(test) else { return };
    let mut bench = Bench::with_room(&lab, 64);
    bench.settings(|_| {});
    let of_3: Vec<Vec<u8>> = (0..10).map(|port| between(3, 2, &[&V4, &ipv4(UDP, &udp(port, 9, 100))])).collect();
    for frame in &of_3 {
        bench.send(3, frame);
    }
    for port in 1000..1100 {
        bench.send(1, &small(port, 53));
        bench.send(1, &from_1(&[&V6, &ipv6(UDP, &udp(port, 53, 0))]));
        bench.send(3, &of_3[usize::from(port % 10)]);
    }
    // 54 of a hundred over IPv4, and half the table's size over IPv6.
    assert_eq!(bench.overflow(1), plain(46 + 68, 46 * 60 + 68 * 62));
    assert_eq!(bench.overflow(3), plain(0, 0));
    let flows = bench.flows();
    assert_eq!(flows.len(), 64 + 32);
    for (key, flow) in flows.iter().filter(|(key, _)| key.ingress() == 3) {
        assert_eq!((flow.frames, flow.bytes), (11, 11 * 142), "{key:?}");
    }
    bench.balance();
}

/// Frames of guest `from`, one for each of `count` flows.
fn frames_of(from: u16, count: u32) -> Vec<Vec<u8>> {
    let template = between(from, 2, &[&V4, &ipv4(UDP, &udp(0, 53, 18))]);
    let number = |number: u32| {
        let mut frame = template.clone();
        let [_, network, high, low] = number.to_be_bytes();
        frame[27] = 64 + network;
        frame[34..36].copy_from_slice(&[high, low]);
        frame
    };
    (0..count).map(number).collect()
}

fn send_all(guest: &mut Tap, frames: &[Vec<u8>]) {
    for frame in frames {
        guest.send(frame);
    }
}

/// The figures of `docs/exactness.md`: run with `--nocapture`.
#[test]
fn three_hundred_thousand_flows_offered_to_a_table_of_65536_are_exact() {
    let test = "flow_table::three_hundred_thousand_flows_offered_to_a_table_of_65536_are_exact";
    let Some(lab) = enter(test) else { return };
    let mut bench = Bench::with_room(&lab, 65_536);
    bench.settings(|settings| settings.flow_port_max = 65_536);
    bench.decide(1, 2, |_| {});
    let (attack, other) = (frames_of(1, 300_000), frames_of(3, 1000));
    send_all(&mut bench.guests[2], &other);
    let begin = Instant::now();
    // Two processors: one port opens flows without end, another goes on with its own.
    let [first, _, third] = &mut bench.guests[..] else { unreachable!() };
    let opening = std::thread::scope(|scope| {
        let attacker = scope.spawn(|| send_all(first, &attack));
        while !attacker.is_finished() {
            send_all(third, &other);
        }
        begin.elapsed()
    });
    let room = 65_536 - 1000;
    // What is in the table, and what is not: both are forwarded, the one by its flow and the other by its pair.
    let (within, beyond) = attack.split_at(room);
    let mut ns_per_frame = |frames: &[Vec<u8>]| {
        let begin = Instant::now();
        send_all(&mut bench.guests[0], frames);
        begin.elapsed().as_nanos() / frames.len() as u128
    };
    let (known, overflowing) = (ns_per_frame(within), ns_per_frame(beyond));
    let room = room as u64;
    assert_eq!(bench.overflow(1).frames, 2 * (300_000 - room));
    assert_eq!(bench.overflow(3), Tally::default());
    let of_3: Vec<u64> =
        bench.flows().iter().filter(|(key, _)| key.ingress() == 3).map(|(_, flow)| flow.frames).collect();
    assert_eq!(of_3.len(), 1000);
    assert!(of_3.iter().all(|frames| *frames == of_3[0]), "a flow of a bystander's misses frames");
    eprintln!(
        "300,000 flows offered in {opening:?} beside a port in full swing, which sent {} frames; a write of a known flow's \
         frame takes {known} ns, of one beyond the table {overflowing} ns",
        of_3[0] * 1000
    );
    bench.balance();
}

#[test]
fn two_processors_that_meet_in_a_flow_lose_nothing_and_open_it_once() {
    let test = "flow_table::two_processors_that_meet_in_a_flow_lose_nothing_and_open_it_once";
    let Some(lab) = enter(test) else { return };
    let mut bench = Bench::new(&lab);
    bench.settings(|settings| settings.flow_port_max = 100_000);
    let frames = frames_of(1, 1000);
    let (first, begin) = (&bench.guests[0], std::sync::Barrier::new(2));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                begin.wait();
                for frame in &frames {
                    (0..20).for_each(|_| first.send_shared(frame));
                }
            });
        }
    });
    let flows = bench.flows();
    assert_eq!(flows.len(), 1000);
    assert!(flows.values().all(|flow| (flow.frames, flow.bytes) == (40, 40 * 60)));
    assert_eq!(bench.reflex.buckets(id(1)).unwrap().flows_used, 1000, "of {}", mac(1));
    bench.balance();
}

/// What reading so many flows may take on an ordinary machine.
const READ_WITHIN: Duration = Duration::from_millis(100);

#[test]
fn a_hundred_thousand_flows_are_read_in_100_milliseconds() {
    let Some(lab) = enter("flow_table::a_hundred_thousand_flows_are_read_in_100_milliseconds") else { return };
    let mut bench = Bench::with_room(&lab, 262_144);
    bench.settings(|settings| settings.flow_port_max = 262_144);
    let frames = frames_of(1, 100_000);
    send_all(&mut bench.guests[0], &frames);
    let maps = bench.reflex.flows();
    let processor_time = || Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap();
    let mut best = (Duration::MAX, Duration::MAX);
    for _ in 0..5 {
        let (mut flows, mut counted) = (0, 0);
        let (began, worked) = (Instant::now(), processor_time());
        maps.read(
            |_, flow| {
                flows += 1;
                counted += flow.frames;
            },
            |_, _| (),
        )
        .unwrap();
        best = best.min((processor_time().checked_sub(worked).unwrap(), began.elapsed()));
        assert_eq!((flows, counted), (100_000, 100_000));
    }
    let (worked, elapsed) = best;
    eprintln!("100,000 flows are read in {worked:?} of processor time, {elapsed:?} by the clock");
    assert!(worked <= READ_WITHIN * patience(), "{worked:?}");
    bench.balance();
}
