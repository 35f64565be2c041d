//! A virtual machine monitor reduced to its network: a thread that carries frames between the guest's network card and
//! the tap that is the guest's port.
//!
//! The guest is a namespace; its card is a tap of its own, so that a real TCP stack is behind it. Both taps have the same
//! offloads, so super-frames are carried whole, header and all.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use anyhow::{Context, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// Frames carried one way before the other way is looked at.
const BATCH: usize = 64;

/// A guest's network, until the guard is dropped.
pub struct Vmm {
    ends: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Vmm {
    /// Carries frames between a card and a port.
    pub fn start(card: File, port: File) -> Self {
        let ends = Arc::new(AtomicBool::new(false));
        let end = Arc::clone(&ends);
        let thread = thread::spawn(move || {
            let mut buffer = vec![0; 70_000];
            while !end.load(Ordering::Relaxed) {
                let patience = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
                let mut waiting = [PollFd::new(&card, PollFlags::IN), PollFd::new(&port, PollFlags::IN)];
                poll(&mut waiting, Some(&patience)).context("poll")?;
                carry(&card, &port, &mut buffer)?;
                carry(&port, &card, &mut buffer)?;
            }
            Ok(())
        });
        Self { ends, thread: Some(thread) }
    }
}

/// Carries what waits at one tap to the other.
fn carry(mut from: &File, mut to: &File, buffer: &mut [u8]) -> Result<()> {
    for _ in 0..BATCH {
        match from.read(buffer) {
            // What the other side does not take is lost, as on any wire; TCP sends it again.
            Ok(bytes) => drop(to.write(buffer.get(..bytes).unwrap_or_default())),
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => return Err(error).context("a tap cannot be read"),
        }
    }
    Ok(())
}

impl Drop for Vmm {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(Err(error))) => eprintln!("bench: a guest's network failed: {error:#}"),
            Some(Err(_)) => eprintln!("bench: a guest's network panicked"),
            Some(Ok(Ok(()))) | None => {}
        }
    }
}
