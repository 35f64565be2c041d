//! The brain alone: the loop over a medium in memory, its time moved by hand.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use switch_common::{DropReason, MacAddr, PortId, VlanId};
use weft::dataplane::verdicts::NoCache;
use weft::dataplane::{Loop, Step};
use weft::fdb::{FdbLimits, Nanos};
use weft::forwarding::{PortView, Tables};
use weft::frame::Trust;
use weft::port::memory::MemoryMedium;
use weft::port::{Role, spec};
use weft::reflex::BrainPage;

use super::Fabric;
use crate::play::sentinel;
use crate::scenario::{Feature, PortPlan, Scenario};

/// Ethernet's own MTU, for ports that name none.
const MTU: u32 = 1500;
/// Length of an Ethernet header.
const HEADER: u32 = 14;

/// The loop, and what the harness needs to drive it.
pub struct Memory {
    brain: Loop<MemoryMedium, NoCache>,
    page: Arc<BrainPage>,
    views: BTreeMap<usize, PortView>,
    now: Nanos,
}

impl Memory {
    /// A loop with a scenario's limits.
    pub fn new(scenario: &Scenario) -> Self {
        let aging = Duration::from_secs(scenario.switch.aging_secs.unwrap_or(300));
        let stations_max = scenario.switch.stations_max.map_or(65_536, |most| most + scenario.port.len());
        let page = Arc::new(BrainPage::in_memory());
        let tables = Tables::new(FdbLimits { stations_max, aging });
        let brain = Loop::new(MemoryMedium::new(), NoCache, tables, Arc::clone(&page), aging);
        Self { brain, page, views: BTreeMap::new(), now: Nanos(1_000_000_000) }
    }

    /// The medium, for a test that breaks it.
    pub fn medium(&mut self) -> &mut MemoryMedium {
        self.brain.medium()
    }

    /// Books as one page: what the brain dropped at a port as egress.
    pub fn egress_drops(&self, index: usize, reason: DropReason) -> Result<u64> {
        let cells = self.page.port(id(index)?.index()).snapshot();
        Ok(cells.egress_drops.get(reason as usize).context("a reason has a slot")?.frames)
    }
}

fn id(index: usize) -> Result<PortId> {
    u16::try_from(index + 1).ok().and_then(PortId::new).context("port ids are 1 to 4094")
}

impl Fabric for Memory {
    fn features(&self) -> &[Feature] {
        use Feature::{Clock, Drops, KeepsDown, Limits, Sources, StrictReserved};
        &[Clock, Drops, KeepsDown, Limits, Sources, StrictReserved]
    }

    fn add_port(&mut self, index: usize, plan: &PortPlan) -> Result<()> {
        let own = (!plan.macs.is_empty()).then(|| sentinel(index));
        let view = PortView {
            id: id(index)?,
            up: true,
            carrier: true,
            role: if plan.role.as_deref() == Some("uplink") { Role::Uplink } else { Role::Guest },
            macs: plan.macs.iter().map(|mac| mac.0).chain(own).collect(),
            station_limit: Some(plan.station_limit.map_or(spec::STATION_LIMIT, |limit| limit + 1)),
            flood_per_sec: plan.flood_per_sec.unwrap_or(spec::FLOOD_PER_SEC),
            frame_bytes_max: plan.mtu.unwrap_or(MTU) + HEADER,
            trust: Trust::Guest,
        };
        self.brain.set_port(view.clone(), None);
        self.views.insert(index, view);
        Ok(())
    }

    fn remove_port(&mut self, index: usize) -> Result<()> {
        self.views.remove(&index).context("no such port")?;
        self.brain.remove_port(id(index)?);
        Ok(())
    }

    fn set_up(&mut self, index: usize, up: bool) -> Result<()> {
        let view = self.views.get_mut(&index).context("no such port")?;
        view.up = up;
        self.brain.set_port(view.clone(), None);
        Ok(())
    }

    fn pin(&mut self, index: usize, station: MacAddr) -> Result<()> {
        Ok(self.brain.tables().fdb.add_static(VlanId::default(), station, id(index)?, self.now)?)
    }

    fn unpin(&mut self, station: MacAddr) -> Result<()> {
        self.brain.tables().fdb.remove(VlanId::default(), station).map(drop).context("not known")
    }

    fn flush(&mut self, index: Option<usize>) -> Result<()> {
        self.brain.flush(index.map(id).transpose()?);
        Ok(())
    }

    fn send(&mut self, index: usize, frame: &[u8]) -> io::Result<()> {
        let ingress = id(index).map_err(io::Error::other)?;
        self.brain.medium().send(ingress, frame);
        while self.brain.step(self.now)? == Step::More {}
        Ok(())
    }

    fn receive(&mut self, index: usize) -> Result<Vec<Vec<u8>>> {
        Ok(self.brain.medium().take(id(index)?))
    }

    fn stations(&mut self) -> Result<BTreeMap<MacAddr, usize>> {
        let stations = self.brain.tables().fdb.iter();
        Ok(stations.map(|station| (station.mac, station.port.index() - 1)).collect())
    }

    fn drops(&mut self, index: usize, reason: &str) -> Result<u64> {
        let all = DropReason::ALL.iter().find(|known| known.label() == reason);
        let slot = *all.with_context(|| format!("no drop reason {reason}"))? as usize;
        let cells = self.page.port(id(index)?.index()).snapshot();
        let at = |drops: &[switch_common::DropCell]| drops.get(slot).map_or(0, |cell| cell.frames);
        Ok(at(&cells.ingress_drops) + at(&cells.egress_drops))
    }

    fn advance(&mut self, secs: u64) -> Result<()> {
        // Second by second, as the thread would be woken; a tick that is not due does nothing.
        for _ in 0..secs {
            self.now = self.now + Duration::from_secs(1);
            self.brain.tick(self.now);
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<()> {
        let switch = self.page.port(0).snapshot();
        ensure!(switch.flood_copies == switch.flood_eligible, "L3: {switch:?}");
        for view in self.views.values() {
            let port = self.page.port(view.id.index()).snapshot();
            let dropped: u64 = port.ingress_drops.iter().map(|cell| cell.frames).sum();
            ensure!(port.settled == port.forwarded + port.flooded + dropped, "L1 at {}: {port:?}", view.id);
        }
        Ok(())
    }
}
