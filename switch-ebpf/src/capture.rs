//! What captures keep of a frame: in a ring, in the smallest of the rooms that it fits. And what the kernel itself drops, for
//! captures that want it.

use aya_ebpf::helpers::generated::bpf_ktime_get_ns;
use aya_ebpf::macros::map;
use aya_ebpf::maps::RingBuf;
use switch_common::{
    CAPTURES_BYTES, Captured, OUTCOME_DROPPED, OUTCOME_FORWARDED, OUTCOME_KERNEL_DROPPED, SESSION_CAPTURE, WATCH_DROP,
    Way,
};

use crate::booking::add_shared;
use crate::evidence::{copy_wanted, put_tag};
use crate::packet::Skb;
use crate::watch::{Fate, SCENE, SCENE_OF_DROPS, SESSION_COUNTS, SESSIONS, WATCH, each_bit};

#[map]
static CAPTURES: RingBuf = RingBuf::with_byte_size(CAPTURES_BYTES as u32, 0);

/// How full the ring is to be before its reader is woken.
const WAKE_AT: u64 = CAPTURES_BYTES as u64 / 8;
/// `BPF_RB_AVAIL_DATA`, `BPF_RB_NO_WAKEUP`, `BPF_RB_FORCE_WAKEUP` (include/uapi/linux/bpf.h).
const AVAILABLE: u64 = 0;
const NO_WAKEUP: u64 = 1;
const WAKEUP: u64 = 2;

/// A captured frame with room for `N` bytes of it.
#[repr(C)]
struct Room<const N: usize> {
    about: Captured,
    bytes: [u8; N],
}

/// Writes the frame into the ring, in the smallest of the rooms that what is wanted of it fits; whether there was one.
#[inline(never)]
pub(crate) fn capture(skb: Skb, fate: Fate, sessions: u64, bytes_max: u32) -> bool {
    let length = skb.frame_bytes();
    let wanted = if bytes_max < length { bytes_max } else { length };
    match wanted {
        0..=64 => put::<64>(skb, fate, sessions, wanted),
        65..=192 => put::<192>(skb, fate, sessions, wanted),
        193..=1600 => put::<1600>(skb, fate, sessions, wanted),
        1601..=9216 => put::<9216>(skb, fate, sessions, wanted),
        9217..=32_768 => put::<32_768>(skb, fate, sessions, wanted),
        _ => put::<65_664>(skb, fate, sessions, wanted),
    }
}

#[inline(never)]
fn put<const N: usize>(skb: Skb, fate: Fate, sessions: u64, wanted: u32) -> bool {
    let Some(mut entry) = CAPTURES.reserve::<Room<N>>(0) else { return false };
    let room = entry.as_mut_ptr();
    // SAFETY: the entry is ours until it is submitted.
    let bytes = unsafe { &raw mut (*room).bytes }.cast::<u8>();
    let captured = load(skb, bytes, wanted, N as u32);
    // SAFETY: as above.
    let head = unsafe { &raw mut (*room).about };
    // SAFETY: as above.
    unsafe { head.write(about(skb, fate, sessions, captured)) };
    entry.submit(wake());
    true
}

/// Wakes the reader when the ring fills, not for each frame.
#[inline(always)]
fn wake() -> u64 {
    if CAPTURES.query(AVAILABLE) > WAKE_AT { WAKEUP } else { NO_WAKEUP }
}

/// What is known of a frame.
#[inline(always)]
fn about(skb: Skb, fate: Fate, sessions: u64, captured: u32) -> Captured {
    let dropped = fate.action() == WATCH_DROP;
    let way = if dropped && fate.egress() != 0 { Way::Egress } else { Way::Ingress };
    Captured {
        // SAFETY: a helper without arguments.
        time_ns: unsafe { bpf_ktime_get_ns() },
        sessions,
        length: skb.frame_bytes(),
        captured,
        reason: fate.reason(),
        ingress: fate.ingress() as u16,
        egress: fate.egress() as u16,
        gso_size: skb.gso_size() as u16,
        outcome: if dropped { OUTCOME_DROPPED } else { OUTCOME_FORWARDED },
        way: way as u8,
        reserved: 0,
    }
}

/// Where a tag sits, and where it ends.
const TAG_AT: u32 = 12;
const TAG_END: u32 = 16;

/// Copies up to `wanted` bytes of the frame, its tag put back; `room` says how many there is room for. How many there are.
#[inline(always)]
fn load(skb: Skb, bytes: *mut u8, wanted: u32, room: u32) -> u32 {
    if skb.vlan_present() == 0 {
        return copy_wanted(skb, 0, bytes, wanted, room);
    }
    if copy_wanted(skb, 0, bytes, wanted, TAG_AT) < TAG_AT {
        return if wanted < TAG_AT { wanted } else { 0 };
    }
    put_tag(bytes, skb.vlan_proto() as u16, skb.vlan_tci() as u16);
    if wanted <= TAG_END {
        return wanted;
    }
    // SAFETY: within the room.
    let rest = unsafe { bytes.add(TAG_END as usize) };
    TAG_END + copy_wanted(skb, TAG_AT, rest, wanted - TAG_END, room - TAG_END)
}

/// The captures that want what the kernel drops on a port.
#[inline(always)]
pub(crate) fn wanting_drops(id: u32) -> u64 {
    // SAFETY: an element of a map, found by a lookup.
    WATCH.get_ptr(id).map_or(0, |watch| unsafe { (*watch).dropped })
}

/// Notes whether one capture wants a frame that the kernel dropped for a reason. Global: walked once by the verifier.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn capture_note_drop(bit: u32, reason: u32) -> u32 {
    let (Some(session), Some(scene)) = (SESSIONS.get_ptr(bit), SCENE.get_ptr_mut(SCENE_OF_DROPS)) else { return 0 };
    // SAFETY: an element of a map, found by a lookup.
    let session = unsafe { &*session };
    // SAFETY: as above, this processor's own.
    let scene = unsafe { &mut *scene };
    let reason = if reason < 256 { reason } else { 255 };
    let words = (&raw const session.kernel_reasons).cast::<u64>();
    // SAFETY: one of the four.
    let word = unsafe { words.add((reason >> 6 & 3) as usize) };
    // SAFETY: as above.
    let word = unsafe { word.read() };
    if session.kind != SESSION_CAPTURE || word >> (reason & 63) & 1 == 0 {
        return 0;
    }
    scene.captures |= 1 << bit;
    if session.bytes_max > scene.bytes_max {
        scene.bytes_max = session.bytes_max;
    }
    0
}

/// Room for what the kernel dropped: its first bytes, as far as they lie in a row.
type DropRoom = Room<DROP_BYTES_MAX>;
/// How many bytes those are at most.
pub(crate) const DROP_BYTES_MAX: usize = 256;

/// Writes down what the kernel dropped: `load` copies its bytes and says how many.
#[inline(always)]
pub(crate) fn capture_drop(
    sessions: u64,
    reason: u32,
    (id, way): (u32, u16),
    length: u32,
    load: impl FnOnce(*mut u8) -> u32,
) {
    let Some(scene) = SCENE.get_ptr_mut(SCENE_OF_DROPS) else { return };
    // SAFETY: this processor's own element.
    let scene = unsafe { &mut *scene };
    (scene.captures, scene.bytes_max) = (0, 0);
    each_bit(sessions, |bit| capture_note_drop(bit, reason));
    let (sessions, bytes_max) = (scene.captures, scene.bytes_max);
    if sessions == 0 {
        return;
    }
    let written = 'written: {
        let Some(mut entry) = CAPTURES.reserve::<DropRoom>(0) else { break 'written false };
        let room = entry.as_mut_ptr();
        // SAFETY: the entry is ours until it is submitted.
        let captured = load(unsafe { &raw mut (*room).bytes }.cast::<u8>());
        let captured = if captured < bytes_max { captured } else { bytes_max };
        let egress = way == Way::Egress as u16;
        let about = Captured {
            // SAFETY: a helper without arguments.
            time_ns: unsafe { bpf_ktime_get_ns() },
            sessions,
            length,
            captured,
            reason,
            ingress: if egress { 0 } else { id as u16 },
            egress: if egress { id as u16 } else { 0 },
            gso_size: 0,
            outcome: OUTCOME_KERNEL_DROPPED,
            way: way as u8,
            reserved: 0,
        };
        // SAFETY: as above.
        let head = unsafe { &raw mut (*room).about };
        // SAFETY: as above.
        unsafe { head.write(about) };
        entry.submit(wake());
        true
    };
    each_bit(sessions, |bit| capture_book_drop(bit, length, u32::from(written)));
}

/// Books a frame that the kernel dropped: whether it was `delivered`. Shared adds: a classifier may interrupt this. Global, too.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn capture_book_drop(bit: u32, bytes: u32, delivered: u32) -> u32 {
    let Some(counts) = SESSION_COUNTS.get_ptr_mut(bit) else { return 0 };
    // SAFETY: a field of an element of a map, found by a lookup.
    let matched = unsafe { &raw mut (*counts).matched };
    // SAFETY: as above.
    let delivered_to = unsafe { &raw mut (*counts).delivered };
    // SAFETY: as above.
    let lost = unsafe { &raw mut (*counts).lost };
    let became = if delivered != 0 { delivered_to } else { lost };
    for tally in [matched, became] {
        // SAFETY: as above.
        add_shared(unsafe { &raw mut (*tally).frames }, 1);
        // SAFETY: as above.
        add_shared(unsafe { &raw mut (*tally).bytes }, u64::from(bytes));
    }
    0
}
