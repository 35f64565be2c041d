//! What a frame weighs: its bytes, and for a super-frame the wire frames that it stands for.
//!
//! An ordinary frame is weighed in line, and so is a super-frame of plain TCP. Everything else sits in functions of its own, so that it costs the ordinary
//! frame neither registers nor cache lines.

use aya_ebpf::bindings::__sk_buff;
use switch_common::wire::{self, TAG_BYTES, TPID_C, TPID_S};
use switch_common::{DropReason, GSO_SIZE_MIN, Tally};

use crate::packet::{Packet, Skb, forget};
use crate::shape;

/// No fault: not the number of any reason.
const SOUND: u8 = 0;

/// A frame's weight.
#[derive(Clone, Copy)]
pub(crate) struct Weight {
    /// Bytes from the destination address on, tags included.
    pub(crate) bytes: u32,
    /// The number of the reason to refuse the frame, or 0.
    pub(crate) fault: u8,
    /// Wire frames beyond the first.
    pub(crate) extra_frames: u32,
    /// Header bytes that each of those repeats.
    header_bytes: u32,
    /// The longest of its wire frames, tags counted.
    longest_bytes: u32,
}

impl Weight {
    /// Weighs a frame, and finds what is cut short. `trusted`: a kernel made the offload request, so a super-frame that
    /// does not parse is weighed by its link layer alone; a guest's is at fault.
    #[inline(always)]
    pub(crate) fn of(skb: Skb, trusted: bool) -> Self {
        let bytes = skb.frame_bytes();
        let mut weight = Self { bytes, fault: SOUND, extra_frames: 0, header_bytes: 0, longest_bytes: bytes };
        if skb.gso_size() != 0 {
            let gso_size = skb.gso_size();
            let header_bytes = forget(u64::from(shape::plain_tcp_header_bytes(&Packet::of(skb)))) as u32;
            if header_bytes != 0 && header_bytes < bytes && gso_size >= u32::from(GSO_SIZE_MIN) {
                weight.header_bytes = header_bytes;
                weight.extra_frames = (bytes - header_bytes - 1) / gso_size;
                let one = header_bytes + gso_size;
                if one < bytes {
                    weight.longest_bytes = one;
                }
                return weight;
            }
            let found = SuperWeight(forget(weight_of_super_frame(skb.0, u32::from(trusted))));
            weight.fault = found.fault();
            weight.extra_frames = found.extra_frames();
            weight.header_bytes = found.header_bytes();
            let one = weight.header_bytes + skb.gso_size();
            if one < bytes {
                weight.longest_bytes = one;
            }
            return weight;
        }
        let ethertype = Packet::of(skb).ethernet().map_or(TPID_C.to_be(), |ethernet| {
            // SAFETY: `ethernet` has compared it with the end of the packet.
            unsafe { (*ethernet).ethertype }
        });
        // A tag among the bytes, or not even the bytes to tell.
        if ethertype == TPID_C.to_be() || ethertype == TPID_S.to_be() {
            weight.fault = forget(u64::from(weight_fault_of_tags(skb.0))) as u8;
        }
        weight
    }

    /// Whether a wire frame of it is longer than `frame_bytes_max`, tags not counted.
    #[inline(always)]
    pub(crate) fn exceeds(&self, frame_bytes_max: u32, skb: Skb) -> bool {
        self.longest_bytes > frame_bytes_max && self.longest_bytes > frame_bytes_max + weight_of_tags(skb.0)
    }

    /// Header bytes that the wire frames beyond the first repeat, all together.
    #[inline(always)]
    pub(crate) fn extra_bytes(&self) -> u64 {
        u64::from(self.extra_frames) * u64::from(self.header_bytes)
    }

    /// It alone.
    #[inline(always)]
    pub(crate) fn tally(&self) -> Tally {
        Tally {
            frames: 1,
            bytes: u64::from(self.bytes),
            extra_frames: u64::from(self.extra_frames),
            extra_bytes: self.extra_bytes(),
        }
    }

    /// Adds it to a tally.
    #[inline(always)]
    pub(crate) fn book(&self, tally: *mut Tally) {
        // SAFETY: `tally` lies in an element of a per-CPU map, found by a lookup; one CPU runs one program at a time here.
        let tally = unsafe { &mut *tally };
        tally.frames += 1;
        tally.bytes += u64::from(self.bytes);
        if self.extra_frames != 0 {
            tally.extra_frames += u64::from(self.extra_frames);
            tally.extra_bytes += self.extra_bytes();
        }
    }
}

/// What a function of its own finds of a super-frame, in the one register that it can answer with.
#[derive(Clone, Copy)]
struct SuperWeight(u64);

impl SuperWeight {
    fn new(header_bytes: u32, wire_frames: u32) -> Self {
        Self(u64::from(wire_frames.saturating_sub(1)) << 32 | u64::from(header_bytes & 0xffff))
    }

    fn refused(reason: DropReason) -> Self {
        Self(u64::from(reason as u8) << 16)
    }

    #[inline(always)]
    fn extra_frames(self) -> u32 {
        (self.0 >> 32) as u32
    }

    #[inline(always)]
    fn header_bytes(self) -> u32 {
        self.0 as u32 & 0xffff
    }

    #[inline(always)]
    fn fault(self) -> u8 {
        (self.0 >> 16) as u8
    }
}

/// Weighs a super-frame: a [`SuperWeight`]. A global function.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn weight_of_super_frame(skb: *mut __sk_buff, trusted: u32) -> u64 {
    let (skb, trusted) = (Skb(skb), trusted != 0);
    if skb.is_scattered() {
        // What cannot be pulled is found to be cut short.
        skb.pull_headers();
    }
    let packet = Packet::of(skb);
    let (bytes, gso_size) = (skb.frame_bytes(), skb.gso_size() as u16);
    let found = match wire::ethernet(&packet) {
        Err(reason) => SuperWeight::refused(reason),
        Ok(headers) => match wire::segments(&packet, &headers, bytes, gso_size) {
            Ok(segments) => SuperWeight::new(segments.header_bytes, segments.wire_frames),
            Err(_) if trusted => {
                let header_bytes = headers.payload_at as u32;
                let payload_bytes = bytes.saturating_sub(header_bytes);
                SuperWeight::new(header_bytes, payload_bytes.div_ceil(u32::from(gso_size).max(1)))
            }
            Err(reason) => SuperWeight::refused(reason),
        },
    };
    found.0
}

/// Whether the tags among the bytes are whole: the number of the reason if not. An ordinary frame needs nothing else of
/// them. A global function.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn weight_fault_of_tags(skb: *mut __sk_buff) -> u32 {
    let skb = Skb(skb);
    if skb.is_scattered() {
        skb.pull_headers();
    }
    wire::ethernet(&Packet::of(skb)).map_or_else(|reason| reason as u32, |_| u32::from(SOUND))
}

/// Bytes of all tags, for the rare frame that is too long without them. A global function.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn weight_of_tags(skb: *mut __sk_buff) -> u32 {
    wire::ethernet(&Packet::of(Skb(skb))).map_or(0, |headers| u32::from(headers.tags) * TAG_BYTES as u32)
}
