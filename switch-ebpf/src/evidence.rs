//! Evidence: the first bytes of one frame per (port, way, reason, second) that did not arrive.
//!
//! Only where a frame is dropped anyway. What finds the ring full is counted as lost: produced = delivered + lost.

use core::intrinsics::{AtomicOrdering, atomic_cxchg};

use aya_ebpf::helpers::bpf_skb_load_bytes;
use aya_ebpf::helpers::generated::bpf_ktime_get_ns;
use aya_ebpf::macros::map;
use aya_ebpf::maps::ring_buf::RingBufEntry;
use aya_ebpf::maps::{Array, RingBuf};
use switch_common::{
    EVENTS_BYTES, EVIDENCE_BYTES_MAX, EVIDENCE_OURS, Evidence, EvidenceCounts, EvidenceTurns, PORT_SLOTS,
};

use crate::booking::add_shared;
use crate::maps::SETTINGS;
use crate::packet::Skb;

#[map]
static EVENTS: RingBuf = RingBuf::with_byte_size(EVENTS_BYTES as u32, 0);
#[map]
static EVIDENCE_TURNS: Array<EvidenceTurns> = Array::with_max_entries(PORT_SLOTS as u32, 0);
#[map]
static EVIDENCE_COUNTS: Array<EvidenceCounts> = Array::with_max_entries(1, 0);

/// Nanoseconds in a second.
const SECOND_NS: u64 = 1_000_000_000;
/// Where a tag sits: behind the two addresses.
pub(crate) const TAG_AT: usize = 12;
/// Where it ends.
pub(crate) const TAG_END: usize = 16;

/// A record in 8-byte words.
type Words = [u64; size_of::<Evidence>() / 8];

/// Takes the turn of this second, unless it has been taken.
#[inline(always)]
pub(crate) fn take_turn(last: *mut u32) -> Option<u64> {
    // SAFETY: a helper without arguments.
    let now_ns = unsafe { bpf_ktime_get_ns() };
    let second = (now_ns / SECOND_NS) as u32;
    // SAFETY: `last` points into an element of a map, found by a lookup; other CPUs write it by the exchange below.
    let seen = unsafe { last.read_volatile() };
    if seen == second {
        return None;
    }
    // SAFETY: as above.
    let (_, won) =
        unsafe { atomic_cxchg::<u32, { AtomicOrdering::Relaxed }, { AtomicOrdering::Relaxed }>(last, seen, second) };
    won.then_some(now_ns)
}

/// Room for a frame's beginning, all zeros; `None`: there is none, which is counted.
#[inline(always)]
pub(crate) fn reserve() -> Option<RingBufEntry<Evidence>> {
    let counts = EVIDENCE_COUNTS.get_ptr_mut(0)?;
    // SAFETY: a field of an element of a map, found by a lookup.
    add_shared(unsafe { &raw mut (*counts).produced }, 1);
    let Some(mut entry) = EVENTS.reserve::<Evidence>(0) else {
        // SAFETY: as above.
        add_shared(unsafe { &raw mut (*counts).lost }, 1);
        return None;
    };
    let words = entry.as_mut_ptr().cast::<Words>();
    // SAFETY: the entry is ours until it is submitted, and nothing but words.
    unsafe { words.write([0; size_of::<Evidence>() / 8]) };
    Some(entry)
}

/// Keeps the beginning of a frame that the reflex drops, `turn` being its place in [`EvidenceTurns`].
#[inline(always)]
pub(crate) fn keep(skb: Skb, id: u32, way: u16, reason: u32, turn: usize, bytes: u32) {
    let Some(turns) = EVIDENCE_TURNS.get_ptr_mut(id) else { return };
    // SAFETY: masked to the number of turns.
    let turn = unsafe { turns.cast::<u32>().add(turn & (size_of::<EvidenceTurns>() / 4 - 1)) };
    let Some(time_ns) = take_turn(turn) else { return };
    let Some(mut entry) = reserve() else { return };
    let evidence = entry.as_mut_ptr();
    let captured = load(skb, evidence);
    // SAFETY: the entry is ours until it is submitted.
    let evidence = unsafe { &mut *evidence };
    evidence.time_ns = time_ns;
    evidence.reason = reason;
    evidence.length = bytes;
    evidence.port = id as u16;
    evidence.way = way;
    evidence.origin = EVIDENCE_OURS;
    evidence.captured = captured;
    entry.submit(0);
}

/// Copies what the frame begins with, its tag put back; says how many bytes that are. The punt tag, which only frames on
/// the punt tap have, is no part of the frame.
#[inline(always)]
fn load(skb: Skb, evidence: *mut Evidence) -> u16 {
    // SAFETY: a field of the entry that the caller holds.
    let bytes = unsafe { &raw mut (*evidence).bytes }.cast::<u8>();
    // SAFETY: an element of a map, found by a lookup.
    let punt = SETTINGS.get_ptr(0).map_or(0, |settings| unsafe { (*settings).punt_ifindex });
    if skb.vlan_present() == 0 || skb.ifindex() == punt {
        return copy(skb, 0, bytes, EVIDENCE_BYTES_MAX as u32) as u16;
    }
    if copy(skb, 0, bytes, TAG_AT as u32) == 0 {
        return 0;
    }
    put_tag(bytes, skb.vlan_proto() as u16, skb.vlan_tci() as u16);
    // SAFETY: within the field.
    let rest = unsafe { bytes.add(TAG_END) };
    TAG_END as u16 + copy(skb, TAG_AT as u32, rest, (EVIDENCE_BYTES_MAX - TAG_END) as u32) as u16
}

/// Writes a tag where it belongs in a frame that begins at `bytes`, which is even: its type in network order, its content in the
/// host's.
#[inline(always)]
pub(crate) fn put_tag(bytes: *mut u8, proto: u16, tci: u16) {
    // SAFETY: whoever calls has room for the beginning of a frame.
    let at = unsafe { bytes.add(TAG_AT) };
    #[expect(clippy::cast_ptr_alignment, reason = "rooms for frames begin at an even address")]
    let at = at.cast::<u16>();
    // SAFETY: as above.
    unsafe { at.write(proto) };
    // SAFETY: as above.
    let at = unsafe { at.add(1) };
    // SAFETY: as above.
    unsafe { at.write(tci.to_be()) };
}

/// Copies up to `most` bytes from `from` on; says how many.
#[inline(always)]
pub(crate) fn copy(skb: Skb, from: u32, to: *mut u8, most: u32) -> u32 {
    copy_wanted(skb, from, to, most, most)
}

/// Copies up to `wanted` bytes from `from` on, at most `room`, which is a constant; says how many.
#[inline(always)]
pub(crate) fn copy_wanted(skb: Skb, from: u32, to: *mut u8, wanted: u32, room: u32) -> u32 {
    let left = skb.len().saturating_sub(from);
    let bytes = bounded(if wanted < left { wanted } else { left }, room);
    if bytes == 0 {
        return 0;
    }
    let bytes = one_or_more(bytes);
    // SAFETY: the context of a running classifier, and room for `room` bytes.
    let failed = unsafe { bpf_skb_load_bytes(skb.0.cast(), from, to.cast(), bytes) };
    if failed == 0 { bytes } else { 0 }
}

/// The lesser of the two, in a way that the verifier follows.
#[inline(always)]
#[cfg(target_arch = "bpf")]
pub(crate) fn bounded(value: u32, most: u32) -> u32 {
    let mut value = u64::from(value);
    // SAFETY: a comparison and a move; the compiler can neither take them apart nor know their outcome.
    unsafe {
        core::arch::asm!("if {0} <= {1} goto +1", "{0} = {1}", inout(reg) value, in(reg) u64::from(most),
            options(nomem, nostack))
    };
    value as u32
}

/// The same value, which is not 0, in a way that the verifier of Linux 6.1 follows: of "not equal" it learns nothing.
#[inline(always)]
#[cfg(target_arch = "bpf")]
pub(crate) fn one_or_more(value: u32) -> u32 {
    let mut value = u64::from(value);
    // SAFETY: as in `bounded`.
    unsafe { core::arch::asm!("if {0} > 0 goto +1", "{0} = 1", inout(reg) value, options(nomem, nostack)) };
    value as u32
}

#[inline(always)]
#[cfg(not(target_arch = "bpf"))]
pub(crate) fn one_or_more(value: u32) -> u32 {
    value
}

#[inline(always)]
#[cfg(not(target_arch = "bpf"))]
pub(crate) fn bounded(value: u32, most: u32) -> u32 {
    if value < most { value } else { most }
}
