//! The loop's thread: it sleeps in `epoll_wait` until a frame, a command or the next tick is due.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::JoinHandle;

use rustix::event::{EventfdFlags, Timespec, epoll, eventfd};
use rustix::time::{ClockId, clock_gettime};
use tokio::sync::oneshot;

use super::commands::{Command, Next};
use super::verdicts::VerdictCache;
use super::{Loop, Step};
use crate::fdb::Nanos;
use crate::port::Medium;

/// The monotonic clock, as the loop counts time.
pub fn now() -> Nanos {
    let time = clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(time.tv_nsec).unwrap_or(0);
    Nanos(seconds.saturating_mul(1_000_000_000).saturating_add(nanos))
}

/// The loop has ended and takes no more commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the forwarding loop has ended; see the log for why, and restart the daemon")]
pub struct Ended;

/// Sends commands to the loop.
#[derive(Clone, Debug)]
pub struct Commands {
    queue: Sender<Command>,
    bell: Arc<OwnedFd>,
}

impl Commands {
    /// Puts a command into the queue and wakes the loop.
    ///
    /// # Errors
    /// The loop is gone.
    pub fn send(&self, command: Command) -> Result<(), Ended> {
        self.queue.send(command).or(Err(Ended))?;
        rustix::io::write(&self.bell, &1_u64.to_ne_bytes()).or(Err(Ended))?;
        Ok(())
    }

    /// Sends what `make` builds around a reply, and waits for the answer.
    ///
    /// # Errors
    /// The loop is gone.
    pub async fn ask<T>(&self, make: impl FnOnce(oneshot::Sender<T>) -> Command) -> Result<T, Ended> {
        let (reply, answer) = oneshot::channel();
        self.send(make(reply))?;
        answer.await.or(Err(Ended))
    }
}

const FRAMES: u64 = 0;
const BELL: u64 = 1;

/// Starts the loop in a thread of its own. `ended` learns how it ended.
///
/// # Errors
/// No epoll, eventfd or thread was to be had.
pub fn spawn<M, C>(
    dataplane: Loop<M, C>,
    ended: oneshot::Sender<io::Result<()>>,
) -> io::Result<(Commands, JoinHandle<()>)>
where
    M: Medium + AsFd + Send + 'static,
    C: VerdictCache + Send + 'static,
{
    let bell = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
    let poll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    epoll::add(&poll, dataplane.medium.as_fd(), epoll::EventData::new_u64(FRAMES), epoll::EventFlags::IN)?;
    epoll::add(&poll, &bell, epoll::EventData::new_u64(BELL), epoll::EventFlags::IN)?;
    let (queue, commands) = mpsc::channel();
    let ears = Arc::clone(&bell);
    let thread = std::thread::Builder::new().name("dataplane".to_owned()).spawn(move || {
        // Nobody listens any more when the daemon is already on its way out.
        drop(ended.send(run(dataplane, &poll, &ears, &commands)));
    })?;
    Ok((Commands { queue, bell }, thread))
}

fn run<M: Medium, C: VerdictCache>(
    mut dataplane: Loop<M, C>,
    poll: &OwnedFd,
    bell: &OwnedFd,
    commands: &Receiver<Command>,
) -> io::Result<()> {
    let mut step = Step::More;
    loop {
        if step == Step::Idle {
            wait(poll, bell, dataplane.next_tick())?;
        }
        while let Ok(command) = commands.try_recv() {
            if dataplane.obey(command, now()) == Next::Stop {
                return Ok(());
            }
        }
        let now = now();
        step = dataplane.step(now)?;
        dataplane.tick(now);
    }
}

/// Sleeps until something is to be done.
fn wait(poll: &OwnedFd, bell: &OwnedFd, due: Option<Nanos>) -> io::Result<()> {
    let timeout = due.map(|due| {
        let left = due.since(now());
        Timespec { tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX), tv_nsec: i64::from(left.subsec_nanos()) }
    });
    let mut events = [epoll::Event { flags: epoll::EventFlags::empty(), data: epoll::EventData::new_u64(0) }; 2];
    match epoll::wait(poll, &mut events, timeout.as_ref()) {
        Ok(_) | Err(rustix::io::Errno::INTR) => {}
        Err(error) => return Err(error.into()),
    }
    // Empties the bell; it says no more than "look at the queue".
    let mut count = [0; 8];
    match rustix::io::read(bell, &mut count) {
        Ok(_) | Err(rustix::io::Errno::AGAIN) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
