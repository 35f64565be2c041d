//! The ring of evidence that the kernel half fills: see [`crate::evidence`].
//!
//! The ring is pinned, so that what was dropped while no daemon lived is still told. What was delivered is not: a new daemon
//! takes everything that waits, and from then on knows what must have been delivered, since the rest is lost or waits.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use aya::Ebpf;
use aya::maps::{Array, MapData, RingBuf};
use switch_common::{DropReason, EVIDENCE_BYTES_MAX, EVIDENCE_OURS, EvidenceCounts};

use super::Reflex;
use super::error::ReflexError;
use super::kernel_drops::KernelReasons;
use super::maps::with_fd;
use crate::evidence::{Evidence, EvidenceSums};
use crate::fdb::Nanos;

/// The ring's reading end. Readable as a file descriptor when there is something in it.
pub struct EvidenceRing {
    ring: RingBuf<MapData>,
    /// What waited when the ring was adopted.
    early: VecDeque<Evidence>,
    delivered: Arc<AtomicU64>,
    reasons: Arc<KernelReasons>,
}

/// The ring's counters.
pub(super) struct EvidenceTally {
    counts: Array<MapData, EvidenceCounts>,
    delivered: Arc<AtomicU64>,
}

/// How often a new daemon looks whether the kernel half adds to the ring while it empties it.
const ADOPT_LOOKS: u32 = 10;

/// Takes ring and counters out of the loaded object.
pub(super) fn take(ebpf: &mut Ebpf, reasons: Arc<KernelReasons>) -> Result<(EvidenceRing, EvidenceTally), ReflexError> {
    let ring = ebpf.take_map("EVENTS").ok_or_else(|| ReflexError::Foreign { what: "map EVENTS".to_owned() })?;
    let ring = RingBuf::try_from(ring).map_err(ReflexError::map("EVENTS"))?;
    let (counts, _) = with_fd(ebpf, "EVIDENCE_COUNTS")?;
    let delivered = Arc::new(AtomicU64::new(0));
    let mut ring = EvidenceRing { ring, early: VecDeque::new(), delivered: Arc::clone(&delivered), reasons };
    let tally = EvidenceTally { counts, delivered };
    for _ in 0..ADOPT_LOOKS {
        let before = tally.counts()?;
        while let Some(evidence) = ring.fetch() {
            ring.early.push_back(evidence);
        }
        let known = before.produced - before.lost;
        tally.delivered.store(known - ring.early.len() as u64, Ordering::Release);
        if tally.counts()? == before {
            break;
        }
    }
    Ok((ring, tally))
}

impl EvidenceTally {
    fn counts(&self) -> Result<EvidenceCounts, ReflexError> {
        self.counts.get(&0, 0).map_err(ReflexError::map("EVIDENCE_COUNTS"))
    }
}

impl EvidenceRing {
    /// Hands over everything that waits; never waits itself.
    pub fn drain(&mut self, mut each: impl FnMut(Evidence)) {
        while let Some(evidence) = self.early.pop_front().or_else(|| self.fetch()) {
            self.delivered.fetch_add(1, Ordering::Release);
            each(evidence);
        }
    }

    fn fetch(&mut self) -> Option<Evidence> {
        loop {
            let item = self.ring.next()?;
            // The kernel half writes nothing else; what is not a record is none.
            if let Some(evidence) = decode(&item, &self.reasons) {
                return Some(evidence);
            }
        }
    }
}

impl AsFd for EvidenceRing {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ring.as_fd()
    }
}

impl Reflex {
    /// The ring of evidence; `None` when it has been taken before.
    pub fn evidence(&mut self) -> Option<EvidenceRing> {
        self.evidence.take()
    }

    /// How much evidence the kernel half has produced.
    ///
    /// # Errors
    /// The kernel's.
    pub fn evidence_sums(&self) -> Result<EvidenceSums, ReflexError> {
        // What is delivered is read first: it was produced before.
        let delivered = self.evidence_counts.delivered.load(Ordering::Acquire);
        let EvidenceCounts { produced, lost } = self.evidence_counts.counts()?;
        Ok(EvidenceSums { produced, delivered, lost })
    }
}

/// A record ([`switch_common::Evidence`]) as it lies in the ring.
fn decode(record: &[u8], reasons: &KernelReasons) -> Option<Evidence> {
    let short = |at: usize| Some(u16::from_ne_bytes(*record.get(at..)?.first_chunk()?));
    let word = |at: usize| Some(u32::from_ne_bytes(*record.get(at..)?.first_chunk()?));
    let time = u64::from_ne_bytes(*record.first_chunk()?);
    let (reason, length, port, way, origin) = (word(8)?, word(12)?, short(16)?, short(18)?, short(20)?);
    let captured = usize::from(short(22)?).min(EVIDENCE_BYTES_MAX);
    let bytes = record.get(24..)?.get(..captured)?.to_vec();
    let label = if origin == EVIDENCE_OURS {
        Cow::Borrowed(DropReason::from_number(u8::try_from(reason).ok()?)?.label())
    } else {
        reasons.label(reason)
    };
    // Our own reasons have no number among the kernel's that could tell a side; they need none.
    Some(Evidence { time: Nanos(time), port, way: reasons.way(way, reason), reason: label, length, bytes })
}

const _: () = {
    use std::mem::offset_of;
    use switch_common::Evidence as Record;
    assert!(offset_of!(Record, reason) == 8 && offset_of!(Record, length) == 12 && offset_of!(Record, port) == 16);
    assert!(offset_of!(Record, way) == 18 && offset_of!(Record, origin) == 20 && offset_of!(Record, captured) == 22);
    assert!(offset_of!(Record, bytes) == 24);
};
