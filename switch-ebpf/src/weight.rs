//! What a frame weighs: its bytes, and for a super-frame the wire frames that it stands for.

use switch_common::wire::{self, TAG_BYTES};
use switch_common::{DropReason, Tally};

use crate::packet::{Packet, Skb};

/// A frame's weight.
#[derive(Clone, Copy)]
pub(crate) struct Weight {
    /// Bytes from the destination address on, tags included.
    pub(crate) bytes: u32,
    /// Wire frames beyond the first.
    pub(crate) extra_frames: u32,
    /// Header bytes that each of those repeats.
    pub(crate) header_bytes: u32,
    /// The longest of its wire frames, tags not counted, or an upper bound of it: see [`Weight::exceeds`].
    longest_bytes: u32,
}

impl Weight {
    /// An ordinary frame.
    #[inline(always)]
    pub(crate) fn plain(bytes: u32) -> Self {
        Self { bytes, extra_frames: 0, header_bytes: 0, longest_bytes: bytes }
    }

    /// A super-frame. `trusted`: a kernel made the request, so one that does not parse is weighed by its link layer
    /// alone; a guest's is refused.
    #[inline(always)]
    pub(crate) fn of_super_frame(skb: Skb, trusted: bool) -> Result<Self, DropReason> {
        let answer = match weigh(skb, Packet::of(skb)) {
            // What is missing may only be out of reach.
            Err(_) if skb.is_scattered() && skb.pull_headers() => weigh(skb, Packet::of(skb)),
            answer => answer,
        };
        match answer {
            Err(DropReason::BadOffload) if trusted => by_link_layer(skb),
            answer => answer,
        }
    }

    /// Whether a wire frame of it is longer than `frame_bytes_max`, tags not counted.
    #[inline(always)]
    pub(crate) fn exceeds(&self, frame_bytes_max: u32, skb: Skb) -> bool {
        if self.longest_bytes <= frame_bytes_max {
            return false;
        }
        // Rare: as long as its tags make it. They are counted only now.
        let tags = wire::ethernet(&Packet::of(skb)).map_or(0, |headers| u32::from(headers.tags));
        self.longest_bytes > frame_bytes_max + tags * TAG_BYTES as u32
    }

    /// Adds it to a tally.
    #[inline(always)]
    pub(crate) fn book(&self, tally: *mut Tally) {
        // SAFETY: `tally` lies in an element of a map, found by a lookup; one CPU runs one program at a time here.
        let tally = unsafe { &mut *tally };
        tally.frames += 1;
        tally.bytes += u64::from(self.bytes);
        if self.extra_frames != 0 {
            tally.extra_frames += u64::from(self.extra_frames);
            tally.extra_bytes += u64::from(self.extra_frames) * u64::from(self.header_bytes);
        }
    }
}

#[inline(always)]
fn weigh(skb: Skb, packet: Packet) -> Result<Weight, DropReason> {
    let bytes = skb.frame_bytes();
    let headers = wire::ethernet(&packet)?;
    let gso_size = skb.gso_size() as u16;
    let segments = wire::segments(&packet, &headers, bytes, gso_size)?;
    Ok(super_weight(bytes, segments.header_bytes, segments.wire_frames, gso_size))
}

/// A super-frame of a protocol that the parser does not know: what follows the tags is cut into segments.
#[inline(always)]
fn by_link_layer(skb: Skb) -> Result<Weight, DropReason> {
    let bytes = skb.frame_bytes();
    let header_bytes = wire::ethernet(&Packet::of(skb))?.payload_at as u32;
    let gso_size = skb.gso_size() as u16;
    let wire_frames = bytes.saturating_sub(header_bytes).div_ceil(u32::from(gso_size).max(1));
    Ok(super_weight(bytes, header_bytes, wire_frames, gso_size))
}

#[inline(always)]
fn super_weight(bytes: u32, header_bytes: u32, wire_frames: u32, gso_size: u16) -> Weight {
    let one = header_bytes + u32::from(gso_size);
    Weight {
        bytes,
        extra_frames: wire_frames.saturating_sub(1),
        header_bytes,
        longest_bytes: if one < bytes { one } else { bytes },
    }
}
