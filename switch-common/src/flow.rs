//! What a flow is: its key in the maps, what is kept of it, and the parser that finds the one in a frame.
//!
//! Both halves parse by [`parse`]: the reflex when a frame is not of the plainest shape, user space wherever it needs to know
//! which flow a frame is of. A frame has one flow, or none: then it is *unparsable*, which says that its EtherType promises
//! an IP header that is not whole.

use crate::wire::{
    Bytes, ETHERNET_BYTES, ETHERTYPE_IPV4, ETHERTYPE_IPV6, PROTOCOL_TCP, PROTOCOL_UDP, TAG_BYTES, TPID_C, TPID_S,
    Tagged,
};

/// Set in [`FlowPair::ingress`] of an entry that stands in for one that is dead but not yet deleted.
pub const FLOW_ALTERNATE: u16 = 0x8000;
/// Bits of [`FlowPair::ingress`] that hold the port id.
pub const FLOW_PORT_MASK: u16 = 0x0fff;

/// A tag of a key: there is one.
pub const FLOW_TAG: u16 = 0x8000;
/// It is a service tag (802.1ad), not a customer tag (802.1Q).
pub const FLOW_TAG_SERVICE: u16 = 0x1000;
/// Bits of a tag that hold the VLAN's id.
pub const FLOW_TAG_VID: u16 = 0x0fff;
/// Tags that are part of a key. What a third tag hides is accounted by that tag's own type.
pub const FLOW_TAGS: usize = 2;

/// No IP: the source port field holds the EtherType, 0 for an 802.3 length.
pub const KIND_LINK: u8 = 2;
/// IPv4.
pub const KIND_IPV4: u8 = 4;
/// IPv6.
pub const KIND_IPV6: u8 = 6;
/// Bits of a kind that hold one of the three above.
pub const KIND_MASK: u8 = 0x0f;
/// Part of a packet in fragments, the first one too: no ports, so that all parts are in one flow.
pub const KIND_FRAGMENT: u8 = 0x10;
/// The protocol has ports, but they are cut short.
pub const KIND_CUT: u8 = 0x20;

/// IPv6 extension headers looked through, before a fragment header: as many as RFC 8200, section 4.1 recommends in one packet. What
/// lies behind more, or behind a fragment header, is accounted by the next one's protocol number.
pub const FLOW_EXTENSIONS: usize = 6;

/// Bytes of an IPv4 header without options.
pub const IPV4_BYTES: usize = 20;
/// Bytes of an IPv6 header.
pub const IPV6_BYTES: usize = 40;

const PROTOCOL_ICMP: u8 = 1;
const PROTOCOL_DCCP: u8 = 33;
const PROTOCOL_ICMPV6: u8 = 58;
const PROTOCOL_SCTP: u8 = 132;
const PROTOCOL_UDPLITE: u8 = 136;

/// The first half of every key: who, from which port, under which tags.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct FlowPair {
    /// Destination address.
    pub destination: [u8; 6],
    /// Source address.
    pub source: [u8; 6],
    /// Ingress port id, and [`FLOW_ALTERNATE`].
    pub ingress: u16,
    /// The outer tag: 0, or [`FLOW_TAG`] with the VLAN's id.
    pub outer: u16,
}

/// The end of every key.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct FlowTail {
    /// Source port; ICMP: the type; [`KIND_LINK`]: the EtherType.
    pub source_port: u16,
    /// Destination port; ICMP: the code.
    pub destination_port: u16,
    /// IP protocol number.
    pub protocol: u8,
    /// `KIND_*`.
    pub kind: u8,
    /// The inner tag, as [`FlowPair::outer`].
    pub inner: u16,
}

/// A flow over IPv4, or over no IP at all (addresses are 0 then).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct FlowKey4 {
    /// Who, from which port.
    pub pair: FlowPair,
    /// Source address, as on the wire.
    pub source_address: [u8; 4],
    /// Destination address.
    pub destination_address: [u8; 4],
    /// Protocol and ports.
    pub tail: FlowTail,
}

/// A flow over IPv6.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct FlowKey6 {
    /// Who, from which port.
    pub pair: FlowPair,
    /// Source address, as on the wire.
    pub source_address: [u8; 16],
    /// Destination address.
    pub destination_address: [u8; 16],
    /// Protocol and ports.
    pub tail: FlowTail,
}

/// One flow: its counters, a copy of its pair's verdict, and what its TCP says. Written by the reflex alone. What a plain
/// frame touches lies in the first 48 bytes, and with the end of an IPv4 key in one cache line.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowValue {
    /// Of the key ([`echo`]): an element of the map may be given to another flow while a program looks at it.
    pub echo: u32,
    /// When the last frame came, in jiffies (the low half).
    pub last_jiffies: u32,
    /// Frames; a super-frame counts once.
    pub frames: u64,
    /// Bytes from the destination address on, tags included, FCS not; a super-frame counts once.
    pub bytes: u64,
    /// The copy of the verdict: interface, egress port, action and reason ([`Route`]).
    pub route: u64,
    /// The generation that the copy is of, and in the high half the longest frame that the egress takes, in bytes. 0: no copy.
    pub guard: u64,
    /// TCP: the sequence number behind the last byte seen.
    pub seq_end: u32,
    /// TCP flags seen (the low 8 bits), and `MARK_*`.
    pub marks: u32,
    /// Wire frames beyond `frames`.
    pub extra_frames: u64,
    /// Header bytes that those would repeat.
    pub extra_bytes: u64,
    /// Of `frames`: those that the reflex dropped.
    pub dropped_frames: u64,
    /// When the first frame came, in ns of `CLOCK_MONOTONIC`.
    pub first_ns: u64,
    /// TCP: when the first frame behind this direction's own SYN came, in ns of `CLOCK_MONOTONIC`.
    pub ack_ns: u64,
    /// TCP: payload bytes below the highest seen before.
    pub retransmitted_bytes: u64,
    /// TCP: segments that had such bytes.
    pub retransmitted_segments: u32,
    /// TCP: segments that closed the window.
    pub zero_windows: u32,
    /// TCP: segments with RST.
    pub resets: u32,
    /// The reason of the last dropped frame, by number.
    pub drop_reason: u8,
    /// Keeps the size a multiple of eight.
    pub reserved: [u8; 3],
}

/// An IPv6 flow: with room behind it, so that elements begin at cache lines.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowValue6 {
    /// The flow.
    pub flow: FlowValue,
    /// Unused.
    pub room: [u64; 5],
}

/// A mark: [`FlowValue::seq_end`] is known.
pub const MARK_SEQUENCE: u32 = 1 << 8;
/// A frame behind this direction's SYN was seen; [`FlowValue::ack_ns`] is when.
pub const MARK_ACKED: u32 = 1 << 9;
/// The tuple was opened anew: no program touches the entry any more.
pub const MARK_CLOSED: u32 = 1 << 10;
/// The flow's first frame had SYN: `first_ns` is when.
pub const MARK_OPENED: u32 = 1 << 11;
/// SYN came more than once.
pub const MARK_SYN_AGAIN: u32 = 1 << 12;

/// TCP flags by bit (RFC 9293, section 3.1).
pub const TCP_FIN: u8 = 0x01;
/// Opens a connection.
pub const TCP_SYN: u8 = 0x02;
/// Ends it at once.
pub const TCP_RST: u8 = 0x04;
/// Acknowledges.
pub const TCP_ACK: u8 = 0x10;

/// The copy of a verdict in one word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Route(pub u64);

#[expect(clippy::cast_possible_truncation, reason = "each takes its own bits out of the word")]
impl Route {
    /// Packs one.
    #[inline(always)]
    pub const fn new(ifindex: u32, egress: u16, action: u8, reason: u8) -> Self {
        Self(ifindex as u64 | (egress as u64) << 32 | (action as u64) << 48 | (reason as u64) << 56)
    }

    /// Interface to redirect to.
    #[inline(always)]
    pub const fn ifindex(self) -> u32 {
        self.0 as u32
    }

    /// Egress port id.
    #[inline(always)]
    pub const fn egress(self) -> u16 {
        (self.0 >> 32) as u16
    }

    /// `VERDICT_*`; 0: the pair has none.
    #[inline(always)]
    pub const fn action(self) -> u8 {
        (self.0 >> 48) as u8
    }

    /// Number of the [`crate::DropReason`], when the action is to drop.
    #[inline(always)]
    pub const fn reason(self) -> u8 {
        (self.0 >> 56) as u8
    }
}

/// What of a TCP header is looked at.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tcp {
    /// Sequence number of the first payload byte.
    pub sequence: u32,
    /// Payload bytes.
    pub payload_bytes: u32,
    /// The window as it stands in the header.
    pub window: u16,
    /// Flags.
    pub flags: u8,
}

/// The flow that a frame is of, as far as the frame itself says.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Parsed {
    /// The outer tag, as in [`FlowPair::outer`].
    pub outer: u16,
    /// Protocol, ports, kind, the inner tag.
    pub tail: FlowTail,
    /// Where the two IP addresses begin, in bytes from the destination address.
    pub addresses_at: usize,
    /// What TCP says, where there is a whole header of it.
    pub tcp: Option<Tcp>,
}

/// The frame promises an IP header that is not whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unparsable;

/// Which flow a frame of `frame_bytes` is of. `whole`: its length is what IP says, whatever its IP header says (a super-frame).
///
/// # Errors
/// [`Unparsable`]. A frame that is shorter than its Ethernet header and tags is malformed, and nobody asks for its flow.
#[inline(always)]
pub fn parse<B: Tagged + ?Sized>(bytes: &B, frame_bytes: u32, whole: bool) -> Result<Parsed, Unparsable> {
    let mut parsed = Parsed::default();
    parse_into(bytes, frame_bytes, whole, &mut parsed)?;
    Ok(parsed)
}

/// The same into a place of the caller's, which is all zeros before; what is there after an error says nothing.
///
/// # Errors
/// As [`parse`].
#[inline(always)]
pub fn parse_into<B: Tagged + ?Sized>(
    bytes: &B,
    frame_bytes: u32,
    whole: bool,
    parsed: &mut Parsed,
) -> Result<(), Unparsable> {
    let mut ethertype = bytes.u16(ETHERNET_BYTES - 2).ok_or(Unparsable)?;
    let mut at = ETHERNET_BYTES;
    let mut tags = 0;
    while tags < FLOW_TAGS && (ethertype == TPID_C || ethertype == TPID_S) {
        let (Some(content), Some(next)) = (bytes.u16(at), bytes.u16(at + 2)) else { return Err(Unparsable) };
        let service = if ethertype == TPID_S { FLOW_TAG_SERVICE } else { 0 };
        let tag = FLOW_TAG | service | (content & FLOW_TAG_VID);
        if tags == 0 {
            parsed.outer = tag;
        } else {
            parsed.tail.inner = tag;
        }
        ethertype = next;
        at += TAG_BYTES;
        tags += 1;
    }
    let (bytes, at) = bytes.behind_tags(at);
    match ethertype {
        ETHERTYPE_IPV4 => ipv4(bytes, at, frame_bytes, whole, parsed),
        ETHERTYPE_IPV6 => ipv6(bytes, at, frame_bytes, whole, parsed),
        _ => {
            parsed.tail.kind = KIND_LINK;
            // Below 0x0600 it is a length (IEEE 802.3-2022, clause 3.2.6).
            parsed.tail.source_port = if ethertype < 0x0600 { 0 } else { ethertype };
            Ok(())
        }
    }
}

#[inline(always)]
fn ipv4<B: Bytes + ?Sized>(
    bytes: &B,
    at: usize,
    frame_bytes: u32,
    whole: bool,
    parsed: &mut Parsed,
) -> Result<(), Unparsable> {
    let version = bytes.u8(at).ok_or(Unparsable)?;
    let header_bytes = (version & 0x0f) as usize * 4;
    if version >> 4 != 4 || header_bytes < IPV4_BYTES || bytes.u8(at + header_bytes - 1).is_none() {
        return Err(Unparsable);
    }
    // All of the header is there.
    let total = bytes.u16(at + 2).unwrap_or(0);
    let fragment = bytes.u16(at + 6).unwrap_or(0);
    let protocol = bytes.u8(at + 9).unwrap_or(0);
    parsed.addresses_at = at + 12;
    parsed.tail.protocol = protocol;
    parsed.tail.kind = KIND_IPV4;
    // Offset (13 bits) and "more fragments" (RFC 791, section 3.1).
    if fragment & 0x3fff != 0 {
        parsed.tail.kind |= KIND_FRAGMENT;
        return Ok(());
    }
    let end = end_of(at, u32::from(total), frame_bytes, whole);
    transport(bytes, at + header_bytes, end, parsed);
    Ok(())
}

#[inline(always)]
fn ipv6<B: Bytes + ?Sized>(
    bytes: &B,
    at: usize,
    frame_bytes: u32,
    whole: bool,
    parsed: &mut Parsed,
) -> Result<(), Unparsable> {
    let version = bytes.u8(at).ok_or(Unparsable)?;
    if version >> 4 != 6 || bytes.u8(at + IPV6_BYTES - 1).is_none() {
        return Err(Unparsable);
    }
    // All of the header is there.
    let payload = bytes.u16(at + 4).unwrap_or(0);
    let mut next = bytes.u8(at + 6).unwrap_or(0);
    parsed.addresses_at = at + 8;
    parsed.tail.kind = KIND_IPV6;
    let mut l4_at = at + IPV6_BYTES;
    let mut seen = 0;
    while seen < FLOW_EXTENSIONS {
        let extension = Extension::of(next);
        if extension.0 == 0 {
            break;
        }
        let (Some(following), Some(length)) = (bytes.u8(l4_at), bytes.u8(l4_at + 1)) else { break };
        next = following;
        l4_at += extension.bytes(length);
        seen += 1;
    }
    if next == FRAGMENT
        && let (Some(following), Some(fragment)) = (bytes.u8(l4_at), bytes.u16(l4_at + 2))
    {
        next = following;
        l4_at += 8;
        // Offset and "more fragments" (RFC 8200, section 4.5); a packet in one part is not in parts.
        if fragment & 0xfff9 != 0 {
            parsed.tail.protocol = next;
            parsed.tail.kind |= KIND_FRAGMENT;
            return Ok(());
        }
    }
    parsed.tail.protocol = next;
    let length = if payload == 0 { 0 } else { u32::from(payload) + 40 };
    let end = end_of(at, length, frame_bytes, whole);
    transport(bytes, l4_at, end, parsed);
    Ok(())
}

/// The next-header number of a fragment header.
const FRAGMENT: u8 = 44;

/// How an IPv6 extension header says its length: a unit of 2^n bytes in the low four bits, units that are not counted above
/// them; 0: it is no extension header that is looked through.
#[derive(Clone, Copy)]
struct Extension(u8);

impl Extension {
    /// Hop-by-hop options, routing and destination options have one shape (RFC 8200, section 4); the authentication header
    /// counts in other units (RFC 4302, section 2.2).
    #[inline(always)]
    fn of(next: u8) -> Self {
        // A table and no comparisons: each way to go is one more for the verifier, in every round.
        static EXTENSIONS: [u8; 256] = {
            let mut table = [0; 256];
            table[0] = 0x13;
            table[43] = 0x13;
            table[60] = 0x13;
            table[51] = 0x22;
            table
        };
        #[expect(clippy::indexing_slicing, reason = "as many entries as a byte has values")]
        Self(EXTENSIONS[next as usize])
    }

    #[inline(always)]
    fn bytes(self, length: u8) -> usize {
        // At most 2 KiB; the mask tells the verifier.
        ((length as usize + (self.0 >> 4) as usize) << (self.0 & 0x0f)) & 0x0fff
    }
}

/// Where the IP packet at `at` ends: where its header says (0: it does not), if the frame is as long; behind that is padding.
#[inline(always)]
fn end_of(at: usize, length: u32, frame_bytes: u32, whole: bool) -> u32 {
    #[expect(clippy::cast_possible_truncation, reason = "the sum of a few headers' lengths")]
    let end = at as u32 + length;
    if whole || length == 0 || end > frame_bytes { frame_bytes } else { end }
}

#[inline(always)]
fn transport<B: Bytes + ?Sized>(bytes: &B, at: usize, end: u32, parsed: &mut Parsed) {
    let tail = &mut parsed.tail;
    match tail.protocol {
        PROTOCOL_TCP | PROTOCOL_UDP | PROTOCOL_SCTP | PROTOCOL_UDPLITE | PROTOCOL_DCCP => {
            let (Some(source), Some(destination)) = (bytes.u16(at), bytes.u16(at + 2)) else {
                tail.kind |= KIND_CUT;
                return;
            };
            tail.source_port = source;
            tail.destination_port = destination;
            if tail.protocol == PROTOCOL_TCP {
                parsed.tcp = tcp(bytes, at, end);
            }
        }
        PROTOCOL_ICMP | PROTOCOL_ICMPV6 => {
            let (Some(kind), Some(code)) = (bytes.u8(at), bytes.u8(at + 1)) else {
                tail.kind |= KIND_CUT;
                return;
            };
            tail.source_port = u16::from(kind);
            tail.destination_port = u16::from(code);
        }
        _ => {}
    }
}

#[inline(always)]
fn tcp<B: Bytes + ?Sized>(bytes: &B, at: usize, end: u32) -> Option<Tcp> {
    let (high, low) = (bytes.u16(at + 4)?, bytes.u16(at + 6)?);
    let offset_and_flags = bytes.u16(at + 12)?;
    let window = bytes.u16(at + 14)?;
    let header_bytes = u32::from(offset_and_flags >> 12) * 4;
    #[expect(clippy::cast_possible_truncation, reason = "the sum of a few headers' lengths")]
    let payload_at = at as u32 + header_bytes;
    if header_bytes < 20 || payload_at > end {
        return None;
    }
    let flags = offset_and_flags.to_be_bytes()[1];
    Some(Tcp { sequence: u32::from(high) << 16 | u32::from(low), payload_bytes: end - payload_at, window, flags })
}

/// [`FlowValue::echo`] of a key, given as words: all its halves, one over the other.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "the upper half is folded into the lower one")]
pub fn echo<const N: usize>(words: &[u64; N]) -> u32 {
    let all = words.iter().fold(0, |all, word| all ^ word);
    (all ^ all >> 32) as u32
}

const _: () = {
    assert!(size_of::<FlowPair>() == 16);
    assert!(size_of::<FlowTail>() == 8);
    assert!(size_of::<FlowKey4>() == 32);
    assert!(size_of::<FlowKey6>() == 56);
    assert!(size_of::<FlowValue>() == 112);
    assert!(size_of::<FlowValue6>() == 152);
};

#[cfg(feature = "user")]
mod pod {
    #![expect(unsafe_code, reason = "`aya::Pod` is an unsafe trait: the type must be plain data without padding")]
    use super::{FlowKey4, FlowKey6, FlowValue, FlowValue6};

    // SAFETY: `repr(C)`, integers only; the sizes asserted above equal the sums of the fields, so there is no padding.
    unsafe impl aya::Pod for FlowKey4 {}
    // SAFETY: as above.
    unsafe impl aya::Pod for FlowKey6 {}
    // SAFETY: as above.
    unsafe impl aya::Pod for FlowValue {}
    // SAFETY: as above.
    unsafe impl aya::Pod for FlowValue6 {}
}

#[cfg(test)]
mod tests;
