//! A session as the hub keeps it: what it wants of a frame, its queue, and what it has counted.
//!
//! **Bounded.** What waits for one reader is limited to its share of [`QUEUES_BYTES_MAX`]; a frame that finds no room is lost and
//! counted under its ingress port. What is said once per port, and the end, always finds room.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::body::Bytes;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;

use super::account::Account;
use super::sieve::PortSet;
use super::stream::{self, Begin, End, EndReason, Fate, Frame, Port, PortSums};
use super::trim;
use crate::filter::Program;

/// Bytes that may wait for all readers together.
pub const QUEUES_BYTES_MAX: usize = 64 << 20;

/// What is kept of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// Its headers.
    Headers,
    /// So many bytes.
    Bytes(usize),
}

impl Keep {
    pub(super) fn of(self, bytes: &[u8]) -> &[u8] {
        let kept = match self {
            Self::Headers => trim::headers(bytes),
            Self::Bytes(max) => max,
        };
        bytes.get(..kept).unwrap_or(bytes)
    }

    /// Bytes that have to be at hand.
    pub const fn bytes_max(self) -> usize {
        match self {
            Self::Headers => trim::HEADERS_BYTES_MAX,
            Self::Bytes(max) => max,
        }
    }
}

/// What a session begins with.
#[derive(Debug)]
pub struct Opening {
    /// Its bit.
    pub bit: u8,
    /// What is said first.
    pub begin: Begin,
    /// The ports it is about; nothing: all.
    pub ports: Option<PortSet>,
    /// What is kept of a frame.
    pub keep: Keep,
    /// For frames that no filter has seen: those the kernel dropped.
    pub filter: Option<Program>,
    /// It ends after so many frames.
    pub frames_max: Option<u64>,
    /// It ends before its stream becomes longer.
    pub bytes_max: Option<u64>,
    /// What is to be added to the monotonic clock.
    pub distance_ns: u64,
}

/// Records on their way to the reader.
#[derive(Debug)]
struct Parcel {
    records: Bytes,
    /// How many of them are frames.
    frames: u64,
}

/// The reader's end of a session's queue.
#[derive(Debug)]
pub struct Feed {
    queue: UnboundedReceiver<Parcel>,
    queued: Arc<AtomicUsize>,
    account: Arc<Account>,
    /// Dropped with the rest: who waits for that learns that the reader has gone.
    here: Option<oneshot::Sender<()>>,
}

impl Feed {
    /// Ends when this is dropped.
    pub fn gone(&mut self) -> oneshot::Receiver<()> {
        let (here, gone) = oneshot::channel();
        self.here = Some(here);
        gone
    }

    /// The session's books, for who checks them.
    pub fn account(&self) -> Arc<Account> {
        Arc::clone(&self.account)
    }

    /// The next records, whole ones; `None` after the last. Their frames are delivered.
    pub async fn next(&mut self) -> Option<Bytes> {
        let Parcel { records, frames } = self.queue.recv().await?;
        self.queued.fetch_sub(records.len(), Ordering::AcqRel);
        self.account.deliver(frames);
        Some(records)
    }
}

/// What those know at a session's end who count before the hub.
#[derive(Clone, Debug, Default)]
pub struct Closing {
    /// Why it ends.
    pub reason: EndReason,
    /// When, in nanoseconds since 1970.
    pub ended_ns: u64,
    /// Frames that matched, by the reflex and by the loop.
    pub matched: u64,
    /// Of these: lost before they came to the hub.
    pub lost_early: u64,
    /// Frames that came in meanwhile, by port.
    pub received: Vec<(u16, u64)>,
}

/// What a session gave out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Given {
    /// Frames.
    pub frames: u64,
    /// Bytes of frames that were kept.
    pub bytes: u64,
    /// Frames that were lost, at any place.
    pub lost: u64,
}

/// The hub's end.
#[derive(Debug)]
pub(crate) struct Session {
    opening: Opening,
    queue: UnboundedSender<Parcel>,
    queued: Arc<AtomicUsize>,
    account: Arc<Account>,
    pending: Vec<u8>,
    /// How many of the pending records are frames.
    pending_frames: u64,
    named: PortSet,
    last_fate: Vec<u8>,
    sums: BTreeMap<u16, PortSums>,
    given: Given,
    streamed: u64,
    /// Emptied when a limit is reached: nothing more is taken then.
    finished: Option<oneshot::Sender<EndReason>>,
}

/// A session and the reader's end of its queue. `finished` is told when one of its limits is reached.
pub(crate) fn open(
    opening: Opening,
    finished: oneshot::Sender<EndReason>,
    known: &HashMap<u16, Port>,
) -> (Session, Feed) {
    let (queue, reader) = unbounded_channel();
    let (queued, account) = (Arc::new(AtomicUsize::new(0)), Arc::new(Account::default()));
    let mut pending = Vec::new();
    stream::encode_begin(&opening.begin, &mut pending);
    let mut ports: Vec<_> =
        known.values().filter(|port| opening.ports.as_ref().is_none_or(|set| set.contains(port.id))).collect();
    ports.sort_by_key(|port| port.id);
    for port in &ports {
        stream::encode_port(port, &mut pending);
    }
    let named = PortSet::new(ports.iter().map(|port| port.id));
    let mut session = Session {
        opening,
        queue,
        queued: Arc::clone(&queued),
        account: Arc::clone(&account),
        pending,
        pending_frames: 0,
        named,
        last_fate: Vec::new(),
        sums: BTreeMap::new(),
        given: Given::default(),
        streamed: 0,
        finished: Some(finished),
    };
    session.flush();
    (session, Feed { queue: reader, queued, account, here: None })
}

impl Session {
    pub(super) fn bit(&self) -> u8 {
        self.opening.bit
    }

    /// Takes a frame of the monotonic clock's time, if it is wanted and there is room. `room`: bytes that may wait.
    pub(super) fn offer(&mut self, frame: &Frame<'_>, is_unfiltered: bool, room: usize, names: &HashMap<u16, Port>) {
        let is_refused = || {
            let filter = self.opening.filter.as_ref().filter(|_| is_unfiltered);
            filter.is_some_and(|filter| !filter.matches_beginning(frame.bytes, frame.length))
        };
        if self.finished.is_none() || is_refused() {
            return self.account.pass_over();
        }
        let frame = Frame {
            time_ns: frame.time_ns.saturating_add(self.opening.distance_ns),
            bytes: self.opening.keep.of(frame.bytes),
            ..*frame
        };
        let ingress = frame.fate.first_chunk().map_or(0, |id| u16::from_le_bytes(*id));
        let sums = self.sums.entry(ingress).or_insert(PortSums { id: ingress, ..PortSums::default() });
        let record_bytes = frame.record_bytes();
        if self.queued.load(Ordering::Acquire) + self.pending.len() + record_bytes > room {
            sums.lost += 1;
            self.given.lost += 1;
            return self.account.lose();
        }
        if self.opening.bytes_max.is_some_and(|max| self.streamed + record_bytes as u64 > max) {
            self.account.pass_over();
            return self.finish(EndReason::Bytes);
        }
        sums.delivered += 1;
        self.given.frames += 1;
        self.given.bytes += frame.bytes.len() as u64;
        self.streamed += record_bytes as u64;
        self.name(frame.fate, names);
        frame.encode(&mut self.pending);
        self.pending_frames += 1;
        if self.opening.frames_max.is_some_and(|max| self.given.frames >= max) {
            self.finish(EndReason::Frames);
        }
    }

    /// Names the ports of a fate that were not named yet.
    fn name(&mut self, fate: &[u8], names: &HashMap<u16, Port>) {
        if self.last_fate == fate {
            return;
        }
        self.last_fate.clear();
        self.last_fate.extend_from_slice(fate);
        let Some(fate) = Fate::decode(fate) else { return };
        for id in std::iter::once(fate.ingress).chain(fate.egress().map(|(id, _)| id)) {
            if let Some(port) = names.get(&id).filter(|_| !self.named.contains(id)) {
                self.named.insert(id);
                stream::encode_port(port, &mut self.pending);
            }
        }
    }

    /// A port's name changed: it is said again before its next frame.
    pub(super) fn renamed(&mut self, id: u16) {
        self.named.remove(id);
        self.last_fate.clear();
    }

    fn finish(&mut self, reason: EndReason) {
        if let Some(finished) = self.finished.take() {
            // Who opened it may have gone; then it is ended for that.
            finished.send(reason).ok();
        }
    }

    /// Hands over what has gathered.
    pub(super) fn flush(&mut self) {
        if !self.pending.is_empty() {
            // The next ones will be about as many.
            let next = Vec::with_capacity(self.pending.len());
            let records = std::mem::replace(&mut self.pending, next);
            let frames = std::mem::take(&mut self.pending_frames);
            self.queued.fetch_add(records.len(), Ordering::AcqRel);
            // A reader that has gone is noticed by who opened the session.
            self.queue.send(Parcel { records: records.into(), frames }).ok();
        }
    }

    /// Ends: says why and what there was.
    pub(crate) fn close(mut self, closing: &Closing) -> Given {
        let Closing { reason, ended_ns, matched, lost_early, ref received } = *closing;
        for (id, frames) in received {
            let sums = self.sums.entry(*id).or_insert(PortSums { id: *id, ..PortSums::default() });
            sums.received = Some(*frames);
        }
        let lost_late = self.sums.values().map(|sums| sums.lost).sum();
        let (delivered, passed_over) = (self.given.frames, self.account.booked().passed_over);
        let end = End {
            reason,
            ended_ns,
            matched: matched.saturating_sub(passed_over),
            delivered,
            lost_early,
            lost_late,
            ports: self.sums.values().copied().collect(),
        };
        self.given.lost += lost_early;
        stream::encode_end(&end, &mut self.pending);
        self.flush();
        self.given
    }
}
