//! The kernel's flow maps as a [`Source`].

use std::sync::Arc;

use jiff::Timestamp;
use rustix::time::{ClockId, clock_gettime};

use super::Source;
use crate::flow::{Entry, Moment, RawKey};
use crate::reflex::{BrainPage, Clock, DeadFlows, FlowMaps, Reflex, ReflexError, ticks_per_second};

/// The maps, the clocks, and the cells in which what is deleted is booked.
#[derive(Debug)]
pub struct Kernel {
    maps: FlowMaps,
    brain: Arc<BrainPage>,
    clock: Clock,
    hz: u32,
}

impl Kernel {
    /// Those of an instance.
    ///
    /// # Errors
    /// There are no descriptors left.
    pub fn of(reflex: &Reflex) -> Result<Self, ReflexError> {
        Ok(Self { maps: reflex.flows(), brain: reflex.brain(), clock: reflex.clock()?, hz: ticks_per_second() })
    }
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
        Ok(())
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
