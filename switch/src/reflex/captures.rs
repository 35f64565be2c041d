//! The ring of captured frames that the kernel half fills.

use std::os::fd::{AsFd, BorrowedFd};

use aya::maps::{MapData, RingBuf};
use switch_common::{CAPTURES_BYTES, Captured};

/// One captured frame.
#[derive(Clone, Copy, Debug)]
pub struct Capture<'a> {
    /// When, where and why.
    pub about: Captured,
    /// Its bytes, as many as were wanted and are there; the tag in its place.
    pub bytes: &'a [u8],
}

/// The ring's reading end. Its descriptor becomes readable when the ring is an eighth full: who wants frames sooner looks
/// every few milliseconds, which is what makes a wake-up per frame unnecessary.
pub struct CaptureRing {
    ring: RingBuf<MapData>,
}

impl CaptureRing {
    pub(super) fn new(ring: RingBuf<MapData>) -> Self {
        Self { ring }
    }

    /// Hands over everything that waits; never waits itself. How many frames there were.
    pub fn drain(&mut self, mut each: impl FnMut(Capture<'_>)) -> usize {
        let mut frames = 0;
        while let Some(item) = self.ring.next() {
            // The kernel half writes nothing else; what is not a record is none.
            if let Some(capture) = decode(&item) {
                each(capture);
                frames += 1;
            }
        }
        frames
    }

    /// As [`Self::drain`], but no more than so many: others may add faster than this takes.
    pub fn take(&mut self, frames_max: usize, mut each: impl FnMut(Capture<'_>)) -> usize {
        let mut frames = 0;
        while frames < frames_max
            && let Some(item) = self.ring.next()
        {
            if let Some(capture) = decode(&item) {
                each(capture);
            }
            frames += 1;
        }
        frames
    }

    /// Its size in bytes.
    pub const fn bytes(&self) -> usize {
        CAPTURES_BYTES
    }
}

impl AsFd for CaptureRing {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ring.as_fd()
    }
}

/// A record as it lies in the ring.
fn decode(record: &[u8]) -> Option<Capture<'_>> {
    let short = |at: usize| Some(u16::from_ne_bytes(*record.get(at..)?.first_chunk()?));
    let word = |at: usize| Some(u32::from_ne_bytes(*record.get(at..)?.first_chunk()?));
    let long = |at: usize| Some(u64::from_ne_bytes(*record.get(at..)?.first_chunk()?));
    let about = Captured {
        time_ns: long(0)?,
        sessions: long(8)?,
        length: word(16)?,
        captured: word(20)?,
        reason: word(24)?,
        ingress: short(28)?,
        egress: short(30)?,
        gso_size: short(32)?,
        outcome: *record.get(34)?,
        way: *record.get(35)?,
        reserved: 0,
    };
    let bytes = record.get(size_of::<Captured>()..)?.get(..about.captured as usize)?;
    Some(Capture { about, bytes })
}
