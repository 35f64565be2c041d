//! Packets of guests, written out: guest 1 has 198.18.0.1 and `2001:db8::1`, guest 2 the next.

use switch_common::flow::{FlowKey4, FlowKey6, FlowPair, FlowTail, KIND_IPV4, KIND_IPV6, KIND_LINK, TCP_ACK};

use super::bench::mac;
use super::tap::HEADER_BYTES;
use crate::flow::RawKey;

pub(super) const V4: [u8; 2] = [0x08, 0x00];
pub(super) const V6: [u8; 2] = [0x86, 0xdd];
pub(super) const TCP: u8 = 6;
pub(super) const UDP: u8 = 17;

/// A frame of guest 1 for guest 2, from what stands behind the addresses.
pub(super) fn from_1(parts: &[&[u8]]) -> Vec<u8> {
    between(1, 2, parts)
}

/// A frame of one guest for another.
pub(super) fn between(from: u16, to: u16, parts: &[&[u8]]) -> Vec<u8> {
    [mac(to).0.as_slice(), &mac(from).0, &parts.concat()].concat()
}

/// An IPv4 packet.
pub(super) fn ipv4(protocol: u8, payload: &[u8]) -> Vec<u8> {
    ipv4_with(&[], 0, protocol, payload)
}

/// The same with options, and with what fragmentation says.
pub(super) fn ipv4_with(options: &[u8], fragment: u16, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let total = u16::try_from(20 + options.len() + payload.len()).unwrap().to_be_bytes();
    let version = 0x45 + u8::try_from(options.len() / 4).unwrap();
    let [high, low] = fragment.to_be_bytes();
    let fixed = [version, 0, total[0], total[1], 0, 7, high, low, 64, protocol, 0, 0, 198, 18, 0, 1, 198, 18, 0, 2];
    [&fixed[..], options, payload].concat()
}

/// An IPv6 packet.
pub(super) fn ipv6(next: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).unwrap().to_be_bytes();
    [&[0x60, 0, 0, 0, length[0], length[1], next, 64][..], &address6(1), &address6(2), payload].concat()
}

fn address6(last: u8) -> [u8; 16] {
    [0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last]
}

/// A UDP datagram with as many zeros as payload.
pub(super) fn udp(source: u16, destination: u16, payload_bytes: usize) -> Vec<u8> {
    let length = u16::try_from(8 + payload_bytes).unwrap();
    [[source, destination, length, 0].map(u16::to_be_bytes).as_flattened(), &vec![0; payload_bytes]].concat()
}

/// A frame of guest 1 with a UDP datagram over IPv4: 60 bytes, padded.
pub(super) fn small(source: u16, destination: u16) -> Vec<u8> {
    from_1(&[&V4, &ipv4(UDP, &udp(source, destination, 18))])
}

/// A TCP segment from port 5001 to 80.
#[derive(Clone, Copy, Debug)]
pub(super) struct Segment {
    pub(super) sequence: u32,
    pub(super) flags: u8,
    pub(super) window: u16,
    pub(super) payload_bytes: usize,
}

impl Segment {
    /// Data, or an acknowledgement without.
    pub(super) fn at(sequence: u32, payload_bytes: usize) -> Self {
        Self { sequence, flags: TCP_ACK, window: 1000, payload_bytes }
    }

    pub(super) fn flags(self, flags: u8) -> Self {
        Self { flags, ..self }
    }

    pub(super) fn window(self, window: u16) -> Self {
        Self { window, ..self }
    }

    fn bytes(self) -> Vec<u8> {
        let Self { sequence, flags, window, payload_bytes } = self;
        let mut bytes = [5001, 80].map(u16::to_be_bytes).as_flattened().to_vec();
        bytes.extend(sequence.to_be_bytes());
        bytes.extend([0, 0, 0, 1, 0x50, flags]);
        bytes.extend([window, 0, 0].map(u16::to_be_bytes).as_flattened());
        bytes.resize(20 + payload_bytes, 0x55);
        bytes
    }

    /// In a frame of guest 1, over IPv4.
    pub(super) fn over_ipv4(self) -> Vec<u8> {
        from_1(&[&V4, &ipv4(TCP, &self.bytes())])
    }

    /// In a frame of guest 1, over IPv6.
    pub(super) fn over_ipv6(self) -> Vec<u8> {
        from_1(&[&V6, &ipv6(TCP, &self.bytes())])
    }
}

/// A driver's request to cut a frame with `header_bytes` of headers, the last `l4_bytes` of them TCP's or UDP's, into segments.
pub(super) fn request(kind: u8, header_bytes: usize, l4_bytes: usize, gso_size: u16) -> [u8; HEADER_BYTES] {
    let [header, start] = [header_bytes, header_bytes - l4_bytes].map(|bytes| u16::try_from(bytes).unwrap());
    let offset = if l4_bytes == 8 { 6 } else { 16 };
    let mut bytes = [1, kind, 0, 0, 0, 0, 0, 0, 0, 0];
    bytes[2..].copy_from_slice([header, gso_size, start, offset].map(u16::to_le_bytes).as_flattened());
    bytes
}

/// Of guest 1's frames for guest 2 the key of a flow over IPv4.
pub(super) fn key4(outer: u16, tail: FlowTail) -> RawKey {
    let (source_address, destination_address) = ([198, 18, 0, 1], [198, 18, 0, 2]);
    let tail = FlowTail { kind: tail.kind | KIND_IPV4, ..tail };
    RawKey::V4(FlowKey4 { pair: pair(outer), source_address, destination_address, tail })
}

/// The same over IPv6.
pub(super) fn key6(outer: u16, tail: FlowTail) -> RawKey {
    let (source_address, destination_address) = (address6(1), address6(2));
    let tail = FlowTail { kind: tail.kind | KIND_IPV6, ..tail };
    RawKey::V6(FlowKey6 { pair: pair(outer), source_address, destination_address, tail })
}

/// The same without IP.
pub(super) fn link(outer: u16, inner: u16, ethertype: u16) -> RawKey {
    let tail = FlowTail { source_port: ethertype, kind: KIND_LINK, inner, ..FlowTail::default() };
    RawKey::V4(FlowKey4 { pair: pair(outer), tail, ..FlowKey4::default() })
}

fn pair(outer: u16) -> FlowPair {
    FlowPair { destination: mac(2).0, source: mac(1).0, ingress: 1, outer }
}

/// The end of a key with ports, or with an ICMP type and code.
pub(super) fn tail(protocol: u8, source_port: u16, destination_port: u16) -> FlowTail {
    FlowTail { source_port, destination_port, protocol, ..FlowTail::default() }
}
