//! The system calls that neither aya nor rustix has: `bpf(2)` in batches, the brain's counters as memory, and a wait
//! until every running program has ended.
#![expect(unsafe_code, reason = "raw bpf(2), mmap and membarrier; each block says why it is sound")]

mod heap;
mod load;

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr::NonNull;
use std::time::Duration;

use aya::Pod;
use rustix::mm::{MapFlags, ProtFlags};

use super::brain::BrainCells;

pub(super) use heap::give_back;
#[cfg(test)]
pub(crate) use load::TestClassifier;
pub(super) use load::load_classifier;

const BPF_MAP_LOOKUP_ELEM: libc::c_long = 1;
const BPF_MAP_UPDATE_ELEM: libc::c_long = 2;
const BPF_MAP_DELETE_ELEM: libc::c_long = 3;
const BPF_MAP_GET_NEXT_KEY: libc::c_long = 4;
const BPF_OBJ_GET: libc::c_long = 7;
const BPF_PROG_TEST_RUN: libc::c_long = 10;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_long = 15;
const BPF_MAP_LOOKUP_BATCH: libc::c_long = 24;
const BPF_LINK_DETACH: libc::c_long = 34;
/// `linux/membarrier.h`: returns once every thread has passed a point of full memory order; the kernel waits for an RCU
/// grace period, and programs run within RCU.
const MEMBARRIER_CMD_GLOBAL: libc::c_int = 1;

/// `union bpf_attr` for the batch commands (include/uapi/linux/bpf.h).
#[repr(C)]
#[derive(Default)]
struct BatchAttr {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

/// The same for `BPF_OBJ_GET_INFO_BY_FD`.
#[repr(C)]
struct InfoAttr {
    bpf_fd: u32,
    info_len: u32,
    info: u64,
}

/// The same for `BPF_OBJ_GET`.
#[repr(C)]
#[derive(Default)]
struct PinAttr {
    pathname: u64,
    bpf_fd: u32,
    file_flags: u32,
}

/// The same for `BPF_PROG_TEST_RUN`, as far as a run without output needs it. The context is as much of `struct __sk_buff`
/// as is to be set.
#[repr(C)]
#[derive(Default)]
struct TestAttr {
    program_fd: u32,
    answer: u32,
    data_in_bytes: u32,
    data_out_bytes: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration_ns: u32,
    context_in_bytes: u32,
    context_out_bytes: u32,
    context_in: u64,
    context_out: u64,
}

/// The same for `BPF_LINK_DETACH`.
#[repr(C)]
struct LinkAttr {
    link_fd: u32,
}

/// `struct bpf_link_info` as far as TCX fills it.
#[repr(C)]
#[derive(Default)]
struct LinkInfo {
    kind: u32,
    id: u32,
    program_id: u32,
    padding: u32,
    ifindex: u32,
    attach_type: u32,
    rest: [u64; 8],
}

fn bpf<A>(command: libc::c_long, attr: &mut A) -> io::Result<RawFd> {
    // SAFETY: `attr` is the command's part of `union bpf_attr`, its size is told, and the pointers in it are to buffers
    // that the caller holds with the sizes that the kernel derives from the map.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut *attr, size_of::<A>()) };
    RawFd::try_from(result).ok().filter(|result| *result >= 0).ok_or_else(io::Error::last_os_error)
}

/// Reads a whole map, `values_per_key` values (one per possible CPU, else 1) for each key, up to `chunk` keys per call.
pub(super) fn lookup_all<K: Pod + Default, V: Pod + Default>(
    map: BorrowedFd<'_>,
    chunk: usize,
    values_per_key: usize,
    mut each: impl FnMut(&K, &[V]),
) -> io::Result<()> {
    let mut chunk = chunk;
    let mut keys = vec![K::default(); chunk];
    let mut values = vec![V::default(); chunk * values_per_key];
    let mut token = 0u64;
    let mut started = false;
    loop {
        let mut next = token;
        let mut attr = BatchAttr {
            in_batch: if started { &raw const token as u64 } else { 0 },
            out_batch: &raw mut next as u64,
            keys: keys.as_mut_ptr() as u64,
            values: values.as_mut_ptr() as u64,
            count: u32::try_from(chunk).unwrap_or(u32::MAX),
            map_fd: raw(map),
            ..BatchAttr::default()
        };
        let ended = match bpf(BPF_MAP_LOOKUP_BATCH, &mut attr) {
            Ok(_) => false,
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => true,
            // A hash bucket holds more than there is room for: nothing was read.
            Err(error) if error.raw_os_error() == Some(libc::ENOSPC) => {
                chunk *= 2;
                keys.resize(chunk, K::default());
                values.resize(chunk * values_per_key, V::default());
                continue;
            }
            Err(error) => return Err(error),
        };
        for (key, group) in keys.iter().zip(values.chunks(values_per_key)).take(attr.count as usize) {
            each(key, group);
        }
        if ended {
            return Ok(());
        }
        token = next;
        started = true;
    }
}

/// Reads the first `count` elements of an array in one call, `values_per_key` values for each.
pub(super) fn lookup_first<V: Pod + Default>(
    array: BorrowedFd<'_>,
    count: usize,
    values_per_key: usize,
    mut each: impl FnMut(&[V]),
) -> io::Result<()> {
    let mut keys = vec![0u32; count];
    let mut values = vec![V::default(); count * values_per_key];
    let mut next = 0u32;
    let mut attr = BatchAttr {
        out_batch: &raw mut next as u64,
        keys: keys.as_mut_ptr() as u64,
        values: values.as_mut_ptr() as u64,
        count: u32::try_from(count).unwrap_or(u32::MAX),
        map_fd: raw(array),
        ..BatchAttr::default()
    };
    match bpf(BPF_MAP_LOOKUP_BATCH, &mut attr) {
        // The array ends there.
        Err(error) if error.raw_os_error() != Some(libc::ENOENT) => return Err(error),
        _ => {}
    }
    values.chunks(values_per_key).take(attr.count as usize).for_each(&mut each);
    Ok(())
}

/// `union bpf_attr` for the commands on one element.
#[repr(C)]
#[derive(Default)]
struct ElementAttr {
    map_fd: u32,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// An element's value, if there is one.
pub(super) fn lookup<K: Pod, V: Pod + Default>(map: BorrowedFd<'_>, key: &K) -> io::Result<Option<V>> {
    let mut value = V::default();
    let mut attr = ElementAttr {
        map_fd: raw(map),
        key: &raw const *key as u64,
        value: &raw mut value as u64,
        ..ElementAttr::default()
    };
    match bpf(BPF_MAP_LOOKUP_ELEM, &mut attr) {
        Ok(_) => Ok(Some(value)),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Sets an element.
pub(super) fn update<K: Pod, V: Pod>(map: BorrowedFd<'_>, key: &K, value: &V) -> io::Result<()> {
    let mut attr = ElementAttr {
        map_fd: raw(map),
        key: &raw const *key as u64,
        value: &raw const *value as u64,
        ..ElementAttr::default()
    };
    bpf(BPF_MAP_UPDATE_ELEM, &mut attr).map(drop)
}

/// Deletes an element; `false` when there was none.
pub(super) fn delete<K: Pod>(map: BorrowedFd<'_>, key: &K) -> io::Result<bool> {
    let mut attr = ElementAttr { map_fd: raw(map), key: &raw const *key as u64, ..ElementAttr::default() };
    match bpf(BPF_MAP_DELETE_ELEM, &mut attr) {
        Ok(_) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Runs a classifier once, on a frame of nothing; its answer.
pub(super) fn test_run(program: BorrowedFd<'_>) -> io::Result<u32> {
    // The shortest frame that the kernel takes for a test run.
    let frame = [0u8; 14];
    let mut attr = TestAttr {
        program_fd: raw(program),
        data_in_bytes: u32::try_from(frame.len()).unwrap_or(0),
        data_in: frame.as_ptr() as u64,
        ..TestAttr::default()
    };
    bpf(BPF_PROG_TEST_RUN, &mut attr)?;
    Ok(attr.answer)
}

/// Whether a map has no element.
pub(super) fn is_empty<K: Pod + Default>(map: BorrowedFd<'_>) -> io::Result<bool> {
    let mut first = K::default();
    let mut attr = ElementAttr { map_fd: raw(map), value: &raw mut first as u64, ..ElementAttr::default() };
    match bpf(BPF_MAP_GET_NEXT_KEY, &mut attr) {
        Ok(_) => Ok(false),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(true),
        Err(error) => Err(error),
    }
}

/// `struct bpf_map_info` as far as it says how large a map is.
#[repr(C)]
#[derive(Default)]
struct MapSize {
    kind: u32,
    id: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    map_flags: u32,
}

/// Elements that there is room for in a map.
pub(super) fn map_entries(map: BorrowedFd<'_>) -> io::Result<u32> {
    let mut info = MapSize::default();
    let info_len = u32::try_from(size_of::<MapSize>()).unwrap_or(0);
    let mut attr = InfoAttr { bpf_fd: raw(map), info_len, info: &raw mut info as u64 };
    bpf(BPF_OBJ_GET_INFO_BY_FD, &mut attr)?;
    Ok(info.max_entries)
}

/// The interface a TCX link sits on, 0 when that is gone.
pub(super) fn link_ifindex(link: BorrowedFd<'_>) -> io::Result<u32> {
    let mut info = LinkInfo::default();
    let info_len = u32::try_from(size_of::<LinkInfo>()).unwrap_or(0);
    let mut attr = InfoAttr { bpf_fd: raw(link), info_len, info: &raw mut info as u64 };
    bpf(BPF_OBJ_GET_INFO_BY_FD, &mut attr)?;
    Ok(info.ifindex)
}

/// Takes a link's program off its interface now, whoever else holds the link.
pub(super) fn link_detach(link: BorrowedFd<'_>) -> io::Result<()> {
    bpf(BPF_LINK_DETACH, &mut LinkAttr { link_fd: raw(link) }).map(drop)
}

/// Opens what is pinned at a path.
pub(super) fn open_pin(path: &Path) -> io::Result<OwnedFd> {
    let name = CString::new(path.as_os_str().as_bytes())?;
    let fd = bpf(BPF_OBJ_GET, &mut PinAttr { pathname: name.as_ptr() as u64, ..PinAttr::default() })?;
    // SAFETY: the kernel has just given this descriptor, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn raw(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd().cast_unsigned()
}

/// Longer than any program of ours runs, by orders of magnitude.
const PROGRAM_RUN_MAX: Duration = Duration::from_millis(50);

/// Waits until every program that may have read a map before this call has ended. A kernel with isolated processors
/// (`nohz_full`) refuses the barrier with EINVAL (kernel/sched/membarrier.c); there a pause has to do.
pub(super) fn membarrier() -> io::Result<()> {
    // SAFETY: the command has no pointers.
    let result = unsafe { libc::syscall(libc::SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) };
    if result >= 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    if error.raw_os_error() != Some(libc::EINVAL) {
        return Err(error);
    }
    std::thread::sleep(PROGRAM_RUN_MAX);
    Ok(())
}

/// The map `BRAIN` as memory: what the brain adds there is in the map at once, and stays when the brain dies.
#[derive(Debug)]
pub(super) struct BrainMapping {
    first: NonNull<BrainCells>,
    slots: usize,
}

// SAFETY: the mapping is made of atomics only, and belongs to no thread.
unsafe impl Send for BrainMapping {}
// SAFETY: as above.
unsafe impl Sync for BrainMapping {}

impl BrainMapping {
    /// Maps `slots` elements of an array made with `BPF_F_MMAPABLE`.
    pub(super) fn new(map: BorrowedFd<'_>, slots: usize) -> io::Result<Self> {
        let bytes = slots * size_of::<BrainCells>();
        // SAFETY: a new mapping at an address of the kernel's choosing.
        let at = unsafe {
            rustix::mm::mmap(
                std::ptr::null_mut(),
                bytes,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
                map.as_fd(),
                0,
            )
        }?;
        let first = NonNull::new(at.cast::<BrainCells>()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { first, slots })
    }

    /// The elements.
    pub(super) fn cells(&self) -> &[BrainCells] {
        // SAFETY: the mapping is page-aligned, `slots` elements long and lives as long as `self`; `BrainCells` is made
        // of atomic integers, so that any bytes are valid and others may write meanwhile.
        unsafe { std::slice::from_raw_parts(self.first.as_ptr(), self.slots) }
    }
}

impl Drop for BrainMapping {
    fn drop(&mut self) {
        // SAFETY: the mapping that `new` made; no reference outlives `self`. Nothing is to be done when it fails.
        let _ = unsafe { rustix::mm::munmap(self.first.as_ptr().cast(), self.slots * size_of::<BrainCells>()) }.ok();
    }
}

const _: () = assert!(size_of::<BatchAttr>() == 56);

/// Runs a classifier so many times on a frame of a netdev; its answer, and the nanoseconds of one run.
#[cfg(test)]
pub(super) fn timed_run(program: BorrowedFd<'_>, frame: &[u8], ifindex: u32, repeat: u32) -> io::Result<(u32, u32)> {
    // `len`, `pkt_type`, `mark`, `queue_mapping`, `protocol`, three of VLAN, `priority`, `ingress_ifindex`, `ifindex`.
    let context = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, ifindex];
    let mut attr = TestAttr {
        program_fd: raw(program),
        data_in_bytes: u32::try_from(frame.len()).unwrap_or(0),
        data_in: frame.as_ptr() as u64,
        repeat,
        context_in_bytes: u32::try_from(size_of_val(&context)).unwrap_or(0),
        context_in: context.as_ptr() as u64,
        ..TestAttr::default()
    };
    bpf(BPF_PROG_TEST_RUN, &mut attr)?;
    Ok((attr.answer, attr.duration_ns))
}

/// Loads a classifier of these instructions (`struct bpf_insn`).
#[cfg(test)]
pub(super) fn load_words(instructions: &[u64]) -> io::Result<OwnedFd> {
    const BPF_PROG_LOAD: libc::c_long = 5;
    const SCHED_CLS: u32 = 3;
    #[repr(C)]
    struct LoadAttr {
        kind: u32,
        instructions: u32,
        instruction: u64,
        license: u64,
    }
    let mut attr = LoadAttr {
        kind: SCHED_CLS,
        instructions: u32::try_from(instructions.len()).unwrap_or(0),
        instruction: instructions.as_ptr() as u64,
        license: c"MIT".as_ptr() as u64,
    };
    let fd = bpf(BPF_PROG_LOAD, &mut attr)?;
    // SAFETY: the kernel has just made this descriptor for us, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
