//! What is counted in one direction, and the difference between two readings of it.

use switch_common::Tally;
use switch_common::flow::FlowValue;

/// What is counted in one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Frames, wire frames and bytes, dropped ones included.
    pub tally: Tally,
    /// Of the frames: those that were dropped as they came in.
    pub dropped_frames: u64,
    /// TCP payload bytes below the highest seen before.
    pub retransmitted_bytes: u64,
    /// TCP segments that had such bytes.
    pub retransmitted_segments: u64,
    /// TCP segments that closed the window.
    pub zero_windows: u64,
    /// TCP segments with RST.
    pub resets: u64,
}

impl Counters {
    pub(super) fn of(value: &FlowValue) -> Self {
        let &FlowValue { frames, bytes, extra_frames, extra_bytes, dropped_frames, retransmitted_bytes, .. } = value;
        Self {
            tally: Tally { frames, bytes, extra_frames, extra_bytes },
            dropped_frames,
            retransmitted_bytes,
            retransmitted_segments: value.retransmitted_segments.into(),
            zero_windows: value.zero_windows.into(),
            resets: value.resets.into(),
        }
    }

    /// Whether an entry that had counted `before` can have counted this later: its sums never decrease.
    pub(super) fn follows(&self, before: &Self) -> bool {
        let (now, then) = (&self.tally, &before.tally);
        now.frames >= then.frames
            && now.bytes >= then.bytes
            && now.extra_frames >= then.extra_frames
            && now.extra_bytes >= then.extra_bytes
    }

    /// What was added since `before`, which this follows. The kernel's 32-bit counters may have wrapped.
    pub(super) fn since(&self, before: &Self) -> Self {
        #[expect(clippy::cast_possible_truncation, reason = "both were 32-bit numbers")]
        let wrapped = |now: u64, then: u64| u64::from((now as u32).wrapping_sub(then as u32));
        let (now, then) = (&self.tally, &before.tally);
        Self {
            tally: Tally {
                frames: now.frames.saturating_sub(then.frames),
                bytes: now.bytes.saturating_sub(then.bytes),
                extra_frames: now.extra_frames.saturating_sub(then.extra_frames),
                extra_bytes: now.extra_bytes.saturating_sub(then.extra_bytes),
            },
            dropped_frames: self.dropped_frames.saturating_sub(before.dropped_frames),
            retransmitted_bytes: self.retransmitted_bytes.saturating_sub(before.retransmitted_bytes),
            retransmitted_segments: wrapped(self.retransmitted_segments, before.retransmitted_segments),
            zero_windows: wrapped(self.zero_windows, before.zero_windows),
            resets: wrapped(self.resets, before.resets),
        }
    }

    /// Adds what another one counted.
    pub fn add(&mut self, other: &Self) {
        self.tally.add(&other.tally);
        self.dropped_frames += other.dropped_frames;
        self.retransmitted_bytes += other.retransmitted_bytes;
        self.retransmitted_segments += other.retransmitted_segments;
        self.zero_windows += other.zero_windows;
        self.resets += other.resets;
    }

    /// Whether nothing was counted.
    pub fn is_zero(&self) -> bool {
        *self == Self::default()
    }
}
