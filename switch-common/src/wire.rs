//! Ethernet, tags, and just enough of IP, TCP and UDP to weigh a super-frame; generic over where the bytes are.
//!
//! The brain reads a slice, the reflex reads packet memory between two pointers: both through [`Bytes`], so that both
//! parse by the same lines. Parsing never fails half-way: it answers with a value, or with the [`DropReason`].

use crate::{DropReason, GSO_SIZE_MIN, MacAddr};

/// Length of an Ethernet header: two addresses and an EtherType (IEEE 802.3-2022, clause 3.1.1).
pub const ETHERNET_BYTES: usize = 14;
/// Length of one VLAN tag (IEEE 802.1Q-2022, clause 9.3).
pub const TAG_BYTES: usize = 4;
/// EtherType of a customer VLAN tag.
pub const TPID_C: u16 = 0x8100;
/// EtherType of a service VLAN tag.
pub const TPID_S: u16 = 0x88a8;
/// EtherType of IPv4.
pub const ETHERTYPE_IPV4: u16 = 0x0800;
/// EtherType of IPv6.
pub const ETHERTYPE_IPV6: u16 = 0x86dd;
/// IP protocol number of TCP.
pub const PROTOCOL_TCP: u8 = 6;
/// IP protocol number of UDP.
pub const PROTOCOL_UDP: u8 = 17;

/// Tags looked through before what follows is payload.
pub const TAGS_MAX: usize = 3;
/// IPv6 extension headers looked through in a super-frame.
const EXTENSIONS_MAX: usize = 4;

/// Bytes whose tags may lie elsewhere.
pub trait Tagged: Bytes {
    /// The bytes behind the tags; offsets are still those of the frame as it was sent.
    type Behind: Bytes + ?Sized;
    /// The same bytes for who reads no tags any more, and `at`, where they end.
    fn behind_tags(&self, at: usize) -> (&Self::Behind, usize);
}

impl Tagged for [u8] {
    type Behind = Self;

    #[inline]
    fn behind_tags(&self, at: usize) -> (&Self, usize) {
        (self, at)
    }
}

/// Bytes with a checked read. Multi-byte values are in network order on the wire and in host order here.
pub trait Bytes {
    /// The byte at an offset.
    fn u8(&self, at: usize) -> Option<u8>;
    /// The two bytes at an offset.
    fn u16(&self, at: usize) -> Option<u16>;
    /// The six bytes at an offset.
    fn mac(&self, at: usize) -> Option<MacAddr>;
}

impl Bytes for [u8] {
    #[inline]
    fn u8(&self, at: usize) -> Option<u8> {
        self.get(at).copied()
    }

    #[inline]
    fn u16(&self, at: usize) -> Option<u16> {
        self.get(at..)?.first_chunk::<2>().map(|b| u16::from_be_bytes(*b))
    }

    #[inline]
    fn mac(&self, at: usize) -> Option<MacAddr> {
        self.get(at..)?.first_chunk::<6>().map(|b| MacAddr(*b))
    }
}

/// An Ethernet header and its tags, checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ethernet {
    /// Destination address.
    pub destination: MacAddr,
    /// Source address.
    pub source: MacAddr,
    /// The EtherType (or length) behind the tags.
    pub ethertype: u16,
    /// Where the payload begins, in bytes from the destination address.
    pub payload_at: usize,
    /// Tags found in the bytes, up to [`TAGS_MAX`].
    pub tags: u8,
}

/// Reads the Ethernet header and looks through up to [`TAGS_MAX`] tags.
///
/// # Errors
/// [`DropReason::Malformed`] when the header or a tag is cut short.
#[inline(always)]
pub fn ethernet<B: Bytes + ?Sized>(bytes: &B) -> Result<Ethernet, DropReason> {
    let cut = DropReason::Malformed;
    let (Some(destination), Some(source), Some(mut ethertype)) = (bytes.mac(0), bytes.mac(6), bytes.u16(12)) else {
        return Err(cut);
    };
    let mut payload_at = ETHERNET_BYTES;
    let mut tags = 0;
    while (ethertype == TPID_C || ethertype == TPID_S) && (tags as usize) < TAGS_MAX {
        // The TCI at `payload_at` must be there as well as the type behind it.
        let Some(inner) = bytes.u16(payload_at + 2) else { return Err(cut) };
        ethertype = inner;
        payload_at += TAG_BYTES;
        tags += 1;
    }
    Ok(Ethernet { destination, source, ethertype, payload_at, tags })
}

/// A super-frame's segmentation: what repeats on the wire, and how often.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segments {
    /// Bytes of all headers, from the destination address to the end of TCP's or UDP's.
    pub header_bytes: u32,
    /// Frames a wire would have carried, at least 1.
    pub wire_frames: u32,
}

/// Weighs a super-frame of `frame_bytes` with segments of `gso_size` payload bytes; `headers` was read from `bytes`.
///
/// # Errors
/// [`DropReason::BadOffload`] when `gso_size` is below [`GSO_SIZE_MIN`], or what is to be segmented is neither TCP nor
/// UDP, or its headers are cut short.
#[inline(always)]
pub fn segments<B: Bytes + ?Sized>(
    bytes: &B,
    headers: &Ethernet,
    frame_bytes: u32,
    gso_size: u16,
) -> Result<Segments, DropReason> {
    let bad = DropReason::BadOffload;
    if gso_size < GSO_SIZE_MIN {
        return Err(bad);
    }
    let Some((protocol, l4_at)) = transport(bytes, headers) else { return Err(bad) };
    let l4_bytes = match protocol {
        PROTOCOL_TCP => match bytes.u8(l4_at + 12) {
            Some(offset) if offset >> 4 >= 5 => (offset >> 4) as usize * 4,
            _ => return Err(bad),
        },
        PROTOCOL_UDP => 8,
        _ => return Err(bad),
    };
    #[expect(
        clippy::cast_possible_truncation,
        reason = "at most three tags, five IP headers of 2 KiB and a TCP header"
    )]
    let header_bytes = (l4_at + l4_bytes) as u32;
    if header_bytes > frame_bytes {
        return Err(bad);
    }
    let payload = frame_bytes - header_bytes;
    let wire_frames = payload.div_ceil(u32::from(gso_size));
    Ok(Segments { header_bytes, wire_frames: if wire_frames == 0 { 1 } else { wire_frames } })
}

/// The transport protocol and where its header begins, or `None` when IP is cut short or not IP.
#[inline(always)]
fn transport<B: Bytes + ?Sized>(bytes: &B, headers: &Ethernet) -> Option<(u8, usize)> {
    let at = headers.payload_at;
    match headers.ethertype {
        ETHERTYPE_IPV4 => {
            let version = bytes.u8(at)?;
            let length = (version & 0x0f) as usize * 4;
            if version >> 4 != 4 || length < 20 {
                return None;
            }
            Some((bytes.u8(at + 9)?, at + length))
        }
        ETHERTYPE_IPV6 => {
            let mut next = bytes.u8(at + 6)?;
            let mut l4_at = at + 40;
            let mut seen = 0;
            // Hop-by-hop, routing and destination options (RFC 8200, section 4) have one shape.
            while seen < EXTENSIONS_MAX && (next == 0 || next == 43 || next == 60) {
                next = bytes.u8(l4_at)?;
                l4_at += (bytes.u8(l4_at + 1)? as usize + 1) * 8;
                seen += 1;
            }
            Some((next, l4_at))
        }
        _ => None,
    }
}
