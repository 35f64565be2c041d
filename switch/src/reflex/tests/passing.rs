//! What passes, byte for byte, by verdict and by the brain; and what it weighs.

use switch_common::{DropReason, PORT_GUEST_OFFLOADS, PairVerdict, Tally, VERDICT_ARMED, VERDICT_FORWARD, Way};

use super::bench::{Bench, PLAIN, frame, id, pair};
use super::lab::enter;
use super::tap::HEADER_BYTES;

/// What may stand between the addresses and the payload.
const TAGGINGS: [&[u8]; 8] = [
    &[0x88, 0xb5],
    &[0x81, 0, 0, 7, 0x88, 0xb5],
    &[0x88, 0xa8, 0, 5, 0x88, 0xb5],
    &[0x88, 0xa8, 0, 5, 0x81, 0, 0, 7, 0x88, 0xb5],
    &[0x81, 0, 0, 5, 0x81, 0, 0, 7, 0x88, 0xb5],
    &[0x88, 0xa8, 0, 5, 0x88, 0xa8, 0, 6, 0x81, 0, 0, 7, 0x88, 0xb5],
    // A priority tag, and one with all bits of the TCI.
    &[0x81, 0, 0xe0, 0, 0x88, 0xb5],
    &[0x81, 0, 0xff, 0xff, 0x88, 0xb5],
];

#[test]
fn a_frame_passes_a_verdict_byte_for_byte_with_any_tags() {
    let Some(lab) = enter("passing::a_frame_passes_a_verdict_byte_for_byte_with_any_tags") else { return };
    let mut bench = Bench::new(&lab);
    bench.decide(1, 2, |_| {});
    let frames: Vec<Vec<u8>> = TAGGINGS.iter().map(|tags| frame(1, 2, tags, 46)).collect();
    let bytes: u64 = frames.iter().map(|frame| frame.len() as u64).sum();
    for frame in &frames {
        bench.send(1, frame);
    }
    assert_eq!(bench.received(2), frames);
    assert_eq!(bench.received(3), Vec::<Vec<u8>>::new());
    let tally = Tally { frames: 8, bytes, ..Tally::default() };
    assert_eq!((bench.ingress(1), bench.egress(2)), (tally, tally));
    bench.balance();
}

#[test]
fn a_frame_passes_the_brain_byte_for_byte_with_any_tags() {
    let Some(lab) = enter("passing::a_frame_passes_the_brain_byte_for_byte_with_any_tags") else { return };
    let mut bench = Bench::new(&lab);
    bench.settings(|_| {});
    for tags in TAGGINGS {
        let sent = frame(1, 2, tags, 46);
        bench.send(1, &sent);
        let mut punted = bench.punt.receive().unwrap();
        assert_eq!(punted, frame(1, 2, &[&[0x88, 0xa8, 0, 1], tags].concat(), 46), "the tag names the ingress port");
        punted[15] = 2;
        bench.punt.send(&punted);
        assert_eq!(bench.received(2), [sent]);
    }
    assert_eq!(bench.ingress(1), bench.egress(2));
    assert_eq!(bench.reflex.buckets(id(1)).unwrap().punted, 8);
    assert_eq!(bench.reflex.counters(id(2)).unwrap().injected, 8);
    bench.balance();
}

#[test]
fn a_scattered_frame_is_read_as_well() {
    let Some(lab) = enter("passing::a_scattered_frame_is_read_as_well") else { return };
    let mut bench = Bench::new(&lab);
    bench.decide(1, 2, |verdict| verdict.frame_bytes_max = 9014);
    // The guest asks for a linear part of fourteen bytes; the rest lies in pages.
    let mut header = [0; HEADER_BYTES];
    header[2] = 14;
    for tags in TAGGINGS {
        let sent = frame(1, 2, tags, 9000);
        bench.guests[0].send_with(header, &sent);
        assert_eq!(bench.received(2), [sent]);
    }
    bench.balance();
}

#[test]
fn a_verdict_is_followed_only_when_nothing_is_on_its_way_through_the_brain() {
    let test = "passing::a_verdict_is_followed_only_when_nothing_is_on_its_way_through_the_brain";
    let Some(lab) = enter(test) else { return };
    let mut bench = Bench::new(&lab);
    bench.settings(|_| {});
    let small = frame(1, 2, &PLAIN, 46);
    bench.send(1, &small);
    bench.decide(1, 2, |verdict| verdict.action = VERDICT_FORWARD | VERDICT_ARMED);
    bench.send(1, &small);
    assert_eq!(bench.received(2), Vec::<Vec<u8>>::new(), "two frames are with the brain");
    let brain = bench.reflex.brain();
    brain.port(1).settled.add(1);
    bench.send(1, &small);
    assert_eq!(bench.received(2), Vec::<Vec<u8>>::new(), "two of three are");
    brain.port(1).settled.add(1);
    brain.port(1).unobserved.add(1);
    bench.send(1, &small);
    assert_eq!(bench.received(2), [small], "none is");
    let verdict = bench.verdicts.get(&pair(1, 2)).unwrap().unwrap();
    assert_eq!(verdict.action, VERDICT_FORWARD);
    assert_ne!(verdict.last_seen_jiffies, 0);
    assert_eq!(bench.reflex.buckets(id(1)).unwrap().punted, 3);
    bench.balance();
}

/// A TCP/IPv4 super-frame of guest 1 for guest 2, and its offload request.
fn super_frame(tags: &[u8], protocol: u8, gso_size: u16, payload_bytes: usize) -> ([u8; HEADER_BYTES], Vec<u8>) {
    let [high, low] = u16::try_from(40 + payload_bytes).unwrap().to_be_bytes();
    let ip = [0x45, 0, high, low, 0, 1, 0, 0, 64, protocol, 0, 0, 198, 18, 0, 1, 198, 18, 0, 2];
    let tcp = [0x10, 0, 0x20, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x10, 0xff, 0xff, 0, 0, 0, 0];
    let behind = [tags, &[0x08, 0x00], &ip, &tcp].concat();
    let start = u8::try_from(34 + tags.len()).unwrap();
    let size = gso_size.to_le_bytes();
    // NEEDS_CSUM, GSO_TCPV4, hdr_len, gso_size, csum_start, csum_offset.
    let header = [1, 1, start + 20, 0, size[0], size[1], start, 0, 16, 0];
    (header, frame(1, 2, &behind, payload_bytes))
}

#[test]
fn a_super_frame_counts_once_and_weighs_what_a_wire_would_have_carried() {
    let test = "passing::a_super_frame_counts_once_and_weighs_what_a_wire_would_have_carried";
    let Some(lab) = enter(test) else { return };
    let mut bench = Bench::new(&lab);
    bench.settings(|_| {});
    let mut expected = Tally::default();
    for (tags, by_brain) in [(TAGGINGS[0], false), (TAGGINGS[1], false), (TAGGINGS[0], true), (TAGGINGS[3], true)] {
        let tags = &tags[..tags.len() - 2];
        let (header, sent) = super_frame(tags, 6, 1448, 10 * 1448 + 100);
        if by_brain {
            assert!(bench.verdicts.remove(&pair(1, 2)).unwrap() || expected.frames > 2);
        } else {
            bench.decide(1, 2, |_| {});
        }
        bench.guests[0].send_with(header, &sent);
        if by_brain {
            let (header, mut punted) = bench.punt.receive_with().unwrap();
            punted[15] = 2;
            bench.punt.send_with(header, &punted);
        }
        let (kept, received) = bench.guests[1].receive_with().unwrap();
        assert_eq!(received, sent);
        assert_eq!((kept[1], &kept[4..6]), (1, 1448_u16.to_le_bytes().as_slice()), "still to be segmented");
        expected.add(&Tally {
            frames: 1,
            bytes: sent.len() as u64,
            extra_frames: 10,
            extra_bytes: 10 * (54 + tags.len() as u64),
        });
        assert_eq!((bench.ingress(1), bench.egress(2)), (expected, expected));
    }
    bench.balance();
}

#[test]
fn one_wire_frame_of_a_super_frame_that_is_too_long_is_too_big() {
    let Some(lab) = enter("passing::one_wire_frame_of_a_super_frame_that_is_too_long_is_too_big") else { return };
    let mut bench = Bench::new(&lab);
    bench.decide(1, 2, |_| {});
    // The last: longer segments are asked for than there is payload.
    for (gso_size, payload, passes) in [(1460, 20_000, true), (1461, 20_000, false), (9000, 1460, true)] {
        for tags in [&[][..], &[0x81, 0, 0, 7]] {
            let (header, sent) = super_frame(tags, 6, gso_size, payload);
            bench.guests[0].send_with(header, &sent);
            assert_eq!(bench.received(2).len(), usize::from(passes), "{gso_size} {tags:?}");
        }
    }
    assert_eq!(bench.dropped(2, Way::Egress, DropReason::TooBig).0, 2);
    bench.balance();
}

#[test]
fn an_offload_request_that_no_driver_makes_is_refused_from_a_guest_and_weighed_from_a_kernel() {
    let test = "passing::an_offload_request_that_no_driver_makes_is_refused_from_a_guest_and_weighed_from_a_kernel";
    let Some(lab) = enter(test) else { return };
    let mut bench = Bench::new(&lab);
    bench.decide(1, 2, |_| {});
    let honest = super_frame(&[], 6, 48, 480);
    bench.guests[0].send_with(honest.0, &honest.1);
    assert_eq!(bench.received(2).len(), 1);
    let tiny = super_frame(&[], 6, 47, 470);
    let other_protocol = super_frame(&[], 47, 1000, 10_000);
    let mut no_ip = super_frame(&[], 6, 1000, 10_000);
    no_ip.1[13] = 0x06;
    let bad = [tiny, other_protocol, no_ip];
    for (header, sent) in &bad {
        bench.guests[0].send_with(*header, sent);
    }
    let bytes: u64 = bad.iter().map(|(_, frame)| frame.len() as u64).sum();
    assert_eq!(bench.dropped(1, Way::Ingress, DropReason::BadOffload), (3, bytes));
    assert_eq!(bench.ingress(1).extra_frames, 9, "what is refused is not weighed");
    assert_eq!(bench.received(2).len(), 0);
    bench.port(1, |port| port.flags &= !PORT_GUEST_OFFLOADS);
    let before = bench.ingress(1);
    for (header, sent) in &bad {
        bench.guests[0].send_with(*header, sent);
    }
    let after = bench.ingress(1);
    // By the link layer's 14 bytes: 510 / 47, and twice 10,040 / 1,000.
    assert_eq!(after.extra_frames - before.extra_frames, 10 + 10 + 10);
    assert_eq!(after.extra_bytes - before.extra_bytes, 30 * 14);
    assert_eq!(bench.dropped(1, Way::Ingress, DropReason::BadOffload).0, 3);
    bench.balance();
}

#[test]
fn verdicts_are_read_in_batches_and_a_full_map_says_so() {
    let Some(lab) = enter("passing::verdicts_are_read_in_batches_and_a_full_map_says_so") else { return };
    let mut bench = Bench::new(&lab);
    let key = |number: u32| {
        let [_, b, c, d] = number.to_be_bytes();
        switch_common::PairKey { source: [2, 0, 0, b, c, d], ..pair(1, 2) }
    };
    let verdict = PairVerdict { egress: 9, ..PairVerdict::default() };
    let max = u32::try_from(switch_common::VERDICTS_MAX).unwrap();
    (0..max).for_each(|number| bench.verdicts.insert(&key(number), &verdict).unwrap());
    let mut dump = Vec::new();
    bench.verdicts.dump(&mut dump).unwrap();
    assert_eq!(dump.len(), switch_common::VERDICTS_MAX);
    assert!(dump.iter().all(|(key, found)| *found == PairVerdict { key: *key, ..verdict }));
    dump.sort_by_key(|(key, _)| key.source);
    dump.dedup_by_key(|(key, _)| key.source);
    assert_eq!(dump.len(), switch_common::VERDICTS_MAX);
    let full = bench.verdicts.insert(&key(max), &verdict);
    assert!(matches!(full, Err(crate::reflex::VerdictError::Full)), "{full:?}");
    assert!(bench.verdicts.remove(&key(0)).unwrap());
    assert!(!bench.verdicts.remove(&key(0)).unwrap());
    bench.verdicts.insert(&key(max), &verdict).unwrap();
    bench.verdicts.clear().unwrap();
    assert_eq!(bench.verdicts.get(&key(max)).unwrap(), None);
}
