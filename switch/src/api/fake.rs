//! A switch without a switch: answers the API from memory, for tests.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{broadcast, oneshot};

use super::schema::{
    Applied, Change, Diff, DropInfo, Intent, LawReport, LedgerReport, MirrorInfo, MirrorState, PortInfo, StationInfo,
    Status, Traffic,
};
use super::{Control, ControlError, Witnessed};
use crate::capture::audit::Peer;
use crate::capture::session::{Closing, Feed, Opening};
use crate::capture::stream::{Begin, Port};
use crate::capture::{self, Request, Running};
use crate::config::{File, PortTable};
use crate::events::{Event, EventFilter, Events};
use crate::explain::{self, Explanation, Facts, Question};
use crate::fdb::{FdbLimits, Nanos};
use crate::flow::{Filter, Record};
use crate::forwarding::Tables;
use crate::metrics::Sample;
use crate::mirror::MirrorSpec;
use crate::names::{Holder, Subject};
use crate::observer::{Busiest, Wanted};
use crate::port::spec::{Mac, PortName, PortSpec, PortState};

#[derive(Debug)]
pub(crate) struct World {
    pub(crate) specs: BTreeMap<PortName, PortSpec>,
    pub(crate) mirrors: BTreeMap<PortName, MirrorSpec>,
    pub(crate) stations: Vec<StationInfo>,
    pub(crate) drops: Vec<DropInfo>,
    pub(crate) is_ready: bool,
    pub(crate) is_blind: bool,
    pub(crate) settled: Option<Duration>,
    pub(crate) is_unbalanced: bool,
    pub(crate) sample: Sample,
    pub(crate) samples: u64,
    pub(crate) records: Vec<Arc<Record>>,
    pub(crate) ended: broadcast::Sender<Arc<Record>>,
    pub(crate) busiest: Busiest,
    pub(crate) wanted: Vec<Wanted>,
    pub(crate) lagged: u64,
    pub(crate) evidence: broadcast::Sender<Arc<Witnessed>>,
    pub(crate) events: Events,
    pub(crate) holders: Vec<Holder>,
    pub(crate) asked: Option<(Subject, Option<Timestamp>)>,
    pub(crate) captured: Vec<(Request, Peer)>,
}

/// Records that a follower of the fake may be behind.
pub(crate) const FOLLOW_MAX: usize = 4;

impl Default for World {
    fn default() -> Self {
        Self {
            specs: BTreeMap::new(),
            mirrors: BTreeMap::new(),
            stations: Vec::new(),
            drops: Vec::new(),
            is_ready: false,
            is_blind: false,
            settled: None,
            is_unbalanced: false,
            records: Vec::new(),
            ended: broadcast::Sender::new(FOLLOW_MAX),
            busiest: Busiest::default(),
            wanted: Vec::new(),
            lagged: 0,
            sample: Sample::default(),
            samples: 0,
            evidence: broadcast::Sender::new(16),
            events: Events::default(),
            holders: Vec::new(),
            asked: None,
            captured: Vec::new(),
        }
    }
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Fake(Arc<Mutex<World>>);

impl Fake {
    pub(crate) fn world(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap()
    }
}

/// What such a port would look like.
pub(crate) fn info(spec: &PortSpec) -> PortInfo {
    PortInfo {
        name: spec.name.clone(),
        id: 1,
        kind: spec.attachment.kind().to_owned(),
        role: spec.role,
        origin: spec.origin,
        netdev: "weft-test".to_owned(),
        ifindex: Some(7),
        state: PortState::Up,
        problem: None,
        mtu: Some(1500),
        macs: spec.macs.clone(),
        labels: spec.labels.clone(),
        ingress: Traffic { frames: 3, wire_frames: 12, bytes: 9000, wire_bytes: 9600 },
        egress: Traffic::default(),
        drops: BTreeMap::from([("flood_limited".to_owned(), 5)]),
    }
}

/// What such a mirror would look like.
fn mirror_info(spec: &MirrorSpec) -> MirrorInfo {
    MirrorInfo {
        name: spec.name.clone(),
        from: spec.from.clone(),
        filter: spec.filter.clone(),
        snaplen: spec.snaplen,
        to: spec.to.clone(),
        ifindex: Some(8),
        origin: spec.origin,
        state: MirrorState::Up,
        problem: None,
        matched: Traffic { frames: 3, wire_frames: 12, bytes: 9000, wire_bytes: 9600 },
        delivered: Traffic { frames: 3, wire_frames: 12, bytes: 9000, wire_bytes: 9600 },
        lost: Traffic::default(),
        target_dropped_frames: 1,
    }
}

fn no_port(name: &PortName) -> ControlError {
    ControlError::NotFound(format!("there is no port '{name}'; see `weft port list`"))
}

impl Control for Fake {
    async fn ports(&self) -> Vec<PortInfo> {
        self.world().specs.values().map(info).collect()
    }

    async fn port(&self, name: &PortName) -> Result<PortInfo, ControlError> {
        self.world().specs.get(name).map(info).ok_or_else(|| no_port(name))
    }

    async fn add_port(&self, spec: PortSpec, may_exist: bool, _: bool) -> Result<PortInfo, ControlError> {
        let mut world = self.world();
        match world.specs.get(&spec.name) {
            Some(old) if may_exist && *old == spec => {}
            Some(_) => return Err(ControlError::Exists(format!("there is a port '{}' already", spec.name))),
            None => {
                world.specs.insert(spec.name.clone(), spec.clone());
            }
        }
        Ok(info(&spec))
    }

    async fn remove_port(&self, name: &PortName, if_exists: bool) -> Result<(), ControlError> {
        match self.world().specs.remove(name) {
            None if !if_exists => Err(no_port(name)),
            _ => Ok(()),
        }
    }

    async fn apply(&self, intent: Intent, dry_run: bool, prune: bool) -> Result<Applied, ControlError> {
        let mut world = self.world();
        let Intent { ports, mirrors } = intent;
        let wanted: BTreeMap<_, _> = ports.into_iter().map(|spec| (spec.name.clone(), spec)).collect();
        let mut diff = Diff { applied: !dry_run, ..Diff::default() };
        for (name, spec) in &wanted {
            match world.specs.get(name) {
                None => diff.add.push(name.clone()),
                Some(old) if old != spec => diff.change.push(Change { name: name.clone(), what: Vec::new() }),
                Some(_) => {}
            }
        }
        if prune {
            diff.remove = world.specs.keys().filter(|name| !wanted.contains_key(*name)).cloned().collect();
        }
        if !dry_run {
            world.specs.extend(wanted);
            world.specs.retain(|name, _| !diff.remove.contains(name));
        }
        let add = mirrors.iter().map(|spec| spec.name.clone()).collect();
        if !dry_run {
            world.mirrors = mirrors.into_iter().map(|spec| (spec.name.clone(), spec)).collect();
        }
        Ok(Applied { ports: diff, mirrors: Diff { add, applied: !dry_run, ..Diff::default() } })
    }

    async fn mirrors(&self) -> Vec<MirrorInfo> {
        self.world().mirrors.values().map(mirror_info).collect()
    }

    async fn add_mirror(&self, spec: MirrorSpec) -> Result<MirrorInfo, ControlError> {
        spec.check().map_err(ControlError::Invalid)?;
        let mut world = self.world();
        if world.mirrors.contains_key(&spec.name) {
            return Err(ControlError::Exists(format!("there is a mirror '{}' already", spec.name)));
        }
        world.mirrors.insert(spec.name.clone(), spec.clone());
        Ok(mirror_info(&spec))
    }

    async fn remove_mirror(&self, name: &PortName) -> Result<(), ControlError> {
        let removed = self.world().mirrors.remove(name);
        removed.map(drop).ok_or_else(|| ControlError::NotFound(format!("there is no mirror '{name}'")))
    }

    async fn export(&self) -> File {
        let port = self.world().specs.values().map(|spec| PortTable::try_from(spec).unwrap()).collect();
        File { port, ..File::default() }
    }

    async fn stations(&self) -> Vec<StationInfo> {
        self.world().stations.clone()
    }

    async fn add_station(&self, port: PortName, mac: Mac) -> Result<(), ControlError> {
        let mut world = self.world();
        if !world.specs.contains_key(&port) {
            return Err(no_port(&port));
        }
        world.stations.push(StationInfo { mac, vlan: 0, port, is_static: true, age_secs: 0, moves: 0 });
        Ok(())
    }

    async fn remove_station(&self, mac: Mac) -> Result<(), ControlError> {
        let mut world = self.world();
        let before = world.stations.len();
        world.stations.retain(|station| station.mac != mac);
        if world.stations.len() == before { Err(ControlError::NotFound(format!("no station {mac}"))) } else { Ok(()) }
    }

    async fn flush(&self, port: Option<PortName>) -> Result<u64, ControlError> {
        let mut world = self.world();
        let before = world.stations.len();
        world.stations.retain(|station| port.as_ref().is_some_and(|port| station.port != *port));
        Ok((before - world.stations.len()) as u64)
    }

    async fn ledger(&self, settle: Option<Duration>) -> LedgerReport {
        let mut world = self.world();
        world.settled = settle;
        let holds = !world.is_unbalanced;
        let law = LawReport { law: "L1".into(), what: "web1".into(), left: 1, right: 1, holds, note: None };
        LedgerReport { holds, quiet: true, laws: vec![law] }
    }

    async fn drops(&self) -> Vec<DropInfo> {
        self.world().drops.clone()
    }

    async fn drops_between(
        &self,
        since: Option<Timestamp>,
        until: Option<Timestamp>,
    ) -> Result<Vec<DropInfo>, ControlError> {
        let span = format!("{} to {}", since.unwrap_or_default(), until.unwrap_or_default());
        let mut drops = self.world().drops.clone();
        for drop in &mut drops {
            drop.description.clone_from(&span);
        }
        Ok(drops)
    }

    async fn explain(&self, question: Question) -> Result<Explanation, ControlError> {
        let world = self.world();
        let facts = Facts {
            ports: world.specs.values().map(info).collect(),
            stations: world.stations.clone(),
            tables: Tables::new(FdbLimits::default()),
            of_sender: world.records.clone(),
            of_receiver: world.records.clone(),
            holders: Vec::new(),
            events: world.events.recent(&EventFilter::default(), usize::MAX),
            drops: world.drops.clone(),
            now: Nanos::default(),
        };
        explain::explain(&question, &facts, |_| Ok(None))
    }

    async fn sample(&self) -> Result<Sample, ControlError> {
        let mut world = self.world();
        world.samples += 1;
        Ok(Sample { name: "weft-test".to_owned(), ..world.sample.clone() })
    }

    async fn flows(&self, filter: Filter, last: usize) -> Result<Vec<Arc<Record>>, ControlError> {
        let world = self.world();
        let asked = world.records.iter().filter(|record| filter.matches(record));
        let mut chosen: Vec<_> = asked.rev().take(last).cloned().collect();
        chosen.reverse();
        Ok(chosen)
    }

    async fn busiest(&self, wanted: Wanted) -> Busiest {
        let mut world = self.world();
        let answer = world.busiest.clone();
        world.wanted.push(wanted);
        answer
    }

    fn follow_flows(&self) -> broadcast::Receiver<Arc<Record>> {
        self.world().ended.subscribe()
    }

    fn follower_lagged(&self, records: u64) {
        self.world().lagged += records;
    }

    fn evidence(&self) -> broadcast::Receiver<Arc<Witnessed>> {
        self.world().evidence.subscribe()
    }

    fn events(&self) -> broadcast::Receiver<Arc<Event>> {
        self.world().events.subscribe()
    }

    async fn recent_events(&self, filter: EventFilter, last: usize) -> Result<Vec<Arc<Event>>, ControlError> {
        Ok(self.world().events.recent(&filter, last))
    }

    fn events_lagged(&self, events: u64) {
        self.world().events.lagged(events);
    }

    async fn who(&self, subject: Subject, at: Option<Timestamp>) -> Vec<Holder> {
        let mut world = self.world();
        world.asked = Some((subject, at));
        world.holders.clone()
    }

    async fn capture(&self, request: Request, peer: Peer) -> Result<Feed, ControlError> {
        let begin = Begin { session: 1, switch: "weft-test".to_owned(), ..Begin::default() };
        let opening = Opening {
            bit: 0,
            begin,
            ports: None,
            keep: request.keep(),
            filter: None,
            frames_max: None,
            bytes_max: None,
            distance_ns: 0,
        };
        let port = Port { id: 1, name: "a".to_owned(), ..Port::default() };
        let (session, feed) = capture::session::open(opening, oneshot::channel().0, &HashMap::from([(1, port)]));
        session.close(&Closing::default());
        self.world().captured.push((request, peer));
        Ok(feed)
    }

    async fn end_capture(&self, session: u64) -> Result<(), ControlError> {
        if session == 1 { Ok(()) } else { Err(ControlError::NotFound(format!("there is no capture {session}"))) }
    }

    async fn captures(&self) -> Vec<Running> {
        Vec::new()
    }

    async fn status(&self) -> Status {
        Status {
            name: "weft-test".to_owned(),
            pid: std::process::id(),
            version: "0.0.0".to_owned(),
            datapath: "kernel".to_owned(),
            hook: "tcx".to_owned(),
            uptime_secs: 1,
            ready: self.is_ready(),
            config: None,
            kernel_drops_problem: None,
            observer_problem: None,
            history: None,
            ports: 0,
            stations: 0,
        }
    }

    fn is_observing(&self) -> bool {
        !self.world().is_blind
    }

    fn is_ready(&self) -> bool {
        self.world().is_ready
    }
}
