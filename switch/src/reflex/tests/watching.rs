//! Who looks on sees what passes, once, and changes nothing of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use switch_common::{
    Captured, DropReason, INJECT_AGAIN_BIT, INJECT_ORIGIN_BIT, OUTCOME_DROPPED, OUTCOME_FORWARDED, PORT_WATCHED,
    PUNT_ID_MASK, VERDICT_DROP, WATCHERS_FILTER, WATCHERS_SERVE, Way,
};

use super::bench::{Bench, PLAIN, frame, id};
use super::lab::{self, Lab, enter, ifindex, run};
use super::packets::{Segment, request, small};
use super::tap::{HEADER_BYTES, Tap};
use crate::filter::Program;
use crate::reflex::{Kind, Load, Ports, Reflex, WatchCounts, Wish};

/// A mirror of these ports to the tap `look`.
fn mirror(ingress: &[u16], egress: &[u16]) -> Wish {
    let these = |ports: &[u16]| Ports::These(ports.iter().map(|port| id(*port)).collect());
    let kind = Kind::Mirror { target: ifindex("look") };
    Wish { ingress: these(ingress), egress: these(egress), ..Wish::all(kind) }
}

fn filtered(wish: Wish, expression: &str) -> Wish {
    Wish { filter: Some(Arc::new(Program::compile(expression).unwrap())), ..wish }
}

pub(super) fn set(reflex: &mut Reflex, sessions: impl IntoIterator<Item = (u8, Wish)>) {
    reflex.set_sessions(sessions.into_iter().collect::<BTreeMap<_, _>>()).unwrap();
}

/// The target of mirrors.
fn target() -> Tap {
    let tap = Tap::open("look");
    run("sysctl -qw net.ipv6.conf.look.disable_ipv6=1");
    run("ip link set look arp off up");
    tap
}

fn seen(tap: &mut Tap) -> Vec<Vec<u8>> {
    std::iter::from_fn(|| tap.receive()).collect()
}

/// Matched, delivered and lost frames; the law between them holds.
pub(super) fn counts(reflex: &Reflex, bit: u8) -> (u64, u64, u64) {
    let WatchCounts { kernel, .. } = reflex.session_counts(bit).unwrap();
    let mut sum = kernel.delivered;
    sum.add(&kernel.lost);
    assert_eq!(kernel.matched, sum);
    (kernel.matched.frames, kernel.delivered.frames, kernel.lost.frames)
}

pub(super) fn bench(lab: &Lab) -> Bench {
    let mut bench = Bench::new(lab);
    bench.decide(1, 2, |_| {});
    bench.decide(2, 1, |_| {});
    bench.decide(1, 3, |_| {});
    bench
}

#[test]
fn a_mirror_gets_each_frame_once_and_the_ports_what_they_would_have_got() {
    let Some(lab) = enter("watching::a_mirror_gets_each_frame_once_and_the_ports_what_they_would_have_got") else {
        return;
    };
    let (mut bench, mut look) = (bench(&lab), target());
    // Both sides of the conversation, and of both ports both ways.
    set(&mut bench.reflex, [(0, mirror(&[1, 2], &[1, 2]))]);
    for tags in [&PLAIN[..], &[0x81, 0, 0, 7, 0x88, 0xb5], &[0x88, 0xa8, 0, 5, 0x81, 0, 0, 7, 0x88, 0xb5]] {
        let (there, back, other) = (frame(1, 2, tags, 46), frame(2, 1, tags, 60), frame(1, 3, tags, 90));
        for (from, sent) in [(1, &there), (2, &back), (1, &other)] {
            bench.send(from, sent);
        }
        assert_eq!(bench.received(2), std::slice::from_ref(&there));
        assert_eq!(bench.received(1), std::slice::from_ref(&back));
        assert_eq!(bench.received(3), std::slice::from_ref(&other));
        assert_eq!(seen(&mut look), [there, back, other]);
    }
    assert_eq!(counts(&bench.reflex, 0), (9, 9, 0));
    bench.balance();
    // The control: nobody looks on any more.
    set(&mut bench.reflex, []);
    assert_eq!(bench.reflex.port(id(1)).unwrap().flags & PORT_WATCHED, 0);
    bench.send(1, &frame(1, 2, &PLAIN, 46));
    assert_eq!((bench.received(2).len(), seen(&mut look).len()), (1, 0));
}

#[test]
fn a_filter_leaves_what_does_not_match_out_of_its_session_alone() {
    let Some(lab) = enter("watching::a_filter_leaves_what_does_not_match_out_of_its_session_alone") else { return };
    let (mut bench, mut look) = (bench(&lab), target());
    let wish = mirror(&[1], &[]);
    set(&mut bench.reflex, [(0, filtered(wish.clone(), "udp dst port 53")), (63, filtered(wish, "udp dst port 54"))]);
    let frames = [small(9, 53), small(9, 54), small(9, 53), small(9, 55)];
    for frame in &frames {
        bench.send(1, frame);
    }
    assert_eq!(bench.received(2), frames);
    assert_eq!(seen(&mut look), frames[..3]);
    assert_eq!((counts(&bench.reflex, 0), counts(&bench.reflex, 63)), ((2, 2, 0), (1, 1, 0)));
    bench.balance();
}

#[test]
fn a_jump_that_fails_does_what_was_decided() {
    let Some(lab) = enter("watching::a_jump_that_fails_does_what_was_decided") else { return };
    let (mut bench, mut look) = (bench(&lab), target());
    bench.decide(2, 1, |verdict| {
        verdict.action = VERDICT_DROP;
        verdict.reason = DropReason::Hairpin as u8;
    });
    let unfiltered = || mirror(&[1, 2], &[]);
    let all = || filtered(unfiltered(), "len > 0");
    // Without a filter nothing is jumped through: the first place serves.
    for (wish, emptied, copies) in
        [(all(), Some(WATCHERS_SERVE), 0), (unfiltered(), None, 2), (all(), Some(WATCHERS_FILTER), 0)]
    {
        set(&mut bench.reflex, [(0, wish)]);
        if let Some(place) = emptied {
            bench.reflex.empty_place(place);
        }
        bench.send(1, &frame(1, 2, &PLAIN, 46));
        bench.send(2, &frame(2, 1, &PLAIN, 46));
        let got = (bench.received(2).len(), bench.received(1).len(), seen(&mut look).len());
        assert_eq!(got, (1, 0, copies), "{emptied:?}");
    }
    assert_eq!(bench.dropped(2, Way::Ingress, DropReason::Hairpin).0, 3);
    bench.balance();
}

#[test]
fn a_punted_frame_is_mirrored_without_its_tag_and_reaches_the_brain_with_it() {
    let Some(lab) = enter("watching::a_punted_frame_is_mirrored_without_its_tag_and_reaches_the_brain_with_it") else {
        return;
    };
    let (mut bench, mut look) = (Bench::new(&lab), target());
    bench.settings(|_| {});
    set(&mut bench.reflex, [(0, mirror(&[1], &[])), (1, Wish::all(Kind::Capture))]);
    for tags in [&PLAIN[..], &[0x81, 0, 0, 7, 0x88, 0xb5]] {
        let sent = frame(1, 2, tags, 46);
        bench.send(1, &sent);
        assert_eq!(seen(&mut look), [sent]);
        let punted = frame(1, 2, &[&[0x88, 0xa8, 0, 1], tags].concat(), 46);
        assert_eq!(bench.punt.receive(), Some(punted));
    }
    // The loop serves captures of what comes to it.
    assert_eq!((counts(&bench.reflex, 0), counts(&bench.reflex, 1)), ((2, 2, 0), (0, 0, 0)));
    bench.balance();
}

#[test]
fn an_injected_copy_is_mirrored_at_its_egress_unless_its_frame_was_seen_before() {
    let Some(lab) = enter("watching::an_injected_copy_is_mirrored_at_its_egress_unless_its_frame_was_seen_before")
    else {
        return;
    };
    let (mut bench, mut look) = (Bench::new(&lab), target());
    set(&mut bench.reflex, [(0, mirror(&[3], &[1, 2]))]);
    let mut copy = |to: u16, origin: u16, again: bool| {
        let outer = (to & PUNT_ID_MASK | INJECT_ORIGIN_BIT).to_be_bytes();
        let inner = (origin | if again { INJECT_AGAIN_BIT } else { 0 }).to_be_bytes();
        for tags in [&PLAIN[..], &[0x81, 0, 0, 7, 0x88, 0xb5]] {
            let told = [&[0x88, 0xa8, outer[0], outer[1], 0x88, 0xa8, inner[0], inner[1]], tags].concat();
            bench.punt.send(&frame(3, 1, &told, 46));
        }
        let plain = [frame(3, 1, &PLAIN, 46), frame(3, 1, &[0x81, 0, 0, 7, 0x88, 0xb5], 46)];
        assert_eq!(bench.received(to), plain, "the port gets what the sender wrote");
        let seen = seen(&mut look);
        assert!(seen.is_empty() || seen == plain);
        seen.len()
    };
    // Port 4 is not mirrored where frames come in: the first copy for 1 is seen, that for 2 is the same frame.
    assert_eq!(copy(1, 4, false), 2);
    assert_eq!(copy(2, 4, true), 0);
    // The next frame.
    assert_eq!(copy(2, 4, false), 2);
    // One that came in by port 3 was seen there.
    assert_eq!(copy(1, 3, false), 0);
    assert_eq!(counts(&bench.reflex, 0), (4, 4, 0));
}

#[test]
fn a_target_that_is_down_or_gone_costs_the_copies_and_nothing_else() {
    let Some(lab) = enter("watching::a_target_that_is_down_or_gone_costs_the_copies_and_nothing_else") else { return };
    let (mut bench, look) = (bench(&lab), target());
    set(&mut bench.reflex, [(0, mirror(&[1], &[]))]);
    run("ip link set look down");
    bench.send(1, &frame(1, 2, &PLAIN, 46));
    drop(look);
    bench.send(1, &frame(1, 2, &PLAIN, 46));
    assert_eq!(bench.received(2).len(), 2);
    assert_eq!(counts(&bench.reflex, 0), (2, 0, 2));
    bench.balance();
}

#[test]
fn what_a_slow_target_has_no_room_for_is_counted_to_the_frame() {
    let Some(lab) = enter("watching::what_a_slow_target_has_no_room_for_is_counted_to_the_frame") else { return };
    let (mut bench, mut look) = (bench(&lab), target());
    set(&mut bench.reflex, [(0, mirror(&[1], &[]))]);
    let mut arrived = 0;
    for _ in 0..40 {
        for _ in 0..100 {
            bench.send(1, &frame(1, 2, &PLAIN, 46));
        }
        arrived += bench.received(2).len();
    }
    assert_eq!(arrived, 4000, "the port does not feel it");
    let mirrored = seen(&mut look).len() as u64;
    let WatchCounts { target_dropped, .. } = bench.reflex.session_counts(0).unwrap();
    let (matched, delivered, lost) = counts(&bench.reflex, 0);
    assert_eq!((matched, lost), (4000, 0));
    assert!(mirrored < 4000, "the target's queue ends somewhere");
    assert_eq!(delivered, mirrored + target_dropped.frames);
}

/// What waits in the ring.
pub(super) fn captured(bench: &mut Bench, ring: &mut crate::reflex::CaptureRing) -> Vec<(Captured, Vec<u8>)> {
    let _ = bench;
    let mut all = Vec::new();
    ring.drain(|capture| all.push((capture.about, capture.bytes.to_vec())));
    all
}

#[test]
fn a_capture_says_where_a_frame_went_and_why_it_did_not() {
    let Some(lab) = enter("watching::a_capture_says_where_a_frame_went_and_why_it_did_not") else { return };
    let mut bench = bench(&lab);
    bench.decide(2, 1, |verdict| {
        verdict.action = VERDICT_DROP;
        verdict.reason = DropReason::Hairpin as u8;
    });
    let mut ring = bench.reflex.captures().unwrap();
    set(&mut bench.reflex, [(63, Wish::all(Kind::Capture))]);
    let tagged = [0x81, 0, 0xe0, 7, 0x88, 0xb5];
    // As long as each of the ring's rooms, and one more.
    for payload in [46, 47, 48, 150, 170, 180, 1400] {
        for tags in [&PLAIN[..], &tagged] {
            let sent = frame(1, 2, tags, payload);
            bench.send(1, &sent);
            let all = captured(&mut bench, &mut ring);
            let [(about, bytes)] = &all[..] else { panic!("{} frames", all.len()) };
            assert_eq!((bytes, about.length as usize, about.sessions), (&sent, sent.len(), 1 << 63));
            assert_eq!((about.ingress, about.egress, about.outcome), (1, 2, OUTCOME_FORWARDED));
        }
    }
    bench.send(2, &frame(2, 1, &PLAIN, 46));
    bench.send(1, &frame(1, 2, &PLAIN, 1600));
    let all: Vec<Captured> = captured(&mut bench, &mut ring).into_iter().map(|(about, _)| about).collect();
    let told: Vec<_> =
        all.iter().map(|about| (about.ingress, about.egress, about.outcome, about.way, about.reason)).collect();
    let (here, there) = (Way::Ingress as u8, Way::Egress as u8);
    let too_big = (1, 2, OUTCOME_DROPPED, there, DropReason::TooBig as u32);
    assert_eq!(told, [(2, 0, OUTCOME_DROPPED, here, DropReason::Hairpin as u32), too_big]);
    assert!(all[0].time_ns < all[1].time_ns);
    assert_eq!(counts(&bench.reflex, 63), (16, 16, 0));
    bench.balance();
}

#[test]
fn a_capture_takes_as_many_bytes_as_it_wants_and_only_the_drops_that_it_wants() {
    let Some(lab) = enter("watching::a_capture_takes_as_many_bytes_as_it_wants_and_only_the_drops_that_it_wants")
    else {
        return;
    };
    let mut bench = bench(&lab);
    let mut ring = bench.reflex.captures().unwrap();
    let sent = frame(1, 2, &[0x81, 0, 0, 7, 0x88, 0xb5], 300);
    for bytes_max in [1, 11, 12, 13, 15, 16, 17, 64, 65, 192, 193, 318, 400] {
        set(&mut bench.reflex, [(5, Wish { bytes_max, ..Wish::all(Kind::Capture) })]);
        bench.send(1, &sent);
        let all = captured(&mut bench, &mut ring);
        assert_eq!(all[0].1, sent[..sent.len().min(bytes_max as usize)], "{bytes_max}");
    }
    let drops = Wish {
        ingress: Ports::None,
        egress: Ports::None,
        dropped: Ports::These([id(2)].into()),
        ..Wish::all(Kind::Capture)
    };
    let others = Wish { reasons: !(1 << DropReason::TooBig as u32), ..drops.clone() };
    set(&mut bench.reflex, [(6, drops), (7, others)]);
    // Forwarded; too big for port 2; too big for port 3.
    for (to, payload) in [(2, 46), (2, 1600), (3, 1600)] {
        bench.send(1, &frame(1, to, &PLAIN, payload));
    }
    let all = captured(&mut bench, &mut ring);
    assert_eq!(all.len(), 1);
    assert_eq!((all[0].0.sessions, all[0].0.egress), (1 << 6, 2));
    assert_eq!((counts(&bench.reflex, 6), counts(&bench.reflex, 7)), ((1, 1, 0), (0, 0, 0)));
}

#[test]
fn a_super_frame_is_captured_whole_and_marked() {
    let Some(lab) = enter("watching::a_super_frame_is_captured_whole_and_marked") else { return };
    let mut bench = bench(&lab);
    bench.decide(1, 2, |verdict| verdict.frame_bytes_max = 9014);
    let mut ring = bench.reflex.captures().unwrap();
    set(&mut bench.reflex, [(9, filtered(Wish::all(Kind::Capture), "tcp port 5001 and ether[60000] >= 0"))]);
    let sent = Segment::at(1, 64_000).over_ipv4();
    let header = request(1, 54, 20, 1448);
    bench.guests[0].send_with(header, &sent);
    let all = captured(&mut bench, &mut ring);
    assert_eq!((all[0].0.gso_size, all[0].1 == sent), (1448, true));
    let WatchCounts { kernel, .. } = bench.reflex.session_counts(9).unwrap();
    assert_eq!((kernel.matched.frames, kernel.matched.wire_frames()), (1, 64_000u64.div_ceil(1448)));
}

#[test]
fn a_scattered_frame_is_captured_and_filtered_as_well() {
    let Some(lab) = enter("watching::a_scattered_frame_is_captured_and_filtered_as_well") else { return };
    let mut bench = bench(&lab);
    bench.decide(1, 2, |verdict| verdict.frame_bytes_max = 9014);
    let mut ring = bench.reflex.captures().unwrap();
    let sent = frame(1, 2, &PLAIN, 9000);
    let expression = format!("ether[8000] = {}", sent[8000]);
    set(
        &mut bench.reflex,
        [
            (9, filtered(Wish::all(Kind::Capture), &expression)),
            (10, filtered(Wish::all(Kind::Capture), &format!("not {expression}"))),
        ],
    );
    // A linear part of fourteen bytes; the rest lies in pages.
    let mut header = [0; HEADER_BYTES];
    header[2] = 14;
    bench.guests[0].send_with(header, &sent);
    let all = captured(&mut bench, &mut ring);
    assert_eq!((all[0].0.sessions, all[0].1 == sent), (1 << 9, true));
}

#[test]
fn what_finds_the_ring_full_is_counted_as_lost_to_the_frame() {
    let Some(lab) = enter("watching::what_finds_the_ring_full_is_counted_as_lost_to_the_frame") else { return };
    let mut bench = bench(&lab);
    let mut ring = bench.reflex.captures().unwrap();
    set(
        &mut bench.reflex,
        [
            (1, Wish::all(Kind::Capture)),
            (2, filtered(Wish::all(Kind::Capture), "ether[0] = 2")),
            (3, filtered(Wish::all(Kind::Capture), "ether[0] = 3")),
        ],
    );
    // Rooms of 1640 bytes, in 8 MiB.
    for _ in 0..60 {
        for _ in 0..100 {
            bench.send(1, &frame(1, 2, &PLAIN, 1000));
        }
        assert_eq!(bench.received(2).len(), 100);
    }
    let delivered = captured(&mut bench, &mut ring).len() as u64;
    assert!((4000..6000).contains(&delivered), "{delivered}");
    assert_eq!(counts(&bench.reflex, 1), (6000, delivered, 6000 - delivered));
    assert_eq!(counts(&bench.reflex, 2), (6000, delivered, 6000 - delivered));
    assert_eq!(counts(&bench.reflex, 3), (0, 0, 0));
    // Once there is room again nothing is lost.
    bench.send(1, &frame(1, 2, &PLAIN, 1000));
    assert_eq!(captured(&mut bench, &mut ring).len(), 1);
}

#[test]
fn sixty_four_sessions_with_filters_are_one_program_and_each_gets_its_own() {
    let Some(lab) = enter("watching::sixty_four_sessions_with_filters_are_one_program_and_each_gets_its_own") else {
        return;
    };
    let mut bench = bench(&lab);
    let mut ring = bench.reflex.captures().unwrap();
    let wish =
        |bit: u8| filtered(Wish::all(Kind::Capture), &format!("(tcp or udp) and dst port {}", 1000 + u16::from(bit)));
    set(&mut bench.reflex, (0..64).map(|bit| (bit, wish(bit))));
    assert_eq!(bench.reflex.free_session(Kind::Capture), None);
    for bit in 0..64 {
        bench.send(1, &small(9, 1000 + bit));
    }
    let masks: Vec<u64> = captured(&mut bench, &mut ring).into_iter().map(|(about, _)| about.sessions).collect();
    assert_eq!(masks, (0..64).map(|bit| 1 << bit).collect::<Vec<u64>>());
}

#[test]
fn mirrors_outlive_the_daemon_and_captures_do_not() {
    let Some(lab) = enter("watching::mirrors_outlive_the_daemon_and_captures_do_not") else { return };
    let (mut bench, mut look) = (bench(&lab), target());
    let wish = filtered(mirror(&[1], &[]), "udp");
    set(&mut bench.reflex, [(0, wish.clone()), (63, Wish::all(Kind::Capture))]);
    let (Bench { reflex, verdicts, mut guests, punt: _punt }, sent) = (bench, small(1, 2));
    guests[0].send(&sent);
    drop((reflex, verdicts));
    guests[0].send(&sent);
    assert_eq!(seen(&mut look).len(), 2, "nobody is there, and the mirror goes on");
    let (mut reflex, _) = lab.open_as(Load::default());
    assert_eq!(reflex.sessions_found(), 1);
    guests[0].send(&sent);
    set(&mut reflex, [(0, wish)]);
    guests[0].send(&sent);
    assert_eq!(seen(&mut look).len(), 2, "while the next one comes, too");
    assert_eq!(counts(&reflex, 0), (4, 4, 0), "its counters go on");
    assert_eq!(counts(&reflex, 63), (2, 2, 0), "the capture ended with its daemon's successor");
    assert_eq!(reflex.free_session(Kind::Mirror { target: 1 }), Some(1));
    let _ = lab::settings();
}
