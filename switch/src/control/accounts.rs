//! From counters to what people read: ports, drops, and the ledger.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use switch_common::{BrainPort, DropCell, DropReason, PortCounters, PortDrops, Way};
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::attachment::shown_netdev;
use super::{Control, Port, lost};
use crate::api::schema::{DropInfo, LawReport, LedgerReport, PortInfo, Side};
use crate::ledger::{self, LawResult, NetdevNumbers, PortNumbers, Snapshot};
use crate::reflex::KernelDrop;

/// How often a switch that is to be quiet is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Looks that must agree for a switch to be called quiet.
const LOOKS_ALIKE: u32 = 3;

/// A port's counters of both halves.
pub(super) struct Numbers {
    pub(super) counters: PortCounters,
    pub(super) drops: PortDrops,
    pub(super) brain: BrainPort,
    pub(super) punted: u64,
}

impl Control {
    fn numbers(&self, port: &Port) -> Numbers {
        Numbers {
            counters: self.reflex.counters(port.id).unwrap_or_default(),
            drops: self.reflex.drops(port.id).unwrap_or_default(),
            brain: self.brain.port(port.id.index()).snapshot(),
            punted: self.reflex.buckets(port.id).unwrap_or_default().punted,
        }
    }

    /// Ports as the API shows them.
    pub(super) fn infos(&self, ports: impl Iterator<Item = impl std::borrow::Borrow<Port>>) -> Vec<PortInfo> {
        let kernel = self.reflex.kernel_drops().unwrap_or_default();
        ports.map(|port| self.info_with(port.borrow(), &kernel)).collect()
    }

    /// A port as the API shows it.
    pub(super) fn info(&self, port: &Port) -> PortInfo {
        self.info_with(port, &self.reflex.kernel_drops().unwrap_or_default())
    }

    fn info_with(&self, port: &Port, kernel: &[KernelDrop]) -> PortInfo {
        let numbers = self.numbers(port);
        let attached = port.attachment.as_ref().map(|attachment| &attachment.attached);
        let mut drops = BTreeMap::new();
        for (_, reason, cell) in dropped(&numbers) {
            *drops.entry(reason.label().to_owned()).or_insert(0) += cell.frames;
        }
        for drop in kernel.iter().filter(|drop| drop.port == port.id.get()) {
            *drops.entry(drop.label.to_string()).or_insert(0) += drop.dropped.frames;
        }
        PortInfo {
            name: port.spec.name.clone(),
            id: port.id.get(),
            kind: port.spec.attachment.kind().to_owned(),
            role: port.spec.role,
            origin: port.spec.origin,
            netdev: shown_netdev(port),
            ifindex: attached.map(|attached| attached.ifindex),
            state: port.state,
            problem: port.problem.clone(),
            mtu: attached.map(|attached| attached.mtu),
            macs: port.spec.macs.clone(),
            labels: port.spec.labels.clone(),
            ingress: numbers.counters.ingress.into(),
            egress: numbers.counters.egress.into(),
            drops,
        }
    }

    /// Every drop that is not zero; those of no port last.
    pub(super) fn drop_infos(&self) -> Vec<DropInfo> {
        let mut all = Vec::new();
        let kernel = self.reflex.kernel_drops().unwrap_or_default();
        for (name, port) in &self.ports {
            list_drops(name.as_str(), &self.numbers(port), &mut all);
            let of_port = kernel.iter().filter(|drop| drop.port == port.id.get());
            all.extend(of_port.map(|drop| DropInfo {
                port: name.to_string(),
                side: side(drop.way),
                reason: drop.label.to_string(),
                description: drop.description.clone(),
                frames: drop.dropped.frames,
                bytes: drop.dropped.bytes,
                evidence: Vec::new(),
            }));
        }
        let nobody = Numbers {
            counters: PortCounters::default(),
            drops: self.reflex.strangers().unwrap_or_default(),
            brain: BrainPort::default(),
            punted: 0,
        };
        list_drops("", &nobody, &mut all);
        all
    }

    /// Every number the laws speak of, read once.
    async fn snapshot(&self) -> Snapshot {
        let mut ports = Vec::new();
        for (name, port) in &self.ports {
            let netdev = self.netdev_numbers(port).await;
            let Numbers { counters, drops, brain, punted } = self.numbers(port);
            ports.push(PortNumbers {
                name: name.to_string(),
                id: port.id.get(),
                counters,
                drops,
                brain,
                punted,
                netdev,
                flows: None,
                heard: self.reflex.heard_sums(port.id).unwrap_or_default(),
            });
        }
        let strangers = self.reflex.strangers().unwrap_or_default();
        let evidence = self.reflex.evidence_sums().unwrap_or_default().plus(self.witness.sums());
        let sightings = self.sighted.sums();
        Snapshot {
            ports,
            switch: self.brain.port(0).snapshot(),
            strangers,
            evidence,
            sightings,
            sessions: self.session_numbers(),
            readers: self.reader_numbers(),
        }
    }

    async fn netdev_numbers(&self, port: &Port) -> Option<NetdevNumbers> {
        let attachment = port.attachment.as_ref()?;
        let facts = self.host.look_index(attachment.attached.ifindex).await.ok()??;
        let since = |now: u64, before: i64| u64::try_from(now.cast_signed().wrapping_sub(before)).unwrap_or(0);
        Some(NetdevNumbers {
            rx_frames: since(facts.stats.rx_frames, attachment.before.rx_frames),
            tx_frames: since(facts.stats.tx_frames + facts.stats.tx_dropped, attachment.before.tx_frames),
            tx_dropped: 0,
            peer_redirected: matches!(port.spec.attachment, crate::port::Attachment::Netns { .. }),
            has_ring: facts.tun.is_some(),
        })
    }
}

/// The laws. `settle`: waits so long at most until nothing moves, and checks equality; without it, or when it
/// does not come to rest, three snapshots are compared as t0 ≤ t1 ≤ t2. Control is locked for each look only, so that who waits
/// for quiet holds up nobody.
pub(super) async fn ledger(control: &Mutex<Control>, settle: Option<Duration>) -> LedgerReport {
    let deadline = Instant::now() + settle.unwrap_or_default();
    let mut last = control.lock().await.snapshot().await;
    let mut alike = 0;
    while settle.is_some() && Instant::now() < deadline {
        tokio::time::sleep(LOOK_EVERY).await;
        let now = control.lock().await.snapshot().await;
        let in_flight = now.ports.iter().any(|port| ledger::in_flight(port) > 0);
        let at_rest = !in_flight && now.readers.iter().all(|reader| reader.under_way() == 0);
        alike = if at_rest && now == last { alike + 1 } else { 0 };
        if now == last && in_flight {
            lost::book(control).await;
        }
        last = now;
        if alike >= LOOKS_ALIKE {
            let whole = snapshot_with_flows(control).await;
            // The numbers without the flows were read before them: they must not have moved since.
            if without_flows(&whole) == control.lock().await.snapshot().await {
                return report(true, ledger::check_quiet(&whole));
            }
            alike = 0;
        }
    }
    let start = snapshot_with_flows(control).await;
    let middle = snapshot_with_flows(control).await;
    let end = snapshot_with_flows(control).await;
    let mut found = report(start == end, ledger::check_moving(&start, &middle, &end));
    if settle.is_some() {
        found.quiet = false;
        found.holds = false;
        found.laws.push(LawReport {
            law: "settle".to_owned(),
            what: "switch".to_owned(),
            left: 0,
            right: 0,
            holds: false,
            note: Some(restless(&end)),
        });
    }
    found
}

/// Why a switch did not come to rest.
fn restless(last: &Snapshot) -> String {
    match last.readers.iter().find(|reader| reader.under_way() > 0) {
        Some(reader) => format!(
            "the switch did not come to rest in time; {} frames wait for {}: stop the traffic, let it read or end it, or ask without --settle",
            reader.under_way(),
            reader.name
        ),
        None => "the switch did not come to rest in time; stop the traffic, or ask without --settle".to_owned(),
    }
}

/// Every number with what flows counted; these are read without the lock, because it takes longer.
async fn snapshot_with_flows(control: &Mutex<Control>) -> Snapshot {
    let (mut snapshot, reading) = {
        let control = control.lock().await;
        let reading = control.runtime.flows.enabled.then(|| (control.reflex.flows(), Arc::clone(&control.brain)));
        (control.snapshot().await, reading)
    };
    let Some((flows, brain)) = reading else { return snapshot };
    match tokio::task::spawn_blocking(move || flows.totals(&brain)).await {
        Ok(Ok(totals)) => {
            for port in &mut snapshot.ports {
                port.flows = Some(totals.get(&port.id).copied().unwrap_or_default());
            }
        }
        Ok(Err(error)) => tracing::warn!(%error, "the flows could not be read; L4 is left out"),
        Err(error) => tracing::warn!(%error, "the flows were not read; L4 is left out"),
    }
    snapshot
}

fn without_flows(snapshot: &Snapshot) -> Snapshot {
    let mut snapshot = snapshot.clone();
    for port in &mut snapshot.ports {
        port.flows = None;
    }
    snapshot
}

fn report(quiet: bool, laws: Vec<LawResult>) -> LedgerReport {
    let laws: Vec<LawReport> = laws
        .into_iter()
        .map(|law| LawReport {
            law: law.law.to_owned(),
            what: law.what,
            left: law.left,
            right: law.right,
            holds: law.holds,
            note: law.note,
        })
        .collect();
    LedgerReport { holds: laws.iter().all(|law| law.holds), quiet, laws }
}

/// Every cell that is not zero, both halves added up.
pub(super) fn dropped(numbers: &Numbers) -> impl Iterator<Item = (Side, DropReason, DropCell)> {
    let sides = [
        (Side::Ingress, &numbers.drops.ingress, &numbers.brain.ingress_drops),
        (Side::Egress, &numbers.drops.egress, &numbers.brain.egress_drops),
    ];
    sides.into_iter().flat_map(|(side, reflex, brain)| {
        DropReason::ALL.iter().filter_map(move |reason| {
            let (kernel, user) = (reflex.get(*reason as usize)?, brain.get(*reason as usize)?);
            let cell = DropCell { frames: kernel.frames + user.frames, bytes: kernel.bytes + user.bytes };
            (cell.frames > 0).then_some((side, *reason, cell))
        })
    })
}

fn list_drops(port: &str, numbers: &Numbers, into: &mut Vec<DropInfo>) {
    into.extend(dropped(numbers).map(|(side, reason, cell)| DropInfo {
        port: port.to_owned(),
        side,
        reason: reason.label().to_owned(),
        description: reason.describe().trim().to_owned(),
        frames: cell.frames,
        bytes: cell.bytes,
        evidence: Vec::new(),
    }));
}

/// The side as the API calls it; the kernel's own where neither is known.
pub(super) fn side(way: Option<Way>) -> Side {
    match way {
        Some(Way::Ingress) => Side::Ingress,
        Some(Way::Egress) => Side::Egress,
        None => Side::Kernel,
    }
}
