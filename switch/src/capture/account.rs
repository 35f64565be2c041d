//! What became of the frames that a session was given, as who checks the books may read it while the session goes on.
//!
//! A frame that matched is in the ring, in the loop's queue, in the hub's round or in the reader's queue until it is booked here,
//! once: as delivered when the reader has taken it (the recorder: when it is on its reel), as lost where it found no room, as passed
//! over where it turned out not to be wanted. What was lost before the hub saw it, the reflex and the loop count.

use std::sync::atomic::{AtomicU64, Ordering};

/// The books of one session; written by the hub and by the reader's end of the queue.
#[derive(Debug, Default)]
pub struct Account {
    delivered: AtomicU64,
    lost: AtomicU64,
    passed_over: AtomicU64,
}

/// Frames, as an [`Account`] has them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Booked {
    /// Taken by the reader.
    pub delivered: u64,
    /// Left out, because the reader was too slow.
    pub lost: u64,
    /// Not wanted after all: refused by the filter where it could be asked late only, or come after the session's last frame.
    pub passed_over: u64,
}

impl Account {
    /// Books frames that the reader has taken.
    pub(super) fn deliver(&self, frames: u64) {
        self.delivered.fetch_add(frames, Ordering::Release);
    }

    /// Books a frame that found no room.
    pub(super) fn lose(&self) {
        self.lost.fetch_add(1, Ordering::Release);
    }

    /// Books a frame that is not wanted after all.
    pub(super) fn pass_over(&self) {
        self.passed_over.fetch_add(1, Ordering::Release);
    }

    /// What is booked so far.
    pub fn booked(&self) -> Booked {
        Booked {
            delivered: self.delivered.load(Ordering::Acquire),
            lost: self.lost.load(Ordering::Acquire),
            passed_over: self.passed_over.load(Ordering::Acquire),
        }
    }
}
