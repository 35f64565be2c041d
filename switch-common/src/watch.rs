//! What lies in the maps of those who look on: captures and mirrors, together called *sessions*.
//!
//! | map | kind | key → value | written by | read by |
//! |---|---|---|---|---|
//! | `WATCH` | array, `PORT_SLOTS` | port id → [`PortWatch`] | control | reflex |
//! | `SESSIONS` | array, [`SESSIONS_MAX`] | bit → [`Session`] | control | reflex |
//! | `WATCHERS` | program array, 2 | [`WATCHERS_FILTER`], [`WATCHERS_SERVE`] → programs | control | reflex |
//! | `SESSION_COUNTS` | per-CPU array, [`SESSIONS_MAX`] | bit → [`SessionCounts`] | reflex | control |
//! | `TARGET_DROPS` | array, [`SESSIONS_MAX`] | bit → [`crate::DropCell`] that the kernel dropped at a mirror's target | `book_kernel` (atomic) | control |
//! | `INJECTED` | array, 1 | → `u64`: sessions that have seen the frame whose copies are being injected; not pinned | reflex | reflex |
//! | `CAPTURES` | ring buffer, [`CAPTURES_BYTES`] | [`Captured`] and bytes; not pinned | reflex | the daemon |
//!
//! A session is a bit of a 64-bit mask. Whoever decides a frame's fate looks at one bit of a word that it has read anyway
//! ([`PORT_WATCHED`]); only when that is set are the masks of both ports looked up. What remains of them goes into the
//! frame's control block, in five words of 32 bits, and the program that all sessions' filters were made into is jumped into:
//!
//! ```text
//! word 0  interface to redirect to
//! word 1  fate: ingress id (12 bits), egress id (12), WATCH_ACTION (2), reason (5), WATCH_PUNTED (1)
//! word 2  sessions, low half          word 3  sessions, high half
//! ```
//!
//! **Invariant**: whichever program comes last does what the fate says; a jump that fails does it in the program that jumped.

use crate::Tally;

/// Bit of [`crate::PortConfig::flags`]: somebody looks on. Set for all ports as long as there is a session.
pub const PORT_WATCHED: u32 = 4;

/// Sessions there can be at once.
pub const SESSIONS_MAX: usize = 64;
/// Size of the ring buffer of captured frames.
pub const CAPTURES_BYTES: usize = 1 << 23;

/// Place in `WATCHERS` of the generated program that evaluates all filters.
pub const WATCHERS_FILTER: u32 = 0;
/// Place in `WATCHERS` of the program that serves the sessions that are left.
pub const WATCHERS_SERVE: u32 = 1;

/// Where the egress id begins in the word that tells a frame's fate.
pub const WATCH_EGRESS_SHIFT: u32 = 12;
/// Where the action begins.
pub const WATCH_ACTION_SHIFT: u32 = 24;
/// Bits of the action, once shifted.
pub const WATCH_ACTION_MASK: u32 = 3;
/// Where the reason begins.
pub const WATCH_REASON_SHIFT: u32 = 26;
/// Bits of the reason, once shifted.
pub const WATCH_REASON_MASK: u32 = 31;
/// The frame bears the punt tag beside its bytes, and is on its way to the brain.
pub const WATCH_PUNTED: u32 = 1 << 31;

/// Action: the frame is dropped, for the reason.
pub const WATCH_DROP: u32 = 0;
/// Action: redirect.
pub const WATCH_REDIRECT: u32 = 1;
/// Action: redirect to the peer.
pub const WATCH_REDIRECT_PEER: u32 = 2;

/// Flag in the punt tag of a copy that the brain injects: another tag of the same type follows, whose id is the port that
/// the frame came in by.
pub const INJECT_ORIGIN_BIT: u16 = 0x2000;
/// Flag in that second tag: another copy of the same frame was injected just before.
pub const INJECT_AGAIN_BIT: u16 = 0x2000;

/// Which sessions want a port's frames. One cache line.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortWatch {
    /// What came in here, whatever became of it in the reflex.
    pub ingress: u64,
    /// What the reflex hands to this port.
    pub egress: u64,
    /// What the reflex or the kernel drops on this port's account, on either side.
    pub dropped: u64,
    /// What came in here and is handed to the brain: mirrors only, the rest is served by the loop.
    pub punted: u64,
    /// What the brain hands to this port: mirrors only.
    pub injected: u64,
    /// Fills the cache line.
    pub reserved: [u64; 3],
}

/// No session.
pub const SESSION_NONE: u32 = 0;
/// Copies go to a netdev.
pub const SESSION_MIRROR: u32 = 1;
/// Copies go into the ring `CAPTURES`.
pub const SESSION_CAPTURE: u32 = 2;

/// What a session wants.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Session {
    /// `SESSION_*`.
    pub kind: u32,
    /// A mirror's target, as an interface index.
    pub target_ifindex: u32,
    /// A capture's: bytes wanted of a frame. A mirror's: bytes that its target is to get, 0 for all.
    pub bytes_max: u32,
    /// Of dropped frames: those whose [`crate::DropReason`] has its bit here.
    pub reasons: u32,
    /// Of frames that the kernel dropped: those whose reason has its bit here.
    pub kernel_reasons: [u64; 4],
}

/// What became of a session's frames, on one CPU. Written by the reflex with plain adds.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SessionCounts {
    /// Frames that the session wanted, after its filter.
    pub matched: Tally,
    /// Of these: those handed to the target, or written into the ring.
    pub delivered: Tally,
    /// Of these: those refused by the target, or without room in the ring.
    pub lost: Tally,
}

/// Forwarded to the egress port.
pub const OUTCOME_FORWARDED: u8 = 1;
/// Dropped by the reflex; the reason is a [`crate::DropReason`].
pub const OUTCOME_DROPPED: u8 = 2;
/// Dropped by the kernel on a port; the reason is one of the kernel's, and no filter has seen the frame yet.
pub const OUTCOME_KERNEL_DROPPED: u8 = 3;

/// What stands before a captured frame in the ring.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Captured {
    /// When: `bpf_ktime_get_ns`, the monotonic clock.
    pub time_ns: u64,
    /// The sessions that want it.
    pub sessions: u64,
    /// Length of the frame, tags included.
    pub length: u32,
    /// How many of its bytes follow.
    pub captured: u32,
    /// Why it was dropped, as a number of the outcome's.
    pub reason: u32,
    /// Port id it came in by; 0: not known.
    pub ingress: u16,
    /// Port id it was to leave by; 0: none.
    pub egress: u16,
    /// Payload bytes per segment of a super-frame, 0 for an ordinary frame.
    pub gso_size: u16,
    /// `OUTCOME_*`.
    pub outcome: u8,
    /// On whose account it was dropped: the number of a [`crate::Way`], or [`crate::WAY_UNKNOWN`].
    pub way: u8,
    /// Nothing.
    pub reserved: u32,
}

const _: () = {
    assert!(size_of::<PortWatch>() == 64);
    assert!(size_of::<Session>() == 48);
    assert!(size_of::<SessionCounts>() == 96);
    assert!(size_of::<Captured>() == 40);
    assert!(SESSIONS_MAX == u64::BITS as usize);
    assert!(crate::REASON_SLOTS == u32::BITS as usize);
};

#[cfg(feature = "user")]
mod pod {
    #![expect(unsafe_code, reason = "`aya::Pod` is an unsafe trait: the type must be plain data without padding")]
    use super::{Captured, PortWatch, Session, SessionCounts};
    use crate::DropCell;

    // SAFETY: two integers of 64 bits.
    unsafe impl aya::Pod for DropCell {}

    // SAFETY: `repr(C)`, integers only; the sizes asserted above equal the sums of the fields, so there is no padding.
    unsafe impl aya::Pod for PortWatch {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Session {}
    // SAFETY: as above.
    unsafe impl aya::Pod for SessionCounts {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Captured {}
}
