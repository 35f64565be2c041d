//! The capturing end: asks the daemon for a stream of records, and writes it as pcapng.
//!
//! ```text
//! daemon ─▶ (this task) reads whatever comes, counts what finds no room ─▶ queue ─▶ (a thread) blocks ─▶ file or pipe
//! ```
//!
//! Two, so that a disk or a pipe that stands still does not hold up the daemon's stream; what finds no room here is lost and
//! counted like what finds none there. However it ends, by a signal, a limit, a reader that goes or a daemon that dies, what
//! was written is a valid file.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until};

use super::clock;
use super::output::{Enough, Output, OutputError, Sink};
use super::request::Request;
use super::session::Feed;
use super::stream::{self, End, EndReason, Fate, Garbled, Record, Sealed};
use super::writer::Writer;
use crate::api::client::{Client, ClientError};

/// Bytes that may wait for the file or the pipe.
const QUEUE_BYTES_MAX: usize = 64 << 20;
/// How long the end of a capture may take, the daemon's and the file's.
const END_PATIENCE: Duration = Duration::from_secs(5);
/// Blocks are written once so many bytes have gathered, or nothing more waits.
const WRITE_BYTES: usize = 1 << 20;
/// A packet's block is longer than its record by less than this.
const BLOCK_EXTRA_BYTES: usize = 2048;

/// Why there is no capture, or no more of it.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// The daemon did not answer, or refused.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// It cannot be written.
    #[error(transparent)]
    Output(#[from] OutputError),
    /// What came is no capture.
    #[error(transparent)]
    Garbled(#[from] Garbled),
    /// The writing thread could not be started, or ended by itself.
    #[error("nothing can be written any more: {0}")]
    Thread(String),
}

/// How a capture went.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Frames written.
    pub frames: u64,
    /// Bytes written, blocks and all.
    pub bytes: u64,
    /// Files written; 0: a stream.
    pub files: u32,
    /// Frames that matched.
    pub matched: u64,
    /// Frames that matched and are not there, wherever they were lost.
    pub lost: u64,
    /// What ended it, when it was the output.
    pub enough: Option<Enough>,
    /// Whoever read it has gone.
    pub is_broken_pipe: bool,
    /// The daemon ended without a word; what is written is what came until then.
    pub is_broken_off: bool,
    /// Why it ended.
    pub reason: EndReason,
}

/// Captures until the request's limits, `stop`, or the output's end.
///
/// # Errors
/// See [`CaptureError`]; what was written until then can be read.
pub async fn capture(
    client: &Client,
    request: &Request,
    output: Output,
    stop: impl Future<Output = ()>,
) -> Result<Summary, CaptureError> {
    // What can go wrong at once goes wrong before anybody is asked.
    let sink = Sink::open(output)?;
    let body = client.stream("/v1/captures", request).await?;
    let (mut hand, mut written) = Hand::start(sink)?;
    let mut source = Records { body, pending: Vec::new(), session: None };
    let mut stop = pin!(stop);
    let mut is_stopping = false;
    let mut deadline = pin!(sleep_until(Instant::now() + Duration::from_hours(24 * 3650)));
    let mut may_say_enough = true;
    let outcome = loop {
        tokio::select! {
            more = source.next() => match more? {
                Some(()) => if source.pass(&mut hand)? { break None },
                None => break None,
            },
            () = &mut stop, if !is_stopping => is_stopping = true,
            // Without a word the thread has ended, and says so itself.
            said = &mut hand.enough, if may_say_enough => {
                may_say_enough = false;
                is_stopping |= said.is_ok();
            }
            outcome = &mut written => break Some(outcome),
            () = &mut deadline, if is_stopping => break None,
        }
        if is_stopping && let Some(session) = source.session.take() {
            deadline.as_mut().reset(Instant::now() + END_PATIENCE);
            // One that has ended meanwhile needs no end.
            client.delete_only(&format!("/v1/captures/{session}")).await.ok();
        }
    };
    drop(source);
    hand.end();
    let outcome = match outcome {
        Some(outcome) => outcome,
        None => tokio::time::timeout(END_PATIENCE, written)
            .await
            .map_err(|_late| CaptureError::Thread("whoever reads the capture takes nothing".to_owned()))?,
    };
    match outcome {
        Ok(Ok(summary)) => Ok(summary),
        Ok(Err(OutputError::BrokenPipe)) => Ok(Summary { is_broken_pipe: true, ..Summary::default() }),
        Ok(Err(error)) => Err(error.into()),
        Err(_gone) => Err(CaptureError::Thread("the writing thread ended by itself".to_owned())),
    }
}

/// Writes what a session inside of the daemon tells, to its end.
///
/// # Errors
/// See [`CaptureError`].
pub async fn write(mut feed: Feed, output: Output) -> Result<Summary, CaptureError> {
    let (mut hand, written) = Hand::start(Sink::open(output)?)?;
    while let Some(records) = feed.next().await {
        hand.give(records.into());
        // One that fills the queue has to wait for the file: nobody else does.
        while hand.queued.load(Ordering::Acquire) > QUEUE_BYTES_MAX / 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    hand.end();
    written
        .await
        .map_err(|_gone| CaptureError::Thread("the writing thread ended by itself".to_owned()))?
        .map_err(Into::into)
}

/// The daemon's stream, cut into whole records.
struct Records {
    body: Incoming,
    pending: Vec<u8>,
    session: Option<u64>,
}

impl Records {
    /// Waits for more; nothing when there will be none.
    async fn next(&mut self) -> Result<Option<()>, CaptureError> {
        match self.body.frame().await {
            Some(Ok(frame)) => {
                self.pending.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data));
                Ok(Some(()))
            }
            // A daemon that dies breaks off; that is told by what is missing at the end.
            Some(Err(_)) | None => Ok(None),
        }
    }

    /// Passes whole records on; says whether the end was among them.
    fn pass(&mut self, hand: &mut Hand) -> Result<bool, Garbled> {
        let (mut whole, mut is_end) = (0, false);
        while let Some((sealed, bytes)) = stream::peel(self.pending.get(whole..).unwrap_or_default())? {
            if !matches!(sealed, Sealed::Frame(_)) {
                match sealed.open()? {
                    Record::Begin(begin) => self.session = Some(begin.session),
                    Record::End(_) => is_end = true,
                    Record::Port(_) | Record::Frame(_) => {}
                }
            }
            whole += bytes;
        }
        if whole > 0 {
            let rest = self.pending.split_off(whole);
            hand.give(std::mem::replace(&mut self.pending, rest));
        }
        Ok(is_end)
    }
}

/// The way to the writing thread.
struct Hand {
    queue: Option<Sender<Vec<u8>>>,
    queued: Arc<AtomicUsize>,
    enough: oneshot::Receiver<()>,
    lost: HashMap<u16, u64>,
    lost_told: Arc<std::sync::Mutex<HashMap<u16, u64>>>,
}

type Written = oneshot::Receiver<Result<Summary, OutputError>>;

impl Hand {
    fn start(sink: Sink) -> Result<(Self, Written), CaptureError> {
        let (queue, records) = channel();
        let (say_enough, enough) = oneshot::channel();
        let (done, written) = oneshot::channel();
        let queued = Arc::new(AtomicUsize::new(0));
        let lost_told = Arc::new(std::sync::Mutex::new(HashMap::new()));
        let worker = Worker {
            sink,
            writer: None,
            blocks: Vec::new(),
            in_file: 0,
            summary: Summary::default(),
            say_enough: Some(say_enough),
            queued: Arc::clone(&queued),
            lost: Arc::clone(&lost_told),
        };
        let spawned = std::thread::Builder::new().name("capture-file".to_owned()).spawn(move || {
            // Who no longer waits for the outcome has given it up.
            done.send(worker.run(&records)).ok();
        });
        spawned.map_err(|error| CaptureError::Thread(error.to_string()))?;
        Ok((Self { queue: Some(queue), queued, enough, lost: HashMap::new(), lost_told }, written))
    }

    /// Hands over whole records, or what of them must not be lost.
    fn give(&mut self, mut records: Vec<u8>) {
        if self.queued.load(Ordering::Acquire) + records.len() > QUEUE_BYTES_MAX {
            records = self.lose(&records);
        }
        self.queued.fetch_add(records.len(), Ordering::AcqRel);
        if let Some(queue) = &self.queue {
            // A thread that has ended says so itself.
            queue.send(records).ok();
        }
    }

    /// Leaves the frames out and counts them by port.
    fn lose(&mut self, records: &[u8]) -> Vec<u8> {
        let (mut kept, mut rest) = (Vec::new(), records);
        while let Ok(Some((record, bytes))) = stream::decode(rest) {
            let (whole, after) = rest.split_at_checked(bytes).unwrap_or((rest, &[]));
            match record {
                Record::Frame(frame) => {
                    let ingress = Fate::decode(frame.fate).map_or(0, |fate| fate.ingress);
                    *self.lost.entry(ingress).or_insert(0) += 1;
                }
                Record::Begin(_) | Record::Port(_) | Record::End(_) => kept.extend_from_slice(whole),
            }
            rest = after;
        }
        kept
    }

    /// Says that nothing more comes.
    fn end(&mut self) {
        if let Ok(mut lost) = self.lost_told.lock() {
            *lost = std::mem::take(&mut self.lost);
        }
        self.queue = None;
    }
}

struct Worker {
    sink: Sink,
    writer: Option<Writer>,
    blocks: Vec<u8>,
    /// Frames in the current file.
    in_file: u64,
    summary: Summary,
    /// Emptied when the output has had enough: frames are left out from then on.
    say_enough: Option<oneshot::Sender<()>>,
    queued: Arc<AtomicUsize>,
    lost: Arc<std::sync::Mutex<HashMap<u16, u64>>>,
}

impl Worker {
    fn run(mut self, records: &Receiver<Vec<u8>>) -> Result<Summary, OutputError> {
        let mut end = None;
        while let Ok(batch) = records.recv() {
            self.queued.fetch_sub(batch.len(), Ordering::AcqRel);
            let mut rest = batch.as_slice();
            while let Ok(Some((sealed, bytes))) = stream::peel(rest) {
                rest = rest.get(bytes..).unwrap_or_default();
                if let Sealed::Frame(frame) = &sealed {
                    self.frame(frame)?;
                    continue;
                }
                let Ok(record) = sealed.open() else { break };
                match record {
                    Record::Begin(begin) => {
                        let writer = self.writer.insert(Writer::new(begin));
                        writer.head(&mut self.blocks);
                    }
                    Record::Port(port) => {
                        if let Some(writer) = &mut self.writer {
                            writer.port(port, &mut self.blocks);
                        }
                    }
                    Record::Frame(_) => {}
                    Record::End(last) => end = Some(last),
                }
            }
            self.flush()?;
        }
        self.finish(end)
    }

    fn frame(&mut self, frame: &stream::Frame<'_>) -> Result<(), OutputError> {
        let Some(writer) = &mut self.writer else { return Ok(()) };
        if self.say_enough.is_none() {
            return Ok(());
        }
        let block = frame.record_bytes() + BLOCK_EXTRA_BYTES;
        if let Some(enough) = self.sink.enough(self.blocks.len(), block) {
            self.summary.enough = Some(enough);
            if let Some(say) = self.say_enough.take() {
                // Who asked may be about to end anyway.
                say.send(()).ok();
            }
            return Ok(());
        }
        if self.in_file > 0 && self.sink.is_full(self.blocks.len(), block) {
            writer.interim(&mut self.blocks);
            self.sink.write(&self.blocks)?;
            self.blocks.clear();
            self.sink.rotate()?;
            self.in_file = 0;
            writer.head(&mut self.blocks);
        }
        writer.frame(frame, &mut self.blocks);
        self.in_file += 1;
        self.summary.frames += 1;
        if self.blocks.len() >= WRITE_BYTES { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), OutputError> {
        if !self.blocks.is_empty() {
            self.sink.write(&self.blocks)?;
            self.summary.bytes += self.blocks.len() as u64;
            self.blocks.clear();
        }
        Ok(())
    }

    fn finish(mut self, end: Option<End>) -> Result<Summary, OutputError> {
        self.summary.is_broken_off = end.is_none();
        let broken_off = || End {
            reason: EndReason::Failed,
            ended_ns: clock::time_of_day_ns(),
            matched: self.summary.frames,
            delivered: self.summary.frames,
            ..End::default()
        };
        let end = end.unwrap_or_else(broken_off);
        let lost_here = self.lost.lock().map(|lost| lost.clone()).unwrap_or_default();
        self.summary.matched = end.matched;
        self.summary.lost = end.lost_early + end.lost_late + lost_here.values().sum::<u64>();
        self.summary.reason = end.reason;
        self.summary.files = self.sink.files();
        if let Some(writer) = &self.writer {
            writer.tail(&end, &lost_here, &mut self.blocks);
        }
        self.flush()?;
        Ok(self.summary)
    }
}
