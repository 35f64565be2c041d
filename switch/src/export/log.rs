//! The flow log: every record of a conversation as a line of JSON.
//!
//! ```text
//! offer() ─▶ queue (65,536) ─▶ thread `weft-flow-log` ─▶ one write per batch ─▶ rotating file
//!            full: lost, counted               cannot be written: lost, counted
//! ```
//!
//! **Never in the way.** `offer` takes the time of a push. A disk that hangs fills the queue, and then records are lost; a
//! disk that is full loses those of the batch. Both are counted, said once a minute at most, and over by themselves.
//!
//! **Invariant.** What was offered = what was written + what was lost, once nothing is on its way; exactly.

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::line;
use super::rotation::RotatingFile;
use crate::config::LogConfig;
use crate::flow::Record;
use crate::observer::Outlet;

/// Records on their way to the file at most: more than a busy second's.
const QUEUE: usize = 65_536;
/// A batch is written when it has this many bytes, or when no record waits.
const BATCH_BYTES: usize = 256 * 1024;
/// How often losses are spoken of.
const TELL_EVERY: Duration = Duration::from_mins(1);
/// How long the end of the switch waits for what is in the queue.
const END_WITHIN: Duration = Duration::from_secs(5);

/// Why a log could not be begun.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Nobody made the directory.
    #[error(
        "the flow log's directory {dir} does not exist; make it (mkdir -p {dir}), or choose another place with --flow-log \
         or path in [flows.log]",
        dir = dir.display()
    )]
    NoDirectory {
        /// The directory.
        dir: PathBuf,
    },
    /// It cannot be opened, made, or completed.
    #[error(
        "cannot write the flow log {}: {source}; mend that, or choose another file with --flow-log or path in [flows.log]",
        path.display()
    )]
    Unwritable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// There is no thread for it.
    #[error("cannot start the flow log's thread: {0}")]
    NoThread(io::Error),
}

/// What became of records since the log began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogCounts {
    /// Records that were offered.
    pub offered: u64,
    /// Of these: those in the file.
    pub written: u64,
    /// Of these: lost, because the queue was full.
    pub queue_full: u64,
    /// Of these: lost, because the file could not be written.
    pub write_failed: u64,
}

impl LogCounts {
    /// Lost for whatever cause.
    pub fn lost(&self) -> u64 {
        self.queue_full + self.write_failed
    }
}

#[derive(Debug, Default)]
pub(super) struct Counts {
    offered: AtomicU64,
    written: AtomicU64,
    queue_full: AtomicU64,
    write_failed: AtomicU64,
}

impl Counts {
    pub(super) fn read(&self) -> LogCounts {
        LogCounts {
            offered: self.offered.load(Ordering::Relaxed),
            written: self.written.load(Ordering::Relaxed),
            queue_full: self.queue_full.load(Ordering::Relaxed),
            write_failed: self.write_failed.load(Ordering::Relaxed),
        }
    }
}

fn add(counter: &AtomicU64, number: u64) {
    counter.fetch_add(number, Ordering::Relaxed);
}

/// The log, as who has records sees it. When it is dropped, what is in the queue is written first.
#[derive(Debug)]
pub struct FlowLog {
    queue: Option<SyncSender<Arc<Record>>>,
    counts: Arc<Counts>,
    /// Closed by the thread's end; a mutex only because the log is shared and this end of a channel cannot be.
    ended: Mutex<Receiver<()>>,
}

impl FlowLog {
    /// Opens the file and starts the thread.
    pub fn open(config: &LogConfig) -> Result<Self, OpenError> {
        let (mut log, writer) = Self::with_queue(config, QUEUE)?;
        let (running, ended) = channel::<()>();
        log.ended = Mutex::new(ended);
        let body = move || {
            writer.run();
            drop(running);
        };
        thread::Builder::new().name("weft-flow-log".to_owned()).spawn(body).map_err(OpenError::NoThread)?;
        Ok(log)
    }

    /// A log whose writer is not running yet.
    pub(super) fn with_queue(config: &LogConfig, length: usize) -> Result<(Self, Writer), OpenError> {
        let dir = config.path.parent().unwrap_or(&config.path);
        let file = RotatingFile::open(config).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => OpenError::NoDirectory { dir: dir.to_owned() },
            _ => OpenError::Unwritable { path: config.path.clone(), source },
        })?;
        let (queue, records) = sync_channel(length);
        let counts = Arc::<Counts>::default();
        let path = config.path.clone();
        let telling = Telling::default();
        let writer = Writer { records, file, path, counts: Arc::clone(&counts), batch: String::new(), telling };
        Ok((Self { queue: Some(queue), counts, ended: Mutex::new(channel().1) }, writer))
    }

    /// Has a record written, if there is room for it in the queue. Never waits.
    pub fn offer(&self, record: &Arc<Record>) {
        add(&self.counts.offered, 1);
        let Some(queue) = &self.queue else { return };
        match queue.try_send(Arc::clone(record)) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => add(&self.counts.queue_full, 1),
            Err(TrySendError::Disconnected(_)) => add(&self.counts.write_failed, 1),
        }
    }

    /// Records lost since the log began.
    pub fn lost(&self) -> u64 {
        self.counts().lost()
    }

    /// The books, to be read when the log is gone.
    #[cfg(test)]
    pub(super) fn watch(&self) -> Arc<Counts> {
        Arc::clone(&self.counts)
    }

    /// What became of records since the log began.
    pub fn counts(&self) -> LogCounts {
        self.counts.read()
    }
}

impl Outlet for FlowLog {
    fn offer(&mut self, record: &Arc<Record>) {
        Self::offer(self, record);
    }

    fn lost(&self) -> u64 {
        Self::lost(self)
    }
}

impl Drop for FlowLog {
    fn drop(&mut self) {
        self.queue = None;
        let ended = self.ended.get_mut().unwrap_or_else(PoisonError::into_inner);
        if ended.recv_timeout(END_WITHIN) == Err(RecvTimeoutError::Timeout) {
            tracing::warn!("the flow log's disk hangs; the records that wait for it are lost");
        }
    }
}

/// The other end of the queue.
#[derive(Debug)]
pub(super) struct Writer {
    records: Receiver<Arc<Record>>,
    file: RotatingFile,
    path: PathBuf,
    counts: Arc<Counts>,
    batch: String,
    telling: Telling,
}

impl Writer {
    /// Writes until nobody offers any more.
    pub(super) fn run(mut self) {
        while let Ok(record) = self.records.recv() {
            self.batch.push_str(&line(&record));
            let mut taken = 1;
            while self.batch.len() < BATCH_BYTES
                && let Ok(record) = self.records.try_recv()
            {
                self.batch.push_str(&line(&record));
                taken += 1;
            }
            self.write(taken);
        }
        if let Err(error) = self.file.sync() {
            tracing::warn!(path = %self.path.display(), %error, "the end of the flow log may not last");
        }
    }

    fn write(&mut self, taken: u64) {
        let appended = self.file.append(self.batch.as_bytes());
        self.batch.clear();
        add(&self.counts.written, appended.lines);
        add(&self.counts.write_failed, taken - appended.lines);
        let path = self.path.display();
        match self.telling.say(self.counts.read().lost(), appended.error.is_some(), Instant::now()) {
            Some(Said { lost, failing: true }) => {
                let error = appended.error.map(|error| error.to_string()).unwrap_or_default();
                tracing::warn!(%path, error, lost, "the flow log cannot be written; its records are lost and counted");
            }
            Some(Said { lost: 0, failing: false }) => tracing::info!(%path, "the flow log is written again"),
            Some(Said { lost, failing: false }) => {
                tracing::warn!(%path, lost, "the flow log lost records; it is written");
            }
            None => {}
        }
    }
}

/// What is to be said of what is written, and may fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Said {
    /// Records lost since it was last spoken of.
    pub(crate) lost: u64,
    /// It cannot be written now.
    pub(crate) failing: bool,
}

/// When it was last spoken of, and how things were.
#[derive(Debug, Default)]
pub(crate) struct Telling {
    at: Option<Instant>,
    lost: u64,
    failing: bool,
}

impl Telling {
    /// What there is to say, if there is something and the last time was long enough ago.
    pub(crate) fn say(&mut self, lost: u64, failing: bool, now: Instant) -> Option<Said> {
        let news = failing || lost > self.lost || self.failing;
        let due = self.at.is_none_or(|at| now.saturating_duration_since(at) >= TELL_EVERY);
        if !(news && due) {
            return None;
        }
        let said = Said { lost: lost - self.lost, failing };
        *self = Self { at: Some(now), lost, failing };
        Some(said)
    }
}
