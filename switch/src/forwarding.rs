//! The decision: one frame and what is known, in; one verdict, out. No I/O, no clock, no lock.
//!
//! The order is that of the forwarding process (IEEE 802.1Q-2022, clause 8.6): may the frame come in here, is its source
//! what it may be, may its destination be forwarded at all; then learn; then find where it goes.
//!
//! **Invariants.** A frame never leaves by the port it came in on, and never twice by one port. A known unicast frame
//! leaves by exactly one. Each refusal has a reason of its own. A decision about a known station does not allocate.
//!
//! **What may be repeated.** The reflex repeats a decision for the frames that follow in the same pair (ingress port,
//! source, destination) without asking, so [`Decision::cacheable`] says whether it depends on nothing else: neither on a
//! bucket, nor on a port's being up, nor on a source that was heard here but lives elsewhere (a frame that the reflex
//! answers could not move it). What the tables say of the two stations and the port may change; whoever changes it
//! makes the reflex forget.

use std::collections::BTreeMap;

use switch_common::{DropReason, MacAddr, PortId, VlanId};

use crate::fdb::{Fdb, FdbLimits, Learned, Nanos, Station};
use crate::frame::{Frame, Trust};
use crate::policy::{AllowedSources, FloodBuckets, FloodKind};
use crate::port::Role;

/// A port as deciding sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortView {
    /// Its number.
    pub id: PortId,
    /// Whether frames may come in and leave.
    pub up: bool,
    /// Whether somebody holds the other end; without that nothing leaves. A frame that comes in proves the contrary,
    /// whatever was last heard, so only `up` is asked of an ingress port.
    pub carrier: bool,
    /// What lives behind it; uplinks are exempt from the station limit.
    pub role: Role,
    /// The only sources allowed; empty: every station's.
    pub macs: Vec<MacAddr>,
    /// Stations it may have, its static ones included.
    pub station_limit: Option<u32>,
    /// Frames per second that it may have flooded, of each kind; its burst is one second's worth.
    pub flood_per_sec: u32,
    /// The longest wire frame that it takes, Ethernet header included, tags not counted.
    pub frame_bytes_max: u32,
    /// Who makes its offload requests.
    pub trust: Trust,
}

impl PortView {
    /// Whether a copy may leave by this port.
    pub fn delivers(&self) -> bool {
        self.up && self.carrier
    }

    fn learn_limit(&self) -> Option<u32> {
        match self.role {
            Role::Guest => self.station_limit,
            Role::Uplink => None,
        }
    }
}

/// What is to become of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It leaves by this port.
    Forward(PortId),
    /// It leaves by each of [`Tables::flood_ports`].
    Flood,
    /// It does not leave, and why.
    Drop(DropReason),
}

/// The verdict, and what else came of the frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// What is to become of it.
    pub verdict: Verdict,
    /// What its source taught us.
    pub learned: Learned,
    /// Whether the verdict holds for all frames of the same ingress port, source and destination.
    pub cacheable: bool,
}

/// All that deciding depends on.
#[derive(Clone, Debug)]
pub struct Tables {
    /// Who lives where.
    pub fdb: Fdb,
    ports: BTreeMap<PortId, Port>,
}

#[derive(Clone, Debug)]
struct Port {
    view: PortView,
    sources: AllowedSources,
    floods: FloodBuckets,
}

impl Tables {
    /// No ports, no stations.
    pub fn new(limits: FdbLimits) -> Self {
        Self { fdb: Fdb::new(limits), ports: BTreeMap::new() }
    }

    /// Adds a port, or changes one. Its flood buckets stay as they are unless their rate changes. Answers with the
    /// stations that had to go: its limit is lower than before, or its allowed sources are others.
    pub fn set_port(&mut self, view: PortView) -> Vec<Station> {
        let mut evicted = view.learn_limit().map_or_else(Vec::new, |limit| self.fdb.trim_port(view.id, limit));
        if self.ports.get(&view.id).is_some_and(|port| port.view.macs != view.macs) {
            // Stations that may no longer speak here must not attract frames either.
            evicted.extend(self.fdb.flush_port(view.id, true));
        }
        let sources = AllowedSources::new(&view.macs);
        let floods = match self.ports.get(&view.id) {
            Some(port) if port.floods.per_sec() == view.flood_per_sec => port.floods,
            Some(_) | None => FloodBuckets::new(view.flood_per_sec),
        };
        self.ports.insert(view.id, Port { view, sources, floods });
        evicted
    }

    /// Removes a port with its stations, static ones too; answers with these.
    pub fn remove_port(&mut self, id: PortId) -> Vec<Station> {
        self.ports.remove(&id);
        self.fdb.flush_port(id, false)
    }

    /// A port.
    pub fn port(&self, id: PortId) -> Option<&PortView> {
        self.ports.get(&id).map(|port| &port.view)
    }

    /// The ports that floods go to, in the order of their ids.
    pub fn delivering(&self) -> impl Iterator<Item = &PortView> {
        self.ports.values().map(|port| &port.view).filter(|view| view.delivers())
    }

    /// The ports by which a flooded frame from `ingress` leaves, in the order of their ids.
    pub fn flood_ports(&self, ingress: PortId) -> impl Iterator<Item = &PortView> {
        self.delivering().filter(move |view| view.id != ingress)
    }
}

/// Decides about a frame that came in by `ingress`, and learns from it.
pub fn decide(tables: &mut Tables, ingress: PortId, frame: &Frame<'_>, now: Nanos) -> Decision {
    let Some(port) = tables.ports.get(&ingress).filter(|port| port.view.up) else {
        return passing(DropReason::PortDown);
    };
    let (source, destination) = (frame.source(), frame.destination());
    if !source.is_station() {
        return lasting(DropReason::GroupSource);
    }
    if !port.sources.admits(source) {
        return lasting(DropReason::SpoofedSource);
    }
    if destination.is_reserved() {
        return lasting(DropReason::ReservedAddress);
    }

    let vlan = VlanId::default();
    let learned = tables.fdb.learn(vlan, source, ingress, port.view.learn_limit(), now);
    let lives_here = match learned {
        Learned::Known | Learned::Added { .. } | Learned::Moved { .. } => true,
        Learned::Damped | Learned::Static | Learned::NotLearned => false,
        Learned::Refused => {
            return Decision { verdict: Verdict::Drop(DropReason::StationLimit), learned, cacheable: false };
        }
    };

    let (verdict, lasts) = if destination.is_group() {
        (flood(tables, ingress, FloodKind::Group, frame, now), false)
    } else {
        match tables.fdb.lookup(vlan, destination) {
            None => (flood(tables, ingress, FloodKind::Unknown, frame, now), false),
            Some(egress) if egress == ingress => (Verdict::Drop(DropReason::Hairpin), true),
            Some(egress) if tables.port(egress).is_some_and(PortView::delivers) => (Verdict::Forward(egress), true),
            Some(_) => (Verdict::Drop(DropReason::PortDown), false),
        }
    };
    Decision { verdict, learned, cacheable: lasts && lives_here }
}

/// Whether a port takes a frame: the longest wire frame it becomes is no longer than the port's MTU allows.
pub fn fits(port: &PortView, frame: &Frame<'_>) -> bool {
    frame.longest_bytes() <= port.frame_bytes_max
}

/// A flood, when there is a port to flood to and the ingress port may cause one.
fn flood(tables: &mut Tables, ingress: PortId, kind: FloodKind, frame: &Frame<'_>, now: Nanos) -> Verdict {
    if tables.flood_ports(ingress).next().is_none() {
        return Verdict::Drop(DropReason::NoEgress);
    }
    let port = tables.ports.get_mut(&ingress);
    if port.is_some_and(|port| port.floods.take(kind, frame.wire_frames(), now)) {
        Verdict::Flood
    } else {
        Verdict::Drop(DropReason::FloodLimited)
    }
}

/// Refused before anything was learned, as all frames of the pair will be.
fn lasting(reason: DropReason) -> Decision {
    Decision { verdict: Verdict::Drop(reason), learned: Learned::NotLearned, cacheable: true }
}

/// Refused before anything was learned, this time.
fn passing(reason: DropReason) -> Decision {
    Decision { verdict: Verdict::Drop(reason), learned: Learned::NotLearned, cacheable: false }
}

#[cfg(test)]
mod allocation;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod twin;
