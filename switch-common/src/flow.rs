//! What a flow is: its key in the maps, what is kept of it, and the parser ([`parse()`]) that finds the one in a frame.
//!
//! A frame has one flow, or none: then it is *unparsable*, which says that its EtherType promises an IP header that is not whole.

mod parse;

pub use parse::{Unparsable, parse, parse_into};

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
    /// TCP: when the first frame behind this direction's own SYN came, after `first_ns` and in units of [`ACK_UNIT_NS`]; 0: not
    /// yet.
    pub ack_after: u32,
    /// TCP: payload bytes below the highest seen that have not been seen, because a segment was lost or overtaken on its way to
    /// the switch.
    pub missing_bytes: u32,
    /// TCP: payload bytes that were seen before.
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

/// The unit of [`FlowValue::ack_after`]: 32 bits of it last for four and a half minutes.
pub const ACK_UNIT_NS: u64 = 64;

impl FlowValue {
    /// TCP: when the first frame behind this direction's own SYN came, in ns of `CLOCK_MONOTONIC`; 0: not yet.
    pub fn ack_ns(&self) -> u64 {
        if self.ack_after == 0 { 0 } else { self.first_ns + u64::from(self.ack_after) * ACK_UNIT_NS }
    }
}

/// A mark: [`FlowValue::seq_end`] is known.
pub const MARK_SEQUENCE: u32 = 1 << 8;
/// A frame behind this direction's SYN was seen; [`FlowValue::ack_after`] is when.
pub const MARK_ACKED: u32 = 1 << 9;
/// The tuple was opened anew: no program touches the entry any more.
pub const MARK_CLOSED: u32 = 1 << 10;
/// The flow's first frame had SYN: `first_ns` is when.
pub const MARK_OPENED: u32 = 1 << 11;
/// SYN came more than once.
pub const MARK_SYN_AGAIN: u32 = 1 << 12;

/// Frames of the flow say who is who, and are handed over ([`crate::is_telling`]).
pub const MARK_TELLING: u32 = 1 << 13;

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
