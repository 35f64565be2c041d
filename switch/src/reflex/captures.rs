//! The ring of captured frames that the kernel half fills.
//!
//! Its pages are mapped, twice in a row as the kernel has them, only while somebody reads: a daemon that nobody asks for a capture
//! has none of them among its own.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use aya::maps::{Map, MapData, MapError, RingBuf};
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
    map: OwnedFd,
    mapped: Option<RingBuf<MapData>>,
    /// It could not be mapped, and that was said: it is tried again at every look.
    is_refused: bool,
}

impl CaptureRing {
    pub(super) fn new(map: OwnedFd) -> Self {
        Self { map, mapped: None, is_refused: false }
    }

    /// The ring as memory. Where the last reader stopped is written in the ring itself.
    fn mapped(&mut self) -> Option<&mut RingBuf<MapData>> {
        if self.mapped.is_none() {
            match map(&self.map) {
                Ok(ring) => (self.mapped, self.is_refused) = (Some(ring), false),
                // What it holds stays there; what finds no room any more is counted as lost.
                Err(error) if !self.is_refused => {
                    self.is_refused = true;
                    tracing::error!("the ring of captured frames cannot be mapped, captures stand still: {error}");
                }
                Err(_) => {}
            }
        }
        self.mapped.as_mut()
    }

    /// Gives the memory back until somebody reads again.
    pub fn rest(&mut self) {
        self.mapped = None;
    }

    /// Hands over everything that waits; never waits itself. How many frames there were.
    pub fn drain(&mut self, mut each: impl FnMut(Capture<'_>)) -> usize {
        let mut frames = 0;
        let Some(ring) = self.mapped() else { return 0 };
        while let Some(item) = ring.next() {
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
        let Some(ring) = self.mapped() else { return 0 };
        while frames < frames_max
            && let Some(item) = ring.next()
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
        self.map.as_fd()
    }
}

fn map(map: &OwnedFd) -> Result<RingBuf<MapData>, MapError> {
    RingBuf::try_from(Map::RingBuf(MapData::from_fd(map.try_clone()?)?))
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
