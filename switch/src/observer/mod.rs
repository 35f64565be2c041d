//! The observer: the thread `weft-observer` reads the kernel's flows once a second, and tells what it sees.
//!
//! ```text
//! every second: flow maps ─▶ entries ─▶ Tracker::sweep ─┬▶ ended ─▶ Record ─▶ recent, followers, outlets
//!                                                       ├▶ dead ─▶ the next sweep reads them again ─▶ deleted
//!                                                       └▶ totals ─▶ Seen
//! ```
//!
//! [`crate::flow`] knows what entries mean and has no hands; this room has the hands: the maps ([`Source`]), the clocks, the
//! thread. Everybody else holds an [`Observer`], which asks the thread or reads what it left.
//!
//! **Deleting.** An entry that is dead by rule is noted with its value. The next sweep first waits for a grace period, so that
//! every program has ended that may have found it alive, and reads all entries again; what is dead still and has the very value
//! that was noted is deleted, and booked as freed. So nothing is asked of the kernel entry by entry but to delete it.
//!
//! **Names** are published by control before a port's first frame and forgotten when its conversations have ended, so a record
//! names its ports as they were called when it was made.
//!
//! **Numbers.** Records are given out in one order, to outlets, followers and memory alike: the n-th is the n-th for all. So who
//! has kept them elsewhere (the history) knows which of them memory still has ([`Remembered::first`]).
//!
//! **Bounds.** What ended is kept for [`RECENT_MAX`] records. A follower that is slower than [`FOLLOW_MAX`] records loses the
//! oldest, and the loss is counted. Nobody who listens can hold up the thread, and the thread holds up no frame.
//!
//! **Ends.** A daemon that is to be followed by another (`keep`, or a crash) tells nothing at its end: entries keep what they
//! counted, and the next one tells it, marked as resumed. One that takes its ports away tells all that goes on as `forced`. A thread
//! that ends by a defect of ours is said in the log, and by [`Observer::is_alive`]; frames go on without it.

mod busiest;
mod kernel;
mod names;
mod recent;
mod worker;

#[cfg(test)]
mod tests;

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;
use std::time::Duration;

use jiff::Timestamp;
use switch_common::PortId;
use tokio::sync::{broadcast, oneshot};

use crate::flow::{Entry, Filter, Limits, Moment, Record, Totals};
use crate::reflex::ReflexError;

pub use busiest::{Busiest, BusiestBy, Busy, WORDS_MAX, Wanted};
pub use kernel::Kernel;
pub use names::{PortIdentity, PortNames};
pub use recent::{RECENT_MAX, Remembered};
use worker::Worker;

/// Records that a follower may be behind.
pub const FOLLOW_MAX: usize = 16_384;

/// Where entries come from, and the clocks that they go by.
pub trait Source: Send + 'static {
    /// Whether there are no entries, as far as that can be told at less than the price of reading them.
    fn is_empty(&mut self) -> bool;
    /// Adds every entry as it is now.
    ///
    /// # Errors
    /// They cannot be read.
    fn read(&mut self, into: &mut Vec<Entry>) -> Result<(), ReflexError>;
    /// All clocks now.
    ///
    /// # Errors
    /// They cannot be read.
    fn now(&mut self) -> Result<Moment, ReflexError>;
    /// Waits until every program has ended that runs now.
    ///
    /// # Errors
    /// The kernel cannot say.
    fn grace(&mut self) -> Result<(), ReflexError>;
    /// Deletes entries that no program touches any more, and books what they counted.
    ///
    /// # Errors
    /// Some are not deleted.
    fn free(&mut self, dead: &[Entry]) -> Result<(), ReflexError>;
}

/// Where every record goes besides those who follow: a log. Called by the observer's thread.
pub trait Outlet: Send {
    /// Takes a record, or counts it as lost; never waits.
    fn offer(&mut self, record: &Arc<Record>);
    /// Records that were lost.
    fn lost(&self) -> u64;
}

/// What the observer is told at its start.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The switch's name, for records.
    pub switch: String,
    /// How long things take.
    pub limits: Limits,
    /// Entries that there is room for: over IPv4 and no IP; over IPv6.
    pub flows_max: (u32, u32),
    /// What the ports are called that were there before.
    pub names: PortNames,
}

/// What the last sweep left for those who only want to look.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// The sums since the observer began.
    pub totals: Totals,
    /// Entries that there are.
    pub flows: u64,
    /// Entries that there is room for: over IPv4 and no IP; over IPv6.
    pub flows_max: (u32, u32),
    /// How long the sweep took.
    pub sweep_took: Duration,
    /// What could not be told.
    pub losses: Losses,
    /// When it was; a table that was empty and stays so is not swept.
    pub swept_at: Timestamp,
}

/// What could not be told, by stage: totals since the observer began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Losses {
    /// Records that a log had no room for.
    pub records_log: u64,
    /// Records that followers were too slow for.
    pub records_follow: u64,
    /// Sweeps that could not read the entries.
    pub sweeps: u64,
}

/// What the thread is asked.
enum Request {
    Records { filter: Filter, last: usize, answer: oneshot::Sender<Remembered> },
    PortsGone { ids: Vec<PortId>, done: oneshot::Sender<()> },
    Nothing { done: oneshot::Sender<()> },
    Busiest { wanted: Wanted, answer: oneshot::Sender<Busiest> },
    Sweep { done: oneshot::Sender<()> },
    Stop { tell: bool, done: oneshot::Sender<()> },
}

/// What the thread shares with those who look.
struct Shared {
    seen: Mutex<Arc<Seen>>,
    names: Mutex<Arc<PortNames>>,
    followers: broadcast::Sender<Arc<Record>>,
    follow_lost: AtomicU64,
    is_alive: AtomicBool,
}

/// Says that the thread has ended, however it did.
struct Ends(Arc<Shared>);

impl Drop for Ends {
    fn drop(&mut self) {
        self.0.is_alive.store(false, Ordering::Release);
        if thread::panicking() {
            tracing::error!(
                "the observer has ended by a defect: flows are not read any more, frames go on; restart the daemon with \
                 --on-stop keep, and report what stands above"
            );
        }
    }
}

impl Shared {
    fn names(&self) -> Arc<PortNames> {
        Arc::clone(&hold(&self.names))
    }
}

/// The way to the observer's thread. A cheap clone.
#[derive(Clone)]
pub struct Observer {
    shared: Arc<Shared>,
    requests: mpsc::Sender<Request>,
}

impl Observer {
    /// Starts the thread; its first sweep adopts what is there, and comes before any request.
    ///
    /// # Errors
    /// The thread cannot be made.
    pub fn start(source: impl Source, setup: Setup, outlets: Vec<Box<dyn Outlet>>) -> io::Result<Self> {
        let seen = Seen {
            totals: Totals::default(),
            flows: 0,
            flows_max: setup.flows_max,
            sweep_took: Duration::ZERO,
            losses: Losses::default(),
            swept_at: Timestamp::now(),
        };
        let shared = Arc::new(Shared {
            seen: Mutex::new(Arc::new(seen)),
            names: Mutex::new(Arc::new(setup.names)),
            followers: broadcast::Sender::new(FOLLOW_MAX),
            follow_lost: AtomicU64::new(0),
            is_alive: AtomicBool::new(true),
        });
        let (requests, asked) = mpsc::channel();
        let ends = Ends(Arc::clone(&shared));
        let worker = Worker::new(source, setup.switch, setup.limits, Arc::clone(&shared), outlets);
        thread::Builder::new().name("weft-observer".to_owned()).spawn(move || {
            let _ends = ends;
            worker.run(&asked);
        })?;
        Ok(Self { shared, requests })
    }

    /// What the last sweep saw. Never waits.
    pub fn seen(&self) -> Arc<Seen> {
        Arc::clone(&hold(&self.shared.seen))
    }

    /// Records from now on, as conversations end. Who lags behind says so: [`Self::lagged`].
    pub fn subscribe(&self) -> broadcast::Receiver<Arc<Record>> {
        self.shared.followers.subscribe()
    }

    /// A follower was too slow for so many records.
    pub fn lagged(&self, records: u64) {
        self.shared.follow_lost.fetch_add(records, Ordering::Relaxed);
    }

    /// Whether the thread runs: a defect of ours may have ended it.
    pub fn is_alive(&self) -> bool {
        self.shared.is_alive.load(Ordering::Acquire)
    }

    /// What goes on and what ended not long ago, as far as `filter` asks for it: the `last` ones, by the time of their last frame.
    /// Nothing when the thread has ended.
    pub async fn records(&self, filter: Filter, last: usize) -> Option<Remembered> {
        self.ask(|answer| Request::Records { filter, last, answer }).await
    }

    /// Ends the conversations of ports, deletes their entries and forgets their names: all of them in one reading. After their programs
    /// are off and a grace period. The request is made before this returns; what it returns waits until it is carried out.
    pub fn ports_gone(&self, ids: Vec<PortId>) -> impl Future<Output = ()> + Send + use<> {
        let carried_out = self.request(|done| Request::PortsGone { ids, done });
        async move {
            carried_out.await.ok();
        }
    }

    /// Waits until all that was requested before is carried out.
    pub async fn has_caught_up(&self) {
        self.ask(|done| Request::Nothing { done }).await;
    }

    /// The busiest of what goes on, or those that come first in another order. Nothing, when the observer has ended.
    pub async fn busiest(&self, wanted: Wanted) -> Busiest {
        self.ask(|answer| Request::Busiest { wanted, answer }).await.unwrap_or_default()
    }

    /// Sweeps now.
    pub async fn sweep_now(&self) {
        self.ask(|done| Request::Sweep { done }).await;
    }

    /// Ends the thread. `tell`: what goes on is given out, because no other observer follows.
    pub async fn stop(&self, tell: bool) {
        self.ask(|done| Request::Stop { tell, done }).await;
    }

    /// What a port is called from now on.
    pub fn name(&self, id: PortId, identity: PortIdentity) {
        Arc::make_mut(&mut hold(&self.shared.names)).insert(id, identity);
    }

    /// What the ports are called now. Never waits.
    pub fn names(&self) -> Arc<PortNames> {
        self.shared.names()
    }

    /// There is no such port any more.
    pub fn forget_name(&self, id: PortId) {
        Arc::make_mut(&mut hold(&self.shared.names)).remove(id);
    }

    async fn ask<T>(&self, request: impl FnOnce(oneshot::Sender<T>) -> Request) -> Option<T> {
        self.request(request).await.ok()
    }

    fn request<T>(&self, request: impl FnOnce(oneshot::Sender<T>) -> Request) -> oneshot::Receiver<T> {
        let (answer, answered) = oneshot::channel();
        if self.requests.send(request(answer)).is_err() {
            tracing::debug!("the observer has ended");
        }
        answered
    }
}

/// What these locks guard is replaced whole.
fn hold<T>(lock: &Mutex<T>) -> MutexGuard<'_, T> {
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}
