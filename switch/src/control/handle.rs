//! What the API holds of control: a lock around the port table, and what can be said without it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use switch_common::{DropReason, PortId};
use tokio::sync::{Mutex, MutexGuard, broadcast};
use tokio::task::JoinHandle;

use super::apply::Wanted;
use super::mirrors::Prepared;
use super::{Control, ControlError, accounts, errors, lost};
use crate::api::schema::{Applied, DropInfo, Intent, LedgerReport, MirrorInfo, PortInfo, StationInfo, Status};
use crate::api::{self, Witnessed};
use crate::capture::audit::Peer;
use crate::capture::session::Feed;
use crate::capture::{Request, Running};
use crate::clerk::Clerk;
use crate::config;
use crate::dataplane::commands::{Census, Command};
use crate::dataplane::thread::now;
use crate::events::{Event, EventFilter, Events};
use crate::evidence::Evidence;
use crate::explain::{self, Explanation, Facts, Question};
use crate::flow::{Filter, Record};
use crate::history::{DroppedSince, History, HistoryError};
use crate::metrics::Sample;
use crate::metrics::process::Process;
use crate::mirror::MirrorSpec;
use crate::names::{Holder, Subject};
use crate::observer::{self, Busiest, Observer};
use crate::port::monitor::LinkEvent;
use crate::port::spec::{Mac, PortName, PortSpec};

/// Conversations of one end that an explanation looks at, the last ones.
const EXPLAINED_MAX: usize = 1000;
/// Evidence that waits for a slow follower at most.
const EVIDENCE_KEPT: usize = 4096;
/// How often [`Handle::keep_drops`] is to be called.
pub const LOOK_AT_DROPS_EVERY: Duration = Duration::from_mins(1);

/// A cheap clone of the way to control.
#[derive(Clone)]
pub struct Handle {
    pub(super) control: Arc<Mutex<Control>>,
    observer: Observer,
    events: Events,
    clerk: Clerk,
    history: Option<History>,
    ready: Arc<AtomicBool>,
    started: Instant,
    evidence: broadcast::Sender<Arc<Witnessed>>,
}

impl Handle {
    /// Wraps control; not ready yet.
    pub fn new(control: Control) -> Self {
        Self {
            observer: control.observer.clone(),
            events: control.events.clone(),
            clerk: control.clerk.clone(),
            history: control.history.clone(),
            control: Arc::new(Mutex::new(control)),
            ready: Arc::new(AtomicBool::new(false)),
            started: Instant::now(),
            evidence: broadcast::Sender::new(EVIDENCE_KEPT),
        }
    }

    /// Says whether the switch forwards.
    pub fn set_ready(&self, ready: bool) {
        self.ready.store(ready, Ordering::Release);
    }

    /// Tells whoever follows drops what was seen of them.
    pub async fn tell(&self, seen: Vec<Evidence>) {
        if seen.is_empty() || self.evidence.receiver_count() == 0 {
            return;
        }
        let seen = self.control.lock().await.name_evidence(seen);
        for one in seen {
            // Without a receiver nobody wants it.
            self.evidence.send(Arc::new(one)).ok();
        }
    }

    /// Follows one event of the kernel.
    pub async fn follow(&self, event: LinkEvent) {
        self.control.lock().await.follow(event).await;
    }

    /// Looks for punted frames that never reached the brain, and books them: see [`super::lost`].
    pub async fn look_for_lost(&self) {
        lost::look(&self.control).await;
    }

    /// Has the history keep what was dropped since the look before.
    pub async fn keep_drops(&self) {
        if let Some(history) = &self.history {
            let drops = self.control.lock().await.drop_infos();
            history.offer_drops(Timestamp::now(), drops);
        }
    }

    /// Looks at every netdev anew.
    pub async fn look_at_all(&self) {
        self.control.lock().await.look_at_all().await;
    }

    /// Makes the mirrors of the file, at the start.
    pub async fn begin_mirrors(&self, specs: Vec<MirrorSpec>) -> Result<(), ControlError> {
        let wanted = prepare(specs).await?;
        self.control.lock().await.begin_mirrors(wanted).await
    }

    /// Ends: see [`Control::stop`].
    pub async fn stop(&self, keep: bool) -> Result<(), ControlError> {
        self.control.lock().await.stop(keep).await
    }
}

impl api::Control for Handle {
    async fn ports(&self) -> Vec<PortInfo> {
        let control = self.control.lock().await;
        control.infos(control.ports.values())
    }

    async fn port(&self, name: &PortName) -> Result<PortInfo, ControlError> {
        let control = self.control.lock().await;
        control.port_named(name).map(|port| control.info(port))
    }

    async fn add_port(&self, spec: PortSpec, may_exist: bool, wait: bool) -> Result<PortInfo, ControlError> {
        let control = Arc::clone(&self.control);
        finish(tokio::spawn(async move {
            let mut control = control.lock().await;
            let added = control.add_and_save(spec, may_exist, wait).await;
            flows_ended(control, added).await
        }))
        .await
    }

    async fn remove_port(&self, name: &PortName, if_exists: bool) -> Result<(), ControlError> {
        // Its counters go with it.
        self.keep_drops().await;
        let name = name.clone();
        let control = Arc::clone(&self.control);
        finish(tokio::spawn(async move {
            let mut control = control.lock().await;
            let removed = control.remove_and_save(&name, if_exists).await;
            flows_ended(control, removed).await
        }))
        .await
    }

    async fn apply(&self, intent: Intent, dry_run: bool, prune: bool) -> Result<Applied, ControlError> {
        let wanted = Wanted { ports: intent.ports, mirrors: prepare(intent.mirrors).await? };
        if !dry_run {
            self.keep_drops().await;
        }
        let control = Arc::clone(&self.control);
        finish(tokio::spawn(async move {
            let mut control = control.lock().await;
            let applied = control.apply(wanted, dry_run, prune).await;
            control.tend_mirrors_quietly().await;
            flows_ended(control, applied).await
        }))
        .await
    }

    async fn mirrors(&self) -> Vec<MirrorInfo> {
        self.control.lock().await.mirror_infos()
    }

    async fn add_mirror(&self, spec: MirrorSpec) -> Result<MirrorInfo, ControlError> {
        let mirror = Prepared::of(spec).await?;
        let control = Arc::clone(&self.control);
        finish(tokio::spawn(async move { control.lock().await.add_mirror(mirror).await })).await
    }

    async fn remove_mirror(&self, name: &PortName) -> Result<(), ControlError> {
        let name = name.clone();
        let control = Arc::clone(&self.control);
        finish(tokio::spawn(async move { control.lock().await.remove_mirror(&name).await })).await
    }

    async fn export(&self) -> config::File {
        let control = self.control.lock().await;
        let ports: Vec<PortSpec> = control.ports.values().map(|port| port.spec.clone()).collect();
        config::File::describe(&control.runtime, &ports, &control.mirror_specs()).unwrap_or_else(|error| {
            tracing::error!(error, "what runs cannot be written as a file");
            config::File::default()
        })
    }

    async fn stations(&self) -> Vec<StationInfo> {
        let control = self.control.lock().await;
        let Ok(stations) = control.commands.ask(Command::Stations).await else { return Vec::new() };
        let at = now();
        let names: HashMap<PortId, &PortName> = control.ports.iter().map(|(name, port)| (port.id, name)).collect();
        let mut infos: Vec<StationInfo> = stations
            .into_iter()
            .filter_map(|station| {
                Some(StationInfo {
                    mac: Mac(station.mac),
                    vlan: station.vlan.0,
                    port: (*names.get(&station.port)?).clone(),
                    is_static: station.is_static,
                    age_secs: at.since(station.last_seen).as_secs(),
                    moves: station.moves,
                })
            })
            .collect();
        infos.sort_by_key(|info| (info.vlan, info.mac));
        infos
    }

    async fn add_station(&self, port: PortName, mac: Mac) -> Result<(), ControlError> {
        let control = Arc::clone(&self.control);
        finish(tokio::spawn(async move { control.lock().await.pin(port, mac).await })).await
    }

    async fn remove_station(&self, mac: Mac) -> Result<(), ControlError> {
        let control = Arc::clone(&self.control);
        finish(tokio::spawn(async move { control.lock().await.unpin(mac).await })).await
    }

    async fn flush(&self, port: Option<PortName>) -> Result<u64, ControlError> {
        let control = self.control.lock().await;
        let port = port.map(|name| control.port_named(&name).map(|port| port.id)).transpose()?;
        let flushed = control.commands.ask(|done| Command::Flush { port, done }).await?;
        Ok(flushed as u64)
    }

    async fn ledger(&self, settle: Option<Duration>) -> LedgerReport {
        Box::pin(accounts::ledger(&self.control, settle)).await
    }

    async fn drops(&self) -> Vec<DropInfo> {
        self.control.lock().await.drop_infos()
    }

    async fn drops_between(
        &self,
        since: Option<Timestamp>,
        until: Option<Timestamp>,
    ) -> Result<Vec<DropInfo>, ControlError> {
        let history = self.history.as_ref().ok_or_else(errors::no_history)?;
        let now = self.drops().await;
        history.offer_drops(Timestamp::now(), now.clone());
        let rows = history.drops(since, until).await.map_err(failed)?;
        let described = |label: &str| {
            let ours = DropReason::ALL.iter().find(|reason| reason.label() == label);
            let kernels = || now.iter().find(|drop| drop.reason == label).map(|drop| drop.description.clone());
            ours.map_or_else(|| kernels().unwrap_or_default(), |reason| reason.describe().trim().to_owned())
        };
        let info = |DroppedSince { port, side, reason, frames, bytes }: DroppedSince| {
            let description = described(&reason);
            DropInfo { port, side, reason, description, frames, bytes, evidence: Vec::new() }
        };
        Ok(rows.into_iter().map(info).collect())
    }

    async fn explain(&self, question: Question) -> Result<Explanation, ControlError> {
        let records = async |asked: &str| match explain::records_of(asked) {
            Some(filter) => self.observer.records(filter, EXPLAINED_MAX).await.map(|it| it.records).unwrap_or_default(),
            None => Vec::new(),
        };
        let (of_sender, of_receiver) = (records(&question.from).await, records(&question.to).await);
        let (ports, drops, pairs, commands) = {
            let control = self.control.lock().await;
            (
                control.infos(control.ports.values()),
                control.drop_infos(),
                control.reflex.pairs()?,
                control.commands.clone(),
            )
        };
        let mut holders = Vec::new();
        for address in [&question.from, &question.to].into_iter().filter_map(|asked| explain::address_of(asked)) {
            holders.extend(self.clerk.who(Subject::Address(address), None).await);
        }
        let events = self.events.recent(&EventFilter::default(), usize::MAX);
        let stations = self.stations().await;
        let tables = *commands.ask(Command::Tables).await?;
        let facts = Facts { ports, stations, tables, of_sender, of_receiver, holders, events, drops, now: now() };
        explain::explain(&question, &facts, |key| Ok(pairs.of(&[key])?.remove(&key)))
    }

    async fn sample(&self) -> Result<Sample, ControlError> {
        let begin = Instant::now();
        let (mut sample, commands, stations_max) = {
            let control = self.control.lock().await;
            let sample = control.sample().map_err(|error| ControlError::Failed(error.to_string()))?;
            (sample, control.commands.clone(), control.runtime.stations_max)
        };
        let census = commands.ask(Command::Census).await?;
        sample.count_in(&census, stations_max);
        sample.process = Process::look();
        sample.took = begin.elapsed();
        Ok(sample)
    }

    async fn flows(&self, filter: Filter, last: usize) -> Result<Vec<Arc<Record>>, ControlError> {
        let remembered = self.observer.records(filter.clone(), last).await.ok_or_else(errors::no_observer)?;
        match &self.history {
            Some(history) => history.complete(remembered, filter, last).await.map_err(failed),
            None => Ok(remembered.records),
        }
    }

    async fn busiest(&self, wanted: observer::Wanted) -> Busiest {
        self.observer.busiest(wanted).await
    }

    fn follow_flows(&self) -> broadcast::Receiver<Arc<Record>> {
        self.observer.subscribe()
    }

    fn follower_lagged(&self, records: u64) {
        self.observer.lagged(records);
    }

    fn evidence(&self) -> broadcast::Receiver<Arc<Witnessed>> {
        self.evidence.subscribe()
    }

    fn events(&self) -> broadcast::Receiver<Arc<Event>> {
        self.events.subscribe()
    }

    async fn recent_events(&self, filter: EventFilter, last: usize) -> Result<Vec<Arc<Event>>, ControlError> {
        match &self.history {
            Some(history) => {
                let told = self.events.told(&filter, last);
                history.complete_events(told, filter, last).await.map_err(failed)
            }
            None => Ok(self.events.recent(&filter, last)),
        }
    }

    fn events_lagged(&self, events: u64) {
        self.events.lagged(events);
    }

    async fn who(&self, subject: Subject, at: Option<Timestamp>) -> Vec<Holder> {
        self.clerk.who(subject, at).await
    }

    async fn capture(&self, request: Request, peer: Peer) -> Result<Feed, ControlError> {
        Self::capture(self, request, peer).await
    }

    async fn end_capture(&self, session: u64) -> Result<(), ControlError> {
        Self::end_capture(self, session).await
    }

    async fn captures(&self) -> Vec<Running> {
        Self::captures(self).await
    }

    async fn status(&self) -> Status {
        let control = self.control.lock().await;
        let Census { stations, .. } = control.commands.ask(Command::Census).await.unwrap_or_default();
        Status {
            name: control.runtime.name.to_string(),
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            datapath: control.runtime.datapath.to_string(),
            hook: control.reflex.hook().to_string(),
            uptime_secs: self.started.elapsed().as_secs(),
            ready: self.is_ready(),
            observer_problem: (!self.observer.is_alive()).then(|| errors::NO_OBSERVER.to_owned()),
            history: self.history.as_ref().map(History::status),
            kernel_drops_problem: control.reflex.kernel_drops_problem().map(str::to_owned),
            config: control.runtime.config_path.as_ref().map(|path| path.display().to_string()),
            ports: control.ports.len() as u64,
            stations: stations as u64,
        }
    }

    fn is_observing(&self) -> bool {
        self.observer.is_alive()
    }

    fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Acquire)
    }
}

/// Lets go of control, and then waits until the flows of ports that were removed have ended: when it is answered that a port is gone,
/// its conversations are told.
async fn flows_ended<T>(
    mut control: MutexGuard<'_, Control>,
    changed: Result<T, ControlError>,
) -> Result<T, ControlError> {
    let ended = control.end_flows();
    drop(control);
    ended.await;
    changed
}

#[expect(clippy::needless_pass_by_value, reason = "what `map_err` hands over")]
fn failed(error: HistoryError) -> ControlError {
    ControlError::Failed(error.to_string())
}

/// Checks what is asked for, one after the other; compiling a filter may take its time.
async fn prepare(specs: Vec<MirrorSpec>) -> Result<Vec<Prepared>, ControlError> {
    let mut prepared = Vec::with_capacity(specs.len());
    for spec in specs {
        prepared.push(Prepared::of(spec).await?);
    }
    Ok(prepared)
}

/// Waits for a change that goes on to its end even if the asker has gone: one that is dropped half way would leave a
/// netdev attached that no port knows.
pub(super) async fn finish<T>(change: JoinHandle<Result<T, ControlError>>) -> Result<T, ControlError> {
    change.await.unwrap_or_else(|error| Err(ControlError::Failed(format!("the change was not carried out: {error}"))))
}
