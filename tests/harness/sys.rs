//! The corner with `unsafe`: a tap opened with `IFF_VNET_HDR`, and a thread that leaves its namespaces.
#![expect(unsafe_code, reason = "tap ioctls and unshare(2) have no safe wrapper in the crates used here")]

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};

use rustix::thread::UnshareFlags;

/// Offloads a guest's driver may have negotiated (`include/uapi/linux/if_tun.h`): checksum, TCP over IPv4 and IPv6, ECN.
const OFFLOADS: libc::c_ulong = 0x01 | 0x02 | 0x04 | 0x08;
const TUNSETIFF: libc::c_ulong = 0x4004_54ca;
const TUNSETOFFLOAD: libc::c_ulong = 0x4004_54d0;
const IFF_TAP: u16 = 0x0002;
const IFF_NO_PI: u16 = 0x1000;
const IFF_VNET_HDR: u16 = 0x4000;

/// `struct ifreq` as TUNSETIFF reads it.
#[repr(C)]
struct InterfaceRequest {
    name: [u8; libc::IFNAMSIZ],
    flags: u16,
    padding: [u8; 22],
}

/// Opens the tap `name` (created when there is none) as a VMM does: with a virtio-net header and offloads.
pub(crate) fn open_offloading_tap(name: &str) -> io::Result<File> {
    let fd = open_tun()?;
    let mut request =
        InterfaceRequest { name: [0; libc::IFNAMSIZ], flags: IFF_TAP | IFF_NO_PI | IFF_VNET_HDR, padding: [0; 22] };
    if name.len() >= libc::IFNAMSIZ {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "interface name too long"));
    }
    for (to, from) in request.name.iter_mut().zip(name.bytes()) {
        *to = from;
    }
    // SAFETY: TUNSETIFF reads and writes one `struct ifreq`, which `request` is laid out as and outlives the call.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), TUNSETIFF, &raw mut request) })?;
    // SAFETY: TUNSETOFFLOAD takes its flags by value.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), TUNSETOFFLOAD, OFFLOADS) })?;
    Ok(File::from(fd))
}

fn open_tun() -> io::Result<OwnedFd> {
    // SAFETY: the path is a NUL-terminated literal.
    let fd = unsafe { libc::open(c"/dev/net/tun".as_ptr(), libc::O_RDWR | libc::O_NONBLOCK | libc::O_CLOEXEC) };
    check(fd)?;
    // SAFETY: `fd` was just opened and belongs to nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Gives the calling thread network and mount namespaces (and a working directory) of its own.
pub(crate) fn leave_namespaces() -> io::Result<()> {
    // SAFETY: CLONE_FILES is not asked for, so no file descriptor changes its meaning for another thread.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET | UnshareFlags::NEWNS) }?;
    Ok(())
}

/// Borrows a descriptor from an owner that predates `AsFd`.
pub(crate) fn borrow<T>(fd: RawFd, _owner: &T) -> BorrowedFd<'_> {
    // SAFETY: the descriptor belongs to the owner, whose borrow the result carries.
    unsafe { BorrowedFd::borrow_raw(fd) }
}
