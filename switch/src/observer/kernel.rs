//! The kernel's flow maps as a [`Source`].

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use jiff::Timestamp;
use rustix::time::{ClockId, clock_gettime};
use switch_common::flow::{FLOW_PORT_MASK, FlowPair, Route};
use switch_common::{DropReason, MacAddr, PairKey, PairVerdict, VERDICT_ARMED};

use super::Source;
use crate::flow::{Entry, Moment, RawKey};
use crate::notes::{NoteReader, Notes};
use crate::reflex::{BrainPage, Clock, DeadFlows, FlowMaps, PairReader, Reflex, ReflexError, ticks_per_second};

/// The maps, the clocks, and the cells in which what is deleted is booked.
#[derive(Debug)]
pub struct Kernel {
    maps: FlowMaps,
    brain: Arc<BrainPage>,
    pairs: PairReader,
    clock: Clock,
    hz: u32,
    notes: NoteReader,
    /// What the brain dropped of each flow that there is.
    refused: HashMap<RawKey, Refused>,
}

/// What the brain dropped of a flow, since it began.
#[derive(Clone, Copy, Debug)]
struct Refused {
    /// When the flow began: a later one of the same key begins at 0.
    first_ns: u64,
    frames: u64,
    reason: DropReason,
}

impl Kernel {
    /// Those of an instance.
    ///
    /// # Errors
    /// There are no descriptors left.
    pub fn of(reflex: &Reflex, notes: NoteReader) -> Result<Self, ReflexError> {
        Ok(Self {
            maps: reflex.flows(),
            brain: reflex.brain(),
            pairs: reflex.pairs()?,
            clock: reflex.clock()?,
            hz: ticks_per_second(),
            notes,
            refused: HashMap::new(),
        })
    }

    /// Gives flows without a copy of a verdict that of their pair: the brain delivered all of their frames, and what it decided of the
    /// pair it has installed since. So a record says where they went.
    fn complete(&self, entries: &mut [Entry]) -> Result<(), ReflexError> {
        let bare: HashSet<PairKey> = entries.iter().filter(|entry| is_bare(entry)).map(pair_of).collect();
        if bare.is_empty() {
            return Ok(());
        }
        let pairs = self.pairs.of(&bare.into_iter().collect::<Vec<_>>())?;
        for entry in entries.iter_mut().filter(|entry| is_bare(entry)) {
            if let Some(PairVerdict { ifindex, egress, action, reason, .. }) = pairs.get(&pair_of(entry)) {
                entry.value.route = Route::new(*ifindex, *egress, action & !VERDICT_ARMED, *reason).0;
            }
        }
        Ok(())
    }
}

/// Adds to flows what the brain dropped of them, because they have no verdict that says it. Where two entries have the same key but
/// for their life, the younger is meant.
fn add_refused(entries: &mut [Entry], fresh: &Notes, refused: &mut HashMap<RawKey, Refused>) {
    if fresh.is_empty() && refused.is_empty() {
        return;
    }
    let mut youngest: HashMap<RawKey, usize> = HashMap::new();
    for (place, entry) in entries.iter().enumerate() {
        let key = entry.key.plain();
        if fresh.contains_key(&key) || refused.contains_key(&key) {
            let known = youngest.entry(key).or_insert(place);
            if entries.get(*known).is_some_and(|other| other.value.first_ns < entry.value.first_ns) {
                *known = place;
            }
        }
    }
    refused.retain(|key, _| youngest.contains_key(key));
    for (key, place) in youngest {
        let Some(entry) = entries.get_mut(place) else { continue };
        let first_ns = entry.value.first_ns;
        let before = refused.get(&key).copied().filter(|refused| refused.first_ns == first_ns);
        let now = match (before, fresh.get(&key)) {
            (before, Some(note)) => {
                let frames = before.map_or(0, |before| before.frames) + note.frames;
                Refused { first_ns, frames, reason: note.reason }
            }
            (Some(before), None) => before,
            (None, None) => {
                refused.remove(&key);
                continue;
            }
        };
        refused.insert(key, now);
        // What the reflex itself dropped it has given a reason of its own.
        if entry.value.dropped_frames == 0 || fresh.contains_key(&key) {
            entry.value.drop_reason = now.reason as u8;
        }
        entry.value.dropped_frames += now.frames;
    }
}

/// The pair that a flow belongs to.
fn pair_of(entry: &Entry) -> PairKey {
    let FlowPair { destination, source, ingress, .. } = *entry.key.pair();
    PairKey { destination, source, ingress: ingress & FLOW_PORT_MASK, vlan: 0 }
}

/// Whether a flow goes to one station, and no verdict was copied for it.
fn is_bare(entry: &Entry) -> bool {
    Route(entry.value.route).action() == 0 && !MacAddr(entry.key.pair().destination).is_group()
}

impl Source for Kernel {
    fn is_empty(&mut self) -> bool {
        self.maps.is_empty().unwrap_or(false)
    }

    fn read(&mut self, into: &mut Vec<Entry>) -> Result<(), ReflexError> {
        // First: a flow is counted before a frame of it is noted, so what is noted is among what is read.
        let fresh = self.notes.take();
        let mut v6 = Vec::new();
        self.maps.read(
            |key, value| into.push(Entry { key: RawKey::V4(*key), value: *value }),
            |key, value| v6.push(Entry { key: RawKey::V6(*key), value: *value }),
        )?;
        into.append(&mut v6);
        add_refused(into, &fresh, &mut self.refused);
        self.complete(into)
    }

    fn now(&mut self) -> Result<Moment, ReflexError> {
        let jiffies = self.clock.jiffies()?;
        let (wall, time) = (Timestamp::now(), clock_gettime(ClockId::Monotonic));
        let ns = time.tv_sec.saturating_mul(1_000_000_000).saturating_add(time.tv_nsec);
        Ok(Moment { wall, ktime_ns: ns.cast_unsigned(), jiffies, hz: self.hz })
    }

    fn grace(&mut self) -> Result<(), ReflexError> {
        Reflex::grace()
    }

    fn free(&mut self, dead: &[Entry]) -> Result<(), ReflexError> {
        let mut flows = DeadFlows::default();
        for Entry { key, value } in dead {
            match key {
                RawKey::V4(key) => flows.v4.push((*key, *value)),
                RawKey::V6(key) => flows.v6.push((*key, *value)),
            }
        }
        self.maps.free(&flows, &self.brain)
    }
}
