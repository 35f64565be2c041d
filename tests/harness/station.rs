//! A station: what a guest is to the switch, a tap's file descriptor held by somebody.
//!
//! The plain kind is `tun-tap`'s. The offloading kind is what a VMM opens: a virtio-net header before each frame, so
//! that super-frames travel whole. Both are non-blocking; [`until_readable`] waits for several at once.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;
use rustix::io::FdFlags;

use crate::frames::Request;
use crate::{sys, wait};

/// Bytes of the virtio-net header on an offloading tap.
const HEADER_BYTES: usize = 10;
/// The longest frame, its header included.
const ROOM_BYTES: usize = 65_536 + 64;

#[derive(Debug)]
enum Tap {
    Plain(tun_tap::Iface),
    Offloading(File),
}

/// A tap held open.
#[derive(Debug)]
pub struct Station {
    netdev: String,
    tap: Tap,
}

/// Opens a tap. One that was closed a moment ago is busy still while a child that was forked before that has not come to its
/// `exec`.
fn when_let_go<T>(netdev: &str, mut open: impl FnMut() -> io::Result<T>) -> Result<T> {
    wait::until(&format!("the tap {netdev} is let go"), wait::SOON, || match open() {
        Ok(tap) => Ok(Some(tap)),
        Err(error) if error.raw_os_error() == Some(libc::EBUSY) => Ok(None),
        Err(error) => Err(error).with_context(|| netdev.to_owned()),
    })
}

impl Station {
    /// Holds a plain tap, made now unless it exists.
    pub fn plain(netdev: &str) -> Result<Self> {
        let tap = when_let_go(netdev, || {
            let _alone = crate::command::no_children();
            let tap = tun_tap::Iface::without_packet_info(netdev, tun_tap::Mode::Tap)?;
            rustix::io::fcntl_setfd(sys::borrow(tap.as_raw_fd(), &tap), FdFlags::CLOEXEC)?;
            Ok(tap)
        })?;
        rustix::fs::fcntl_setfl(sys::borrow(tap.as_raw_fd(), &tap), OFlags::RDWR | OFlags::NONBLOCK)?;
        ensure!(tap.name() == netdev, "asked for {netdev}, got {}", tap.name());
        Ok(Self { netdev: netdev.to_owned(), tap: Tap::Plain(tap) })
    }

    /// Holds a tap as a VMM does, with offloads; made now unless it exists.
    pub fn offloading(netdev: &str) -> Result<Self> {
        let tap = when_let_go(netdev, || sys::open_offloading_tap(netdev))?;
        Ok(Self { netdev: netdev.to_owned(), tap: Tap::Offloading(tap) })
    }

    /// The netdev's name.
    pub fn netdev(&self) -> &str {
        &self.netdev
    }

    /// Sends one frame that asks nothing of a device.
    pub fn send(&self, frame: &[u8]) -> io::Result<()> {
        match &self.tap {
            Tap::Plain(tap) => tap.send(frame).map(drop),
            Tap::Offloading(_) => self.send_with(Request::default(), frame),
        }
    }

    /// Sends one frame with an offload request.
    ///
    /// # Errors
    /// The kernel refused it, or this is a plain tap.
    pub fn send_with(&self, request: Request, frame: &[u8]) -> io::Result<()> {
        match &self.tap {
            Tap::Plain(_) => Err(io::Error::new(io::ErrorKind::Unsupported, "a plain tap has no offloads")),
            Tap::Offloading(file) => {
                let mut file = file;
                file.write_all(&[&request.encode()[..], frame].concat())
            }
        }
    }

    /// The next frame that arrived, its offload header cut off; `None` when none waits.
    pub fn receive(&self) -> io::Result<Option<Vec<u8>>> {
        let mut room = vec![0; ROOM_BYTES];
        let (read, header_bytes) = match &self.tap {
            Tap::Plain(tap) => (tap.recv(&mut room), 0),
            Tap::Offloading(file) => {
                let mut file = file;
                (file.read(&mut room), HEADER_BYTES)
            }
        };
        match read {
            Ok(bytes) => {
                room.truncate(bytes);
                Ok(Some(room.split_off(header_bytes.min(bytes))))
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Everything that has arrived.
    pub fn drain(&self) -> io::Result<Vec<Vec<u8>>> {
        let mut frames = Vec::new();
        while let Some(frame) = self.receive()? {
            frames.push(frame);
        }
        Ok(frames)
    }

    /// Waits for a frame for which `wanted` holds; gives all that arrived until then, it last.
    pub fn receive_until(&self, deadline: Duration, mut wanted: impl FnMut(&[u8]) -> bool) -> Result<Vec<Vec<u8>>> {
        let end = wait::end_of(deadline);
        let mut frames = Vec::new();
        loop {
            while let Some(frame) = self.receive()? {
                let found = wanted(&frame);
                frames.push(frame);
                if found {
                    return Ok(frames);
                }
            }
            let left = end.saturating_duration_since(Instant::now());
            ensure!(!left.is_zero(), "{} waited in vain; {} other frames came", self.netdev, frames.len());
            until_readable(&[self], left)?;
        }
    }

    fn fd(&self) -> BorrowedFd<'_> {
        match &self.tap {
            Tap::Plain(tap) => sys::borrow(tap.as_raw_fd(), tap),
            Tap::Offloading(file) => std::os::fd::AsFd::as_fd(file),
        }
    }
}

/// Waits until one of the stations has something to receive, or the time is over.
pub fn until_readable(stations: &[&Station], at_most: Duration) -> Result<()> {
    let mut fds: Vec<_> =
        stations.iter().map(|station| PollFd::from_borrowed_fd(station.fd(), PollFlags::IN)).collect();
    let timeout = Timespec { tv_sec: at_most.as_secs().try_into()?, tv_nsec: at_most.subsec_nanos().into() };
    match poll(&mut fds, Some(&timeout)) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
