//! Frames that say who is who: their first bytes, for the clerk.
//!
//! Which these are is found when a flow is opened, and kept as a mark of it; a frame of any other flow pays the test of one bit.
//! Rate limited per port. What the limit refuses and what finds the ring full is counted: produced = delivered + limited + lost.

use core::mem::offset_of;

use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::helpers::generated::bpf_ktime_get_ns;
use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, RingBuf};
use switch_common::flow::{FlowTail, KIND_IPV6};
use switch_common::{HEARD_BYTES, HEARD_BYTES_MAX, Heard, HeardCounts, PORT_SLOTS, is_telling};

use crate::booking::add_shared;
use crate::evidence::{TAG_AT, TAG_END, copy};
use crate::packet::Skb;
use crate::shape::Shape;

#[map]
static HEARD: RingBuf = RingBuf::with_byte_size(HEARD_BYTES as u32, 0);
#[map]
static HEARD_COUNTS: Array<HeardCounts> = Array::with_max_entries(PORT_SLOTS as u32, 0);

/// Between two frames of a port in the long run, in ns; 0: nothing is handed over. A constant that the loader sets, so that the
/// verifier removes what is behind it.
#[unsafe(no_mangle)]
static HEARD_INTERVAL_NS: u64 = 0;
/// How far a port may run ahead: burst × interval, in ns.
#[unsafe(no_mangle)]
static HEARD_AHEAD_NS: u64 = 0;

/// Where a tag sits in a record, in 16-bit words.
const TAG_PLACE: usize = offset_of!(Heard, bytes) / 2 + TAG_AT / 2;

/// Whether anybody wants to know who is who.
#[inline(always)]
fn interval_ns() -> u64 {
    // SAFETY: a static. Volatile, because the value is the loader's, not the compiler's.
    unsafe { (&raw const HEARD_INTERVAL_NS).read_volatile() }
}

/// Whether a frame of this key says who is who, and somebody wants to know.
#[inline(always)]
pub(crate) fn is_wanted(shape: &Shape) -> bool {
    let tail = if shape.kind == KIND_IPV6 { shape.words[6] } else { shape.words[3] };
    let tail = FlowTail {
        source_port: tail as u16,
        destination_port: (tail >> 16) as u16,
        protocol: (tail >> 32) as u8,
        kind: (tail >> 40) as u8,
        inner: 0,
    };
    interval_ns() != 0 && is_telling(&tail)
}

/// Hands over what a frame of port `id` begins with. A global function, out of the way of all other frames.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn names_hand_over(skb: *mut __sk_buff, id: u32) -> u32 {
    let skb = Skb(skb);
    let Some(counts) = HEARD_COUNTS.get_ptr_mut(id) else { return 0 };
    // SAFETY: a field of an element of a map, found by a lookup.
    add_shared(unsafe { &raw mut (*counts).produced }, 1);
    // SAFETY: a helper without arguments.
    let now_ns = unsafe { bpf_ktime_get_ns() };
    if !conforms(counts, now_ns) {
        // SAFETY: as above.
        add_shared(unsafe { &raw mut (*counts).limited }, 1);
        return 0;
    }
    let Some(mut entry) = HEARD.reserve::<Heard>(0) else {
        // SAFETY: as above.
        add_shared(unsafe { &raw mut (*counts).lost }, 1);
        return 0;
    };
    let heard = entry.as_mut_ptr();
    let captured = load(skb, heard);
    // SAFETY: the entry is ours until it is submitted.
    let heard = unsafe { &mut *heard };
    heard.time_ns = now_ns;
    heard.length = skb.frame_bytes();
    heard.port = id as u16;
    heard.captured = captured as u16;
    entry.submit(0);
    0
}

/// The generic cell rate algorithm, as for what is punted. Two processors that meet here may let one frame too many pass.
#[inline(always)]
fn conforms(counts: *mut HeardCounts, now_ns: u64) -> bool {
    // SAFETY: a field of an element of a map, found by a lookup; programs alone write it.
    let tat_ns = unsafe { &raw mut (*counts).tat_ns };
    // SAFETY: as above.
    let due_ns = unsafe { tat_ns.read_volatile() };
    let expected_ns = if due_ns > now_ns { due_ns } else { now_ns };
    // SAFETY: a static. Volatile, because the value is the loader's, not the compiler's.
    if expected_ns - now_ns > unsafe { (&raw const HEARD_AHEAD_NS).read_volatile() } {
        return false;
    }
    // SAFETY: as above.
    unsafe { tat_ns.write_volatile(expected_ns + interval_ns()) };
    true
}

/// Copies what the frame begins with, its tag put back; says how many bytes that are.
#[inline(always)]
fn load(skb: Skb, heard: *mut Heard) -> u32 {
    // SAFETY: a field of the entry that the caller holds.
    let bytes = unsafe { &raw mut (*heard).bytes }.cast::<u8>();
    if skb.vlan_present() == 0 {
        return copy(skb, 0, bytes, HEARD_BYTES_MAX as u32);
    }
    if copy(skb, 0, bytes, TAG_AT as u32) == 0 {
        return 0;
    }
    // SAFETY: within the entry.
    let tag = unsafe { heard.cast::<u16>().add(TAG_PLACE) };
    // SAFETY: as above.
    unsafe { tag.write(skb.vlan_proto() as u16) };
    // SAFETY: as above.
    let content = unsafe { tag.add(1) };
    // SAFETY: as above.
    unsafe { content.write((skb.vlan_tci() as u16).to_be()) };
    // SAFETY: as above.
    let rest = unsafe { bytes.add(TAG_END) };
    TAG_END as u32 + copy(skb, TAG_AT as u32, rest, (HEARD_BYTES_MAX - TAG_END) as u32)
}
