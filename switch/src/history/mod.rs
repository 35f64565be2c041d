//! The history: what ended, what was dropped and what happened, kept in a file and found again.
//!
//! ```text
//! observer ─ records ─┐
//! control ─ drops ────┼▶ queue (65,536) ─▶ thread `weft-history` ─▶ a transaction per second or 8,192 rows ─▶ the database
//! events ─────────────┘  full: lost, counted      cannot be written: lost, counted        ▲
//!                                                         `weft flows --since 2h`, `weft drops --since 2h`: readers of their own
//! ```
//!
//! **Never in the way.** To offer something takes the time of a push. A disk that hangs fills the queue, one that is full loses the
//! batch; both are counted (`weft_observation_lost_total{stage="history"}`), said at most once a minute, and over by themselves.
//!
//! **What survives.** A transaction is with the kernel when it is committed (write-ahead log, `synchronous = NORMAL`), so a daemon
//! that is killed loses what it had not committed, a second's worth; a host that loses power may lose what the kernel had not
//! written back. Neither leaves a file that cannot be read.
//!
//! **A file that is not what it should be** is moved aside, beside the new one, and said in the log and the status: as
//! `….corrupt-TIME` when the database finds it malformed, as `….version-N-TIME` when its layout is not [`store::VERSION`]. There is no
//! migration yet, because there was no other version. Three such files are kept.
//!
//! **What memory has and what the file has.** The observer gives out its records in one order; the n-th of them is the n-th here.
//! Memory answers with those it still keeps and says the number of the first; from the file come only those before it. So none is
//! shown twice, and none is missing that was not lost. Events have such numbers, too: see [`happenings`]. A question that reaches no further back than memory does asks no file.
//!
//! **Bounds.** By age and by size ([`HistoryConfig`]): the oldest records go first. Drops and events have a quarter of the size each, so
//! that a guest that opens flows without end pushes out records, and neither of these. Two questions are answered at a time, each
//! in [`PATIENCE`].

mod happenings;
mod names;
mod query;
mod queue;
mod retention;
mod rows;
mod store;
mod writer;

#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::TrySendError;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::{Semaphore, oneshot};
use tokio::time::Instant;
use utoipa::ToSchema;

use crate::api::schema::{DropInfo, Side};
use crate::config::HistoryConfig;
use crate::flow::{Filter, Record};
use crate::observer::{Outlet, Remembered};

pub use query::DroppedSince;
use queue::{Inlet, queue};
use writer::Writer;

/// What may be on its way to the file.
const QUEUE: usize = 65_536;
/// How long the end of the switch waits for what is in the queue.
const END_WITHIN: Duration = Duration::from_secs(5);
/// How long a question may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Questions that are answered at a time.
const READERS: usize = 2;
/// How long is waited before a full queue is tried again.
const AGAIN: Duration = Duration::from_millis(10);

/// Why the history does not answer.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// The file could not be read.
    #[error("the history {} cannot be read: {source}; ask without --since and --until for what is in memory", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: rusqlite::Error,
    },
    /// It took too long.
    #[error("the history did not answer in {} s; ask for a shorter time, or with more filters", PATIENCE.as_secs())]
    TooSlow,
    /// The thread has ended.
    #[error("the history has ended; see the log for why, and restart the daemon")]
    Ended,
}

/// Something that happened, as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventRow {
    /// The how-manieth it is of those that this daemon told, from 0 on.
    pub number: u64,
    /// When.
    pub time: Timestamp,
    /// Its kind's label.
    pub kind: String,
    /// The port that it is about, by name.
    pub port: Option<String>,
    /// All of it, as a JSON object.
    pub json: String,
}

/// Frames of a port that did not arrive for one reason, since the counters began.
#[derive(Clone, Debug, PartialEq, Eq)]
struct DropTotal {
    port: String,
    side: Side,
    reason: String,
    frames: u64,
    bytes: u64,
}

/// How the history fares.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HistoryStatus {
    /// The file.
    pub path: String,
    /// Why it is not written now; absent when it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// Where a file was moved that was not what it should be, since the daemon started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub set_aside: Option<String>,
    /// When the last frame came of the oldest record that is kept, by RFC 3339; absent when there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oldest: Option<String>,
    /// Bytes that the file has in use.
    pub bytes: u64,
    /// Records, drops and events that were lost since the daemon started.
    pub lost: u64,
}

/// What is on its way to the thread.
enum Item {
    Record {
        number: u64,
        record: Arc<Record>,
    },
    Drops {
        time: Timestamp,
        totals: Vec<DropTotal>,
    },
    Event(EventRow),
    /// To be answered when all before it is committed or lost.
    Barrier(oneshot::Sender<()>),
    /// A reader found the file malformed.
    Suspect,
    Stop(oneshot::Sender<()>),
}

/// What the thread shares with those who look.
struct Shared {
    path: PathBuf,
    /// Records that were offered.
    offered: AtomicU64,
    lost: AtomicU64,
    is_alive: AtomicBool,
    known: Mutex<Known>,
    readers: Semaphore,
}

/// The numbers that this daemon's first ones have in the file.
#[derive(Clone, Copy, Debug, Default)]
struct Bases {
    records: u64,
    events: u64,
}

/// What is known of the file.
#[derive(Clone, Debug, Default)]
struct Known {
    /// It was opened once; what follows is true.
    was_opened: bool,
    base: Bases,
    /// When the last event happened among those that earlier daemons wrote.
    earlier_event: Option<Timestamp>,
    /// The last end among what earlier daemons wrote.
    earlier: Option<Timestamp>,
    problem: Option<String>,
    set_aside: Option<PathBuf>,
    oldest: Option<Timestamp>,
    bytes: u64,
}

impl Shared {
    fn known(&self) -> MutexGuard<'_, Known> {
        // Its fields say what they say, each by itself.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lose(&self, number: u64) {
        self.lost.fetch_add(number, Ordering::Relaxed);
    }
}

/// The way to the history. A cheap clone; when the last is gone, what is in the queue is written, and the thread ends.
#[derive(Clone)]
pub struct History {
    shared: Arc<Shared>,
    queue: Inlet<Item>,
}

impl History {
    /// Starts the thread, which opens the file or makes it. `goes_on`: the switch's counters were adopted, so that what they counted
    /// between an earlier daemon's last look and now was dropped in that time.
    ///
    /// # Errors
    /// The thread cannot be made. That the file cannot is no error: it may be, later.
    pub fn start(config: &HistoryConfig, goes_on: bool) -> io::Result<Self> {
        let (history, writer) = Self::with_queue(config, goes_on, QUEUE);
        thread::Builder::new().name("weft-history".to_owned()).spawn(move || writer.run())?;
        Ok(history)
    }

    /// A history whose writer is not running yet.
    fn with_queue(config: &HistoryConfig, goes_on: bool, length: usize) -> (Self, Writer) {
        let (queue, items) = queue(length);
        let shared = Arc::new(Shared {
            path: config.path.clone(),
            offered: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            is_alive: AtomicBool::new(true),
            known: Mutex::default(),
            readers: Semaphore::new(READERS),
        });
        let history = Self { shared: Arc::clone(&shared), queue };
        (history, Writer::new(config, goes_on, items, shared))
    }

    /// What the observer gives its records to. There is one, and it is given every record from the first on.
    pub fn outlet(&self) -> impl Outlet + use<> {
        Offering(self.clone())
    }

    /// Has what was dropped since the look before kept. Never waits. What is lost here is made up for by the next look.
    pub fn offer_drops(&self, time: Timestamp, drops: Vec<DropInfo>) {
        let total =
            |DropInfo { port, side, reason, frames, bytes, .. }| DropTotal { port, side, reason, frames, bytes };
        self.offer(Item::Drops { time, totals: drops.into_iter().map(total).collect() }, 0);
    }

    fn offer(&self, item: Item, worth: u64) {
        if self.queue.try_send(item).is_err() {
            self.shared.lose(worth);
        }
    }

    /// Records and events that were lost since the daemon started.
    pub fn lost(&self) -> u64 {
        self.shared.lost.load(Ordering::Relaxed)
    }

    /// Whether the thread runs: a defect of ours may have ended it.
    pub fn is_alive(&self) -> bool {
        self.shared.is_alive.load(Ordering::Acquire)
    }

    /// How it fares.
    pub fn status(&self) -> HistoryStatus {
        let Known { problem, set_aside, oldest, bytes, .. } = self.shared.known().clone();
        let shown = |path: &Path| path.display().to_string().escape_debug().to_string();
        HistoryStatus {
            path: shown(&self.shared.path),
            problem: if self.is_alive() { problem } else { Some("its thread has ended by a defect".to_owned()) },
            set_aside: set_aside.as_deref().map(shown),
            oldest: oldest.map(|time| time.to_string()),
            bytes,
            lost: self.lost(),
        }
    }

    /// Adds to what memory knows what the file knows, where the question reaches further back than memory.
    ///
    /// # Errors
    /// [`HistoryError`].
    pub async fn complete(
        &self,
        remembered: Remembered,
        filter: Filter,
        last: usize,
    ) -> Result<Vec<Arc<Record>>, HistoryError> {
        let known = self.shared.known().clone();
        let Remembered { mut records, first, forgotten } = remembered;
        if !reaches_beyond(filter.span(), forgotten.max(known.earlier), known.was_opened) {
            return Ok(records);
        }
        self.settle().await?;
        // What was not opened before may be now.
        let before = self.shared.known().base.records + first;
        let found = self.read(move |db| query::records(db, &filter, last, before)).await?;
        // Both are in the order of their ends already.
        records.extend(found.into_iter().map(Arc::new));
        records.sort_by_key(|record| record.end);
        records.drain(..records.len().saturating_sub(last));
        Ok(records)
    }

    /// What was dropped in a time, by port, side and reason.
    ///
    /// # Errors
    /// [`HistoryError`].
    pub async fn drops(
        &self,
        since: Option<Timestamp>,
        until: Option<Timestamp>,
    ) -> Result<Vec<DroppedSince>, HistoryError> {
        self.settle().await?;
        self.read(move |db| query::drops(db, since, until)).await
    }

    /// Writes what is in the queue and ends the thread; waits for that, but not for a disk that hangs.
    pub async fn stop(&self) {
        let (done, ended) = oneshot::channel();
        if !self.insist(Item::Stop(done), ended, END_WITHIN).await {
            tracing::warn!("the history's disk hangs; what waits for it is lost");
        }
    }

    /// Waits until all that was offered before is in the file or lost.
    async fn settle(&self) -> Result<(), HistoryError> {
        let (done, settled) = oneshot::channel();
        if self.insist(Item::Barrier(done), settled, PATIENCE).await {
            return Ok(());
        }
        Err(if self.is_alive() { HistoryError::TooSlow } else { HistoryError::Ended })
    }

    /// Sends something that must not be lost, and waits for its answer; false when there is none in time.
    async fn insist(&self, mut item: Item, answer: oneshot::Receiver<()>, within: Duration) -> bool {
        let deadline = Instant::now() + within;
        while let Err(refused) = self.queue.try_send(item) {
            match refused {
                TrySendError::Full(again) if Instant::now() < deadline => item = again,
                TrySendError::Full(_) | TrySendError::Disconnected(_) => return false,
            }
            tokio::time::sleep(AGAIN).await;
        }
        matches!(tokio::time::timeout_at(deadline, answer).await, Ok(Ok(())))
    }

    async fn read<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&rusqlite::Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, HistoryError> {
        let _seat = self.shared.readers.acquire().await.map_err(|_closed| HistoryError::Ended)?;
        let path = self.shared.path.clone();
        let asked = tokio::task::spawn_blocking(move || query::open(&path, PATIENCE).and_then(|db| ask(&db))).await;
        asked.map_err(|_panicked| HistoryError::Ended)?.map_err(|source| {
            if source.sqlite_error_code() == Some(rusqlite::ErrorCode::OperationInterrupted) {
                return HistoryError::TooSlow;
            }
            if store::is_malformed(&source) {
                self.offer(Item::Suspect, 0);
            }
            HistoryError::Unreadable { path: self.shared.path.clone(), source }
        })
    }
}

/// Whether a question is about more than memory has: a span of time that begins before the last end of what is not, or no longer, there.
/// Who names no time asks for what is in memory.
fn reaches_beyond(span: (Option<Timestamp>, Option<Timestamp>), beyond: Option<Timestamp>, was_opened: bool) -> bool {
    match span {
        (None, None) => false,
        (Some(since), _) if was_opened => beyond.is_some_and(|beyond| since <= beyond),
        _ => true,
    }
}

/// Takes the observer's records.
struct Offering(History);

impl Outlet for Offering {
    fn offer(&mut self, record: &Arc<Record>) {
        let number = self.0.shared.offered.fetch_add(1, Ordering::Relaxed);
        self.0.offer(Item::Record { number, record: Arc::clone(record) }, 1);
    }

    /// [`History::lost`] says it: drops and events are lost with records.
    fn lost(&self) -> u64 {
        0
    }
}
