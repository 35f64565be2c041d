//! The clerk: the thread `weft-clerk` keeps the register of who was where, and tells events.
//!
//! ```text
//! the loop's sightings ─┐
//! requests (who?) ──────┼▶ bell ─▶ clerk ─▶ events
//! once a second ────────┘
//! ```
//!
//! Nobody waits for it but who asks it. A thread of its own, because what it looks at is as much as guests like to send.

mod worker;

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread;

use rustix::event::{EventfdFlags, eventfd};
use tokio::sync::oneshot;

use crate::events::Events;
use crate::events::sighting::Sightings;
use crate::observer::Observer;
use worker::Worker;

/// What wakes the clerk.
///
/// # Errors
/// There is no descriptor left.
pub fn bell() -> io::Result<Arc<OwnedFd>> {
    Ok(Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?))
}

/// What the clerk is told at its start.
#[derive(Debug)]
pub struct Setup {
    /// Stations that the loop hears.
    pub sightings: Sightings,
    /// What `sightings` rings.
    pub bell: Arc<OwnedFd>,
    /// Where events go.
    pub events: Events,
}

/// What the thread is asked.
enum Request {
    Stop { done: oneshot::Sender<()> },
}

/// The way to the clerk's thread. A cheap clone.
#[derive(Clone)]
pub struct Clerk {
    requests: mpsc::Sender<Request>,
    bell: Arc<OwnedFd>,
}

impl Clerk {
    /// Starts the thread.
    ///
    /// # Errors
    /// The thread cannot be made.
    pub fn start(setup: Setup, observer: Observer) -> io::Result<Self> {
        let (requests, asked) = mpsc::channel();
        let bell = Arc::clone(&setup.bell);
        let worker = Worker::new(setup, observer);
        thread::Builder::new().name("weft-clerk".to_owned()).spawn(move || worker.run(&asked))?;
        Ok(Self { requests, bell })
    }

    /// Ends the thread.
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
