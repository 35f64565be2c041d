//! Frames written out by hand, and the flow that each is of.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may fail")]

extern crate std;
use std::vec::Vec;

use super::*;
use crate::wire::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, PROTOCOL_TCP, PROTOCOL_UDP, TPID_C, TPID_S};

/// An Ethernet header with tags, each by type and VLAN, and a type at its end.
fn ethernet(tags: &[(u16, u16)], ethertype: u16) -> Vec<u8> {
    let mut frame = Vec::from([2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1]);
    for (tpid, content) in tags {
        frame.extend(tpid.to_be_bytes());
        frame.extend(content.to_be_bytes());
    }
    frame.extend(ethertype.to_be_bytes());
    frame
}

fn ipv4(options: usize, fragment: u16, protocol: u8, rest: &[u8]) -> Vec<u8> {
    let total = u16::try_from(20 + options + rest.len()).unwrap();
    let mut packet = Vec::from([0x45 + u8::try_from(options / 4).unwrap(), 0]);
    packet.extend(total.to_be_bytes());
    packet.extend([0, 7]);
    packet.extend(fragment.to_be_bytes());
    packet.extend([64, protocol, 0, 0, 198, 18, 0, 1, 198, 18, 0, 2]);
    packet.extend(std::iter::repeat_n(1, options));
    packet.extend(rest);
    packet
}

fn ipv6(next: u8, rest: &[u8]) -> Vec<u8> {
    let mut packet = Vec::from([0x60, 0, 0, 0]);
    packet.extend(u16::try_from(rest.len()).unwrap().to_be_bytes());
    packet.extend([next, 64]);
    for last in [1, 2] {
        packet.extend([0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last]);
    }
    packet.extend(rest);
    packet
}

/// A TCP header with four bytes of options, then `payload` bytes.
fn tcp_segment(payload: usize) -> Vec<u8> {
    let mut segment =
        Vec::from([0x30, 0x39, 0, 80, 0x01, 0x02, 0x03, 0x04, 0, 0, 0, 0, 0x60, TCP_ACK, 0x12, 0x34, 0, 0, 0, 0]);
    segment.extend([1, 1, 1, 1]);
    segment.extend(std::iter::repeat_n(0, payload));
    segment
}

fn parsed(frame: &[u8]) -> Parsed {
    parse(frame, u32::try_from(frame.len()).unwrap(), false).unwrap()
}

fn tail(source_port: u16, destination_port: u16, protocol: u8, kind: u8) -> FlowTail {
    FlowTail { source_port, destination_port, protocol, kind, inner: 0 }
}

const PORTS: [u8; 8] = [0x30, 0x39, 0, 53, 0, 8, 0, 0];

#[test]
fn options_do_not_hide_the_ports() {
    for options in [0, 4, 40] {
        let frame = [ethernet(&[], ETHERTYPE_IPV4), ipv4(options, 0, PROTOCOL_UDP, &PORTS)].concat();
        assert_eq!(parsed(&frame).tail, tail(12345, 53, PROTOCOL_UDP, KIND_IPV4), "{options} bytes of options");
        assert_eq!(parsed(&frame).addresses_at, 26);
    }
}

#[test]
fn every_part_of_a_packet_in_fragments_is_in_the_class_without_ports() {
    for fragment in [0x2000, 0x2010, 0x0010] {
        let frame = [ethernet(&[], ETHERTYPE_IPV4), ipv4(0, fragment, PROTOCOL_UDP, &PORTS)].concat();
        assert_eq!(parsed(&frame).tail, tail(0, 0, PROTOCOL_UDP, KIND_IPV4 | KIND_FRAGMENT), "{fragment:#x}");
    }
    // The control: "do not fragment" is no fragment.
    let frame = [ethernet(&[], ETHERTYPE_IPV4), ipv4(0, 0x4000, PROTOCOL_UDP, &PORTS)].concat();
    assert_eq!(parsed(&frame).tail.kind, KIND_IPV4);
    for (offset, kind) in [(0x0001, KIND_FRAGMENT), (0x0008, KIND_FRAGMENT), (0x0000, 0)] {
        let header = [[PROTOCOL_UDP, 0].as_slice(), &u16::to_be_bytes(offset), &[0, 0, 0, 9], &PORTS].concat();
        let frame = [ethernet(&[], ETHERTYPE_IPV6), ipv6(44, &header)].concat();
        assert_eq!(parsed(&frame).tail.kind, KIND_IPV6 | kind, "{offset:#x}");
        assert_eq!(parsed(&frame).tail.source_port, if kind == 0 { 12345 } else { 0 }, "a packet in one part");
    }
}

#[test]
fn tags_are_part_of_the_key_and_a_third_one_is_payload() {
    let frame = [ethernet(&[(TPID_S, 0x6005), (TPID_C, 7)], ETHERTYPE_IPV4), ipv4(0, 0, PROTOCOL_UDP, &PORTS)].concat();
    let found = parsed(&frame);
    assert_eq!(
        (found.outer, found.tail.inner),
        (FLOW_TAG | FLOW_TAG_SERVICE | 5, FLOW_TAG | 7),
        "without its priority"
    );
    assert_eq!((found.tail.source_port, found.addresses_at), (12345, 34));
    let frame = ethernet(&[(TPID_C, 1), (TPID_C, 2), (TPID_C, 3)], ETHERTYPE_IPV4);
    assert_eq!(parsed(&frame).tail.source_port, TPID_C);
    assert_eq!(parsed(&frame).tail.kind, KIND_LINK);
}

#[test]
fn extension_headers_are_looked_through_as_many_as_are_recommended() {
    let options = |next| [next, 0, 1, 4, 0, 0, 0, 0];
    let authentication = [PROTOCOL_UDP, 4, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let rest = [options(43).as_slice(), &options(60), &options(51), &authentication, &PORTS].concat();
    let frame = [ethernet(&[], ETHERTYPE_IPV6), ipv6(0, &rest)].concat();
    assert_eq!(parsed(&frame).tail, tail(12345, 53, PROTOCOL_UDP, KIND_IPV6));
    let deep: Vec<u8> = (0..=FLOW_EXTENSIONS).flat_map(|_| options(60)).chain(PORTS).collect();
    let frame = [ethernet(&[], ETHERTYPE_IPV6), ipv6(60, &deep)].concat();
    assert_eq!(parsed(&frame).tail, tail(0, 0, 60, KIND_IPV6), "one too many");
}

#[test]
fn what_tcp_says_ends_where_ip_says_and_for_a_super_frame_where_the_frame_does() {
    let mut frame = [ethernet(&[], ETHERTYPE_IPV4), ipv4(0, 0, PROTOCOL_TCP, &tcp_segment(3))].concat();
    frame.extend([0; 9]);
    let tcp = parsed(&frame).tcp.unwrap();
    let wanted = Tcp { sequence: 0x0102_0304, payload_bytes: 3, window: 0x1234, flags: TCP_ACK };
    assert_eq!(tcp, wanted, "padding is no payload");
    let whole = parse(frame.as_slice(), u32::try_from(frame.len()).unwrap(), true).unwrap();
    assert_eq!(whole.tcp.unwrap().payload_bytes, 12);
    let frame = [ethernet(&[], ETHERTYPE_IPV6), ipv6(PROTOCOL_TCP, &tcp_segment(5))].concat();
    assert_eq!(parsed(&frame).tcp.unwrap().payload_bytes, 5);
}

#[test]
fn icmp_is_filed_by_type_and_code() {
    let frame = [ethernet(&[], ETHERTYPE_IPV4), ipv4(0, 0, 1, &[3, 4, 0, 0])].concat();
    assert_eq!(parsed(&frame).tail, tail(3, 4, 1, KIND_IPV4));
    let frame = [ethernet(&[], ETHERTYPE_IPV6), ipv6(58, &[135, 0, 0, 0])].concat();
    assert_eq!(parsed(&frame).tail, tail(135, 0, 58, KIND_IPV6));
}

#[test]
fn what_is_no_ip_is_filed_by_its_type_and_lengths_all_together() {
    assert_eq!(parsed(&ethernet(&[], 0x0806)).tail, tail(0x0806, 0, 0, KIND_LINK));
    assert_eq!(parsed(&ethernet(&[], 0x05dc)).tail, tail(0, 0, 0, KIND_LINK));
}

#[test]
fn cut_at_every_byte_it_has_its_flow_or_is_unparsable_and_never_a_guessed_port() {
    for (ethertype, header, frame) in [
        (ETHERTYPE_IPV4, 34, [ethernet(&[], ETHERTYPE_IPV4), ipv4(0, 0, PROTOCOL_UDP, &PORTS)].concat()),
        (ETHERTYPE_IPV6, 54, [ethernet(&[], ETHERTYPE_IPV6), ipv6(PROTOCOL_UDP, &PORTS)].concat()),
    ] {
        for len in 14..frame.len() {
            let answer = parse(&frame[..len], u32::try_from(len).unwrap(), false);
            match answer {
                Err(Unparsable) => assert!(len < header, "{ethertype:#x} cut at {len}"),
                Ok(found) => {
                    assert!(len >= header, "{ethertype:#x} cut at {len}");
                    let whole = len >= header + 4;
                    assert_eq!(found.tail.source_port, if whole { 12345 } else { 0 });
                    assert_eq!(found.tail.kind & KIND_CUT != 0, !whole);
                }
            }
        }
    }
    let wrong = [ethernet(&[], ETHERTYPE_IPV4), ipv6(PROTOCOL_UDP, &PORTS)].concat();
    assert_eq!(parse(wrong.as_slice(), 62, false), Err(Unparsable), "another version than its type says");
}
