//! A tap as a VMM holds it, with or without offload requests in front of its frames.
#![expect(unsafe_code, reason = "a tap is made by ioctl")]

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;

/// Offload requests are ten bytes (`struct virtio_net_hdr`).
pub(super) const HEADER_BYTES: usize = 10;

/// `struct ifreq` as `TUNSETIFF` reads it.
#[repr(C)]
struct Request {
    name: [u8; libc::IFNAMSIZ],
    flags: u16,
    padding: [u8; 22],
}

/// The guest's end of a tap.
pub(super) struct Tap {
    file: File,
}

impl Tap {
    /// Opens the tap `name`, which takes and gives offload requests.
    pub(super) fn open(name: &str) -> Self {
        let file =
            OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open("/dev/net/tun").unwrap();
        let flags = u16::try_from(libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR).unwrap();
        let mut request = Request { name: [0; libc::IFNAMSIZ], flags, padding: [0; 22] };
        request.name[..name.len()].copy_from_slice(name.as_bytes());
        // SAFETY: the ioctl reads and writes one `ifreq`, which `request` is.
        let made = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw mut request) };
        assert!(made >= 0, "{name}: {}", std::io::Error::last_os_error());
        let offloads = libc::c_ulong::from(libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6);
        // SAFETY: the ioctl's argument is a number.
        let set = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETOFFLOAD, offloads) };
        assert!(set >= 0, "{name}: {}", std::io::Error::last_os_error());
        Self { file }
    }

    /// Sends a frame, with nothing left for a device to do.
    pub(super) fn send(&mut self, frame: &[u8]) {
        self.send_with([0; HEADER_BYTES], frame);
    }

    /// The same, for threads that share the tap.
    pub(super) fn send_shared(&self, frame: &[u8]) {
        let bytes = [[0; HEADER_BYTES].as_slice(), frame].concat();
        assert_eq!((&self.file).write(&bytes).unwrap(), bytes.len());
    }

    /// Sends a frame with an offload request.
    pub(super) fn send_with(&mut self, header: [u8; HEADER_BYTES], frame: &[u8]) {
        let bytes = [header.as_slice(), frame].concat();
        assert_eq!(self.file.write(&bytes).unwrap(), bytes.len());
    }

    /// The next frame and its offload request, or `None` when none waits.
    pub(super) fn receive_with(&mut self) -> Option<([u8; HEADER_BYTES], Vec<u8>)> {
        let mut bytes = vec![0; 70_000];
        match self.file.read(&mut bytes) {
            Ok(length) => {
                let header = *bytes.first_chunk::<HEADER_BYTES>().unwrap();
                Some((header, bytes[HEADER_BYTES..length].to_vec()))
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => None,
            Err(error) => panic!("{error}"),
        }
    }

    /// The next frame, or `None` when none waits.
    pub(super) fn receive(&mut self) -> Option<Vec<u8>> {
        self.receive_with().map(|(_, frame)| frame)
    }
}
