//! Whoever looks on: captures, mirrors. What lies in the maps, and the order, is told in
//! `switch-common/src/watch.rs`.
//!
//! A frame that nobody wants costs one bit of a word that was read anyway, and as long as there is a session two lookups more.
//! What is wanted goes through the generated program, and if its filters leave a session, into [`watch`].
//!
//! A frame that is on its way to the brain bears the punt tag. It is taken off for the mirrors, and put on again.

use aya_ebpf::bindings::{__sk_buff, TC_ACT_SHOT};
use aya_ebpf::helpers::generated::{
    bpf_clone_redirect, bpf_redirect, bpf_redirect_peer, bpf_skb_change_tail, bpf_skb_vlan_pop, bpf_skb_vlan_push,
};
use aya_ebpf::macros::{classifier, map};
use aya_ebpf::maps::{Array, PerCpuArray, ProgramArray};
use aya_ebpf::programs::TcContext;
use switch_common::{
    DropCell, PORT_SLOTS, PUNT_TPID, PortWatch, SESSION_CAPTURE, SESSION_MIRROR, SESSIONS_MAX, Session, SessionCounts,
    Tally, WATCH_ACTION_MASK, WATCH_ACTION_SHIFT, WATCH_DROP, WATCH_EGRESS_SHIFT, WATCH_PUNTED, WATCH_REASON_MASK,
    WATCH_REASON_SHIFT, WATCH_REDIRECT, WATCH_REDIRECT_PEER,
};

use crate::booking::add_shared;
use crate::capture;
use crate::packet::Skb;
use crate::weight::Weight;

#[map]
pub(crate) static WATCH: Array<PortWatch> = Array::with_max_entries(PORT_SLOTS as u32, 0);
#[map]
pub(crate) static SESSIONS: Array<Session> = Array::with_max_entries(SESSIONS_MAX as u32, 0);
#[map]
pub(crate) static WATCHERS: ProgramArray = ProgramArray::with_max_entries(2, 0);
#[map]
pub(crate) static SESSION_COUNTS: PerCpuArray<SessionCounts> = PerCpuArray::with_max_entries(SESSIONS_MAX as u32, 0);
#[map]
static TARGET_DROPS: Array<DropCell> = Array::with_max_entries(SESSIONS_MAX as u32, 0);
#[map]
static INJECTED: Array<u64> = Array::with_max_entries(1, 0);
/// What the sessions of one frame have in common.
#[map]
pub(crate) static SCENE: PerCpuArray<Scene> = PerCpuArray::with_max_entries(2, 0);
/// Which of them is that of frames that pass.
const SCENE_OF_FRAMES: u32 = 0;
/// And which that of the kernel's drops, in whose middle a frame may pass.
pub(crate) const SCENE_OF_DROPS: u32 = 1;

/// About the frame that is being served. In a map, because there the verifier forgets what it knew of each way to come to it.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Scene {
    /// What it weighs.
    weight: Tally,
    /// The captures that want it.
    pub(crate) captures: u64,
    /// Bytes that the most curious of them wants.
    pub(crate) bytes_max: u32,
    /// Fills the last word.
    reserved: u32,
}

/// Set in the mark of a mirror's copies, the session's bit in its low byte: so that the kernel's drops at the target are known.
const MARK: u32 = 0x57ef_7400;
/// The bits of it that tell.
const MARK_MASK: u32 = 0xffff_ff00;

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
    pub(crate) fn ingress(self) -> u32 {
        self.0 & ID_MASK
    }

    #[inline(always)]
    pub(crate) fn egress(self) -> u32 {
        self.0 >> WATCH_EGRESS_SHIFT & ID_MASK
    }

    #[inline(always)]
    pub(crate) fn action(self) -> u32 {
        self.0 >> WATCH_ACTION_SHIFT & WATCH_ACTION_MASK
    }

    #[inline(always)]
    pub(crate) fn reason(self) -> u32 {
        self.0 >> WATCH_REASON_SHIFT & WATCH_REASON_MASK
    }

    #[inline(always)]
    fn is_punted(self) -> bool {
        self.0 & WATCH_PUNTED != 0
    }
}

/// Whether a session wants the frame; if so, everything that the next program needs is in its control block.
#[inline(always)]
pub(crate) fn is_wanted(skb: Skb, fate: Fate, ifindex: u32) -> bool {
    watch_wants(skb.0, fate.0, ifindex) != 0
}

/// [`is_wanted`], as a global function.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn watch_wants(skb: *mut __sk_buff, fate: u32, ifindex: u32) -> u32 {
    let fate = Fate(fate);
    let (Some(from), Some(to)) = (WATCH.get_ptr(fate.ingress()), WATCH.get_ptr(fate.egress())) else { return 0 };
    // SAFETY: an element of a map, found by a lookup.
    let from = unsafe { &*from };
    // SAFETY: as above; slot 0 is no port, and nobody wants its frames.
    let to = unsafe { &*to };
    let sessions = if fate.is_punted() {
        from.punted
    } else if fate.action() == WATCH_DROP {
        from.ingress | from.dropped | to.dropped
    } else {
        from.ingress | to.egress
    };
    u32::from(hand_over(Skb(skb), fate, ifindex, sessions))
}

/// The same for a copy that the brain injects. `again`: it is not the first one of its frame, and who has seen that has seen this.
#[inline(never)]
pub(crate) fn is_wanted_injected(skb: Skb, fate: Fate, ifindex: u32, again: bool) -> bool {
    let (Some(from), Some(to)) = (WATCH.get_ptr(fate.ingress()), WATCH.get_ptr(fate.egress())) else { return false };
    let Some(injected) = INJECTED.get_ptr_mut(0) else { return false };
    // SAFETY: an element of a map, found by a lookup.
    let from = unsafe { &*from };
    // SAFETY: as above.
    let to = unsafe { &*to };
    // SAFETY: as above; the brain injects one copy at a time.
    let injected = unsafe { &mut *injected };
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
    scene.weight = Weight::of(skb, true).tally();
    (scene.captures, scene.bytes_max) = (0, 0);
    each_bit(sessions, |bit| watch_serve(skb.0, fate.0, bit));
    if scene.captures != 0 {
        let written = capture::capture(skb, fate, scene.captures, scene.bytes_max);
        each_bit(scene.captures, |bit| watch_book(bit, u32::from(written)));
    }
}

/// Calls for each bit that is set.
#[inline(always)]
pub(crate) fn each_bit(mask: u64, mut each: impl FnMut(u32) -> u32) {
    let mut left = mask;
    let mut turns = 0;
    while left != 0 && turns < SESSIONS_MAX {
        each(left.trailing_zeros() & (SESSIONS_MAX as u32 - 1));
        left &= left - 1;
        turns += 1;
    }
}

/// Serves one session: a mirror gets its copy, the others are noted. Global, as the kernel calls a function that the verifier walks
/// by itself, once, whatever its arguments, and not once more for each call of it: there are 64.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn watch_serve(skb: *mut __sk_buff, fate: u32, bit: u32) -> u32 {
    let (skb, fate) = (Skb(skb), Fate(fate));
    let (Some(session), Some(counts), Some(scene)) =
        (SESSIONS.get_ptr(bit), SESSION_COUNTS.get_ptr_mut(bit), SCENE.get_ptr_mut(SCENE_OF_FRAMES))
    else {
        return 0;
    };
    // SAFETY: an element of a map, found by a lookup.
    let session = unsafe { &*session };
    // SAFETY: as above, this processor's own.
    let counts = unsafe { &mut *counts };
    // SAFETY: as above.
    let scene = unsafe { &mut *scene };
    if fate.action() == WATCH_DROP && session.reasons >> fate.reason() & 1 == 0 {
        return 0;
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
        watch_book(bit, u32::from(refused == 0));
    }
    0
}

/// Books what became of a session's frame: whether it was `delivered`. Global, as [`watch_serve`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn watch_book(bit: u32, delivered: u32) -> u32 {
    let (Some(counts), Some(scene)) = (SESSION_COUNTS.get_ptr_mut(bit), SCENE.get_ptr(SCENE_OF_FRAMES)) else {
        return 0;
    };
    // SAFETY: this processor's own element.
    let counts = unsafe { &mut *counts };
    // SAFETY: as above.
    let scene = unsafe { &*scene };
    if delivered != 0 {
        counts.delivered.add(&scene.weight);
    } else {
        counts.lost.add(&scene.weight);
    }
    0
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
    let Session { kind, bytes_max, .. } = *unsafe { &*session };
    if kind == SESSION_MIRROR && bytes_max != 0 && skb.len() > bytes_max {
        // What cannot be cut, because a checksum is to be put behind the cut, stays whole.
        // SAFETY: the context of a running classifier.
        unsafe { bpf_skb_change_tail(skb.0, bytes_max, 0) };
    }
    NEXT
}
