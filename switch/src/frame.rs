//! A frame whose bytes were checked once; accessors do not fail afterwards.
//!
//! A frame may be a *super-frame*: one buffer that a device is still to cut into segments, as its sender asked for in
//! the virtio-net header ([`Offload`]). It is switched uncut, but it weighs what a wire would have carried
//! ([`Frame::wire_frames`]) and must fit where its longest segment fits ([`Frame::longest_bytes`]).
//!
//! A guest may ask for anything, for instance to have 64 KiB cut into pieces of one byte: what no honest driver asks for
//! is refused as `bad_offload`. The reflex makes the same check by the same lines (`switch_common::wire`); the kernel
//! has already refused, at the guest's write, what contradicts itself. A kernel's own super-frames ([`Trust::Kernel`])
//! are never refused: what does not parse is weighed by its Ethernet header alone.

use switch_common::{DropReason, MacAddr, wire};

/// Length of the virtio-net header in front of a frame on a tap with `IFF_VNET_HDR`.
pub const VNET_HDR_BYTES: usize = 10;

/// `VIRTIO_NET_HDR_GSO_NONE` (`include/uapi/linux/virtio_net.h`): nothing is to be segmented.
const GSO_NONE: u8 = 0;
/// `VIRTIO_NET_HDR_GSO_TCPV4`, `_UDP` (fragments), `_TCPV6`, `_UDP_L4`: what a driver may ask for.
const GSO_TYPES: [u8; 4] = [1, 3, 4, 5];
/// `VIRTIO_NET_HDR_GSO_ECN`: a flag on top of the type.
const GSO_ECN: u8 = 0x80;

/// `struct virtio_net_hdr` as the kernel writes it: an offload request, carried along unchanged.
///
/// The fields are in the byte order of the host, little-endian on every machine Weft runs on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offload(pub [u8; VNET_HDR_BYTES]);

impl Offload {
    /// A request to cut the payload into pieces of `gso_size` bytes, of type `VIRTIO_NET_HDR_GSO_*`.
    pub fn segment(gso_type: u8, gso_size: u16) -> Self {
        let [low, high] = gso_size.to_le_bytes();
        Self([0, gso_type, 0, 0, low, high, 0, 0, 0, 0])
    }

    /// `VIRTIO_NET_HDR_F_*`: whether a checksum is still to be filled in.
    pub fn flags(&self) -> u8 {
        self.0[0]
    }

    /// `VIRTIO_NET_HDR_GSO_*`, with the ECN flag.
    pub fn gso_type(&self) -> u8 {
        self.0[1]
    }

    /// Bytes of all headers, as the sender says; a hint, never believed.
    pub fn header_bytes(&self) -> u16 {
        u16::from_le_bytes([self.0[2], self.0[3]])
    }

    /// Payload bytes of each segment.
    pub fn gso_size(&self) -> u16 {
        u16::from_le_bytes([self.0[4], self.0[5]])
    }

    /// Where checksumming starts, in bytes from the destination address.
    pub fn csum_start(&self) -> u16 {
        u16::from_le_bytes([self.0[6], self.0[7]])
    }

    /// Where the checksum goes, in bytes from `csum_start`.
    pub fn csum_offset(&self) -> u16 {
        u16::from_le_bytes([self.0[8], self.0[9]])
    }

    /// Whether the frame is a super-frame.
    pub fn is_segmented(&self) -> bool {
        self.gso_type() & !GSO_ECN != GSO_NONE
    }
}

/// Who made the offload request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// A guest, through its VMM's write to a tap: checked, and refused when no honest driver would ask for it.
    Guest,
    /// A kernel's own network stack (container, host, uplink): weighed, never refused.
    Kernel,
}

/// A frame, its Ethernet header and offload request checked.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    bytes: &'a [u8],
    headers: wire::Ethernet,
    wire_frames: u32,
    longest_bytes: u32,
}

impl<'a> Frame<'a> {
    /// Checks a frame as it came from a port, from its destination address on, and weighs it.
    ///
    /// # Errors
    /// [`DropReason::Malformed`] when the Ethernet header or a tag is cut short; [`DropReason::BadOffload`] when a guest
    /// asks for a segmentation that no honest driver asks for.
    pub fn check(bytes: &'a [u8], offload: Offload, trust: Trust) -> Result<Self, DropReason> {
        let headers = wire::ethernet(bytes)?;
        let frame_bytes = bytes_of(bytes.len());
        let cut = if offload.is_segmented() {
            cut(bytes, &headers, frame_bytes, offload, trust)?
        } else {
            Cut { wire_frames: 1, longest_bytes: frame_bytes }
        };
        let longest_bytes = cut.longest_bytes.saturating_sub(u32::from(headers.tags) * bytes_of(wire::TAG_BYTES));
        Ok(Self { bytes, headers, wire_frames: cut.wire_frames, longest_bytes })
    }

    /// The destination address.
    pub fn destination(&self) -> MacAddr {
        self.headers.destination
    }

    /// The source address.
    pub fn source(&self) -> MacAddr {
        self.headers.source
    }

    /// The `EtherType` (or length) behind the tags.
    pub fn ethertype(&self) -> u16 {
        self.headers.ethertype
    }

    /// The frame, from its destination address on.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Its length, tags included, check sequence not; a super-frame counts once.
    pub fn len_bytes(&self) -> u64 {
        u64::from(bytes_of(self.bytes.len()))
    }

    /// Frames a wire would have carried, at least 1.
    pub fn wire_frames(&self) -> u64 {
        u64::from(self.wire_frames)
    }

    /// The longest of these, Ethernet header included, tags not counted: what has to fit the egress port.
    pub fn longest_bytes(&self) -> u32 {
        self.longest_bytes
    }
}

/// What segmentation makes of a super-frame; the longest wire frame still with its tags.
struct Cut {
    wire_frames: u32,
    longest_bytes: u32,
}

fn cut(
    bytes: &[u8],
    headers: &wire::Ethernet,
    frame_bytes: u32,
    offload: Offload,
    trust: Trust,
) -> Result<Cut, DropReason> {
    let gso_size = offload.gso_size();
    let sane = GSO_TYPES.contains(&(offload.gso_type() & !GSO_ECN));
    let segments = match (wire::segments(bytes, headers, frame_bytes, gso_size), trust) {
        (Ok(segments), Trust::Kernel) => segments,
        (Ok(segments), Trust::Guest) if sane => segments,
        (Ok(_) | Err(_), Trust::Guest) => return Err(DropReason::BadOffload),
        (Err(_), Trust::Kernel) => behind_ethernet(headers, frame_bytes, gso_size),
    };
    let longest_bytes = match segments.wire_frames {
        1 => frame_bytes,
        _ => segments.header_bytes.saturating_add(u32::from(gso_size)),
    };
    Ok(Cut { wire_frames: segments.wire_frames, longest_bytes })
}

/// The weight of what repeats nothing but its Ethernet header and tags, as far as we can tell.
fn behind_ethernet(headers: &wire::Ethernet, frame_bytes: u32, gso_size: u16) -> wire::Segments {
    let header_bytes = bytes_of(headers.payload_at);
    let payload_bytes = frame_bytes.saturating_sub(header_bytes);
    let wire_frames = if gso_size == 0 { 1 } else { payload_bytes.div_ceil(u32::from(gso_size)).max(1) };
    wire::Segments { header_bytes, wire_frames }
}

/// A length as it is counted; no buffer of ours is longer than 64 KiB and a few tags.
fn bytes_of(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
