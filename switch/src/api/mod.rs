//! HTTP and JSON over a unix socket, and health over TCP.
//!
//! [`schema`] is what is said, [`routes`] where, [`server`] to whom (peer credentials, limits, timeouts), [`client`] how
//! the commands ask, [`web`] the TCP listener. What answers is a [`Control`]: the daemon's, or a fake in tests. Requests
//! are untrusted: a peer that sends garbage, too much or nothing costs one of a limited number of connections for a
//! limited time.

mod captures;
pub mod client;
pub mod flows;
pub mod schema;
pub mod server;
pub mod top;
pub mod web;

pub mod events;
mod follow;
mod input;
mod limits;
mod peer;
mod routes;
mod told;

#[cfg(test)]
pub(crate) mod fake;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::broadcast;

use crate::capture::audit::Peer;
use crate::capture::session::Feed;
use crate::capture::{self, Request};
use crate::config;
use crate::events::{Event, EventFilter};
use crate::explain::{Explanation, Question};
use crate::flow::{Filter, Record};
use crate::metrics;
use crate::mirror::MirrorSpec;
use crate::names::{Holder, Subject};
use crate::observer::{Busiest, Wanted};
use crate::port::spec::{Mac, PortName, PortSpec};
use schema::{Applied, DropInfo, Intent, LedgerReport, MirrorInfo, PortInfo, Sample, Side, StationInfo, Status};

pub use limits::Limits;
pub use routes::openapi;

/// Why the switch did not do what it was asked. The message says what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ControlError {
    /// There is no such thing (404, exit code 4).
    #[error("{0}")]
    NotFound(String),
    /// It exists already (409, exit code 5).
    #[error("{0}")]
    Exists(String),
    /// It cannot be asked for (422, exit code 1).
    #[error("{0}")]
    Invalid(String),
    /// It was tried and went wrong (500, exit code 1).
    #[error("{0}")]
    Failed(String),
    /// There is no room for another one now (503, exit code 1).
    #[error("{0}")]
    Busy(String),
}

/// Evidence, by the names that a [`DropInfo`] has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Witnessed {
    /// The port's name; empty for no port.
    pub port: String,
    /// Which side refused.
    pub side: Side,
    /// The reason's label.
    pub reason: String,
    /// The frame.
    pub sample: Sample,
}

/// What the API asks of the switch. Cheap to clone.
pub trait Control: Clone + Send + Sync + 'static {
    /// Every port, by name.
    fn ports(&self) -> impl Future<Output = Vec<PortInfo>> + Send;
    /// One port.
    fn port(&self, name: &PortName) -> impl Future<Output = Result<PortInfo, ControlError>> + Send;
    /// Adds and attaches a port. `may_exist`: an equal one is no error. `wait`: a missing netdev is waited for.
    fn add_port(
        &self,
        spec: PortSpec,
        may_exist: bool,
        wait: bool,
    ) -> impl Future<Output = Result<PortInfo, ControlError>> + Send;
    /// Detaches and removes a port.
    fn remove_port(&self, name: &PortName, if_exists: bool) -> impl Future<Output = Result<(), ControlError>> + Send;
    /// Makes the ports and mirrors of origin `file` (`prune`: all) be these, all or nothing.
    fn apply(
        &self,
        intent: Intent,
        dry_run: bool,
        prune: bool,
    ) -> impl Future<Output = Result<Applied, ControlError>> + Send;
    /// Every mirror, by name.
    fn mirrors(&self) -> impl Future<Output = Vec<MirrorInfo>> + Send;
    /// Starts a mirror.
    fn add_mirror(&self, spec: MirrorSpec) -> impl Future<Output = Result<MirrorInfo, ControlError>> + Send;
    /// Ends a mirror.
    fn remove_mirror(&self, name: &PortName) -> impl Future<Output = Result<(), ControlError>> + Send;
    /// What runs, in the file's form.
    fn export(&self) -> impl Future<Output = config::File> + Send;
    /// Every station.
    fn stations(&self) -> impl Future<Output = Vec<StationInfo>> + Send;
    /// Pins a station to a port.
    fn add_station(&self, port: PortName, mac: Mac) -> impl Future<Output = Result<(), ControlError>> + Send;
    /// Forgets a station, learnt or static.
    fn remove_station(&self, mac: Mac) -> impl Future<Output = Result<(), ControlError>> + Send;
    /// Forgets what was learnt, of one port or of all; says how many stations that were.
    fn flush(&self, port: Option<PortName>) -> impl Future<Output = Result<u64, ControlError>> + Send;
    /// The laws; with `settle` after waiting so long at most for quiet.
    fn ledger(&self, settle: Option<Duration>) -> impl Future<Output = LedgerReport> + Send;
    /// What did not arrive, by port, side and reason; only what is not zero.
    fn drops(&self) -> impl Future<Output = Vec<DropInfo>> + Send;
    /// What was dropped in a time, as the history has it: by the minute.
    fn drops_between(
        &self,
        since: Option<Timestamp>,
        until: Option<Timestamp>,
    ) -> impl Future<Output = Result<Vec<DropInfo>, ControlError>> + Send;
    /// Why one can, or cannot, reach the other.
    fn explain(&self, question: Question) -> impl Future<Output = Result<Explanation, ControlError>> + Send;
    /// Everything that metrics tell.
    fn sample(&self) -> impl Future<Output = Result<metrics::Sample, ControlError>> + Send;
    /// Conversations that go on and that ended: of those that are asked for the `last`, by the time of their last frame. Who names no
    /// time asks for what is in memory.
    fn flows(&self, filter: Filter, last: usize)
    -> impl Future<Output = Result<Vec<Arc<Record>>, ControlError>> + Send;
    /// The first of what goes on, in an order.
    fn busiest(&self, wanted: Wanted) -> impl Future<Output = Busiest> + Send;
    /// Records from now on, as conversations end.
    fn follow_flows(&self) -> broadcast::Receiver<Arc<Record>>;
    /// A follower was too slow for so many records.
    fn follower_lagged(&self, records: u64);
    /// Evidence of what is dropped from now on.
    fn evidence(&self) -> broadcast::Receiver<Arc<Witnessed>>;
    /// Events from now on.
    fn events(&self) -> broadcast::Receiver<Arc<Event>>;
    /// Events that happened: of those that are asked for the `last`, oldest first. Who names no time asks for what is in memory.
    fn recent_events(
        &self,
        filter: EventFilter,
        last: usize,
    ) -> impl Future<Output = Result<Vec<Arc<Event>>, ControlError>> + Send;
    /// A follower was too slow for so many events.
    fn events_lagged(&self, events: u64);
    /// Who has, or at a time had, an address; what a station had; what was behind a port. The latest first.
    fn who(&self, subject: Subject, at: Option<Timestamp>) -> impl Future<Output = Vec<Holder>> + Send;
    /// Begins a capture on behalf of a peer.
    fn capture(&self, request: Request, peer: Peer) -> impl Future<Output = Result<Feed, ControlError>> + Send;
    /// Ends a capture: what was captured until then is still told.
    fn end_capture(&self, session: u64) -> impl Future<Output = Result<(), ControlError>> + Send;
    /// The captures that go on.
    fn captures(&self) -> impl Future<Output = Vec<capture::Running>> + Send;
    /// The daemon itself.
    fn status(&self) -> impl Future<Output = Status> + Send;
    /// Whether it forwards.
    fn is_ready(&self) -> bool;
    /// Whether flows are read: a defect of ours may have ended that.
    fn is_observing(&self) -> bool;
}
