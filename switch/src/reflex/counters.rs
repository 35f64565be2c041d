//! What the kernel half has counted, port by port or all at once.

use std::os::fd::AsFd;
use std::time::Duration;

use aya::programs::Program;
use switch_common::{PORT_SLOTS, PortBuckets, PortCounters, PortDrops, PortId};

use super::maps::CHUNK;
use super::{BrainCells, Reflex, ReflexError, sys};

/// What the kernel half counted for a port.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counted {
    /// Its counters, summed over CPUs.
    pub counters: PortCounters,
    /// Its drops.
    pub drops: PortDrops,
    /// Its punt bucket.
    pub buckets: PortBuckets,
}

/// A program and how often it ran.
#[derive(Clone, Debug)]
pub struct ProgramRuns {
    /// Its name in our object.
    pub program: String,
    /// How often.
    pub runs: u64,
    /// How long.
    pub run_time: Duration,
}

impl Reflex {
    /// A port's counters, summed over CPUs.
    ///
    /// # Errors
    /// The kernel's.
    pub fn counters(&self, id: PortId) -> Result<PortCounters, ReflexError> {
        let per_cpu = self.maps.counters.get(&u32::from(id.get()), 0).map_err(ReflexError::map("COUNTERS"))?;
        Ok(sum(&per_cpu))
    }

    /// A port's drops in the kernel half.
    ///
    /// # Errors
    /// The kernel's.
    pub fn drops(&self, id: PortId) -> Result<PortDrops, ReflexError> {
        self.maps.drops.get(&u32::from(id.get()), 0).map_err(ReflexError::map("DROPS"))
    }

    /// Drops of frames that belong to no port (slot 0).
    ///
    /// # Errors
    /// The kernel's.
    pub fn strangers(&self) -> Result<PortDrops, ReflexError> {
        self.maps.drops.get(&0, 0).map_err(ReflexError::map("DROPS"))
    }

    /// A port's punt bucket; its `punted` is what it has handed to the brain.
    ///
    /// # Errors
    /// The kernel's.
    pub fn buckets(&self, id: PortId) -> Result<PortBuckets, ReflexError> {
        self.maps.buckets.get(&u32::from(id.get()), 0).map_err(ReflexError::map("BUCKETS"))
    }

    /// All ports' counters by port id, read in batches; slot 0 holds what belongs to no port.
    ///
    /// # Errors
    /// The kernel's.
    pub fn all_counters(&self) -> Result<Vec<PortCounters>, ReflexError> {
        let mut all = vec![PortCounters::default(); PORT_SLOTS];
        let cpus = aya::util::nr_cpus().map_err(|(_, source)| ReflexError::map("COUNTERS")(source))?;
        sys::lookup_all::<u32, PortCounters>(self.maps.counters_fd.as_fd(), CHUNK, cpus, |id, per_cpu| {
            if let Some(slot) = all.get_mut(*id as usize) {
                *slot = sum(per_cpu);
            }
        })
        .map_err(ReflexError::map("COUNTERS"))?;
        Ok(all)
    }

    /// All ports' drops by port id, read in batches.
    ///
    /// # Errors
    /// The kernel's.
    pub fn all_drops(&self) -> Result<Vec<PortDrops>, ReflexError> {
        let mut all = vec![PortDrops::default(); PORT_SLOTS];
        sys::lookup_all::<u32, PortDrops>(self.maps.drops_fd.as_fd(), CHUNK, 1, |id, drops| {
            if let (Some(slot), Some(drops)) = (all.get_mut(*id as usize), drops.first()) {
                *slot = *drops;
            }
        })
        .map_err(ReflexError::map("DROPS"))?;
        Ok(all)
    }

    /// All ports' buckets by port id, read in batches.
    ///
    /// # Errors
    /// The kernel's.
    pub fn all_buckets(&self) -> Result<Vec<PortBuckets>, ReflexError> {
        let mut all = vec![PortBuckets::default(); PORT_SLOTS];
        sys::lookup_all::<u32, PortBuckets>(self.maps.buckets_fd.as_fd(), CHUNK, 1, |id, buckets| {
            if let (Some(slot), Some(buckets)) = (all.get_mut(*id as usize), buckets.first()) {
                *slot = *buckets;
            }
        })
        .map_err(ReflexError::map("BUCKETS"))?;
        Ok(all)
    }

    /// What was counted for every port up to this id, by id from 0 on, in one system call per map. So a switch with few ports
    /// does not read 4096 slots for each processor.
    ///
    /// # Errors
    /// The kernel's.
    pub fn counted(&self, last: u16) -> Result<Vec<Counted>, ReflexError> {
        let count = (usize::from(last) + 1).min(PORT_SLOTS);
        let cpus = aya::util::nr_cpus().map_err(|(_, source)| ReflexError::map("COUNTERS")(source))?;
        let mut all = Vec::with_capacity(count);
        let counters = self.maps.counters_fd.as_fd();
        sys::lookup_first(counters, count, cpus, |per_cpu| {
            all.push(Counted { counters: sum(per_cpu), ..Counted::default() });
        })
        .map_err(ReflexError::map("COUNTERS"))?;
        let mut slots = all.iter_mut();
        sys::lookup_first::<PortDrops>(self.maps.drops_fd.as_fd(), count, 1, |drops| {
            if let (Some(slot), Some(drops)) = (slots.next(), drops.first()) {
                slot.drops = *drops;
            }
        })
        .map_err(ReflexError::map("DROPS"))?;
        let mut slots = all.iter_mut();
        sys::lookup_first::<PortBuckets>(self.maps.buckets_fd.as_fd(), count, 1, |buckets| {
            if let (Some(slot), Some(buckets)) = (slots.next(), buckets.first()) {
                slot.buckets = *buckets;
            }
        })
        .map_err(ReflexError::map("BUCKETS"))?;
        Ok(all)
    }

    /// How often and how long each program ran since this process loaded it, as far as the kernel counts
    /// (`kernel.bpf_stats_enabled`). A program that is not loaded is left out.
    pub fn runs(&self) -> Vec<ProgramRuns> {
        let runs = |(name, program): (&str, &Program)| {
            let info = program.info().ok()?;
            Some(ProgramRuns { program: name.to_owned(), runs: info.run_count(), run_time: info.run_time() })
        };
        self.ebpf.programs().filter_map(runs).collect()
    }

    /// Frames punted over all ports since the maps were made.
    ///
    /// # Errors
    /// The kernel's.
    pub fn punts(&self) -> Result<u64, ReflexError> {
        self.maps.punts.get(&0, 0).map_err(ReflexError::map("PUNTS"))
    }

    /// Makes whole what a predecessor was booking when it was killed, books as `unobserved` what it was handed and never
    /// settled, and says how many frames that were. For the moment when nothing is on its way: punting is off,
    /// [`Self::grace`] has passed, the punt tap is not open yet.
    ///
    /// # Errors
    /// The kernel's.
    pub fn book_unobserved(&self) -> Result<u64, ReflexError> {
        self.maps.flows.finish_freeing(&self.brain)?;
        let sums = self.brain.port(0);
        sums.flood_copies.set(sums.flood_eligible.get());
        let counters = self.all_counters()?;
        for (id, buckets) in self.all_buckets()?.iter().enumerate().skip(1) {
            let cells = self.brain.port(id);
            cells.make_whole(counters.get(id).map_or(0, |counters| counters.injected));
            let answered = cells.settled.get() + cells.unobserved.get();
            cells.unobserved.add(buckets.punted.saturating_sub(answered));
            // A predecessor may have been killed between a total and its share, so each is made up for by itself.
            let (even, odd) = (unanswered(buckets, cells, false), unanswered(buckets, cells, true));
            cells.unobserved_even.add(even);
            cells.unobserved_odd.add(odd);
            sums.unobserved_even.add(even);
            sums.unobserved_odd.add(odd);
        }
        let lost = self.punts()?.saturating_sub(sums.settled.get() + sums.unobserved.get());
        sums.unobserved.add(lost);
        Ok(lost)
    }

    /// Books as `unobserved` what was punted in an epoch and not settled, and says how many frames that were. For an epoch
    /// that is over: no program stamps frames with it any more ([`Self::grace`] since the settings named the other), and the
    /// loop has settled every frame of it that it ever will. Frames of the other epoch may come and go meanwhile.
    ///
    /// # Errors
    /// The kernel's.
    pub fn book_epoch(&self, odd: bool) -> Result<u64, ReflexError> {
        let mut lost = 0;
        for (id, buckets) in self.all_buckets()?.iter().enumerate().skip(1) {
            let cells = self.brain.port(id);
            let frames = unanswered(buckets, cells, odd);
            cells.lose(odd, frames);
            lost += frames;
        }
        self.brain.port(0).lose(odd, lost);
        Ok(lost)
    }

    /// All zeros for a port id that is given to a new port; what flows of an earlier port there are go, too. Only while no program counts for it: not attached, no
    /// `PortConfig`, and a [`Self::grace`] since.
    ///
    /// # Errors
    /// The kernel's.
    pub fn reset_counters(&mut self, id: PortId) -> Result<(), ReflexError> {
        let index = u32::from(id.get());
        // Reading the whole table for them is worth it only when there are some.
        if self.buckets(id)?.flows_used != self.brain.port(id.index()).flows_freed.get() {
            self.maps.flows.forget_port(id)?;
        }
        let cpus = aya::util::nr_cpus().map_err(|(_, source)| ReflexError::map("COUNTERS")(source))?;
        let zeros = aya::maps::PerCpuValues::try_from(vec![PortCounters::default(); cpus]);
        let zeros = zeros.map_err(ReflexError::map("COUNTERS"))?;
        self.maps.counters.set(index, zeros, 0).map_err(ReflexError::map("COUNTERS"))?;
        self.maps.drops.set(index, PortDrops::default(), 0).map_err(ReflexError::map("DROPS"))?;
        self.maps.buckets.set(index, PortBuckets::default(), 0).map_err(ReflexError::map("BUCKETS"))?;
        self.brain.port(id.index()).reset();
        self.heard_counts.reset(id)?;
        self.kernel_drops.reset(id)
    }
}

/// Of an epoch those of a port's frames that are neither settled nor lost.
fn unanswered(buckets: &PortBuckets, cells: &BrainCells, odd: bool) -> u64 {
    let punted = if odd { buckets.punted_odd } else { buckets.punted_even };
    punted.saturating_sub(cells.answered(odd))
}

fn sum(per_cpu: &[PortCounters]) -> PortCounters {
    let mut total = PortCounters::default();
    for one in per_cpu {
        total.ingress.add(&one.ingress);
        total.egress.add(&one.egress);
        total.forwarded += one.forwarded;
        total.copies += one.copies;
        total.injected += one.injected;
        total.overflow.add(&one.overflow);
        total.unparsable.add(&one.unparsable);
    }
    total
}
