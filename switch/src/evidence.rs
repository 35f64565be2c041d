//! Evidence: the first bytes of one frame per (port, side, reason, second) that did not arrive.
//!
//! Three keep it, all in the same form: the reflex and the kernel's tracepoint through a ring buffer
//! ([`crate::reflex::EvidenceRing`]), the loop through a queue ([`Witness`]). Neither is ever waited for: what finds no room
//! is counted as lost, so that produced = delivered + lost (law L7).

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use jiff::{SignedDuration, Timestamp};
use switch_common::{DropReason, EVIDENCE_BYTES_MAX, PORT_SLOTS, PortId, REASON_SLOTS, Way};
use tokio::sync::mpsc::{Receiver, Sender, channel};

use crate::fdb::Nanos;

/// Evidence of the loop's that may wait to be fetched.
const QUEUE_MAX: usize = 1024;

/// The beginning of a frame that did not arrive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evidence {
    /// When, by the monotonic clock.
    pub time: Nanos,
    /// Port id; 0: of no port.
    pub port: u16,
    /// On which side of the port, where that is known.
    pub way: Option<Way>,
    /// The reason's label.
    pub reason: Cow<'static, str>,
    /// Length of the frame in bytes, tags included.
    pub length: u32,
    /// Its first bytes; untrusted, as a guest sent them.
    pub bytes: Vec<u8>,
}

/// How much there was, ever.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EvidenceSums {
    /// Frames whose turn it was.
    pub produced: u64,
    /// Of these: handed over.
    pub delivered: u64,
    /// Of these: those that found no room.
    pub lost: u64,
}

impl EvidenceSums {
    /// Both together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            produced: self.produced + other.produced,
            delivered: self.delivered + other.delivered,
            lost: self.lost + other.lost,
        }
    }
}

/// The counters of a queue that one end never waits for: produced = delivered + lost, once nothing is on its way.
#[derive(Debug, Default)]
pub(crate) struct QueueCells {
    pub(crate) produced: AtomicU64,
    pub(crate) delivered: AtomicU64,
    pub(crate) lost: AtomicU64,
}

/// A queue's counters, for who tells them.
#[derive(Clone, Debug)]
pub struct QueueTally(pub(crate) Arc<QueueCells>);

impl QueueTally {
    /// The values now.
    pub fn sums(&self) -> EvidenceSums {
        // What is delivered or lost is read first: it was produced before.
        let (delivered, lost) = (self.0.delivered.load(Ordering::Acquire), self.0.lost.load(Ordering::Acquire));
        EvidenceSums { produced: self.0.produced.load(Ordering::Acquire), delivered, lost }
    }
}

/// The loop's end of the queue: it decides whose turn it is, and never waits.
#[derive(Debug)]
pub struct Witness {
    queue: Sender<Evidence>,
    cells: Arc<QueueCells>,
    /// The second that evidence was kept in last, plus one, by port, way and reason.
    turns: Vec<u64>,
}

/// The other end.
#[derive(Debug)]
pub struct Testimony {
    queue: Receiver<Evidence>,
    cells: Arc<QueueCells>,
}

/// A queue for the loop's evidence.
pub fn witness() -> (Witness, Testimony) {
    let (sender, receiver) = channel(QUEUE_MAX);
    let cells = Arc::new(QueueCells::default());
    let turns = vec![0; PORT_SLOTS * 2 * REASON_SLOTS];
    (Witness { queue: sender, cells: Arc::clone(&cells), turns }, Testimony { queue: receiver, cells })
}

impl Witness {
    /// Keeps the beginning of a dropped frame, if it is the turn of its port, way and reason.
    pub fn see(&mut self, port: PortId, way: Way, reason: DropReason, frame: &[u8], now: Nanos) {
        let place = (port.index() * 2 + way as usize) * REASON_SLOTS + reason as usize;
        let second = now.0 / 1_000_000_000 + 1;
        match self.turns.get_mut(place) {
            Some(last) if *last != second => *last = second,
            _ => return,
        }
        self.cells.produced.fetch_add(1, Ordering::Relaxed);
        let evidence = Evidence {
            time: now,
            port: port.get(),
            way: Some(way),
            reason: Cow::Borrowed(reason.label()),
            length: u32::try_from(frame.len()).unwrap_or(u32::MAX),
            bytes: frame.iter().take(EVIDENCE_BYTES_MAX).copied().collect(),
        };
        if self.queue.try_send(evidence).is_err() {
            self.cells.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Testimony {
    /// The queue's counters.
    pub fn tally(&self) -> QueueTally {
        QueueTally(Arc::clone(&self.cells))
    }

    /// The next, when there is one; `None` once the loop has ended.
    pub async fn next(&mut self) -> Option<Evidence> {
        let evidence = self.queue.recv().await;
        self.delivered(evidence)
    }

    /// The next, if one is there.
    pub fn try_next(&mut self) -> Option<Evidence> {
        let evidence = self.queue.try_recv().ok();
        self.delivered(evidence)
    }

    fn delivered(&self, evidence: Option<Evidence>) -> Option<Evidence> {
        self.cells.delivered.fetch_add(u64::from(evidence.is_some()), Ordering::Relaxed);
        evidence
    }
}

/// A time of the monotonic clock as a time of day, to the microsecond.
pub(crate) fn time_of_day(time: Nanos, now: Nanos, wall: Timestamp) -> Timestamp {
    let ago = SignedDuration::try_from(now.since(time)).unwrap_or_default();
    let then = wall.checked_sub(ago).unwrap_or(wall);
    Timestamp::from_microsecond(then.as_microsecond()).unwrap_or(then)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PORT: PortId = PortId::new(3).expect("a port");

    #[test]
    fn a_moment_is_told_by_the_time_of_day() {
        let wall: Timestamp = "2026-11-22T07:00:00Z".parse().unwrap_or_default();
        let then = time_of_day(Nanos(1_000_000_000), Nanos(3_500_000_000), wall);
        assert_eq!(then.to_string(), "2026-11-22T06:59:57.5Z");
        assert_eq!(time_of_day(Nanos(5), Nanos(4), wall), wall, "never in the future");
    }

    #[test]
    fn one_frame_per_port_side_reason_and_second_is_kept() {
        let (mut witness, mut testimony) = witness();
        for (second, reason) in
            [(5, DropReason::TooBig), (5, DropReason::TooBig), (5, DropReason::Hairpin), (6, DropReason::TooBig)]
        {
            witness.see(PORT, Way::Ingress, reason, &[second; 200], Nanos(u64::from(second) * 1_000_000_000));
        }
        let kept: Vec<_> = std::iter::from_fn(|| testimony.try_next()).collect();
        let seen: Vec<_> = kept.iter().map(|it| (it.bytes.first().copied(), it.reason.as_ref())).collect();
        assert_eq!(seen, [(Some(5), "too_big"), (Some(5), "hairpin"), (Some(6), "too_big")]);
        assert!(kept.iter().all(|it| it.bytes.len() == EVIDENCE_BYTES_MAX && it.length == 200 && it.port == 3));
        assert_eq!(testimony.tally().sums(), EvidenceSums { produced: 3, delivered: 3, lost: 0 });
    }

    #[test]
    fn what_finds_the_queue_full_is_lost_and_counted() {
        let (mut witness, mut testimony) = witness();
        let seconds = QUEUE_MAX as u64 + 10;
        for second in 0..seconds {
            witness.see(PORT, Way::Egress, DropReason::TooBig, &[0; 60], Nanos(second * 1_000_000_000));
        }
        while testimony.try_next().is_some() {}
        let sums = testimony.tally().sums();
        assert_eq!(sums, EvidenceSums { produced: seconds, delivered: QUEUE_MAX as u64, lost: 10 });
    }
}
