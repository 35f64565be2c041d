//! The ledger: the sums that must always hold between what came in, what left and what was dropped.
//!
//! | law | says | left = right |
//! |---|---|---|
//! | L1 | every frame that came in was forwarded, dropped with a reason, or handed to the brain | `ingress` = `forwarded` + drops + `punted` |
//! | L1 | every frame handed to the brain was settled, or died with a killed one | `punted` = `settled` + `unobserved` (+ in flight) |
//! | L1 | every settled frame was forwarded, flooded or dropped with a reason | `settled` = `forwarded` + `flooded` + drops |
//! | L2 | every copy that was decided left, or was dropped with a reason | copies of both halves = `egress` + drops |
//! | L3 | a flood makes one copy for each eligible port | `flood_eligible` = `flood_copies`, in slot 0 |
//! | L4 | every frame that was accepted is in a flow, or in the port's overflow, or unparsable | `ingress` − refused = flows + `overflow` + `unparsable` |
//! | L5 | the kernel's own counters of the netdev agree | rx ≥ `ingress`; `egress` = tx + its drops |
//! | L6 | a mirror, or the ring for a capture, was given what it wanted, or that is counted as lost | matched = delivered + lost |
//! | L6 | whoever reads a capture was given what both halves found for it, or that is counted | matched = delivered + lost + passed over (+ under way) |
//! | L7 | evidence of drops, stations that are told of, and frames that say who is who were delivered, or counted as lost | produced = delivered + lost |
//! | other | the list of reasons is complete | drops as `other` = 0 |
//!
//! All in frames (a super-frame counts once), all exact. The sums over the whole switch come from slot 0, which outlives
//! removed ports; that they cover the ports there are is checked too.
//!
//! **Under traffic** no two maps agree, because they are read one after the other. Both sides only ever grow, and a frame
//! is booked on the left before it is booked on the right; so left(t0) ≤ right(t1) ≤ left(t2) for three snapshots with
//! time enough between them for a frame to pass. What may lie in flight for longer (in the punt ring, in a tap's ring, before
//! the reader of a capture) is bounded from above only.

mod laws;

use std::collections::HashMap;

use serde::Serialize;
use switch_common::{BrainPort, PortCounters, PortDrops, Tally};
use utoipa::ToSchema;

use crate::evidence::EvidenceSums;
use crate::reflex::HeardSums;
use laws::{Sides, sides};

/// What the kernel says of a port's netdev, since it was attached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NetdevNumbers {
    /// Frames it received: our ingress.
    pub rx_frames: u64,
    /// Frames it transmitted: our egress.
    pub tx_frames: u64,
    /// Frames it was given and dropped.
    pub tx_dropped: u64,
    /// Some frames went straight to the veth's far end, past these counters.
    pub peer_redirected: bool,
    /// It is a tap: what its VMM has not read yet is not in `tx_frames`.
    pub has_ring: bool,
}

/// All numbers of one port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortNumbers {
    /// Its name.
    pub name: String,
    /// Its id.
    pub id: u16,
    /// The reflex's counters, summed over the processors.
    pub counters: PortCounters,
    /// Frames the reflex handed to the brain.
    pub punted: u64,
    /// The reflex's drops.
    pub drops: PortDrops,
    /// The brain's counters.
    pub brain: BrainPort,
    /// The kernel's own counters, where they could be read.
    pub netdev: Option<NetdevNumbers>,
    /// What the port's flows counted, those that were deleted among them; nothing when it was not read.
    pub flows: Option<Tally>,
    /// Frames that say who is who.
    pub heard: HeardSums,
}

/// All numbers at one time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// The ports.
    pub ports: Vec<PortNumbers>,
    /// The brain's sums over all ports that there are or were (slot 0).
    pub switch: BrainPort,
    /// The reflex's drops that belong to no port (slot 0).
    pub strangers: PortDrops,
    /// Evidence of drops, of both halves.
    pub evidence: EvidenceSums,
    /// Stations that the loop told of.
    pub sightings: EvidenceSums,
    /// Whoever looks on, as far as the reflex serves them.
    pub sessions: Vec<SessionNumbers>,
    /// Captures and the recorder, to their ends.
    pub readers: Vec<ReaderNumbers>,
}

/// What became of the frames that a mirror wanted, or a capture of the reflex.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SessionNumbers {
    /// What it is called.
    pub name: String,
    /// What it wanted.
    pub matched: Tally,
    /// What it was given.
    pub delivered: Tally,
    /// What it was not.
    pub lost: Tally,
}

/// What became of the frames that both halves found for a capture, or for the recorder. Frames in the ring and in queues are
/// matched, and neither delivered nor lost yet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReaderNumbers {
    /// What it is called.
    pub name: String,
    /// Frames that were found for it.
    pub matched: u64,
    /// Of these: taken by the reader.
    pub delivered: u64,
    /// Of these: without room in the ring, in the loop's queue or before the reader.
    pub lost: u64,
    /// Of these: not wanted after all.
    pub passed_over: u64,
}

impl ReaderNumbers {
    /// Frames that are on their way to the reader.
    pub fn under_way(&self) -> u64 {
        self.matched.saturating_sub(self.delivered + self.lost + self.passed_over)
    }
}

/// One law, applied to one port or to the switch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct LawResult {
    /// The law: `L1`, `L2`, `L3`, `L4`, `L5`, `L6`, `L7` or `other`.
    pub law: &'static str,
    /// What it was applied to, in words.
    pub what: String,
    /// The left side.
    pub left: u64,
    /// The right side.
    pub right: u64,
    /// Whether it holds.
    pub holds: bool,
    /// What else there is to say, for instance why a difference is no fault.
    pub note: Option<String>,
}

/// Frames of a port that were handed to the brain and are neither settled nor lost.
pub fn in_flight(port: &PortNumbers) -> u64 {
    port.punted.saturating_sub(port.brain.settled.saturating_add(port.brain.unobserved))
}

/// The laws in a switch at rest: exact.
pub fn check_quiet(snapshot: &Snapshot) -> Vec<LawResult> {
    sides(snapshot).iter().map(Sides::at_rest).collect()
}

/// The laws in a switch at work, from three snapshots in the order of time. What is not in all three (a port that came or
/// went) is left out.
pub fn check_moving(before: &Snapshot, during: &Snapshot, after: &Snapshot) -> Vec<LawResult> {
    let (before, after) = (sides(before), sides(after));
    let (before, after) = (by_name(&before), by_name(&after));
    let moving = |side: &Sides| Some(side.at_work(before.get(&side.name())?, after.get(&side.name())?));
    sides(during).iter().filter_map(moving).collect()
}

fn by_name(all: &[Sides]) -> HashMap<(&str, &str), &Sides> {
    all.iter().map(|side| (side.name(), side)).collect()
}

#[cfg(test)]
mod tests;
