//! The parser that finds the flow in a frame.
//!
//! Both halves parse by [`parse`]: the reflex when a frame is not of the plainest shape, user space wherever it needs to know
//! which flow a frame is of.

use super::{
    FLOW_EXTENSIONS, FLOW_TAG, FLOW_TAG_SERVICE, FLOW_TAG_VID, FLOW_TAGS, IPV4_BYTES, IPV6_BYTES, KIND_CUT,
    KIND_FRAGMENT, KIND_IPV4, KIND_IPV6, KIND_LINK, Parsed, Tcp,
};
use crate::wire::{
    Bytes, ETHERNET_BYTES, ETHERTYPE_IPV4, ETHERTYPE_IPV6, PROTOCOL_TCP, PROTOCOL_UDP, TAG_BYTES, TPID_C, TPID_S,
    Tagged,
};

const PROTOCOL_ICMP: u8 = 1;
const PROTOCOL_DCCP: u8 = 33;
const PROTOCOL_ICMPV6: u8 = 58;
const PROTOCOL_SCTP: u8 = 132;
const PROTOCOL_UDPLITE: u8 = 136;

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
        // A constant, because a static's name would say in which folder it was built.
        const EXTENSIONS: &[u8; 256] = &{
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
