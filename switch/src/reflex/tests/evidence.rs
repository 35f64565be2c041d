//! Evidence: the frame as it was sent, one per port, side, reason and second, and nothing lost uncounted.

use switch_common::{DropReason, EVENTS_BYTES, EVIDENCE_BYTES_MAX, Evidence as Record, PORT_UP, Way};

use super::bench::{Bench, PLAIN, frame, id};
use super::lab::enter;
use crate::evidence::{Evidence, EvidenceSums};
use crate::reflex::{EvidenceRing, Hook, Reflex};

fn drain(ring: &mut EvidenceRing) -> Vec<Evidence> {
    let mut all = Vec::new();
    ring.drain(|evidence| all.push(evidence));
    all
}

/// Law L7, at rest.
fn balance(reflex: &Reflex) {
    let EvidenceSums { produced, delivered, lost } = reflex.evidence_sums().unwrap();
    assert_eq!(produced, delivered + lost);
}

#[test]
fn evidence_is_the_frame_that_was_sent_tags_and_all() {
    let Some(lab) = enter("evidence::evidence_is_the_frame_that_was_sent_tags_and_all") else { return };
    let mut bench = Bench::new(&lab);
    let mut ring = bench.reflex.evidence().unwrap();
    let tagged: &[u8] = &[0x81, 0x00, 0x61, 0x23, 0x88, 0xb5];
    let doubled: &[u8] = &[0x88, 0xa8, 0x20, 0x01, 0x81, 0x00, 0xf1, 0x23, 0x88, 0xb5];
    // A port each, so that each is the first of its second.
    let cases = [(1, &PLAIN[..], 46), (2, tagged, 300), (3, doubled, 20)];
    for (from, behind, payload) in cases {
        bench.port(from, |port| port.flags &= !PORT_UP);
        bench.send(from, &frame(from, 9, behind, payload));
    }
    let seen = drain(&mut ring);
    assert_eq!(seen.len(), cases.len());
    for ((from, behind, payload), evidence) in cases.into_iter().zip(seen) {
        let sent = frame(from, 9, behind, payload);
        assert_eq!(evidence.bytes, sent[..sent.len().min(EVIDENCE_BYTES_MAX)]);
        assert_eq!((evidence.length as usize, evidence.port), (sent.len(), from));
        assert_eq!((evidence.way, evidence.reason.as_ref()), (Some(Way::Ingress), "port_down"));
    }
    balance(&bench.reflex);
}

#[test]
fn evidence_of_a_full_ring_is_the_frame_that_found_no_room() {
    let Some(lab) = enter("evidence::evidence_of_a_full_ring_is_the_frame_that_found_no_room") else { return };
    let mut bench = Bench::new(&lab);
    let mut ring = bench.reflex.evidence().unwrap();
    let tagged: &[u8] = &[0x81, 0x00, 0x61, 0x23, 0x88, 0xb5];
    for (to, behind) in [(2, &PLAIN[..]), (3, tagged)] {
        bench.decide(1, to, |_| {});
        let sent = frame(1, to, behind, 200);
        (0..1500).for_each(|_| bench.send(1, &sent));
        let seen = drain(&mut ring);
        assert!((1..=3).contains(&seen.len()), "one a second: {}", seen.len());
        for evidence in seen {
            assert_eq!(evidence.bytes, sent[..EVIDENCE_BYTES_MAX]);
            assert_eq!((evidence.length as usize, evidence.port), (sent.len(), to));
            assert_eq!((evidence.way, evidence.reason.as_ref()), (Some(Way::Egress), "ring_full"));
        }
        let dropped = bench.reflex.kernel_drops().unwrap();
        let booked = dropped.iter().find(|drop| drop.port == to).unwrap().dropped;
        assert_eq!(booked.bytes, booked.frames * sent.len() as u64, "the tag counts");
    }
    balance(&bench.reflex);
}

#[test]
fn one_frame_a_second_is_kept_of_each_port_side_and_reason() {
    let Some(lab) = enter("evidence::one_frame_a_second_is_kept_of_each_port_side_and_reason") else { return };
    let mut bench = Bench::new(&lab);
    let mut ring = bench.reflex.evidence().unwrap();
    bench.port(1, |port| port.flags &= !PORT_UP);
    bench.decide(2, 3, |verdict| verdict.frame_bytes_max = 60);
    let began = std::time::Instant::now();
    for _ in 0..1000 {
        bench.send(1, &frame(1, 2, &PLAIN, 46));
        bench.send(2, &frame(2, 3, &PLAIN, 100));
    }
    let most = usize::try_from(began.elapsed().as_secs()).unwrap() + 2;
    let seen = drain(&mut ring);
    for (port, way, reason) in [(1, Way::Ingress, "port_down"), (3, Way::Egress, "too_big")] {
        let kept = seen.iter().filter(|it| (it.port, it.way, it.reason.as_ref()) == (port, Some(way), reason)).count();
        assert!((1..=most).contains(&kept), "{reason}: {kept}");
    }
    assert_eq!(bench.dropped(3, Way::Egress, DropReason::TooBig).0, 1000);
    balance(&bench.reflex);
}

#[test]
fn a_ring_that_nobody_reads_overflows_and_every_loss_is_counted() {
    let Some(lab) = enter("evidence::a_ring_that_nobody_reads_overflows_and_every_loss_is_counted") else { return };
    let mut bench = Bench::new(&lab);
    let room = EVENTS_BYTES / (size_of::<Record>() + 8);
    // Guest 1's netdev is one port after the other, so that each drop is the first of its port's second.
    let ifindex = bench.reflex.port(id(1)).unwrap().ifindex;
    for round in 0..room + 500 {
        let port = id(u16::try_from(10 + round % 4000).unwrap());
        bench.reflex.link(ifindex, port).unwrap();
        bench.send(1, &frame(1, 2, &PLAIN, 46));
        if round % 4000 == 3999 {
            let second = std::time::Instant::now();
            super::lab::wait_for("the next second", || second.elapsed().as_secs() >= 1);
        }
    }
    let before = bench.reflex.evidence_sums().unwrap();
    assert_eq!((before.produced, before.delivered), ((room + 500) as u64, 0));
    assert!(before.lost >= 500, "{before:?}");
    // A new daemon finds what waits.
    let Bench { reflex, verdicts, guests, punt } = bench;
    drop((reflex, verdicts));
    let (mut reflex, _) = lab.open(Hook::Auto);
    let waits = before.produced - before.lost;
    assert_eq!(reflex.evidence_sums().unwrap(), EvidenceSums { delivered: 0, ..before });
    let mut ring = reflex.evidence().unwrap();
    assert_eq!(drain(&mut ring).len() as u64, waits);
    balance(&reflex);
    drop((ring, reflex));
    let (reflex, _) = lab.open(Hook::Auto);
    assert_eq!(reflex.evidence_sums().unwrap().delivered, waits);
    balance(&reflex);
    drop((guests, punt));
}
