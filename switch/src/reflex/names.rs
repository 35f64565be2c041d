//! The ring of frames that say who is who, which the kernel half fills: see [`crate::names`].
//!
//! As with evidence, the ring is pinned, so that what was told while no daemon lived is still heard; and what was delivered is not
//! kept: a new daemon takes everything that waits, and from then on knows what must have been delivered.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use aya::Ebpf;
use aya::maps::{Array, MapData, RingBuf};
use switch_common::{HEARD_BYTES_MAX, HeardCounts, PORT_SLOTS, PortId};

use super::Reflex;
use super::error::ReflexError;
use super::maps::with_fd;
use crate::fdb::Nanos;

/// What of a port's frames is handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HearingRate {
    /// Frames a second, in the long run.
    pub per_second: u32,
    /// Frames at once.
    pub burst: u32,
}

impl Default for HearingRate {
    fn default() -> Self {
        Self { per_second: 1000, burst: 1000 }
    }
}

impl HearingRate {
    /// Between two frames, in ns, and how far they may run ahead: the programs' constants.
    pub(super) fn constants(rate: Option<Self>) -> (u64, u64) {
        let Some(Self { per_second, burst }) = rate else { return (0, 0) };
        let interval = 1_000_000_000 / u64::from(per_second.max(1));
        (interval, interval * u64::from(burst.max(1).saturating_sub(1)))
    }
}

/// The beginning of a frame that says who is who.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeardFrame {
    /// When, by the monotonic clock.
    pub time: Nanos,
    /// The port it came in by.
    pub port: PortId,
    /// Length of the frame in bytes, tags included.
    pub length: u32,
    /// Its first bytes; untrusted, as a guest sent them.
    pub bytes: Vec<u8>,
}

/// How much a port told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HeardSums {
    /// Frames of interest.
    pub produced: u64,
    /// Of these: handed over.
    pub delivered: u64,
    /// Of these: refused by the port's limit.
    pub limited: u64,
    /// Of these: those that found the ring full.
    pub lost: u64,
}

/// The ring's reading end. Readable as a file descriptor when there is something in it.
pub struct HeardRing {
    ring: RingBuf<MapData>,
    /// What waited when the ring was adopted.
    early: VecDeque<HeardFrame>,
    delivered: Arc<[AtomicU64]>,
}

/// The ring's counters.
pub(super) struct HeardTally {
    counts: Array<MapData, HeardCounts>,
    delivered: Arc<[AtomicU64]>,
}

/// How often a new daemon looks whether the kernel half adds to the ring while it empties it.
const ADOPT_LOOKS: u32 = 10;

/// Takes ring and counters out of the loaded object.
pub(super) fn take(ebpf: &mut Ebpf) -> Result<(HeardRing, HeardTally), ReflexError> {
    let ring = ebpf.take_map("HEARD").ok_or_else(|| ReflexError::Foreign { what: "map HEARD".to_owned() })?;
    let ring = RingBuf::try_from(ring).map_err(ReflexError::map("HEARD"))?;
    let (counts, _) = with_fd(ebpf, "HEARD_COUNTS")?;
    let delivered: Arc<[AtomicU64]> = (0..PORT_SLOTS).map(|_| AtomicU64::new(0)).collect();
    let mut ring = HeardRing { ring, early: VecDeque::new(), delivered: Arc::clone(&delivered) };
    let tally = HeardTally { counts, delivered };
    for _ in 0..ADOPT_LOOKS {
        let before = tally.all()?;
        while let Some(heard) = ring.fetch() {
            ring.early.push_back(heard);
        }
        for (counts, delivered) in before.iter().zip(tally.delivered.iter()) {
            delivered.store(counts.produced - counts.limited - counts.lost, Ordering::Release);
        }
        for heard in &ring.early {
            if let Some(delivered) = tally.delivered.get(heard.port.index()) {
                delivered.fetch_sub(1, Ordering::Release);
            }
        }
        if tally.all()? == before {
            break;
        }
    }
    Ok((ring, tally))
}

impl HeardTally {
    fn of(&self, slot: usize) -> Result<HeardCounts, ReflexError> {
        self.counts.get(&u32::try_from(slot).unwrap_or(0), 0).map_err(ReflexError::map("HEARD_COUNTS"))
    }

    /// All zeros for a port id that is given to a new port, unless something of an earlier one's is on its way still.
    pub(super) fn reset(&mut self, port: PortId) -> Result<(), ReflexError> {
        let HeardCounts { produced, limited, lost, .. } = self.of(port.index())?;
        let Some(delivered) = self.delivered.get(port.index()) else { return Ok(()) };
        if delivered.load(Ordering::Acquire) + limited + lost == produced {
            delivered.store(0, Ordering::Release);
            let zeros = HeardCounts::default();
            self.counts.set(u32::from(port.get()), zeros, 0).map_err(ReflexError::map("HEARD_COUNTS"))?;
        }
        Ok(())
    }

    fn all(&self) -> Result<Vec<HeardCounts>, ReflexError> {
        (0..PORT_SLOTS).map(|slot| self.of(slot)).collect()
    }
}

impl HeardRing {
    /// Hands over what waits, `most` frames at most; never waits itself. Says how many that were.
    pub fn drain(&mut self, most: usize, mut each: impl FnMut(&HeardFrame)) -> usize {
        for taken in 0..most {
            let Some(heard) = self.early.pop_front().or_else(|| self.fetch()) else { return taken };
            if let Some(delivered) = self.delivered.get(heard.port.index()) {
                delivered.fetch_add(1, Ordering::Release);
            }
            each(&heard);
        }
        most
    }

    fn fetch(&mut self) -> Option<HeardFrame> {
        loop {
            let item = self.ring.next()?;
            // The kernel half writes nothing else; what is not a record is none.
            if let Some(heard) = decode(&item) {
                return Some(heard);
            }
        }
    }
}

impl AsFd for HeardRing {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ring.as_fd()
    }
}

impl Reflex {
    /// The ring of frames that say who is who; `None` when it has been taken before.
    pub fn heard(&mut self) -> Option<HeardRing> {
        self.heard.take()
    }

    /// How much a port has told.
    ///
    /// # Errors
    /// The kernel's.
    pub fn heard_sums(&self, port: PortId) -> Result<HeardSums, ReflexError> {
        // What is delivered is read first: it was produced before.
        let delivered = self.heard_counts.delivered.get(port.index()).map_or(0, |cell| cell.load(Ordering::Acquire));
        let HeardCounts { produced, limited, lost, .. } = self.heard_counts.of(port.index())?;
        Ok(HeardSums { produced, delivered, limited, lost })
    }
}

/// A record ([`switch_common::Heard`]) as it lies in the ring.
fn decode(record: &[u8]) -> Option<HeardFrame> {
    let short = |at: usize| Some(u16::from_ne_bytes(*record.get(at..)?.first_chunk()?));
    let time = Nanos(u64::from_ne_bytes(*record.first_chunk()?));
    let length = u32::from_ne_bytes(*record.get(8..)?.first_chunk()?);
    let captured = usize::from(short(14)?).min(HEARD_BYTES_MAX);
    let bytes = record.get(16..)?.get(..captured)?.to_vec();
    Some(HeardFrame { time, port: PortId::new(short(12)?)?, length, bytes })
}

const _: () = {
    use std::mem::offset_of;
    use switch_common::Heard as Record;
    assert!(offset_of!(Record, length) == 8 && offset_of!(Record, port) == 12 && offset_of!(Record, captured) == 14);
    assert!(offset_of!(Record, bytes) == 16);
};
