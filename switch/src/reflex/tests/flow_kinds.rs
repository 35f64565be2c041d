//! Every kind of frame in the flow it belongs to, to the byte.

use std::collections::HashMap;

use switch_common::Tally;
use switch_common::flow::{FLOW_EXTENSIONS, FLOW_TAG, FLOW_TAG_SERVICE, FlowTail, KIND_CUT, KIND_FRAGMENT};

use super::bench::{Bench, id};
use super::books::plain;
use super::lab::enter;
use super::packets::{Segment, TCP, UDP, V4, V6, from_1, ipv4, ipv4_with, ipv6, key4, key6, link, request, tail, udp};
use crate::flow::RawKey;
use crate::reflex::tally;

const C7: [u8; 4] = [0x81, 0x00, 0x60, 0x07];
const S5: [u8; 4] = [0x88, 0xa8, 0x00, 0x05];
const C: u16 = FLOW_TAG | 7;
const S: u16 = FLOW_TAG | FLOW_TAG_SERVICE | 5;
const PLAIN_UDP: FlowTail = FlowTail { source_port: 1000, destination_port: 53, protocol: UDP, kind: 0, inner: 0 };

/// Extension headers of eight bytes, each of the first type named, then that of what follows.
fn extensions(kinds: &[u8], last: u8) -> Vec<u8> {
    let next = kinds.iter().skip(1).chain([&last]);
    next.flat_map(|next| [*next, 0, 1, 4, 0, 0, 0, 0]).collect()
}

fn fragment6(next: u8, offset: u16) -> Vec<u8> {
    let [high, low] = offset.to_be_bytes();
    [&[next, 0, high, low, 0, 0, 0, 9][..], &udp(1000, 53, 40)].concat()
}

fn tagged_kinds() -> Vec<(Vec<u8>, RawKey)> {
    let (four, six) = (ipv4(UDP, &udp(1000, 53, 30)), ipv6(UDP, &udp(1000, 53, 30)));
    let inner = |inner| FlowTail { inner, ..PLAIN_UDP };
    vec![
        (from_1(&[&V4, &four]), key4(0, PLAIN_UDP)),
        (from_1(&[&C7, &V4, &four]), key4(C, PLAIN_UDP)),
        (from_1(&[&S5, &V4, &four]), key4(S, PLAIN_UDP)),
        (from_1(&[&S5, &C7, &V4, &four]), key4(S, inner(C))),
        (from_1(&[&C7, &S5, &V4, &four]), key4(C, inner(S))),
        // The priority tag of VLAN 0 is a tag.
        (from_1(&[&[0x81, 0, 0xe0, 0], &V4, &four]), key4(FLOW_TAG, PLAIN_UDP)),
        (from_1(&[&V6, &six]), key6(0, PLAIN_UDP)),
        (from_1(&[&S5, &C7, &V6, &six]), key6(S, inner(C))),
        (from_1(&[&S5, &C7, &[0x81, 0, 0, 9], &V6, &six]), link(S, C, 0x8100)),
    ]
}

fn ip_kinds() -> Vec<(Vec<u8>, RawKey)> {
    let datagram = udp(1000, 53, 40);
    let fragment = |protocol| FlowTail { protocol, kind: KIND_FRAGMENT, ..FlowTail::default() };
    let cut = |protocol| FlowTail { protocol, kind: KIND_CUT, ..FlowTail::default() };
    let four = |packet: &[u8]| from_1(&[&V4, packet]);
    let six = |packet: &[u8]| from_1(&[&V6, packet]);
    let beyond = vec![60; FLOW_EXTENSIONS + 1];
    vec![
        (four(&ipv4_with(&[1; 40], 0, UDP, &udp(1000, 54, 40))), key4(0, tail(UDP, 1000, 54))),
        // Of a packet in parts: the first with its ports, and one without.
        (four(&ipv4_with(&[], 0x2000, UDP, &datagram)), key4(0, fragment(UDP))),
        (four(&ipv4_with(&[], 0x0010, TCP, &datagram)), key4(0, fragment(TCP))),
        (four(&ipv4(UDP, &[9, 9, 9])), key4(0, cut(UDP))),
        (four(&ipv4(1, &[8, 0, 0, 0, 0, 1, 0, 1])), key4(0, tail(1, 8, 0))),
        (four(&ipv4(132, &datagram)), key4(0, tail(132, 1000, 53))),
        // No ports: GRE, and the authentication header over IPv4.
        (four(&ipv4(47, &datagram)), key4(0, tail(47, 0, 0))),
        (four(&ipv4(51, &datagram)), key4(0, tail(51, 0, 0))),
        (six(&ipv6(0, &[&extensions(&[0, 43, 60], TCP)[..], &datagram].concat())), key6(0, tail(TCP, 1000, 53))),
        (six(&ipv6(60, &[&extensions(&beyond, UDP)[..], &datagram].concat())), key6(0, tail(60, 0, 0))),
        (six(&ipv6(44, &fragment6(UDP, 1))), key6(0, fragment(UDP))),
        (six(&ipv6(44, &fragment6(6, 0x100))), key6(0, fragment(TCP))),
        (six(&ipv6(44, &fragment6(132, 0))), key6(0, tail(132, 1000, 53))),
        (six(&ipv6(58, &[135, 0, 0, 0, 0, 0, 0, 0])), key6(0, tail(58, 135, 0))),
        (six(&ipv6(59, &[])), key6(0, tail(59, 0, 0))),
        (six(&ipv6(TCP, &[])), key6(0, cut(TCP))),
    ]
}

fn link_kinds() -> Vec<(Vec<u8>, RawKey)> {
    let kind = |ethertype: u16, rest: &[u8]| from_1(&[&ethertype.to_be_bytes(), rest]);
    vec![
        (kind(0x0806, &[0; 46]), link(0, 0, 0x0806)),
        (kind(0x88cc, &[2, 7, 4]), link(0, 0, 0x88cc)),
        (kind(0x0600, &[]), link(0, 0, 0x0600)),
        // IEEE 802.3 with LLC: a length and no type.
        (kind(46, &[0x42; 46]), link(0, 0, 0)),
        (from_1(&[&C7, &[0, 3], &[0x42, 0x42, 3]]), link(C, 0, 0)),
    ]
}

#[test]
fn every_kind_of_frame_is_in_its_own_flow_to_the_byte() {
    let Some(lab) = enter("flow_kinds::every_kind_of_frame_is_in_its_own_flow_to_the_byte") else { return };
    let mut bench = Bench::new(&lab);
    bench.decide(1, 2, |_| {});
    let kinds = [tagged_kinds(), ip_kinds(), link_kinds()].concat();
    let mut wanted = HashMap::new();
    for (times, (frame, key)) in (1..).zip(&kinds) {
        (0..times).for_each(|_| bench.send(1, frame));
        assert!(wanted.insert(*key, plain(times, times * frame.len() as u64)).is_none(), "{key:?} twice");
        let arrived = bench.received(2);
        assert!(arrived.len() as u64 == times && arrived.iter().all(|got| got == frame), "{key:?}");
    }
    let found: HashMap<RawKey, Tally> = bench.flows().iter().map(|(key, flow)| (*key, tally(flow))).collect();
    for (key, tally) in &found {
        assert_eq!(wanted.get(key), Some(tally), "{key:?}");
    }
    assert_eq!(found.len(), wanted.len());
    bench.balance();
}

#[test]
fn what_promises_ip_and_is_not_is_counted_as_unparsable() {
    let Some(lab) = enter("flow_kinds::what_promises_ip_and_is_not_is_counted_as_unparsable") else { return };
    let mut bench = Bench::new(&lab);
    bench.decide(1, 2, |_| {});
    let whole = [ipv4(UDP, &udp(1, 2, 0)), ipv6(UDP, &udp(1, 2, 0))];
    let mut packets = vec![(V4, vec![]), (V6, vec![]), (V4, whole[1].clone()), (V6, whole[0].clone())];
    packets.extend([(V4, whole[0][..19].to_vec()), (V6, whole[1][..39].to_vec())]);
    // An IPv4 header shorter than one may be, and one that is not all there.
    packets.extend([0x44, 0x4f].map(|version| (V4, [&[version], &whole[0][1..]].concat())));
    let mut bytes = 0;
    for (ethertype, packet) in &packets {
        for tags in [&[][..], &[C7], &[S5, C7]] {
            let frame = from_1(&[tags.as_flattened(), ethertype, packet]);
            // The kernel frees a tagged frame with fewer than two bytes behind its tag, before any program.
            if tags.is_empty() || frame.len() >= 20 {
                bench.send(1, &frame);
                assert_eq!(bench.received(2), std::slice::from_ref(&frame), "unparsable is not undeliverable");
                bytes += frame.len() as u64;
            }
        }
    }
    let counters = bench.reflex.counters(id(1)).unwrap();
    assert_eq!(counters.unparsable, plain(counters.ingress.frames, bytes));
    assert_eq!((bench.flows().len(), counters.overflow.frames), (0, 0));
    bench.balance();
}

/// `VIRTIO_NET_HDR_GSO_UDP_L4` (`include/uapi/linux/virtio_net.h`).
const GSO_UDP_L4: u8 = 5;

/// Taps take them from Linux 6.2 on; earlier ones refuse the write.
fn taps_take_udp_super_frames() -> bool {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let mut numbers = release.split(['.', '-']).map_while(|word| word.parse::<u32>().ok());
    (numbers.next(), numbers.next()) >= (Some(6), Some(2))
}

#[test]
fn a_super_frame_is_in_its_flow_with_its_wire_frames() {
    let Some(lab) = enter("flow_kinds::a_super_frame_is_in_its_flow_with_its_wire_frames") else { return };
    let mut bench = Bench::new(&lab);
    bench.settings(|_| {});
    bench.decide(1, 2, |_| {});
    let segment = Segment::at(1, 20_001);
    let datagrams = udp(1000, 53, 5000);
    // Kind of the request, headers, TCP's or UDP's own among them, bytes per segment, segments.
    let frames = [
        (1, 54, 20, 1000, 21, segment.over_ipv4(), key4(0, tail(TCP, 5001, 80))),
        (4, 74, 20, 1440, 14, segment.over_ipv6(), key6(0, tail(TCP, 5001, 80))),
        (1, 58, 20, 20_001, 1, from_1(&[&C7, &segment.over_ipv4()[12..]]), key4(C, tail(TCP, 5001, 80))),
        (1, 58, 20, 1400, 15, from_1(&[&S5, &segment.over_ipv4()[12..]]), key4(S, tail(TCP, 5001, 80))),
        (GSO_UDP_L4, 42, 8, 1250, 4, from_1(&[&V4, &ipv4(UDP, &datagrams)]), key4(0, PLAIN_UDP)),
    ];
    for (kind, headers, own, gso_size, segments, frame, key) in frames {
        if kind == GSO_UDP_L4 && !taps_take_udp_super_frames() {
            continue;
        }
        bench.guests[0].send_with(request(kind, headers, own, gso_size), &frame);
        let wanted = Tally {
            frames: 1,
            bytes: frame.len() as u64,
            extra_frames: segments - 1,
            extra_bytes: (segments - 1) * headers as u64,
        };
        assert_eq!(tally(&bench.flows()[&key]), wanted, "{key:?}");
    }
    bench.balance();
}
