//! The flow table as user space sees it: read in batches, and freed of what is dead.

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use switch_common::flow::{FLOW_ALTERNATE, FLOW_PORT_MASK, FlowKey4, FlowKey6, FlowValue, FlowValue6};
use switch_common::{Freeing, PortId, Tally};

use super::brain::BrainPage;
use super::error::ReflexError;
use super::sys;

/// Flows read per system call.
const CHUNK: usize = 2048;

/// The maps `FLOWS4` and `FLOWS6`. A cheap clone of the way to them: the observer reads and frees, the ledger reads.
#[derive(Clone, Debug)]
pub struct FlowMaps(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    v4: OwnedFd,
    v6: OwnedFd,
    /// Held while flows are deleted and booked as freed: who reads both meanwhile would see them twice, or not at all.
    freeing: Mutex<()>,
}

/// Flows that are to be deleted, with what they counted.
#[derive(Clone, Debug, Default)]
pub struct DeadFlows {
    /// Over IPv4, and over no IP.
    pub v4: Vec<(FlowKey4, FlowValue)>,
    /// Over IPv6.
    pub v6: Vec<(FlowKey6, FlowValue)>,
}

impl FlowMaps {
    pub(super) fn new(v4: OwnedFd, v6: OwnedFd) -> Self {
        Self(Arc::new(Shared { v4, v6, freeing: Mutex::new(()) }))
    }

    /// Names every flow. One that is opened or deleted meanwhile may be among them or not; none is named twice.
    ///
    /// # Errors
    /// The kernel's.
    pub fn read(
        &self,
        mut v4: impl FnMut(&FlowKey4, &FlowValue),
        mut v6: impl FnMut(&FlowKey6, &FlowValue),
    ) -> Result<(), ReflexError> {
        sys::lookup_all::<FlowKey4, FlowValue>(self.0.v4.as_fd(), CHUNK, 1, |key, values| {
            if let Some(value) = values.first() {
                v4(key, value);
            }
        })
        .map_err(ReflexError::map("FLOWS4"))?;
        sys::lookup_all::<FlowKey6, FlowValue6>(self.0.v6.as_fd(), CHUNK, 1, |key, values| {
            if let Some(value) = values.first() {
                v6(key, &value.flow);
            }
        })
        .map_err(ReflexError::map("FLOWS6"))
    }

    /// Whether there are none. At a fraction of the price of [`Self::read`].
    ///
    /// # Errors
    /// The kernel's.
    pub fn is_empty(&self) -> Result<bool, ReflexError> {
        let v4 = sys::is_empty::<FlowKey4>(self.0.v4.as_fd()).map_err(ReflexError::map("FLOWS4"))?;
        Ok(v4 && sys::is_empty::<FlowKey6>(self.0.v6.as_fd()).map_err(ReflexError::map("FLOWS6"))?)
    }

    /// Flows that there is room for: over IPv4 and no IP; over IPv6. What an earlier daemon made stays as large as it was.
    ///
    /// # Errors
    /// The kernel's.
    pub fn room(&self) -> Result<(u32, u32), ReflexError> {
        let entries = |fd: &OwnedFd, name| sys::map_entries(fd.as_fd()).map_err(ReflexError::map(name));
        Ok((entries(&self.0.v4, "FLOWS4")?, entries(&self.0.v6, "FLOWS6")?))
    }

    /// Deletes flows and books what they counted as freed. Only what is dead by the programs' own rule, or belongs to a port that is
    /// not attached, and only after a [`super::Reflex::grace`] since that was seen.
    ///
    /// # Errors
    /// The kernel's.
    pub fn free(&self, dead: &DeadFlows, brain: &BrainPage) -> Result<(), ReflexError> {
        let _freeing = self.hold();
        for (key, value) in &dead.v4 {
            let delete = || sys::delete(self.0.v4.as_fd(), key).map_err(ReflexError::map("FLOWS4"));
            free_one(brain, key.pair.ingress, value, delete)?;
        }
        for (key, value) in &dead.v6 {
            let delete = || sys::delete(self.0.v6.as_fd(), key).map_err(ReflexError::map("FLOWS6"));
            free_one(brain, key.pair.ingress, value, delete)?;
        }
        Ok(())
    }

    /// Finishes a deletion in whose middle an earlier daemon was killed. For the moment before anybody deletes.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) fn finish_freeing(&self, brain: &BrainPage) -> Result<(), ReflexError> {
        let journal = &brain.port(0).freeing;
        let begun = journal.snapshot();
        if begun.port == 0 {
            return Ok(());
        }
        let is_it = |ingress: u16, value: &FlowValue| {
            u64::from(ingress & FLOW_PORT_MASK) == begun.port
                && u64::from(value.echo) == begun.echo
                && value.first_ns == begun.first_ns
        };
        let (mut in_v4, mut in_v6) = (false, false);
        self.read(
            |key, value| in_v4 |= is_it(key.pair.ingress, value),
            |key, value| in_v6 |= is_it(key.pair.ingress, value),
        )?;
        if !in_v4 && !in_v6 {
            let port = usize::try_from(begun.port).unwrap_or(0);
            let cells = brain.port(port);
            cells.flows_freed.set(begun.flows_freed);
            cells.freed.set(&begun.freed);
        }
        journal.port.set(0);
        Ok(())
    }

    /// Deletes every flow of a port that is not attached, without a word of what they counted.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) fn forget_port(&self, id: PortId) -> Result<(), ReflexError> {
        let _freeing = self.hold();
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        let is_its = |ingress: u16| ingress & FLOW_PORT_MASK == id.get();
        self.read(
            |key, _| v4.extend(is_its(key.pair.ingress).then_some(*key)),
            |key, _| v6.extend(is_its(key.pair.ingress).then_some(*key)),
        )?;
        for key in &v4 {
            sys::delete(self.0.v4.as_fd(), key).map_err(ReflexError::map("FLOWS4"))?;
        }
        for key in &v6 {
            sys::delete(self.0.v6.as_fd(), key).map_err(ReflexError::map("FLOWS6"))?;
        }
        Ok(())
    }

    /// What flows counted, by the id of their ingress port: those that live, and those that were freed.
    ///
    /// # Errors
    /// The kernel's.
    pub fn totals(&self, brain: &BrainPage) -> Result<HashMap<u16, Tally>, ReflexError> {
        let _freeing = self.hold();
        let mut totals: HashMap<u16, Tally> = HashMap::new();
        let add = |totals: &mut HashMap<u16, Tally>, ingress: u16, value: &FlowValue| {
            totals.entry(ingress & FLOW_PORT_MASK).or_default().add(&tally(value));
        };
        let mut others: HashMap<u16, Tally> = HashMap::new();
        self.read(
            |key, value| add(&mut totals, key.pair.ingress, value),
            |key, value| add(&mut others, key.pair.ingress, value),
        )?;
        for (id, tally) in others {
            totals.entry(id).or_default().add(&tally);
        }
        for (id, cells) in brain.ports().iter().enumerate() {
            let freed = cells.freed.snapshot();
            if let (Ok(id), true) = (u16::try_from(id), freed != Tally::default()) {
                totals.entry(id).or_default().add(&freed);
            }
        }
        Ok(totals)
    }

    fn hold(&self) -> MutexGuard<'_, ()> {
        // What it guards is in the kernel, and whole.
        self.0.freeing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a flow counted.
pub fn tally(value: &FlowValue) -> Tally {
    let FlowValue { frames, bytes, extra_frames, extra_bytes, .. } = *value;
    Tally { frames, bytes, extra_frames, extra_bytes }
}

/// Deletes a flow and books it, so that whoever finds this half done can finish it.
fn free_one(
    brain: &BrainPage,
    ingress: u16,
    value: &FlowValue,
    delete: impl FnOnce() -> Result<bool, ReflexError>,
) -> Result<(), ReflexError> {
    let port = ingress & FLOW_PORT_MASK;
    let (cells, journal) = (brain.port(port.into()), &brain.port(0).freeing);
    let mut freed = cells.freed.snapshot();
    freed.add(&tally(value));
    let flows_freed = cells.flows_freed.get() + 1;
    let echo = value.echo.into();
    journal.write(&Freeing { port: port.into(), echo, first_ns: value.first_ns, flows_freed, freed });
    if delete()? {
        cells.flows_freed.set(flows_freed);
        cells.freed.set(&freed);
        cells.alternates_freed.add(u64::from(ingress & FLOW_ALTERNATE != 0));
    }
    journal.port.set(0);
    Ok(())
}

/// The kernel's ticks per second (`CONFIG_HZ`): the resolution of its coarse clock is one tick (kernel/time/posix-timers.c).
pub fn ticks_per_second() -> u32 {
    let tick = rustix::time::clock_getres(rustix::time::ClockId::MonotonicCoarse);
    u32::try_from(tick.tv_nsec).ok().filter(|ns| *ns > 0).map_or(250, |ns| (1_000_000_000 + ns / 2) / ns)
}
