//! Those who look on: threads and queues that observe, keep and tell. None of them is on the way of a frame.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use anyhow::{Context, Result};
use switch_common::PortId;

use crate::capture::hub::Hub;
use crate::capture::ring::Ring;
use crate::clerk::{self, Clerk};
use crate::config::{Flows, Runtime};
use crate::events::Events;
use crate::events::sighting::Sightings;
use crate::evidence::{QueueTally, Testimony};
use crate::export::FlowLog;
use crate::flow::Limits;
use crate::history::History;
use crate::notes::NoteReader;
use crate::observer::{Kernel, Observer, Outlet, PortNames, Setup};
use crate::reflex::{EvidenceRing, Reflex};
use crate::state::SavedPort;

/// What the loop tells, each by a queue of its own that it never waits for.
pub(super) struct Told {
    /// The beginnings of frames that it dropped.
    pub(super) testimony: Testimony,
    /// Stations that are new or moved.
    pub(super) sightings: Sightings,
    /// Rings when a station is told of.
    pub(super) bell: Arc<OwnedFd>,
    /// The flows whose frames it dropped.
    pub(super) notes: NoteReader,
}

/// Who looks on.
pub(super) struct Onlookers {
    pub(super) observer: Observer,
    pub(super) history: Option<History>,
    pub(super) events: Events,
    pub(super) clerk: Clerk,
    pub(super) hub: Hub,
    /// How much evidence the loop has kept.
    pub(super) witness: QueueTally,
    /// How many stations it has told of.
    pub(super) sighted: QueueTally,
    /// How many of its notes were lost.
    pub(super) notes: NoteReader,
}

/// Evidence of dropped frames: from the reflex, and from the loop.
pub(super) type Evidence = (Option<EvidenceRing>, Testimony);

impl Onlookers {
    /// Starts them all. `ports`: those of an earlier daemon; `goes_on`: the counters are an earlier daemon's.
    pub(super) fn start(
        runtime: &Runtime,
        reflex: &mut Reflex,
        told: Told,
        ports: &[SavedPort],
        flow_log: Option<FlowLog>,
        goes_on: bool,
    ) -> Result<(Self, Evidence)> {
        let Told { testimony, sightings, bell, notes } = told;
        let ring = reflex.evidence();
        let hub = start_hub(reflex)?;
        let history = runtime.history.as_ref().map(|config| History::start(config, goes_on)).transpose();
        let history = history.context("cannot start the history's thread")?;
        let log = flow_log.into_iter().map(|log| Box::new(log) as Box<dyn Outlet>);
        let outlets = log.chain(history.iter().map(|history| Box::new(history.outlet()) as Box<dyn Outlet>)).collect();
        let observer = observe(runtime, reflex, ports, outlets, notes.clone())?;
        let events = Events::new(runtime.names.told);
        // Before the first one is told.
        if let Some(history) = &history {
            events.keep_with(history.keeper());
        }
        let (witness, sighted) = (testimony.tally(), sightings.tally());
        let clerk = clerk::Setup {
            heard: reflex.heard(),
            sightings,
            bell,
            events: events.clone(),
            limits: runtime.names.limits,
            state_dir: runtime.state_dir.clone(),
            has_config: runtime.config_path.is_some(),
        };
        let clerk = Clerk::start(clerk, observer.clone()).context("cannot start the clerk's thread")?;
        Ok((Self { observer, history, events, clerk, hub, witness, sighted, notes }, (ring, testimony)))
    }

    /// Ends them, once nothing is observed any more. `tell`: conversations that go on are given out, because no other daemon follows.
    pub(super) async fn stop(self, tell: bool) {
        self.observer.stop(tell).await;
        self.clerk.stop().await;
        if let Some(history) = self.history {
            history.stop().await;
        }
    }
}

/// Starts the thread that gives out captured frames.
fn start_hub(reflex: &mut Reflex) -> Result<Hub> {
    let ring = reflex.captures().context("the ring of captures was taken before")?;
    let reasons = reflex.kernel_reasons();
    let (hub, thread) = Hub::start(Ring::new(ring, reasons)).context("cannot start the thread for captures")?;
    // It ends when it is told to, and has nothing to tell.
    drop(thread);
    Ok(hub)
}

/// Starts the observer, which calls the ports of an earlier daemon by their names from the beginning.
fn observe(
    runtime: &Runtime,
    reflex: &Reflex,
    ports: &[SavedPort],
    outlets: Vec<Box<dyn Outlet>>,
    notes: NoteReader,
) -> Result<Observer> {
    let mut names = PortNames::default();
    for port in ports {
        if let Some(id) = PortId::new(port.id) {
            names.insert(id, (&port.spec).into());
        }
    }
    let Flows { max, idle, closed, active, .. } = runtime.flows;
    let flows_max = reflex.flows().room()?;
    if flows_max.0 != max {
        let is = flows_max.0;
        tracing::warn!(
            is,
            asked = max,
            "the flow table stays as large as it was made; `weft down` makes room for another"
        );
    }
    let limits = Limits { active, idle, closed, ..Limits::default() };
    let setup = Setup { switch: runtime.name.to_string(), limits, flows_max, names };
    Observer::start(Kernel::of(reflex, notes)?, setup, outlets).context("cannot start the observer's thread")
}
