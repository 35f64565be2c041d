//! Frames that say who is who: these and no others, as they were sent, and nothing lost uncounted.

use switch_common::{HEARD_BYTES, HEARD_BYTES_MAX, Heard as Record};

use super::bench::{Bench, PLAIN, frame, id};
use super::lab::enter;
use super::packets::{TCP, UDP, V4, V6, from_1, ipv4, ipv4_with, ipv6, udp};
use crate::reflex::{HeardFrame, HeardRing, HeardSums, HearingRate, Hook, Load, Reflex};

fn drain(ring: &mut HeardRing) -> Vec<HeardFrame> {
    let mut all = Vec::new();
    ring.drain(usize::MAX, |heard| all.push(heard.clone()));
    all
}

/// Law L7 of a port, at rest.
fn balanced(reflex: &Reflex, port: u16) -> HeardSums {
    let sums = reflex.heard_sums(id(port)).unwrap();
    assert_eq!(sums.produced, sums.delivered + sums.limited + sums.lost, "{sums:?}");
    sums
}

fn icmpv6(kind: u8) -> Vec<u8> {
    [&[kind, 0, 0, 0][..], &[0; 20]].concat()
}

#[test]
fn what_says_who_is_who_is_handed_over_as_it_was_sent_and_nothing_else() {
    let Some(lab) = enter("names::what_says_who_is_who_is_handed_over_as_it_was_sent_and_nothing_else") else { return };
    let mut bench = Bench::new(&lab);
    let mut ring = bench.reflex.heard().unwrap();
    let arp: &[u8] = &[0x08, 0x06];
    let tag: &[u8] = &[0x81, 0x00, 0x60, 0x07];
    let tags: &[u8] = &[0x88, 0xa8, 0x20, 0x01, 0x81, 0x00, 0xf1, 0x23];
    let telling = [
        from_1(&[arp, &[7; 28]]),
        from_1(&[tag, arp, &[7; 46]]),
        from_1(&[tags, arp, &[7; 46]]),
        from_1(&[&V4, &ipv4(UDP, &udp(40_000, 53, 30))]),
        from_1(&[&V4, &ipv4(UDP, &udp(53, 40_000, 1400))]),
        from_1(&[tag, &V4, &ipv4(UDP, &udp(53, 40_000, 500))]),
        from_1(&[&V4, &ipv4_with(&[1; 8], 0, UDP, &udp(68, 67, 300))]),
        from_1(&[&V6, &ipv6(UDP, &udp(547, 546, 100))]),
        from_1(&[&V6, &ipv6(58, &icmpv6(133))]),
        from_1(&[&V6, &ipv6(58, &icmpv6(137))]),
    ];
    let silent = [
        frame(1, 2, &PLAIN, 46),
        from_1(&[&V4, &ipv4(UDP, &udp(40_000, 54, 30))]),
        from_1(&[&V4, &ipv4(TCP, &udp(40_000, 53, 30))]),
        from_1(&[&V4, &ipv4_with(&[], 0x2000, UDP, &udp(40_000, 53, 30))]),
        from_1(&[&V6, &ipv6(58, &icmpv6(128))]),
        from_1(&[&V6, &ipv6(58, &icmpv6(138))]),
        from_1(&[&V4, &ipv4(1, &icmpv6(135))]),
    ];
    // Twice: as the first of its flow, and as one of a flow that there is.
    for round in 1..=2 {
        for sent in &telling {
            bench.send(1, sent);
        }
        for sent in &silent {
            bench.send(1, sent);
        }
        let heard = drain(&mut ring);
        assert_eq!(heard.len(), telling.len(), "round {round}");
        for (sent, heard) in telling.iter().zip(heard) {
            assert_eq!(heard.bytes, sent[..sent.len().min(HEARD_BYTES_MAX)]);
            assert_eq!((heard.length as usize, heard.port), (sent.len(), id(1)));
        }
    }
    assert_eq!(balanced(&bench.reflex, 1).produced, 2 * telling.len() as u64);
}

#[test]
fn without_room_for_its_flow_a_frame_is_handed_over_all_the_same() {
    let Some(lab) = enter("names::without_room_for_its_flow_a_frame_is_handed_over_all_the_same") else { return };
    let mut bench = Bench::new(&lab);
    bench.settings(|settings| settings.flow_port_max = 0);
    let mut ring = bench.reflex.heard().unwrap();
    let query = from_1(&[&V4, &ipv4(UDP, &udp(40_000, 53, 30))]);
    bench.send(1, &query);
    bench.send(1, &frame(1, 2, &PLAIN, 46));
    let heard = drain(&mut ring);
    assert_eq!(heard.iter().map(|heard| heard.bytes.as_slice()).collect::<Vec<_>>(), [query.as_slice()]);
    assert_eq!(bench.reflex.counters(id(1)).unwrap().overflow.frames, 2);
}

#[test]
fn a_port_that_tells_too_much_is_limited_and_no_other_with_it() {
    let Some(lab) = enter("names::a_port_that_tells_too_much_is_limited_and_no_other_with_it") else { return };
    let hearing = Some(HearingRate { per_second: 1, burst: 20 });
    let mut bench = Bench::with(&lab, Load { hearing, ..Load::default() });
    let mut ring = bench.reflex.heard().unwrap();
    let began = std::time::Instant::now();
    for _ in 0..500 {
        bench.send(1, &frame(1, 2, &[0x08, 0x06], 46));
    }
    bench.send(2, &frame(2, 3, &[0x08, 0x06], 46));
    let more = began.elapsed().as_secs() + 2;
    let heard = drain(&mut ring);
    let of = |port| heard.iter().filter(|heard| heard.port == id(port)).count() as u64;
    assert!((20..=20 + more).contains(&of(1)), "{} of 500", of(1));
    assert_eq!(of(2), 1);
    let sums = balanced(&bench.reflex, 1);
    assert_eq!((sums.produced, sums.limited), (500, 500 - of(1)));
    assert_eq!(balanced(&bench.reflex, 2).limited, 0);
}

#[test]
fn what_finds_the_ring_full_is_lost_and_counted_and_the_rest_waits_for_the_next_daemon() {
    let Some(lab) = enter("names::what_finds_the_ring_full_is_lost_and_counted_and_the_rest_waits_for_the_next_daemon")
    else {
        return;
    };
    let hearing = Some(HearingRate { per_second: 1_000_000, burst: 1_000_000 });
    let mut bench = Bench::with(&lab, Load { hearing, ..Load::default() });
    let room = HEARD_BYTES / (size_of::<Record>() + 8);
    for _ in 0..room + 200 {
        bench.send(1, &frame(1, 2, &[0x08, 0x06], 46));
    }
    let before = bench.reflex.heard_sums(id(1)).unwrap();
    assert_eq!((before.produced, before.delivered, before.limited), ((room + 200) as u64, 0, 0));
    assert!(before.lost >= 200, "{before:?}");
    let Bench { reflex, verdicts, guests, punt } = bench;
    drop((reflex, verdicts));
    let (mut reflex, _) = lab.open(Hook::Auto);
    assert_eq!(reflex.heard_sums(id(1)).unwrap(), before);
    let waits = before.produced - before.lost;
    assert_eq!(drain(&mut reflex.heard().unwrap()).len() as u64, waits);
    balanced(&reflex, 1);
    drop(reflex);
    let (reflex, _) = lab.open(Hook::Auto);
    assert_eq!(balanced(&reflex, 1).delivered, waits);
    drop((guests, punt));
}

#[test]
fn nothing_is_handed_over_where_nobody_wants_it() {
    let Some(lab) = enter("names::nothing_is_handed_over_where_nobody_wants_it") else { return };
    let mut bench = Bench::with(&lab, Load { hearing: None, ..Load::default() });
    let mut ring = bench.reflex.heard().unwrap();
    bench.send(1, &frame(1, 2, &[0x08, 0x06], 46));
    assert!(drain(&mut ring).is_empty());
    assert_eq!(bench.reflex.heard_sums(id(1)).unwrap(), HeardSums::default());
}
