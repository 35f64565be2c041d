//! The hub: one thread that takes frames from the reflex's ring and from the loop's queue and gives them to the sessions.
//!
//! **Order.** Frames are stamped where their fate is decided, by one clock. The hub looks every [`ROUND`] while there are frames,
//! sorts what it finds by time, and holds back what is younger than [`HOLD`]: an older one may still be on its way from the
//! other source. So a session's frames are in the order of their times, unless the loop is behind by more than that.
//!
//! **Bounded.** The ring and the loop's queue have their sizes, a round takes at most [`super::round::ROUND_BYTES_MAX`] of them, and every reader's
//! queue has its share.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use tokio::sync::oneshot;

use super::account::Account;
use super::clock;
use super::reel::{Reeling, Reels};
pub use super::round::Drawn;
use super::round::Round;
use super::session::{self, Closing, Feed, Given, Opening, QUEUES_BYTES_MAX, Session};
use super::sieve::{Basin, Cells, PortSet, Spout, Wanted};
use super::stream::{EndReason, Fate, Frame, Port};
use crate::fdb::Nanos;

/// How often the sources are looked at while frames come.
pub const ROUND: Duration = Duration::from_millis(2);
/// What is younger than this is held back.
pub const HOLD: Duration = Duration::from_millis(1);
/// How often they are looked at while there are sessions, but no frames.
pub const LOOK: Duration = Duration::from_millis(10);
/// Frames that are drawn before it is looked how many bytes they are: of the longest, 16 MiB.
const DRAW_FRAMES: usize = 256;
/// What lies in the ring when a session ends is taken in so many rounds at most: more than the ring can hold.
const LAST_ROUNDS_MAX: u32 = 16;

/// Where the reflex's frames come from. Its descriptor may become readable late: the hub looks by itself while there are sessions.
pub trait Source: AsFd + Send + 'static {
    /// Hands over frames that wait, so many at most; says how many it looked at.
    fn draw(&mut self, frames_max: usize, each: &mut dyn FnMut(Drawn<'_>)) -> usize;

    /// Nobody looks on: what is held only for reading may go.
    fn rest(&mut self) {}
}

/// What the hub is asked.
enum Order {
    Open { opening: Box<Opening>, finished: oneshot::Sender<EndReason>, feed: oneshot::Sender<Feed> },
    Close { bit: u8, closing: Closing, done: oneshot::Sender<Option<Given>> },
    Record { reeling: Reeling, done: oneshot::Sender<Arc<Account>> },
    Recall { since: Nanos, opening: Box<Opening>, wanted: Wanted, done: oneshot::Sender<(Feed, Given)> },
    Name(Port),
    Stop,
}

/// The way to the hub's thread. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Hub {
    orders: Sender<Order>,
    bell: Arc<OwnedFd>,
    spout: Spout,
    cells: Arc<Cells>,
}

/// The hub's thread has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the capture thread has ended; see the log for why, and restart the daemon")]
pub struct Ended;

impl Hub {
    /// Starts the thread.
    ///
    /// # Errors
    /// No eventfd or thread was to be had.
    pub fn start(source: impl Source) -> io::Result<(Self, JoinHandle<()>)> {
        let bell = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let (spout, basin) = super::sieve::queue(Arc::clone(&bell));
        let cells = basin.cells();
        let (orders, received) = mpsc::channel();
        let ears = Arc::clone(&bell);
        let worker = Worker {
            source,
            basin,
            orders: received,
            bell: ears,
            sessions: Vec::new(),
            reels: None,
            names: HashMap::new(),
            round: Round::default(),
            number: 0,
        };
        let thread = std::thread::Builder::new().name("capture".to_owned()).spawn(move || worker.run())?;
        Ok((Self { orders, bell, spout, cells }, thread))
    }

    /// Where the loop puts its frames.
    pub fn spout(&self) -> Spout {
        self.spout.clone()
    }

    /// What the loop has counted for a bit: frames that matched, and those of them that were lost.
    pub fn loop_counts(&self, bit: u8) -> (u64, u64) {
        self.cells.counted(bit)
    }

    /// Lets the loop count from 0 for a bit that nobody has.
    pub fn reset_loop_counts(&self, bit: u8) {
        self.cells.reset(bit);
    }

    /// Begins a session; what has its bit from now on is its own. `finished` is told when one of its limits is reached.
    pub async fn open(&self, opening: Opening, finished: oneshot::Sender<EndReason>) -> Result<Feed, Ended> {
        let (feed, opened) = oneshot::channel();
        self.send(Order::Open { opening: Box::new(opening), finished, feed })?;
        opened.await.or(Err(Ended))
    }

    /// Ends a session, once it has got what waits for it in ring and queue. Its bit must be off in both halves by then.
    pub async fn close(&self, bit: u8, closing: Closing) -> Result<Given, Ended> {
        let (done, closed) = oneshot::channel();
        self.send(Order::Close { bit, closing, done })?;
        closed.await.ok().flatten().ok_or(Ended)
    }

    /// Keeps from now on what has the recorder's bit; the recorder's books.
    pub async fn record(&self, reeling: Reeling) -> Result<Arc<Account>, Ended> {
        let (done, recorded) = oneshot::channel();
        self.send(Order::Record { reeling, done })?;
        recorded.await.or(Err(Ended))
    }

    /// What the recorder has kept since then, as a session that has ended.
    pub async fn recall(&self, since: Nanos, opening: Opening, wanted: Wanted) -> Result<(Feed, Given), Ended> {
        let (done, recalled) = oneshot::channel();
        self.send(Order::Recall { since, opening: Box::new(opening), wanted, done })?;
        recalled.await.or(Err(Ended))
    }

    /// Says what a port is called.
    pub fn name(&self, port: Port) {
        // With the thread there is nobody left to call it anything.
        self.send(Order::Name(port)).ok();
    }

    /// Ends the thread.
    pub fn stop(&self) {
        self.send(Order::Stop).ok();
    }

    fn send(&self, order: Order) -> Result<(), Ended> {
        self.orders.send(order).or(Err(Ended))?;
        rustix::io::write(&self.bell, &1_u64.to_ne_bytes()).or(Err(Ended))?;
        Ok(())
    }
}

struct Worker<S> {
    source: S,
    basin: Basin,
    orders: Receiver<Order>,
    bell: Arc<OwnedFd>,
    sessions: Vec<Session>,
    reels: Option<Reels>,
    names: HashMap<u16, Port>,
    round: Round,
    /// The last frame's number.
    number: u64,
}

impl<S: Source> Worker<S> {
    fn run(mut self) {
        loop {
            // While frames come the loop does not ring: there will be another look soon.
            let mut found = self.gather();
            if found == 0 && self.round.frames.is_empty() {
                self.basin.heard();
                // What came before that did not ring.
                found = self.gather();
            }
            let now = clock::monotonic();
            self.give(Nanos(now.0.saturating_sub(nanos(HOLD))));
            let is_busy = found > 0 || !self.round.frames.is_empty();
            if self.wait(is_busy).is_err() {
                tracing::error!("the capture thread cannot wait any more; captures end");
                return;
            }
            while let Ok(order) = self.orders.try_recv() {
                if self.obey(order) {
                    return;
                }
            }
        }
    }

    /// Whether there is anybody to give frames to.
    fn is_watched(&self) -> bool {
        !self.sessions.is_empty() || self.reels.is_some()
    }

    /// Waits for something to do: while frames come a little, for orders alone, so that one wake-up serves many frames. While nobody
    /// looks on for orders alone, too: the ring is not read then.
    fn wait(&mut self, is_busy: bool) -> rustix::io::Result<()> {
        let is_watched = self.is_watched();
        if !is_watched {
            self.source.rest();
        }
        let millis = |time: Duration| Timespec { tv_sec: 0, tv_nsec: i64::from(time.subsec_nanos()) };
        let rest = millis(if is_busy { ROUND } else { LOOK });
        let ring = self.source.as_fd();
        let mut fds = [PollFd::new(&self.bell, PollFlags::IN), PollFd::from_borrowed_fd(ring, PollFlags::IN)];
        let asked = if is_busy || !is_watched { fds.get_mut(..1).unwrap_or_default() } else { &mut fds };
        match poll(asked, (is_busy || is_watched).then_some(&rest)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error),
        }
        // Empties the bell; it says no more than "look".
        let mut count = [0; 8];
        match rustix::io::read(&self.bell, &mut count) {
            Ok(_) | Err(rustix::io::Errno::AGAIN) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Takes what there is, sorted; says how many frames.
    fn gather(&mut self) -> usize {
        let before = self.round.frames.len();
        let is_watched = self.is_watched();
        let Self { source, round, .. } = self;
        while is_watched && !round.is_full() && source.draw(DRAW_FRAMES, &mut |drawn| round.add(drawn)) == DRAW_FRAMES {
        }
        let round = &mut self.round;
        while !round.is_full()
            && let Some(caught) = self.basin.next()
        {
            let (fate, bytes) = caught.bytes.split_at_checked(caught.fate_bytes).unwrap_or_default();
            let (time, sessions, length) = (caught.time, caught.sessions, caught.length);
            round.add(Drawn { time, sessions, length, is_unfiltered: false, fate, bytes });
        }
        let found = round.frames.len() - before;
        round.frames.sort_by_key(|seen| seen.time);
        found
    }

    /// Gives the sessions what is not younger than `until`.
    fn give(&mut self, until: Nanos) {
        let Self { sessions, reels, round, names, number, .. } = self;
        let ready =
            if round.is_full() { round.frames.len() } else { round.frames.partition_point(|seen| seen.time <= until) };
        let room = QUEUES_BYTES_MAX / sessions.len().max(1);
        for seen in round.frames.iter().take(ready) {
            *number += 1;
            let (fate, bytes) = (round.fate(seen), round.kept(seen));
            let frame = Frame { time_ns: seen.time.0, number: *number, length: seen.length, fate, bytes };
            if let Some(reels) = reels.as_mut().filter(|reels| seen.sessions >> reels.bit() & 1 == 1) {
                reels.keep(&frame);
            }
            for session in sessions.iter_mut().filter(|session| seen.sessions >> session.bit() & 1 == 1) {
                session.offer(&frame, seen.is_unfiltered, room, names);
            }
        }
        round.keep_from(ready);
        for session in sessions {
            session.flush();
        }
    }

    /// Carries out an order; says whether it was the last.
    fn obey(&mut self, order: Order) -> bool {
        match order {
            Order::Open { opening, finished, feed } => {
                let (session, reader) = session::open(*opening, finished, &self.names);
                self.sessions.push(session);
                // Who asked and went away ends the session as well.
                feed.send(reader).ok();
            }
            Order::Close { bit, closing, done } => {
                let given = self.close(bit, &closing);
                done.send(given).ok();
            }
            Order::Record { reeling, done } => {
                let reels = self.reels.insert(Reels::new(reeling));
                done.send(reels.account()).ok();
            }
            Order::Recall { since, opening, wanted, done } => {
                done.send(self.recall(since, *opening, &wanted)).ok();
            }
            Order::Name(port) => {
                let id = port.id;
                if self.names.get(&id) != Some(&port) {
                    let old = self.names.insert(id, port);
                    let is_another = old.is_some_and(|old| self.names.get(&id).is_some_and(|new| new.name != old.name));
                    if let Some(reels) = self.reels.as_mut().filter(|_| is_another) {
                        reels.forget(id);
                    }
                    for session in &mut self.sessions {
                        session.renamed(id);
                    }
                }
            }
            Order::Stop => return true,
        }
        false
    }

    /// What the reels hold, up to this moment, for a session that ends at once.
    fn recall(&mut self, since: Nanos, opening: Opening, wanted: &Wanted) -> (Feed, Given) {
        self.take_all(clock::monotonic());
        let ports = opening.ports.clone();
        let (mut session, feed) = session::open(opening, oneshot::channel().0, &self.names);
        let is_wanted = |frame: &Frame<'_>| {
            let Some(fate) = Fate::decode(frame.fate) else { return false };
            let by_port =
                |set: &PortSet| set.contains(fate.ingress) || fate.egress().any(|(port, _)| set.contains(port));
            let by_fate = match wanted {
                Wanted::All => true,
                Wanted::Dropped(reason) => fate.is_refused(reason.as_deref()),
            };
            by_fate && ports.as_ref().is_none_or(by_port)
        };
        let mut matched = 0;
        if let Some(reels) = &mut self.reels {
            reels.since(since, |frame| {
                if is_wanted(frame) {
                    matched += 1;
                    session.offer(frame, true, usize::MAX, &self.names);
                }
            });
        }
        let ended_ns = clock::time_of_day_ns();
        let given = session.close(&Closing { reason: EndReason::Recalled, ended_ns, matched, ..Closing::default() });
        (feed, given)
    }

    /// Takes and gives what was there at a moment, young or not.
    fn take_all(&mut self, now: Nanos) {
        for _ in 0..LAST_ROUNDS_MAX {
            let found = self.gather();
            self.give(now);
            if found == 0 || self.round.frames.last().is_some_and(|seen| seen.time > now) {
                break;
            }
        }
    }

    fn close(&mut self, bit: u8, closing: &Closing) -> Option<Given> {
        self.take_all(clock::monotonic());
        let at = self.sessions.iter().position(|session| session.bit() == bit)?;
        Some(self.sessions.swap_remove(at).close(closing))
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// A source that has nothing, for a switch without a kernel half.
#[derive(Debug)]
pub struct Nothing(OwnedFd);

impl Nothing {
    /// A descriptor that is never readable.
    ///
    /// # Errors
    /// No eventfd was to be had.
    pub fn new() -> io::Result<Self> {
        Ok(Self(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?))
    }
}

impl AsFd for Nothing {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Source for Nothing {
    fn draw(&mut self, _: usize, _: &mut dyn FnMut(Drawn<'_>)) -> usize {
        0
    }
}
