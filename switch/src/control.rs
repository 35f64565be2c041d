//! Control: the one owner of the port table. It makes ports on the host, tells the reflex and the loop about them, and
//! answers the API.
//!
//! ```text
//! API, reload, netlink ─▶ Handle ─▶ Control ─┬─▶ Host     netdevs: create, set up, restore
//!                                            ├─▶ Reflex   maps and programs
//!                                            └─▶ Commands the loop's tables
//! ```
//!
//! **Invariant**: a netdev forwards only while the loop and the reflex know its port: both are told before the program is
//! attached, and the program is gone before they forget. **Invariant**: a step that fails undoes the steps before it.
//! **Invariant**: when a request is answered, what would have to be undone is on disk.

mod accounts;
mod apply;
mod attachment;
mod attending;
mod captures;
mod changes;
mod errors;
mod evidence;
mod handle;
mod ids;
mod links;
pub mod lost;
mod mirrors;
pub mod recordings;
mod sample;
mod sessions;
mod stop;
mod targets;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use switch_common::PortId;

use crate::capture::audit::Audit;
use crate::capture::hub::Hub;
use crate::clerk::Clerk;
use crate::config::Runtime;
use crate::dataplane::thread::Commands;
use crate::events::Events;
use crate::evidence::QueueTally;
use crate::history::History;
use crate::notes::NoteReader;
use crate::observer::Observer;
use crate::port::attach::Host;
use crate::port::{PortName, PortSpec, PortState};
use crate::reflex::{BrainPage, Reflex};
use crate::state::{SavedPort, StateFile, Store};

pub use crate::api::ControlError;
use attachment::Attachment;
use captures::Captures;
pub use handle::{Handle, LOOK_AT_DROPS_EVERY};
use ids::Ids;
pub use stop::clear_away;

/// A port as control keeps it.
#[derive(Debug)]
struct Port {
    id: PortId,
    spec: PortSpec,
    state: PortState,
    /// Why it is not up, when the state alone does not say.
    problem: Option<String>,
    /// The netdev it is attached to; none while it is absent or failed.
    attachment: Option<Attachment>,
    /// When it may be tried again, after attaching failed.
    retry_after: Option<Instant>,
}

/// What control is made of; see [`Control::new`].
pub struct Parts {
    /// What the daemon was told.
    pub runtime: Runtime,
    /// The netlink connection.
    pub host: Host,
    /// The kernel half.
    pub reflex: Reflex,
    /// The way to the loop.
    pub commands: Commands,
    /// The way to the observer.
    pub observer: Observer,
    /// The way to the history, if there is one.
    pub history: Option<History>,
    /// Where the state is kept.
    pub store: Store,
    /// What was kept.
    pub saved: StateFile,
    /// The punt tap's interface index.
    pub punt_ifindex: u32,
    /// How much evidence the loop has kept.
    pub witness: QueueTally,
    /// What happens.
    pub events: Events,
    /// How many stations the loop has told of.
    pub sighted: QueueTally,
    /// The way to the clerk.
    pub clerk: Clerk,
    /// How many notes of the loop were lost.
    pub notes: NoteReader,
    /// The way to the thread that gives out captured frames.
    pub hub: Hub,
}

/// The port table and everything it is connected to.
pub struct Control {
    runtime: Runtime,
    host: Host,
    reflex: Reflex,
    brain: Arc<BrainPage>,
    commands: Commands,
    observer: Observer,
    history: Option<History>,
    store: Store,
    saved: StateFile,
    ids: Ids,
    ports: BTreeMap<PortName, Port>,
    /// Ports that were removed and whose flows are to be ended.
    gone: Vec<PortId>,
    /// Ports whose flows were asked to be ended; that may be under way.
    leaving: BTreeSet<PortId>,
    punt_ifindex: u32,
    witness: QueueTally,
    events: Events,
    sighted: QueueTally,
    clerk: Clerk,
    notes: NoteReader,
    watch: lost::Watch,
    captures: Captures,
    mirrors: BTreeMap<PortName, mirrors::Mirror>,
}

impl Control {
    /// An empty port table; [`Self::adopt`] and [`Self::apply`] fill it.
    pub fn new(parts: Parts) -> Self {
        let Parts {
            runtime,
            host,
            reflex,
            commands,
            observer,
            history,
            store,
            saved,
            punt_ifindex,
            witness,
            notes,
            events,
            sighted,
            clerk,
            hub,
        } = parts;
        let captures = Captures::new(hub, Audit::new(&runtime.state_dir));
        let ids = Ids::new(saved.names.clone());
        let brain = reflex.brain();
        let watch = lost::Watch::default();
        Self {
            runtime,
            host,
            reflex,
            brain,
            commands,
            observer,
            history,
            store,
            saved,
            ids,
            ports: BTreeMap::new(),
            gone: Vec::new(),
            leaving: BTreeSet::new(),
            punt_ifindex,
            witness,
            events,
            sighted,
            clerk,
            notes,
            watch,
            captures,
            mirrors: BTreeMap::new(),
        }
    }

    fn port_mut(&mut self, name: &PortName) -> Result<&mut Port, ControlError> {
        self.ports.get_mut(name).ok_or_else(|| errors::no_such_port(name))
    }

    fn port_named(&self, name: &PortName) -> Result<&Port, ControlError> {
        self.ports.get(name).ok_or_else(|| errors::no_such_port(name))
    }

    fn give_id(&mut self, name: &PortName) -> Option<PortId> {
        let ports = &self.ports;
        self.ids.give(name, |other| ports.contains_key(other))
    }

    fn name_of(&self, id: PortId) -> Option<&PortName> {
        self.ports.iter().find(|(_, port)| port.id == id).map(|(name, _)| name)
    }

    /// Writes the port table to disk.
    fn save(&mut self) -> Result<(), ControlError> {
        self.saved.names = self.ids.names().clone();
        self.saved.ports = self
            .ports
            .values()
            .map(|port| SavedPort {
                id: port.id.get(),
                spec: port.spec.clone(),
                restore: port.attachment.as_ref().and_then(|attachment| serde_json::to_value(attachment.saved()).ok()),
            })
            .collect();
        self.saved.mirrors = self.saved_mirrors();
        self.store.save(&self.saved).map_err(|error| ControlError::Failed(error.to_string()))
    }
}
