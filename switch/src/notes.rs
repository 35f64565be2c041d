//! Notes: of which flows the loop dropped frames for which no verdict is cached, and why.
//!
//! The reflex counts such a frame in its flow and hands it to the brain; what the brain then does with it (`flood_limited`,
//! `station_limit`, …) the flow does not know. So the loop writes it down by the flow's key, and the observer adds it to what it reads.
//!
//! ```text
//! loop ─ try_lock ─▶ pad of 4,096 flows ◀─ swapped for an empty one, once a sweep ─ observer
//! ```
//!
//! **Never in the way.** The loop takes the lock if it is free, and the observer holds it for as long as it takes to swap two pads. A
//! note for which there is no room, or no lock, is lost and counted: then a record says less than it could, and the port's own drop
//! counters say it all. Nothing is allocated for a frame.

use std::collections::HashMap;
use std::mem;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, TryLockError};

use switch_common::{DropReason, PortId};

use crate::flow::RawKey;
use crate::port::FrameBuffer;

/// Flows that can be noted between two sweeps.
const FLOWS_MAX: usize = 4096;

/// What the loop dropped of one flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Note {
    /// Frames; a super-frame counts once.
    pub frames: u64,
    /// Why the last one was dropped.
    pub reason: DropReason,
}

/// Notes by flow, the keys without their life bit.
pub type Notes = HashMap<RawKey, Note>;

#[derive(Debug)]
struct Shared {
    pad: Mutex<Notes>,
    lost: AtomicU64,
}

/// The loop's end.
#[derive(Debug)]
pub struct Notepad(Arc<Shared>);

/// The observer's end.
#[derive(Clone, Debug)]
pub struct NoteReader(Arc<Shared>);

/// A pad and who reads it.
pub fn notepad() -> (Notepad, NoteReader) {
    let shared = Arc::new(Shared { pad: Mutex::new(empty()), lost: AtomicU64::new(0) });
    (Notepad(Arc::clone(&shared)), NoteReader(shared))
}

/// With room for all that may come.
fn empty() -> Notes {
    HashMap::with_capacity(FLOWS_MAX)
}

impl Notepad {
    /// Notes that a frame was dropped. One whose flow cannot be told has none.
    pub fn note(&self, ingress: PortId, buffer: &FrameBuffer, reason: DropReason) {
        let Some(key) = RawKey::of_frame(ingress, buffer.frame(), buffer.offload.gso_size() != 0) else { return };
        let mut pad = match self.0.pad.try_lock() {
            Ok(pad) => pad,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return self.lose(),
        };
        let is_full = pad.len() >= FLOWS_MAX;
        match pad.get_mut(&key) {
            Some(note) => *note = Note { frames: note.frames + 1, reason },
            None if is_full => self.lose(),
            None => drop(pad.insert(key, Note { frames: 1, reason })),
        }
    }

    fn lose(&self) {
        self.0.lost.fetch_add(1, Ordering::Relaxed);
    }
}

impl NoteReader {
    /// What was noted since the last time.
    pub fn take(&self) -> Notes {
        let mut fresh = empty();
        mem::swap(&mut *self.0.pad.lock().unwrap_or_else(PoisonError::into_inner), &mut fresh);
        fresh
    }

    /// Frames that were dropped and could not be noted.
    pub fn lost(&self) -> u64 {
        self.0.lost.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that fails here has failed")]
    use super::*;
    use crate::frame::Offload;

    fn frame(number: u16) -> FrameBuffer {
        let [high, low] = number.to_be_bytes();
        let mut buffer = FrameBuffer::new();
        buffer.fill(
            &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, high, low, 0x88, 0xb5, 1, 2, 3],
            Offload::default(),
        );
        buffer
    }

    #[test]
    fn frames_are_noted_by_flow_and_what_finds_no_room_is_counted() {
        let (pad, reader) = notepad();
        let port = PortId::new(3).unwrap();
        for number in 0..5000 {
            pad.note(port, &frame(number), DropReason::FloodLimited);
        }
        pad.note(port, &frame(7), DropReason::StationLimit);
        let notes = reader.take();
        assert_eq!((notes.len(), reader.lost()), (FLOWS_MAX, 5000 - FLOWS_MAX as u64));
        let key = RawKey::of_frame(port, frame(7).frame(), false).unwrap();
        assert_eq!(notes[&key], Note { frames: 2, reason: DropReason::StationLimit });
        assert_eq!((key.ingress(), key.pair().source), (3, [2, 0, 0, 0, 0, 7]));
        assert!(reader.take().is_empty());
        let held = pad.0.pad.lock().unwrap();
        pad.note(port, &frame(1), DropReason::FloodLimited);
        drop(held);
        assert_eq!(reader.lost(), 5001 - FLOWS_MAX as u64);
    }
}
