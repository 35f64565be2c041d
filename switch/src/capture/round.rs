//! What the hub has taken from its two sources in a round: frames, until they are given to the sessions.

use crate::fdb::Nanos;

/// Bytes of frames that a round takes at most, and some more.
pub(super) const ROUND_BYTES_MAX: usize = 8 << 20;

/// A frame of the reflex's.
#[derive(Clone, Copy, Debug)]
pub struct Drawn<'a> {
    /// When its fate was decided, by the monotonic clock.
    pub time: Nanos,
    /// The sessions that want it.
    pub sessions: u64,
    /// Its length.
    pub length: u32,
    /// Whether no filter has seen it yet.
    pub is_unfiltered: bool,
    /// Its fate: see [`super::stream::Fate`].
    pub fate: &'a [u8],
    /// What was captured of it.
    pub bytes: &'a [u8],
}

/// Frames of a round, their bytes one after the other.
#[derive(Debug, Default)]
pub(super) struct Round {
    pub(super) frames: Vec<Seen>,
    bytes: Vec<u8>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    pub(super) time: Nanos,
    pub(super) sessions: u64,
    pub(super) length: u32,
    pub(super) is_unfiltered: bool,
    at: usize,
    fate_bytes: usize,
    kept: usize,
}

impl Round {
    pub(super) fn add(&mut self, drawn: Drawn<'_>) {
        let at = self.bytes.len();
        self.bytes.extend_from_slice(drawn.fate);
        self.bytes.extend_from_slice(drawn.bytes);
        let (fate_bytes, kept) = (drawn.fate.len(), drawn.bytes.len());
        let Drawn { time, sessions, length, is_unfiltered, .. } = drawn;
        self.frames.push(Seen { time, sessions, length, is_unfiltered, at, fate_bytes, kept });
    }

    pub(super) fn is_full(&self) -> bool {
        self.bytes.len() >= ROUND_BYTES_MAX
    }

    pub(super) fn fate(&self, seen: &Seen) -> &[u8] {
        self.bytes.get(seen.at..seen.at + seen.fate_bytes).unwrap_or_default()
    }

    pub(super) fn kept(&self, seen: &Seen) -> &[u8] {
        let at = seen.at + seen.fate_bytes;
        self.bytes.get(at..at + seen.kept).unwrap_or_default()
    }

    /// Keeps only the frames from `first` on.
    pub(super) fn keep_from(&mut self, first: usize) {
        if first >= self.frames.len() {
            self.frames.clear();
            self.bytes.clear();
            return;
        }
        let held = std::mem::take(self);
        for seen in held.frames.iter().skip(first) {
            let Seen { time, sessions, length, is_unfiltered, .. } = *seen;
            self.add(Drawn { time, sessions, length, is_unfiltered, fate: held.fate(seen), bytes: held.kept(seen) });
        }
    }
}
