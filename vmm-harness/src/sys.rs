//! The system calls that have no safe wrapper, each with the reason why it is sound.
#![expect(unsafe_code, reason = "ioctls on /dev/net/tun and the registration of guest memory with KVM")]

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;

use kvm_bindings::kvm_userspace_memory_region;
use kvm_ioctls::VmFd;
use vm_memory::{GuestMemoryBackend, GuestMemoryRegion};
use vmm_sys_util::eventfd::EventFd;

use crate::ring::Memory;

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Opens a single-queue tap with a virtio-net header of `header_bytes` in front of each frame; reads do not block.
pub(crate) fn open_tap(name: &str, header_bytes: usize) -> io::Result<File> {
    let tap = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open("/dev/net/tun")?;
    // SAFETY: ifreq is plain old data for which all zeros is a valid value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // One less than the field: the NUL stays.
    let room = request.ifr_name.len() - 1;
    for (to, from) in request.ifr_name.iter_mut().take(room).zip(name.bytes()) {
        *to = libc::c_char::from_ne_bytes([from]);
    }
    let [low, high, ..] = (libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR).to_le_bytes();
    request.ifr_ifru.ifru_flags = libc::c_short::from_le_bytes([low, high]);
    // SAFETY: TUNSETIFF reads and writes one ifreq, which lives on this stack.
    check(unsafe { libc::ioctl(tap.as_raw_fd(), libc::TUNSETIFF, &raw mut request) })?;
    let bytes = libc::c_int::try_from(header_bytes).map_err(io::Error::other)?;
    // SAFETY: TUNSETVNETHDRSZ reads one int, which lives on this stack.
    check(unsafe { libc::ioctl(tap.as_raw_fd(), libc::TUNSETVNETHDRSZ, &raw const bytes) })?;
    set_offloads(&tap, 0)?;
    Ok(tap)
}

/// Which unfinished frames the reader of the tap takes (`TUN_F_*`).
pub(crate) fn set_offloads(tap: &File, flags: u32) -> io::Result<()> {
    // SAFETY: TUNSETOFFLOAD takes an integer, not a pointer.
    check(unsafe { libc::ioctl(tap.as_raw_fd(), libc::TUNSETOFFLOAD, libc::c_ulong::from(flags)) })
}

/// Borrows a descriptor from the value that owns it but can only tell its number.
pub(crate) fn borrow<T>(_owner: &T, fd: RawFd) -> BorrowedFd<'_> {
    // SAFETY: `fd` is the owner's own descriptor, open as long as the owner lives, which the lifetime says.
    unsafe { BorrowedFd::borrow_raw(fd) }
}

/// Makes all of `memory` the memory of `vm`. The caller keeps `memory` for as long as `vm` lives.
pub(crate) fn register_memory(vm: &VmFd, memory: &Memory) -> Result<(), kvm_ioctls::Error> {
    for (slot, region) in (0..).zip(memory.iter()) {
        let host =
            region.get_host_address(vm_memory::MemoryRegionAddress(0)).expect("a mapped region has its first byte");
        let description = kvm_userspace_memory_region {
            slot,
            flags: 0,
            guest_phys_addr: region.start_addr().0,
            memory_size: region.len(),
            userspace_addr: host as u64,
        };
        // SAFETY: the range is one mapping of exactly this length, shared with nothing but the monitor's own volatile
        // accesses, and the caller keeps it mapped as long as the machine lives.
        unsafe { vm.set_user_memory_region(description) }?;
    }
    Ok(())
}

/// Borrows the descriptor of an event.
pub(crate) fn borrow_event(event: &EventFd) -> BorrowedFd<'_> {
    borrow(event, event.as_raw_fd())
}
