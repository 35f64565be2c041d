#![expect(unsafe_code, reason = "tap and ethtool ioctls, and the user database, have no safe interface")]
//! The system calls of this room that need `unsafe`: making and configuring taps, two switches of ethtool, and looking
//! up a user. Everything here takes and gives plain values; nothing keeps a pointer.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::ptr;

use super::spec::IfName;

const TUN_PATH: &str = "/dev/net/tun";
/// Largest answer of the user database that is asked for.
const PASSWD_BYTES_MAX: usize = 64 * 1024;

// include/uapi/linux/ethtool.h; libc has no names for these.
const ETHTOOL_GFLAGS: u32 = 0x25;
const ETHTOOL_SFLAGS: u32 = 0x26;
const ETHTOOL_GGRO: u32 = 0x2b;
const ETHTOOL_SGRO: u32 = 0x2c;
const ETH_FLAG_LRO: u32 = 1 << 15;

#[repr(C)]
struct EthtoolValue {
    command: u32,
    data: u32,
}

/// What a new tap is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TapMode {
    /// Made new, or attached to when it exists; reads never block.
    CreateOrAdopt,
    /// Made new; `EBUSY` when the name is taken.
    CreateNew,
}

fn request(name: &IfName) -> libc::ifreq {
    // SAFETY: ifreq is plain old data for which all zeros is a valid value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // One less than the field: the NUL stays. IfName is never longer.
    let room = request.ifr_name.len() - 1;
    for (to, from) in request.ifr_name.iter_mut().take(room).zip(name.as_str().bytes()) {
        *to = libc::c_char::from_ne_bytes([from]);
    }
    request
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Opens a single-queue tap with a virtio-net header in front of each frame.
pub(super) fn open_tap(name: &IfName, mode: TapMode) -> io::Result<OwnedFd> {
    let path = CString::new(TUN_PATH)?;
    // SAFETY: `path` is a NUL-terminated string that outlives the call.
    let fd = unsafe { libc::open(path.as_ptr(), libc::O_RDWR | libc::O_NONBLOCK | libc::O_CLOEXEC) };
    check(fd)?;
    // SAFETY: the descriptor was just opened and has no other owner.
    let tap = unsafe { OwnedFd::from_raw_fd(fd) };
    let exclusive = match mode {
        TapMode::CreateOrAdopt => 0,
        TapMode::CreateNew => libc::IFF_TUN_EXCL,
    };
    let mut request = request(name);
    let flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR | exclusive;
    request.ifr_ifru.ifru_flags = flags.cast_signed_to_short();
    // SAFETY: TUNSETIFF reads and writes one ifreq, which lives on this stack.
    check(unsafe { libc::ioctl(tap.as_raw_fd(), libc::TUNSETIFF, &raw mut request) })?;
    Ok(tap)
}

/// `ifr_flags` is a short whose bits are what counts (`IFF_TUN_EXCL` is its sign).
trait CastToShort {
    fn cast_signed_to_short(self) -> libc::c_short;
}

impl CastToShort for libc::c_int {
    fn cast_signed_to_short(self) -> libc::c_short {
        let [low, high, ..] = self.to_le_bytes();
        libc::c_short::from_le_bytes([low, high])
    }
}

fn tap_ioctl(tap: impl AsFd, command: libc::c_ulong, value: libc::c_ulong) -> io::Result<()> {
    // SAFETY: the commands used here (TUNSETPERSIST, TUNSETOFFLOAD, TUNSETOWNER) take an integer, not a pointer.
    check(unsafe { libc::ioctl(tap.as_fd().as_raw_fd(), command, value) })
}

/// Whether the tap outlives its descriptor.
pub(super) fn set_persistent(tap: impl AsFd, persistent: bool) -> io::Result<()> {
    tap_ioctl(tap, libc::TUNSETPERSIST, libc::c_ulong::from(persistent))
}

/// The user who may open the tap without `CAP_NET_ADMIN`.
pub(super) fn set_owner(tap: impl AsFd, uid: u32) -> io::Result<()> {
    tap_ioctl(tap, libc::TUNSETOWNER, libc::c_ulong::from(uid))
}

/// Which unfinished frames the reader of the tap takes: checksums and segmentation left to it. Kernels before 6.2 do not
/// know UDP segmentation and refuse the whole request, so it is asked for first and done without next.
pub(super) fn take_all_offloads(tap: impl AsFd) -> io::Result<()> {
    let tcp = libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6 | libc::TUN_F_TSO_ECN;
    let udp = libc::TUN_F_USO4 | libc::TUN_F_USO6;
    match tap_ioctl(&tap, libc::TUNSETOFFLOAD, (tcp | udp).into()) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => tap_ioctl(&tap, libc::TUNSETOFFLOAD, tcp.into()),
        result => result,
    }
}

/// Sets the length of the header in front of each frame; a tap found may have been left with another.
pub(super) fn set_vnet_header_bytes(tap: impl AsFd, bytes: usize) -> io::Result<()> {
    let bytes = libc::c_int::try_from(bytes).map_err(io::Error::other)?;
    // SAFETY: TUNSETVNETHDRSZ reads one int, which lives on this stack.
    check(unsafe { libc::ioctl(tap.as_fd().as_raw_fd(), libc::TUNSETVNETHDRSZ, &raw const bytes) })
}

fn ethtool(socket: impl AsFd, name: &IfName, command: u32, data: u32) -> io::Result<u32> {
    let mut value = EthtoolValue { command, data };
    let mut request = request(name);
    request.ifr_ifru.ifru_data = (&raw mut value).cast();
    // SAFETY: SIOCETHTOOL with these four commands reads and writes one struct ethtool_value behind ifr_data; both live on
    // this stack until the call returns.
    check(unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), libc::SIOCETHTOOL, &raw mut request) })?;
    Ok(value.data)
}

/// Whether a netdev merges received frames in software (generic receive offload).
pub(super) fn gro(socket: impl AsFd, name: &IfName) -> io::Result<bool> {
    ethtool(socket, name, ETHTOOL_GGRO, 0).map(|data| data != 0)
}

/// Switches generic receive offload.
pub(super) fn set_gro(socket: impl AsFd, name: &IfName, on: bool) -> io::Result<()> {
    ethtool(socket, name, ETHTOOL_SGRO, u32::from(on)).map(drop)
}

/// Whether a netdev merges received frames in hardware (large receive offload).
pub(super) fn lro(socket: impl AsFd, name: &IfName) -> io::Result<bool> {
    ethtool(socket, name, ETHTOOL_GFLAGS, 0).map(|data| data & ETH_FLAG_LRO != 0)
}

/// Switches large receive offload, leaving its neighbours in the same word alone.
pub(super) fn set_lro(socket: impl AsFd, name: &IfName, on: bool) -> io::Result<()> {
    let flags = ethtool(&socket, name, ETHTOOL_GFLAGS, 0)? & !ETH_FLAG_LRO;
    ethtool(socket, name, ETHTOOL_SFLAGS, flags | if on { ETH_FLAG_LRO } else { 0 }).map(drop)
}

/// Whether an open file of the namespace file system is a network namespace.
pub(super) fn is_network_namespace(file: impl AsFd) -> io::Result<bool> {
    // SAFETY: NS_GET_NSTYPE has no argument.
    let kind = unsafe { libc::ioctl(file.as_fd().as_raw_fd(), libc::NS_GET_NSTYPE) };
    check(kind)?;
    Ok(kind == libc::CLONE_NEWNET)
}

/// The number of a user in the user database; `None` when there is no such user.
pub(super) fn user_id(name: &str) -> io::Result<Option<u32>> {
    let name = CString::new(name)?;
    // SAFETY: passwd is plain old data for which all zeros is a valid value.
    let mut entry: libc::passwd = unsafe { std::mem::zeroed() };
    let mut found = ptr::null_mut();
    let mut room: Vec<libc::c_char> = vec![0; PASSWD_BYTES_MAX];
    // SAFETY: all pointers are to live values of this stack frame, and the length is that of `room`.
    let result =
        unsafe { libc::getpwnam_r(name.as_ptr(), &raw mut entry, room.as_mut_ptr(), room.len(), &raw mut found) };
    match result {
        // The manual allows these, besides 0, for "there is no such user".
        0 | libc::ENOENT | libc::ESRCH => Ok((!found.is_null()).then_some(entry.pw_uid)),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}

/// Moves the calling thread into a new, empty network namespace.
#[cfg(test)]
pub(super) fn unshare_network() -> io::Result<()> {
    // SAFETY: only the network namespace is unshared; descriptors stay common to all threads.
    unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNET) }?;
    Ok(())
}
