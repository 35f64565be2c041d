//! Whoever looks on: captures, mirrors, the recorder. What lies in the maps, and the order, is told in
//! `switch-common/src/watch.rs`.
//!
//! A frame that nobody wants costs one bit of a word that was read anyway, and as long as there is a session two lookups more.
//! What is wanted goes through the generated program, and if its filters leave a session, into [`watch`].
//!
//! A frame that is on its way to the brain bears the punt tag. It is taken off for the mirrors, and put on again.

use core::intrinsics::{AtomicOrdering, atomic_xadd};

use aya_ebpf::bindings::TC_ACT_SHOT;
use aya_ebpf::helpers::bpf_skb_load_bytes;
use aya_ebpf::helpers::generated::{
    bpf_clone_redirect, bpf_ktime_get_ns, bpf_redirect, bpf_redirect_peer, bpf_skb_change_tail, bpf_skb_vlan_pop,
    bpf_skb_vlan_push,
};
use aya_ebpf::macros::{classifier, map};
use aya_ebpf::maps::{Array, PerCpuArray, ProgramArray, RingBuf};
use aya_ebpf::programs::TcContext;
use switch_common::{
    CAPTURES_BYTES, Captured, DropCell, OUTCOME_DROPPED, OUTCOME_FORWARDED, OUTCOME_KERNEL_DROPPED, PORT_SLOTS,
    PUNT_TPID, PortWatch, RECORD_BYTES_MAX, Record, SESSION_CAPTURE, SESSION_MIRROR, SESSION_RECORDER, SESSIONS_MAX,
    Session, SessionCounts, Slice, Tally, WATCH_ACTION_MASK, WATCH_ACTION_SHIFT, WATCH_DROP, WATCH_EGRESS_SHIFT,
    WATCH_PUNTED, WATCH_REASON_MASK, WATCH_REASON_SHIFT, WATCH_REDIRECT, WATCH_REDIRECT_PEER, Way,
};

use crate::booking::add_shared;
use crate::evidence::{bounded, one_or_more, put_tag};
use crate::packet::Skb;
use crate::weight::Weight;

#[map]
static WATCH: Array<PortWatch> = Array::with_max_entries(PORT_SLOTS as u32, 0);
#[map]
static SESSIONS: Array<Session> = Array::with_max_entries(SESSIONS_MAX as u32, 0);
#[map]
pub(crate) static WATCHERS: ProgramArray = ProgramArray::with_max_entries(2, 0);
#[map]
static SESSION_COUNTS: PerCpuArray<SessionCounts> = PerCpuArray::with_max_entries(SESSIONS_MAX as u32, 0);
#[map]
static TARGET_DROPS: Array<DropCell> = Array::with_max_entries(SESSIONS_MAX as u32, 0);
#[map]
static INJECTED: Array<u64> = Array::with_max_entries(1, 0);
#[map]
static CAPTURES: RingBuf = RingBuf::with_byte_size(CAPTURES_BYTES as u32, 0);
#[map]
static RECORDS: Array<Record> = Array::with_max_entries(1, 0);
#[map]
static SLICES: Array<Slice> = Array::with_max_entries(PORT_SLOTS as u32, 0);
/// What the sessions of one frame have in common.
#[map]
static SCENE: PerCpuArray<Scene> = PerCpuArray::with_max_entries(2, 0);
/// Which of them is that of frames that pass.
const SCENE_OF_FRAMES: u32 = 0;
/// And which that of the kernel's drops, in whose middle a frame may pass.
const SCENE_OF_DROPS: u32 = 1;

/// About the frame that is being served. In a map, because there the verifier forgets what it knew of each way to come to it.
#[repr(C)]
#[derive(Clone, Copy)]
struct Scene {
    /// What it weighs.
    weight: Tally,
    /// The captures that want it.
    captures: u64,
    /// Bytes that the most curious of them wants.
    bytes_max: u32,
    /// Whether it is to be recorded.
    recorded: u32,
}

/// Set in the mark of a mirror's copies, the session's bit in its low byte: so that the kernel's drops at the target are known.
const MARK: u32 = 0x57ef_7400;
/// The bits of it that tell.
const MARK_MASK: u32 = 0xffff_ff00;

/// How full the ring is to be before its reader is woken.
const WAKE_AT: u64 = CAPTURES_BYTES as u64 / 8;
/// `BPF_RB_AVAIL_DATA`, `BPF_RB_NO_WAKEUP`, `BPF_RB_FORCE_WAKEUP` (include/uapi/linux/bpf.h).
const AVAILABLE: u64 = 0;
const NO_WAKEUP: u64 = 1;
const WAKEUP: u64 = 2;

/// Bits of a port id.
const ID_MASK: u32 = (1 << WATCH_EGRESS_SHIFT) - 1;

/// The word that tells what becomes of a frame.
#[derive(Clone, Copy)]
pub(crate) struct Fate(u32);

impl Fate {
    /// Redirected from one port to another, or to its peer.
    #[inline(always)]
    pub(crate) fn forwarded(ingress: u32, egress: u32, to_peer: bool) -> Self {
        let action = if to_peer { WATCH_REDIRECT_PEER } else { WATCH_REDIRECT };
        Self(ingress | egress << WATCH_EGRESS_SHIFT | action << WATCH_ACTION_SHIFT)
    }

    /// Dropped on the account of the ingress port, or of the egress port that there is.
    #[inline(always)]
    pub(crate) fn dropped(ingress: u32, egress: u32, reason: u8) -> Self {
        let reason = (u32::from(reason) & WATCH_REASON_MASK) << WATCH_REASON_SHIFT;
        Self(ingress | egress << WATCH_EGRESS_SHIFT | WATCH_DROP << WATCH_ACTION_SHIFT | reason)
    }

    /// Handed to the brain: redirected to the punt tap.
    #[inline(always)]
    pub(crate) fn punted(ingress: u32) -> Self {
        Self(ingress | WATCH_REDIRECT << WATCH_ACTION_SHIFT | WATCH_PUNTED)
    }

    #[inline(always)]
    fn ingress(self) -> u32 {
        self.0 & ID_MASK
    }

    #[inline(always)]
    fn egress(self) -> u32 {
        self.0 >> WATCH_EGRESS_SHIFT & ID_MASK
    }

    #[inline(always)]
    fn action(self) -> u32 {
        self.0 >> WATCH_ACTION_SHIFT & WATCH_ACTION_MASK
    }

    #[inline(always)]
    fn reason(self) -> u32 {
        self.0 >> WATCH_REASON_SHIFT & WATCH_REASON_MASK
    }

    #[inline(always)]
    fn is_punted(self) -> bool {
        self.0 & WATCH_PUNTED != 0
    }
}

/// Whether a session wants the frame; if so, everything that the next program needs is in its control block.
#[inline(never)]
pub(crate) fn is_wanted(skb: Skb, fate: Fate, ifindex: u32) -> bool {
    let (Some(from), Some(to)) = (WATCH.get_ptr(fate.ingress()), WATCH.get_ptr(fate.egress())) else { return false };
    // SAFETY: elements of a map, found by lookups; slot 0 is no port, and nobody wants its frames.
    let (from, to) = unsafe { (&*from, &*to) };
    let sessions = if fate.is_punted() {
        from.punted
    } else if fate.action() == WATCH_DROP {
        from.ingress | from.dropped | to.dropped
    } else {
        from.ingress | to.egress
    };
    hand_over(skb, fate, ifindex, sessions)
}

/// The same for a copy that the brain injects. `again`: it is not the first one of its frame, and who has seen that has seen this.
#[inline(never)]
pub(crate) fn is_wanted_injected(skb: Skb, fate: Fate, ifindex: u32, again: bool) -> bool {
    let (Some(from), Some(to)) = (WATCH.get_ptr(fate.ingress()), WATCH.get_ptr(fate.egress())) else { return false };
    let Some(injected) = INJECTED.get_ptr_mut(0) else { return false };
    // SAFETY: elements of maps, found by lookups; the brain injects one copy at a time.
    let (from, to, injected) = unsafe { (&*from, &*to, &mut *injected) };
    let seen = if again { *injected } else { from.punted };
    *injected = seen | to.injected;
    hand_over(skb, fate, ifindex, to.injected & !seen)
}

#[inline(always)]
fn hand_over(skb: Skb, fate: Fate, ifindex: u32, sessions: u64) -> bool {
    if sessions == 0 {
        return false;
    }
    skb.set_control(0, ifindex);
    skb.set_control(1, fate.0);
    skb.set_control(2, sessions as u32);
    skb.set_control(3, (sessions >> 32) as u32);
    true
}

/// Serves the sessions whose filters match, then does with the frame what was decided.
#[classifier]
fn watch(ctx: TcContext) -> i32 {
    let skb = Skb(ctx.skb.skb);
    let (ifindex, fate) = (skb.control(0), Fate(skb.control(1)));
    let sessions = u64::from(skb.control(2)) | u64::from(skb.control(3)) << 32;
    let tag = skb.vlan_tci() as u16;
    // A tag that cannot be taken off stays on, and the mirrors see it.
    // SAFETY: the context of a running classifier.
    let popped = fate.is_punted() && unsafe { bpf_skb_vlan_pop(skb.0) } == 0;
    serve_all(skb, fate, sessions);
    if popped {
        // SAFETY: as above.
        if unsafe { bpf_skb_vlan_push(skb.0, PUNT_TPID.to_be(), tag) } != 0 {
            // No memory for a header: it is on its way to the brain, and never arrives.
            return TC_ACT_SHOT;
        }
    }
    match fate.action() {
        // SAFETY: a helper without pointers.
        WATCH_REDIRECT => unsafe { bpf_redirect(ifindex, 0) as i32 },
        // SAFETY: as above.
        WATCH_REDIRECT_PEER => unsafe { bpf_redirect_peer(ifindex, 0) as i32 },
        _ => TC_ACT_SHOT,
    }
}

#[inline(never)]
fn serve_all(skb: Skb, fate: Fate, sessions: u64) {
    let Some(scene) = SCENE.get_ptr_mut(SCENE_OF_FRAMES) else { return };
    // SAFETY: this processor's own element.
    let scene = unsafe { &mut *scene };
    *scene = Scene {
        weight: Tally { frames: 0, bytes: 0, extra_frames: 0, extra_bytes: 0 },
        captures: 0,
        bytes_max: 0,
        recorded: 0,
    };
    Weight::of(skb, true).book(&raw mut scene.weight);
    each_bit(sessions, |bit| serve(skb, fate, bit));
    if scene.captures != 0 {
        let written = capture(skb, fate, scene.captures, scene.bytes_max);
        each_bit(scene.captures, |bit| book(bit, written));
    }
    if scene.recorded != 0 {
        record(skb, fate);
    }
}

/// Calls for each bit that is set.
#[inline(always)]
fn each_bit(mask: u64, mut each: impl FnMut(u32)) {
    let mut left = mask;
    let mut turns = 0;
    while left != 0 && turns < SESSIONS_MAX {
        each(left.trailing_zeros() & (SESSIONS_MAX as u32 - 1));
        left &= left - 1;
        turns += 1;
    }
}

/// Serves one session: a mirror gets its copy, the others are noted.
#[inline(never)]
fn serve(skb: Skb, fate: Fate, bit: u32) {
    let (Some(session), Some(counts), Some(scene)) =
        (SESSIONS.get_ptr(bit), SESSION_COUNTS.get_ptr_mut(bit), SCENE.get_ptr_mut(SCENE_OF_FRAMES))
    else {
        return;
    };
    // SAFETY: elements of maps, found by lookups; counts and scene are this processor's own.
    let (session, counts, scene) = unsafe { (&*session, &mut *counts, &mut *scene) };
    if fate.action() == WATCH_DROP && session.reasons >> fate.reason() & 1 == 0 {
        return;
    }
    if session.kind == SESSION_CAPTURE {
        counts.matched.add(&scene.weight);
        scene.captures |= 1 << bit;
        if session.bytes_max > scene.bytes_max {
            scene.bytes_max = session.bytes_max;
        }
    } else if session.kind == SESSION_MIRROR {
        counts.matched.add(&scene.weight);
        let mark = skb.mark();
        skb.set_mark(MARK | bit);
        // SAFETY: the context of a running classifier.
        let refused = unsafe { bpf_clone_redirect(skb.0, session.target_ifindex, 0) };
        skb.set_mark(mark);
        book(bit, refused == 0);
    } else if session.kind == SESSION_RECORDER {
        counts.matched.add(&scene.weight);
        scene.recorded = 1;
        counts.delivered.add(&scene.weight);
    }
}

/// Books what became of a session's frame.
#[inline(never)]
fn book(bit: u32, delivered: bool) {
    let (Some(counts), Some(scene)) = (SESSION_COUNTS.get_ptr_mut(bit), SCENE.get_ptr(SCENE_OF_FRAMES)) else { return };
    // SAFETY: this processor's own elements.
    let (counts, scene) = unsafe { (&mut *counts, &*scene) };
    if delivered { counts.delivered.add(&scene.weight) } else { counts.lost.add(&scene.weight) }
}

/// A captured frame with room for `N` bytes of it.
#[repr(C)]
struct Room<const N: usize> {
    about: Captured,
    bytes: [u8; N],
}

/// Writes the frame into the ring, in the smallest of the rooms that what is wanted of it fits; whether there was one.
#[inline(never)]
fn capture(skb: Skb, fate: Fate, sessions: u64, bytes_max: u32) -> bool {
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
    unsafe { (&raw mut (*room).about).write(about(skb, fate, sessions, captured)) };
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
        return copy(skb, 0, bytes, wanted, room);
    }
    if copy(skb, 0, bytes, wanted, TAG_AT) < TAG_AT {
        return if wanted < TAG_AT { wanted } else { 0 };
    }
    put_tag(bytes, skb.vlan_proto() as u16, skb.vlan_tci() as u16);
    if wanted <= TAG_END {
        return wanted;
    }
    // SAFETY: within the room.
    let rest = unsafe { bytes.add(TAG_END as usize) };
    TAG_END + copy(skb, TAG_AT, rest, wanted - TAG_END, room - TAG_END)
}

/// Copies up to `wanted` bytes from `from` on, at most `room`; says how many.
#[inline(always)]
fn copy(skb: Skb, from: u32, to: *mut u8, wanted: u32, room: u32) -> u32 {
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

/// Keeps the beginning of a frame in its ingress port's slice.
#[inline(never)]
fn record(skb: Skb, fate: Fate) {
    let Some(slice) = SLICES.get_ptr_mut(fate.ingress()) else { return };
    // SAFETY: an element of a map, found by a lookup; control writes these two.
    let (first, records) = unsafe { ((*slice).first, (*slice).records) };
    if records == 0 {
        return;
    }
    // SAFETY: as above, aligned as `u64` is.
    let written = unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(&raw mut (*slice).written, 1) };
    let Some(record) = RECORDS.get_ptr_mut(first.wrapping_add(written as u32 & records.wrapping_sub(1))) else {
        return;
    };
    // SAFETY: as above; only who reads it, and a writer a whole round ahead, look at it meanwhile.
    unsafe { (&raw mut (*record).sequence).write_volatile(0) };
    // SAFETY: as above.
    let bytes = unsafe { &raw mut (*record).bytes }.cast::<u8>();
    let captured = load(skb, bytes, RECORD_BYTES_MAX as u32, RECORD_BYTES_MAX as u32);
    // SAFETY: as above.
    unsafe { (&raw mut (*record).about).write(about(skb, fate, 0, captured)) };
    // SAFETY: as above.
    unsafe { (&raw mut (*record).sequence).write_volatile(written + 1) };
}

/// The captures that want what the kernel drops on a port.
#[inline(always)]
pub(crate) fn wanting_drops(id: u32) -> u64 {
    // SAFETY: an element of a map, found by a lookup.
    WATCH.get_ptr(id).map_or(0, |watch| unsafe { (*watch).dropped })
}

/// Notes whether one capture wants a frame that the kernel dropped for a reason.
#[inline(never)]
fn note_drop(bit: u32, reason: u32) {
    let (Some(session), Some(scene)) = (SESSIONS.get_ptr(bit), SCENE.get_ptr_mut(SCENE_OF_DROPS)) else { return };
    // SAFETY: elements of maps, found by lookups; the scene is this processor's own.
    let (session, scene) = unsafe { (&*session, &mut *scene) };
    let reason = if reason < 256 { reason } else { 255 };
    // SAFETY: a word of the four.
    let word = unsafe { (&raw const session.kernel_reasons).cast::<u64>().add((reason >> 6 & 3) as usize).read() };
    if session.kind != SESSION_CAPTURE || word >> (reason & 63) & 1 == 0 {
        return;
    }
    scene.captures |= 1 << bit;
    if session.bytes_max > scene.bytes_max {
        scene.bytes_max = session.bytes_max;
    }
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
    each_bit(sessions, |bit| note_drop(bit, reason));
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
        unsafe { (&raw mut (*room).about).write(about) };
        entry.submit(wake());
        true
    };
    each_bit(sessions, |bit| book_drop(bit, length, written));
}

/// Books a frame that the kernel dropped. Shared adds: a classifier may interrupt this.
#[inline(never)]
fn book_drop(bit: u32, bytes: u32, delivered: bool) {
    let Some(counts) = SESSION_COUNTS.get_ptr_mut(bit) else { return };
    // SAFETY: fields of an element of a map, found by a lookup.
    let (matched, became) = unsafe {
        (&raw mut (*counts).matched, if delivered { &raw mut (*counts).delivered } else { &raw mut (*counts).lost })
    };
    for tally in [matched, became] {
        // SAFETY: as above.
        add_shared(unsafe { &raw mut (*tally).frames }, 1);
        // SAFETY: as above.
        add_shared(unsafe { &raw mut (*tally).bytes }, u64::from(bytes));
    }
}

/// Whether a mark is that of a mirror's copies.
#[inline(always)]
pub(crate) fn is_mirrors(mark: u32) -> bool {
    mark & MARK_MASK == MARK
}

/// Books a mirror's copy that the kernel dropped at its target; whose it is, is told by its mark.
#[inline(always)]
pub(crate) fn target_dropped(mark: u32, ifindex: u32, bytes: u32) {
    let bit = mark & !MARK_MASK;
    if bit >= SESSIONS_MAX as u32 {
        return;
    }
    let (Some(session), Some(cell)) = (SESSIONS.get_ptr(bit), TARGET_DROPS.get_ptr_mut(bit)) else { return };
    // SAFETY: an element of a map, found by a lookup.
    let session = unsafe { &*session };
    if session.kind != SESSION_MIRROR || session.target_ifindex != ifindex {
        return;
    }
    // SAFETY: fields of an element of a map, found by a lookup.
    add_shared(unsafe { &raw mut (*cell).frames }, 1);
    // SAFETY: as above.
    add_shared(unsafe { &raw mut (*cell).bytes }, u64::from(bytes));
}

/// The answer that leaves a frame to whoever comes next (`TC_ACT_UNSPEC`).
const NEXT: i32 = -1;

/// On the way out of a mirror's target: cuts the mirror's copies to what it asks for, and nothing else.
#[classifier]
fn mirror_cut(ctx: TcContext) -> i32 {
    let skb = Skb(ctx.skb.skb);
    let mark = skb.mark();
    if !is_mirrors(mark) {
        return NEXT;
    }
    let Some(session) = SESSIONS.get_ptr(mark & !MARK_MASK) else { return NEXT };
    // SAFETY: an element of a map, found by a lookup.
    let (kind, bytes_max) = unsafe { ((*session).kind, (*session).bytes_max) };
    if kind == SESSION_MIRROR && bytes_max != 0 && skb.len() > bytes_max {
        // What cannot be cut, because a checksum is to be put behind the cut, stays whole.
        // SAFETY: the context of a running classifier.
        unsafe { bpf_skb_change_tail(skb.0, bytes_max, 0) };
    }
    NEXT
}
