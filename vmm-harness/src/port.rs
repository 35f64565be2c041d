//! Where the guest's frames go: a tap, or a vector in memory for the tests.
//!
//! A port moves whole frames, each behind the 12-byte virtio-net header. A tap with offloads passes the header on; a plain
//! tap (opened with `tun-tap`) has none, so there it is cut off on the way out and put in front, empty, on the way in.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use virtio_bindings::virtio_net::{VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_GUEST_TSO4, VIRTIO_NET_F_GUEST_TSO6};

use crate::ending::Error;
use crate::sys;

/// Length of the header in front of each frame.
pub const HEADER_BYTES: usize = 12;
/// Longest frame with its header: an IP packet of 64 KiB behind an Ethernet header with two tags.
pub const FRAME_BYTES_MAX: usize = HEADER_BYTES + 65_535 + 22;

/// A way out for frames, none of whose calls blocks.
pub trait Port: Send {
    /// Reads one frame behind its header into `buffer`.
    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<usize>;
    /// Writes one frame behind its header.
    fn send(&mut self, frame: &[u8]) -> io::Result<()>;
    /// Tells the port which unfinished frames the guest takes, by the features agreed on.
    fn set_offloads(&mut self, features: u64) -> io::Result<()>;
    /// Whether headers mean anything here.
    fn has_offloads(&self) -> bool;
}

/// A tap.
#[derive(Debug)]
pub enum Tap {
    /// With a virtio-net header.
    Offloading(File),
    /// Bare frames.
    Plain(tun_tap::Iface),
}

impl Tap {
    /// Opens the tap `name`, made now if there is none; one made now is gone when this value is.
    pub fn open(name: &str, offloads: bool) -> Result<Self, Error> {
        let valid = |byte: u8| byte.is_ascii_graphic() && !b"/%:".contains(&byte);
        if name.is_empty() || name.len() > 15 || !name.bytes().all(valid) {
            return Err(Error::TapName(name.to_owned()));
        }
        let fault = |source: io::Error| match source.raw_os_error() {
            Some(libc::EBUSY) => Error::TapBusy(name.to_owned()),
            Some(libc::EINVAL) => Error::NoTap(name.to_owned()),
            Some(libc::EPERM | libc::EACCES) => Error::TapDenied { name: name.to_owned(), source },
            Some(libc::ENOENT | libc::ENODEV | libc::ENXIO) => Error::NoTun(source),
            _ => Error::Tap { name: name.to_owned(), source },
        };
        if offloads {
            return sys::open_tap(name, HEADER_BYTES).map(Self::Offloading).map_err(fault);
        }
        let tap = tun_tap::Iface::without_packet_info(name, tun_tap::Mode::Tap).map_err(fault)?;
        rustix::io::ioctl_fionbio(sys::borrow(&tap, tap.as_raw_fd()), true).map_err(|error| fault(error.into()))?;
        Ok(Self::Plain(tap))
    }

    /// A second descriptor of the same tap, to wait for frames with.
    pub fn watch(&self) -> io::Result<File> {
        self.as_fd().try_clone_to_owned().map(File::from)
    }
}

impl AsFd for Tap {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Offloading(tap) => tap.as_fd(),
            Self::Plain(tap) => sys::borrow(tap, tap.as_raw_fd()),
        }
    }
}

impl Port for Tap {
    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Offloading(tap) => tap.read(buffer),
            Self::Plain(tap) => {
                let Some((header, frame)) = buffer.split_at_mut_checked(HEADER_BYTES) else { return Ok(0) };
                header.fill(0);
                Ok(HEADER_BYTES + tap.recv(frame)?)
            }
        }
    }

    fn send(&mut self, frame: &[u8]) -> io::Result<()> {
        match self {
            Self::Offloading(tap) => tap.write(frame).map(drop),
            Self::Plain(tap) => tap.send(frame.get(HEADER_BYTES..).unwrap_or_default()).map(drop),
        }
    }

    fn set_offloads(&mut self, features: u64) -> io::Result<()> {
        let Self::Offloading(tap) = self else { return Ok(()) };
        let pairs = [
            (VIRTIO_NET_F_GUEST_CSUM, libc::TUN_F_CSUM),
            (VIRTIO_NET_F_GUEST_TSO4, libc::TUN_F_TSO4),
            (VIRTIO_NET_F_GUEST_TSO6, libc::TUN_F_TSO6),
        ];
        let taken = pairs.iter().filter(|(feature, _)| features & 1 << feature != 0);
        sys::set_offloads(tap, taken.fold(0, |all, (_, flag)| all | flag))
    }

    fn has_offloads(&self) -> bool {
        matches!(self, Self::Offloading(_))
    }
}
