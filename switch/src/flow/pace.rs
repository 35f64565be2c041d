//! How busy a conversation is: what one direction carried in all, and how much of it since the sweep before.
//!
//! A rate is what the last sweep added over the time since the one before it. Of what began in between, the time is taken that
//! it was there, but a second at least: a frame that came a moment before a sweep is no torrent.

use switch_common::PortId;

use super::counters::Counters;
use super::half::Half;
use super::key::FlowKey;
use super::moment::{Moment, NANOS_PER_SEC};

/// Sweeps that are asked for may follow each other at once; what they add says little.
const SHORTEST_NS: u64 = NANOS_PER_SEC / 10;

/// Frames and bytes as a wire would have carried them, a second or in all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Carried {
    /// Frames.
    pub frames: u64,
    /// Bytes.
    pub bytes: u64,
}

impl Carried {
    fn add(&mut self, delta: &Counters) {
        self.frames = self.frames.saturating_add(delta.tally.wire_frames());
        self.bytes = self.bytes.saturating_add(delta.tally.wire_bytes());
    }

    /// Both together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self { frames: self.frames.saturating_add(other.frames), bytes: self.bytes.saturating_add(other.bytes) }
    }

    fn per_second(self, ns: u64) -> Self {
        let rate = |count: u64| {
            let rate = u128::from(count) * u128::from(NANOS_PER_SEC) / u128::from(ns.max(1));
            u64::try_from(rate).unwrap_or(u64::MAX)
        };
        Self { frames: rate(self.frames), bytes: rate(self.bytes) }
    }
}

/// What a half has carried.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Load {
    total: Carried,
    /// Added by the sweep at `swept_ns`.
    fresh: Carried,
    swept_ns: u64,
}

impl Load {
    pub(super) fn add(&mut self, delta: &Counters, now: &Moment) {
        if self.swept_ns != now.ktime_ns {
            self.fresh = Carried::default();
            self.swept_ns = now.ktime_ns;
        }
        self.fresh.add(delta);
        self.total.add(delta);
    }
}

/// The last sweep and the one before, by `CLOCK_MONOTONIC`.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sweeps {
    before_ns: Option<u64>,
    last_ns: Option<u64>,
}

impl Sweeps {
    /// A sweep begins. Two at one moment are one.
    pub(super) fn next(&mut self, now: &Moment) {
        if self.last_ns != Some(now.ktime_ns) {
            self.before_ns = self.last_ns.replace(now.ktime_ns);
        }
    }
}

/// One direction: in all, and a second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pace {
    /// Since the conversation began, or was first seen.
    pub total: Carried,
    /// A second, by the last sweep.
    pub rate: Carried,
}

impl Pace {
    pub(super) fn of(half: &Half, sweeps: Sweeps) -> Self {
        let Load { total, fresh, swept_ns } = half.load;
        let rate = match (sweeps.before_ns, sweeps.last_ns) {
            (Some(before_ns), Some(last_ns)) if swept_ns == last_ns => {
                let since = |then: u64| last_ns.saturating_sub(then);
                let time = since(half.first_ns).max(NANOS_PER_SEC).min(since(before_ns));
                fresh.per_second(time.max(SHORTEST_NS))
            }
            _ => Carried::default(),
        };
        Self { total, rate }
    }
}

/// What can be said of a conversation that goes on at no price: enough to choose those that somebody wants to see whole.
#[derive(Clone, Copy, Debug)]
pub struct Glance {
    /// Where [`super::Tracker::at`] finds it, until the next sweep.
    pub place: usize,
    /// Its number, as in a conversation.
    pub number: u64,
    /// The direction of who began.
    pub key: FlowKey,
    /// The port it goes out by, if it is one port.
    pub egress: Option<PortId>,
    /// When it began, by `CLOCK_MONOTONIC`.
    pub began_ns: u64,
    /// When the last frame came, by `CLOCK_MONOTONIC`.
    pub last_ns: u64,
    /// What who began has sent.
    pub forward: Pace,
    /// What was sent back.
    pub reverse: Pace,
    /// Round trip of the handshake in µs, if it was measured.
    pub rtt_us: Option<u64>,
    /// TCP segments sent again by both, since the conversation was last given out.
    pub retransmits: u64,
}
