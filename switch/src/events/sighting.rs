//! Stations that the loop hears for the first time, or behind another port: from the loop's thread to the clerk's.
//!
//! The loop never waits. A queue takes what it saw; what finds no room is counted as lost, so that produced = delivered + lost.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use switch_common::{MacAddr, PortId};

use crate::evidence::{QueueCells, QueueTally};
use crate::fdb::Nanos;

/// Sightings that may wait.
const QUEUE_MAX: usize = 4096;

/// A station where it was not before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sighting {
    /// When, by the monotonic clock.
    pub time: Nanos,
    /// The port it was heard at.
    pub port: PortId,
    /// Its address.
    pub mac: MacAddr,
    /// The port it was behind until now, if it was known.
    pub from: Option<PortId>,
}

/// The loop's end of the queue.
#[derive(Debug)]
pub struct Reporter {
    queue: SyncSender<Sighting>,
    bell: Arc<OwnedFd>,
    cells: Arc<QueueCells>,
}

/// The other end.
#[derive(Debug)]
pub struct Sightings {
    queue: Receiver<Sighting>,
    cells: Arc<QueueCells>,
}

/// A queue for sightings; `bell`, an eventfd, is rung for each.
pub fn queue(bell: Arc<OwnedFd>) -> (Reporter, Sightings) {
    let (sender, receiver) = sync_channel(QUEUE_MAX);
    let cells = Arc::new(QueueCells::default());
    (Reporter { queue: sender, bell, cells: Arc::clone(&cells) }, Sightings { queue: receiver, cells })
}

impl Reporter {
    /// Tells of a station that is new, or that came from another port.
    pub fn report(&self, sighting: Sighting) {
        self.cells.produced.fetch_add(1, Ordering::Relaxed);
        if self.queue.try_send(sighting).is_err() {
            self.cells.lost.fetch_add(1, Ordering::Relaxed);
            return;
        }
        // A bell that cannot be rung has been rung 2⁶⁴ times and not been heard: it will be.
        rustix::io::write(&self.bell, &1_u64.to_ne_bytes()).ok();
    }
}

impl Sightings {
    /// The queue's counters.
    pub fn tally(&self) -> QueueTally {
        QueueTally(Arc::clone(&self.cells))
    }

    /// The next, if one is there.
    pub fn next(&self) -> Option<Sighting> {
        let sighting = self.queue.try_recv().ok()?;
        self.cells.delivered.fetch_add(1, Ordering::Relaxed);
        Some(sighting)
    }
}
