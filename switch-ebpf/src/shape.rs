//! Which flow a frame is of: its key, in words, and what its TCP says.
//!
//! Plain frames (no tag; IPv4 without options or IPv6 without extensions; TCP or UDP) are read in line, with one comparison against the
//! end of the packet. Everything else goes by `switch_common::flow::parse`, in a function of its own.

use switch_common::flow::{self, FLOW_ALTERNATE, KIND_IPV4, KIND_IPV6, KIND_LINK, KIND_MASK, Parsed, Tcp};
use switch_common::wire::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, PROTOCOL_TCP, PROTOCOL_UDP};

use crate::maps::SHAPE;
use crate::packet::{Packet, RawEthernet, Skb, within_headers};

/// Words of the longer key.
pub(crate) const WORDS: usize = 7;
/// The life bit, in the word that it is in.
pub(crate) const ALTERNATE: u64 = (FLOW_ALTERNATE as u64) << 32;

/// What of a frame is known of its flow.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Shape {
    /// The key: four words, or seven of IPv6.
    pub(crate) words: [u64; WORDS],
    /// `KIND_*` without its flags; 0: unparsable.
    pub(crate) kind: u8,
    /// Whether `tcp` is: not 0.
    pub(crate) is_tcp: u8,
    /// What TCP says.
    pub(crate) tcp: Tcp,
}

/// Where a frame that is not plain is read to.
#[repr(C)]
pub(crate) struct AnyShape {
    shape: Shape,
    parsed: Parsed,
}

#[repr(C, packed(2))]
#[derive(Clone, Copy)]
struct RawPorts {
    source: u16,
    destination: u16,
}

/// An IPv4 header without options, and the ports behind it.
#[repr(C, packed(2))]
#[derive(Clone, Copy)]
struct RawIpv4 {
    ethernet: RawEthernet,
    version: u8,
    service: u8,
    total: u16,
    id: u16,
    fragment: u16,
    ttl: u8,
    protocol: u8,
    checksum: u16,
    source: u32,
    destination: u32,
    ports: RawPorts,
}

/// An IPv6 header, and the ports behind it.
#[repr(C, packed(2))]
#[derive(Clone, Copy)]
struct RawIpv6 {
    ethernet: RawEthernet,
    version: u16,
    label: u16,
    payload: u16,
    next: u8,
    hops: u8,
    source: [u64; 2],
    destination: [u64; 2],
    ports: RawPorts,
}

/// A TCP header behind its ports.
#[repr(C, packed(2))]
#[derive(Clone, Copy)]
struct RawTcp {
    sequence: u32,
    acknowledgement: u32,
    offset: u8,
    flags: u8,
    window: u16,
}

const IPV4_PORTS_AT: usize = core::mem::offset_of!(RawIpv4, ports);
const IPV6_PORTS_AT: usize = core::mem::offset_of!(RawIpv6, ports);

impl Shape {
    /// Reads the frame. `pair`: the first two words of its key.
    #[inline(always)]
    pub(crate) fn of(skb: Skb, pair: [u64; 2]) -> Self {
        let mut shape = Self { words: [pair[0], pair[1], 0, 0, 0, 0, 0], kind: 0, is_tcp: 0, tcp: Tcp::default() };
        let packet = Packet::of(skb);
        if !packet.is_tagged() {
            if let Some(ip) = packet.at::<RawIpv4>(0) {
                // SAFETY: `at` has compared it with the end of the packet.
                let ip = unsafe { &*ip };
                let plain = ip.ethernet.ethertype == ETHERTYPE_IPV4.to_be()
                    && ip.version == 0x45
                    && ip.fragment & 0xff3f == 0
                    && (ip.protocol == PROTOCOL_TCP || ip.protocol == PROTOCOL_UDP);
                if plain {
                    shape.words[2] = u64::from(ip.source) | u64::from(ip.destination) << 32;
                    shape.words[3] = tail(ip.ports, ip.protocol, KIND_IPV4);
                    shape.kind = KIND_IPV4;
                    if ip.protocol == PROTOCOL_TCP {
                        let end = 14 + u32::from(u16::from_be(ip.total));
                        shape.read_tcp(skb, &packet, IPV4_PORTS_AT, end);
                    }
                    return shape;
                }
            }
            if let Some(ip) = packet.at::<RawIpv6>(0) {
                // SAFETY: `at` has compared it with the end of the packet.
                let ip = unsafe { &*ip };
                let plain = ip.ethernet.ethertype == ETHERTYPE_IPV6.to_be()
                    && ip.version & 0x00f0 == 0x0060
                    && (ip.next == PROTOCOL_TCP || ip.next == PROTOCOL_UDP);
                if plain {
                    let (source, destination) = (ip.source, ip.destination);
                    shape.words[2] = source[0];
                    shape.words[3] = source[1];
                    shape.words[4] = destination[0];
                    shape.words[5] = destination[1];
                    shape.words[6] = tail(ip.ports, ip.next, KIND_IPV6);
                    shape.kind = KIND_IPV6;
                    if ip.next == PROTOCOL_TCP {
                        let payload = u32::from(u16::from_be(ip.payload));
                        // 0: a jumbogram or a super-frame.
                        let end = if payload == 0 { u32::MAX } else { 54 + payload };
                        shape.read_tcp(skb, &packet, IPV6_PORTS_AT, end);
                    }
                    return shape;
                }
            }
        }
        let Some(any) = SHAPE.get_ptr_mut(0) else { return shape };
        // SAFETY: this processor's own element.
        let any = unsafe { &mut *any };
        any.shape = shape;
        any.parsed = Parsed::default();
        read_any(skb, any);
        any.shape
    }

    /// Reads the TCP header behind its ports; `end`: where the IP packet ends by its own header, 14 if it does not say.
    #[inline(always)]
    fn read_tcp(&mut self, skb: Skb, packet: &Packet, ports_at: usize, end: u32) {
        let Some(tcp) = packet.at::<RawTcp>(ports_at + size_of::<RawPorts>()) else { return };
        // SAFETY: `at` has compared it with the end of the packet.
        let tcp = unsafe { &*tcp };
        let len = skb.len();
        let end = if skb.gso_size() != 0 || end > len || end == 14 { len } else { end };
        let payload_at = ports_at as u32 + u32::from(tcp.offset >> 4) * 4;
        if tcp.offset < 0x50 || payload_at > end {
            return;
        }
        self.is_tcp = 1;
        self.tcp = Tcp {
            sequence: u32::from_be(tcp.sequence),
            payload_bytes: end - payload_at,
            window: u16::from_be(tcp.window),
            flags: tcp.flags,
        };
    }
}

/// Bytes of all headers of an untagged TCP segment over IP without options or extensions; 0: it is something else.
#[inline(always)]
pub(crate) fn plain_tcp_header_bytes(packet: &Packet) -> u32 {
    if packet.is_tagged() {
        return 0;
    }
    let mut ports_at = 0;
    if let Some(ip) = packet.at::<RawIpv4>(0) {
        // SAFETY: `at` has compared it with the end of the packet.
        let ip = unsafe { &*ip };
        if ip.ethernet.ethertype == ETHERTYPE_IPV4.to_be() && ip.version == 0x45 && ip.protocol == PROTOCOL_TCP {
            ports_at = IPV4_PORTS_AT;
        }
    }
    if let Some(ip) = packet.at::<RawIpv6>(0) {
        // SAFETY: as above.
        let ip = unsafe { &*ip };
        if ip.ethernet.ethertype == ETHERTYPE_IPV6.to_be() && ip.next == PROTOCOL_TCP {
            ports_at = IPV6_PORTS_AT;
        }
    }
    if ports_at == 0 {
        return 0;
    }
    let Some(tcp) = packet.at::<RawTcp>(ports_at + size_of::<RawPorts>()) else { return 0 };
    // SAFETY: as above.
    let offset = u32::from(unsafe { (*tcp).offset } >> 4);
    if offset < 5 { 0 } else { ports_at as u32 + offset * 4 }
}

#[inline(always)]
fn tail(ports: RawPorts, protocol: u8, kind: u8) -> u64 {
    u64::from(u16::from_be(ports.source))
        | u64::from(u16::from_be(ports.destination)) << 16
        | u64::from(protocol) << 32
        | u64::from(kind) << 40
}

/// Reads what is not plain.
#[inline(never)]
fn read_any(skb: Skb, any: &mut AnyShape) -> u64 {
    if skb.is_scattered() {
        // What cannot be pulled is found to be cut short.
        skb.pull_headers();
    }
    let packet = Packet::of(skb);
    let AnyShape { shape, parsed } = any;
    if flow::parse_into(&packet, skb.frame_bytes(), skb.gso_size() != 0, parsed).is_err() {
        return 0;
    }
    let Parsed { outer, tail, addresses_at, tcp } = *parsed;
    let kind = tail.kind & KIND_MASK;
    let addresses_at = within_headers(addresses_at);
    shape.words[1] |= u64::from(outer) << 48;
    let last = u64::from(tail.source_port)
        | u64::from(tail.destination_port) << 16
        | u64::from(tail.protocol) << 32
        | u64::from(tail.kind) << 40
        | u64::from(tail.inner) << 48;
    if kind == KIND_LINK {
        shape.words[3] = last;
    } else if kind == KIND_IPV4 {
        let Some(addresses) = packet.words::<1>(addresses_at) else { return 0 };
        shape.words[2] = addresses[0];
        shape.words[3] = last;
    } else {
        let Some(addresses) = packet.words::<4>(addresses_at) else { return 0 };
        shape.words[2] = addresses[0];
        shape.words[3] = addresses[1];
        shape.words[4] = addresses[2];
        shape.words[5] = addresses[3];
        shape.words[6] = last;
    }
    if let Some(tcp) = tcp {
        shape.is_tcp = 1;
        shape.tcp = tcp;
    }
    // Link flows are in the map of the shorter keys.
    shape.kind = if kind == KIND_IPV6 { KIND_IPV6 } else { KIND_IPV4 };
    0
}
