//! The kernel's flow maps as a [`Source`].

use std::collections::HashSet;
use std::sync::Arc;

use jiff::Timestamp;
use rustix::time::{ClockId, clock_gettime};
use switch_common::flow::{FLOW_PORT_MASK, FlowPair, Route};
use switch_common::{MacAddr, PairKey, PairVerdict, VERDICT_ARMED};

use super::Source;
use crate::flow::{Entry, Moment, RawKey};
use crate::reflex::{BrainPage, Clock, DeadFlows, FlowMaps, PairReader, Reflex, ReflexError, ticks_per_second};

/// The maps, the clocks, and the cells in which what is deleted is booked.
#[derive(Debug)]
pub struct Kernel {
    maps: FlowMaps,
    brain: Arc<BrainPage>,
    pairs: PairReader,
    clock: Clock,
    hz: u32,
}

impl Kernel {
    /// Those of an instance.
    ///
    /// # Errors
    /// There are no descriptors left.
    pub fn of(reflex: &Reflex) -> Result<Self, ReflexError> {
        Ok(Self {
            maps: reflex.flows(),
            brain: reflex.brain(),
            pairs: reflex.pairs()?,
            clock: reflex.clock()?,
            hz: ticks_per_second(),
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
        let mut v6 = Vec::new();
        self.maps.read(
            |key, value| into.push(Entry { key: RawKey::V4(*key), value: *value }),
            |key, value| v6.push(Entry { key: RawKey::V6(*key), value: *value }),
        )?;
        into.append(&mut v6);
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
