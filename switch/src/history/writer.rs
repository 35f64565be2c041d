//! The thread: gathers what is offered into batches, writes them, and takes what is too old.

use std::mem;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::RecvTimeoutError;
use std::thread;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::sync::oneshot;

use super::queue::Outflow;
use super::store::{Batch, Looked, OpenError, Store, is_malformed, set_aside};
use super::{Bases, Item, Shared};
use crate::config::HistoryConfig;
use crate::export::{Said, Telling};

/// What is offered waits so long to be written at most.
const BATCH_FOR: Duration = Duration::from_secs(1);
/// Records and events of a batch at most.
const BATCH_ROWS: usize = 8192;
/// How often is looked for what is too old while nothing is offered.
const IDLE: Duration = Duration::from_mins(1);

/// The other end of the queue.
pub(super) struct Writer {
    config: HistoryConfig,
    items: Outflow<Item>,
    shared: Arc<Shared>,
    /// Nothing after a failure: the next batch opens it anew.
    store: Option<Store>,
    batch: Batch,
    /// What drops were counted at the last look that was written.
    looked: Looked,
    /// Whether that is to be read from the file when it is opened first.
    goes_on: bool,
    /// Who is to be told when the batch is written or lost.
    waiting: Vec<oneshot::Sender<()>>,
    telling: Telling,
    /// There is more to take than a portion.
    is_behind: bool,
}

/// Whether the thread goes on.
#[derive(PartialEq, Eq)]
enum Next {
    Gather,
    Write,
    Stop,
}

/// Says that the thread has ended, however it did.
struct Ends(Arc<Shared>);

impl Drop for Ends {
    fn drop(&mut self) {
        self.0.is_alive.store(false, Ordering::Release);
        if thread::panicking() {
            tracing::error!("the history has ended by a defect: nothing is kept any more; report what stands above");
        }
    }
}

impl Writer {
    pub(super) fn new(config: &HistoryConfig, goes_on: bool, items: Outflow<Item>, shared: Arc<Shared>) -> Self {
        Self {
            config: config.clone(),
            items,
            shared,
            store: None,
            batch: Batch::default(),
            looked: Looked::since(Timestamp::now()),
            goes_on,
            waiting: Vec::new(),
            telling: Telling::default(),
            is_behind: false,
        }
    }

    /// Writes until told to stop, or until nobody offers any more.
    pub(super) fn run(mut self) {
        let ends = Ends(Arc::clone(&self.shared));
        let opened = self.be_open();
        self.note(opened.err());
        loop {
            let idle = if self.is_behind { BATCH_FOR } else { IDLE };
            let next = match self.items.recv_timeout(idle) {
                Ok(item) => self.gather(item),
                Err(RecvTimeoutError::Timeout) => Next::Write,
                Err(RecvTimeoutError::Disconnected) => Next::Stop,
            };
            self.write();
            if next == Next::Stop {
                break;
            }
            self.retain();
            self.answer();
        }
        // Closing the file puts the log into it.
        self.store = None;
        drop(ends);
        self.answer();
    }

    /// Fills a batch, of which this is the first.
    fn gather(&mut self, first: Item) -> Next {
        let until = Instant::now() + BATCH_FOR;
        let mut next = self.take(first);
        while next == Next::Gather && self.batch.len() < BATCH_ROWS {
            next = match self.items.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(item) => self.take(item),
                Err(RecvTimeoutError::Timeout) => Next::Write,
                Err(RecvTimeoutError::Disconnected) => Next::Stop,
            };
        }
        next
    }

    fn take(&mut self, item: Item) -> Next {
        match item {
            Item::Record { number, record } => self.batch.records.push((number, record)),
            Item::Drops { time, totals } => self.batch.drops.push((time, totals)),
            Item::Event(event) => self.batch.events.push(event),
            Item::Suspect => self.examine(),
            Item::Barrier(done) => {
                self.waiting.push(done);
                return Next::Write;
            }
            Item::Stop(done) => {
                self.waiting.push(done);
                return Next::Stop;
            }
        }
        Next::Gather
    }

    /// Tells who waits for the batch; they may have gone.
    fn answer(&mut self) {
        for done in mem::take(&mut self.waiting) {
            done.send(()).ok();
        }
    }

    /// Writes the batch, or counts it as lost.
    fn write(&mut self) {
        if self.batch.is_empty() {
            return;
        }
        let written = self.try_write();
        if written.is_err() {
            self.shared.lose(self.batch.len() as u64);
        }
        self.batch.clear();
        self.note(written.err());
    }

    fn try_write(&mut self) -> Result<(), OpenError> {
        self.be_open()?;
        match self.write_open() {
            Err(error) if is_malformed(&error) => {
                self.move_aside("corrupt", &error.to_string())?;
                self.be_open()?;
                Ok(self.write_open()?)
            }
            Err(error) => {
                // Where it stands nobody knows, unless it was the room that it lacks.
                if error.sqlite_error_code() != Some(rusqlite::ErrorCode::DiskFull) {
                    self.store = None;
                }
                Err(error.into())
            }
            Ok(()) => Ok(()),
        }
    }

    fn write_open(&mut self) -> rusqlite::Result<()> {
        let base = self.shared.known().base;
        let Some(store) = &mut self.store else { return Ok(()) };
        store.write(&self.batch, base, &mut self.looked)
    }

    /// Opens the file unless it is; moves aside what is none of ours, and begins anew.
    fn be_open(&mut self) -> Result<(), OpenError> {
        if self.store.as_ref().is_some_and(Store::is_there) {
            return Ok(());
        }
        self.store = None;
        let store = match Store::open(&self.config.path, self.config.max_bytes) {
            Err(error) => match error.aside() {
                Some(why) => {
                    self.move_aside(&why, &error.to_string())?;
                    Store::open(&self.config.path, self.config.max_bytes)?
                }
                None => return Err(error),
            },
            Ok(store) => store,
        };
        let (_, last) = store.ends()?;
        let number = store.last_number()?;
        let (last_event, earlier_event) = store.last_event()?;
        let mut known = self.shared.known();
        if !mem::replace(&mut known.was_opened, true) {
            let next = |last: Option<u64>| last.map_or(0, |number| number + 1);
            known.base = Bases { records: next(number), events: next(last_event) };
            known.earlier = last;
            known.earlier_event = earlier_event;
            if self.goes_on {
                self.looked = store.looked()?;
            }
        }
        drop(known);
        self.store = Some(store);
        Ok(())
    }

    fn move_aside(&mut self, why: &str, error: &str) -> Result<(), OpenError> {
        self.store = None;
        let path = &self.config.path;
        let aside = set_aside(path, why, Timestamp::now())?;
        tracing::error!(
            path = %path.display(), moved_to = %aside.display(), error,
            "the history cannot be used as it is; it was moved aside, and a new one is begun"
        );
        self.shared.known().set_aside = Some(aside);
        Ok(())
    }

    /// A reader found something wrong: if the whole file says so, too, it goes aside.
    fn examine(&mut self) {
        if self.store.as_ref().is_some_and(|store| !store.is_sound()) {
            let moved = self.move_aside("corrupt", "a question found it malformed").and_then(|()| self.be_open());
            self.note(moved.err());
        }
    }

    /// Takes what is too old or too much.
    fn retain(&mut self) {
        let Some(store) = &mut self.store else { return };
        let HistoryConfig { max_age, max_bytes, .. } = self.config;
        match store.retain(Timestamp::now(), max_age, max_bytes) {
            Ok(more) => self.is_behind = more,
            Err(error) => {
                self.is_behind = false;
                tracing::debug!(%error, "what is too old in the history stays for now");
            }
        }
        let Some((bytes, ends)) = store.bytes().ok().zip(store.ends().ok()) else { return };
        let mut known = self.shared.known();
        (known.bytes, known.oldest) = (bytes, ends.0);
    }

    /// Notes and says how it went.
    fn note(&mut self, error: Option<OpenError>) {
        let path = self.config.path.display();
        let error = error.map(|error| error.to_string());
        let said = self.telling.say(self.shared.lost.load(Ordering::Relaxed), error.is_some(), Instant::now());
        match (said, &error) {
            (Some(Said { lost, .. }), Some(error)) => {
                tracing::warn!(%path, error, lost, "the history cannot be written; what is to be kept is lost and counted");
            }
            (Some(Said { lost: 0, .. }), None) => tracing::info!(%path, "the history is written again"),
            (Some(Said { lost, .. }), None) => tracing::warn!(%path, lost, "the history lost records; it is written"),
            (None, _) => {}
        }
        self.shared.known().problem = error;
    }
}
