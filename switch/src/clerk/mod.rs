//! The clerk: the thread `weft-clerk` keeps the register of who was where ([`crate::names`]), and tells events.
//!
//! ```text
//! frames' first bytes (ring) ─┐
//! the loop's sightings ───────┤
//! requests (who?) ────────────┼▶ clerk ─▶ register ─┬▶ events
//! the observer's sums ────────┘                     ├▶ names.json
//!                                                   └▶ Seen, for metrics
//! ```
//!
//! Nobody waits for it but who asks it. A thread of its own, because what it looks at is as much as guests like to send: after each look at
//! the ring it rests for [`REST`], so that it never reads more than the ring holds in that time, and what comes faster is lost in the
//! kernel, counted.

mod book;
mod worker;

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::mpsc;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use jiff::Timestamp;
use rustix::event::{EventfdFlags, eventfd};
use tokio::sync::oneshot;

use crate::events::Events;
use crate::events::sighting::Sightings;
use crate::names::{DnsCounts, Holder, Limits, Port, Subject};
use crate::observer::Observer;
use crate::reflex::HeardRing;
use worker::Worker;

/// Between two looks at the ring.
pub const REST: Duration = Duration::from_millis(10);

/// What wakes the clerk.
///
/// # Errors
/// There is no descriptor left.
pub fn bell() -> io::Result<Arc<OwnedFd>> {
    Ok(Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?))
}

/// What the clerk is told at its start.
pub struct Setup {
    /// Frames that say who is who; `None`: they are not looked at.
    pub heard: Option<HeardRing>,
    /// Stations that the loop hears.
    pub sightings: Sightings,
    /// What `sightings` rings.
    pub bell: Arc<OwnedFd>,
    /// Where events go.
    pub events: Events,
    /// How long things take, and how much is kept.
    pub limits: Limits,
    /// Where the register is kept.
    pub state_dir: PathBuf,
    /// There is a configuration file, so that a port that a command made is in none.
    pub has_config: bool,
}

/// What the last look left for those who only want to look.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// What there was of DNS, by port.
    pub dns: DnsCounts,
    /// The ports that there are, and whether they are dormant.
    pub dormant: BTreeMap<Port, bool>,
    /// Spans of addresses that are kept.
    pub bindings: u64,
    /// How many may be.
    pub bindings_max: u64,
    /// Spans and stations that had to give way.
    pub evicted: u64,
}

/// What the thread is asked.
enum Request {
    Who { subject: Subject, at: Option<Timestamp>, answer: oneshot::Sender<Vec<Holder>> },
    Stop { done: oneshot::Sender<()> },
}

/// The way to the clerk's thread. A cheap clone.
#[derive(Clone)]
pub struct Clerk {
    requests: mpsc::Sender<Request>,
    bell: Arc<OwnedFd>,
    seen: Arc<Mutex<Arc<Seen>>>,
}

impl Clerk {
    /// Starts the thread.
    ///
    /// # Errors
    /// The thread cannot be made.
    pub fn start(setup: Setup, observer: Observer) -> io::Result<Self> {
        let (requests, asked) = mpsc::channel();
        let bell = Arc::clone(&setup.bell);
        let seen = Arc::new(Mutex::default());
        let worker = Worker::new(setup, observer, Arc::clone(&seen));
        thread::Builder::new().name("weft-clerk".to_owned()).spawn(move || worker.run(&asked))?;
        Ok(Self { requests, bell, seen })
    }

    /// Who has, or at a time had, an address; what a station had; what was behind a port. The latest first.
    pub async fn who(&self, subject: Subject, at: Option<Timestamp>) -> Vec<Holder> {
        self.ask(|answer| Request::Who { subject, at, answer }).await.unwrap_or_default()
    }

    /// What the last look left. Never waits.
    pub fn seen(&self) -> Arc<Seen> {
        Arc::clone(&self.seen.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Ends the thread, when it has written down what it knows.
    pub async fn stop(&self) {
        self.ask(|done| Request::Stop { done }).await;
    }

    async fn ask<T>(&self, request: impl FnOnce(oneshot::Sender<T>) -> Request) -> Option<T> {
        let (answer, answered) = oneshot::channel();
        if self.requests.send(request(answer)).is_err() {
            tracing::debug!("the clerk has ended");
        }
        rustix::io::write(&self.bell, &1_u64.to_ne_bytes()).ok();
        answered.await.ok()
    }
}
