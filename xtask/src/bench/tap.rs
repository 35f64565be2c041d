//! A station that plays a VMM on a tap: whole frames behind a virtio-net header, never blocking.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::frames::{VNET_BYTES, mac, udp};
use super::lab::{Namespace, until};
use super::sys;
use super::systems::System;

/// One end that a guest would hold.
pub struct Station {
    file: File,
    mac: [u8; 6],
    buffer: Vec<u8>,
}

impl Station {
    /// Makes a tap in the system's namespace and makes it a port.
    pub fn attach(system: &mut System, netdev: &str, number: u32) -> Result<Self> {
        let file = open(system.namespace(), netdev, system.kind().offloads())?;
        system.attach(netdev)?;
        Ok(Self { file, mac: mac(number), buffer: vec![0; 70_000] })
    }

    /// The address it sends from.
    pub fn mac(&self) -> [u8; 6] {
        self.mac
    }

    /// Hands one frame with its virtio-net header to the kernel. This is the call that is measured.
    pub fn send(&self, frame: &[u8]) -> Result<()> {
        let written = (&self.file).write(frame).context("a tap refused a frame")?;
        if written != frame.len() {
            bail!("a tap took {written} bytes of {}", frame.len());
        }
        Ok(())
    }

    /// One frame, from its destination address on, or `None` when none waits.
    pub fn receive(&mut self) -> Result<Option<&[u8]>> {
        match (&self.file).read(&mut self.buffer) {
            Ok(bytes) => Ok(self.buffer.get(VNET_BYTES..bytes)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error).context("a tap cannot be read"),
        }
    }

    /// The next frame of `bytes` length; others (a stray announcement) are passed over.
    pub fn expect(&mut self, bytes: usize, patience: Duration) -> Result<()> {
        let deadline = Instant::now() + patience;
        loop {
            match self.receive()? {
                Some(frame) if frame.len() == bytes => return Ok(()),
                Some(_) => {}
                None if Instant::now() > deadline => bail!("no frame of {bytes} bytes within {patience:?}"),
                None => std::hint::spin_loop(),
            }
        }
    }

    /// Reads everything that waits and counts the frames of `bytes` length.
    pub fn drain(&mut self, bytes: usize) -> Result<usize> {
        let mut count = 0;
        while let Some(frame) = self.receive()? {
            count += usize::from(frame.len() == bytes);
        }
        Ok(count)
    }

    /// For waiting without spinning.
    pub fn file(&self) -> &File {
        &self.file
    }
}

/// Opens a tap inside a namespace; the file works from any.
pub fn open(namespace: &Namespace, netdev: &str, offloads: bool) -> Result<File> {
    namespace.inside(|| sys::open_tap(netdev, offloads).with_context(|| format!("cannot make the tap {netdev}")))
}

/// Lets two stations know each other, so that whatever the switch caches is cached.
pub fn acquaint(a: &mut Station, b: &mut Station) -> Result<()> {
    let there = udp(a.mac(), b.mac(), 60);
    let back = udp(b.mac(), a.mac(), 60);
    // The first frames teach; then one at a time until twenty in a row were prompt.
    until(Duration::from_secs(10), || {
        a.send(&there)?;
        b.send(&back)?;
        let met = b.expect(60, Duration::from_millis(100)).is_ok() && a.expect(60, Duration::from_millis(100)).is_ok();
        Ok(met.then_some(()))
    })
    .context("two stations do not hear each other")?;
    for _ in 0..20 {
        a.send(&there)?;
        b.expect(60, Duration::from_secs(1))?;
        b.send(&back)?;
        a.expect(60, Duration::from_secs(1))?;
    }
    a.drain(60)?;
    b.drain(60).map(drop)
}

/// How often an analyser looks, as one does that is told of full blocks of a packet ring and not of frames.
const LOOK: Duration = Duration::from_millis(1);
/// Frames that wait for it meanwhile, at most.
pub const ANALYSER_RING: u32 = 4096;

/// A tap that somebody reads to nowhere, until the guard is dropped. Who looked for each frame would be woken for each, by the sender.
pub struct Drain {
    ends: Arc<AtomicBool>,
    reader: Option<JoinHandle<()>>,
}

impl Drain {
    /// Begins to read.
    pub fn start(mut tap: File) -> Self {
        let ends = Arc::new(AtomicBool::new(false));
        let end = Arc::clone(&ends);
        let reader = thread::spawn(move || {
            let mut buffer = vec![0; 70_000];
            while !end.load(Ordering::Relaxed) {
                while tap.read(&mut buffer).is_ok() {}
                thread::park_timeout(LOOK);
            }
        });
        Self { ends, reader: Some(reader) }
    }
}

impl Drop for Drain {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        if self.reader.take().is_some_and(|reader| reader.join().is_err()) {
            eprintln!("bench: who read a tap panicked");
        }
    }
}
