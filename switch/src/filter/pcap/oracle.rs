//! libpcap as a witness for tests: its own interpreter, its own reader of files.
#![expect(clippy::unwrap_used, reason = "a test that panics has failed")]

use std::ffi::{CString, c_char, c_int, c_uint, c_void};
use std::path::Path;

use super::{Pcap, RawProgram};
use crate::filter::Raw;

/// `struct pcap_pkthdr`.
#[repr(C)]
struct PacketHeader {
    time: [libc::time_t; 2],
    captured: u32,
    length: u32,
}

/// The beginning of a frame, and how long all of it was.
#[derive(Clone, Debug)]
pub(in crate::filter) struct Seen {
    pub(in crate::filter) bytes: Vec<u8>,
    pub(in crate::filter) length: u32,
}

impl Pcap {
    /// What libpcap's own interpreter says of frames.
    pub(in crate::filter) fn judge(&self, raw: &[Raw], frames: &[Seen]) -> Vec<bool> {
        // SAFETY: as `pcap/pcap.h` declares it.
        let filter = unsafe {
            self.library.get::<unsafe extern "C" fn(*const RawProgram, *const PacketHeader, *const u8) -> c_int>(
                b"pcap_offline_filter\0",
            )
        }
        .unwrap();
        let mut raw = raw.to_vec();
        let program = RawProgram { length: c_uint::try_from(raw.len()).unwrap(), instructions: raw.as_mut_ptr() };
        let judge = |frame: &Seen| {
            let captured = u32::try_from(frame.bytes.len()).unwrap();
            let header = PacketHeader { time: [0; 2], captured, length: frame.length };
            // SAFETY: the program's instructions and the frame's bytes are there, as many as is said.
            unsafe { filter(&raw const program, &raw const header, frame.bytes.as_ptr()) != 0 }
        };
        frames.iter().map(judge).collect()
    }

    /// All frames of a file, of whatever link type; those up to a fault when it has one.
    pub(in crate::filter) fn read(&self, file: &Path) -> Vec<Seen> {
        type Open = unsafe extern "C" fn(*const c_char, *mut c_char) -> *mut c_void;
        type Next = unsafe extern "C" fn(*mut c_void, *mut *const PacketHeader, *mut *const u8) -> c_int;
        // SAFETY: as `pcap/pcap.h` declares it.
        let open = unsafe { self.library.get::<Open>(b"pcap_open_offline\0") }.unwrap();
        // SAFETY: as above.
        let next = unsafe { self.library.get::<Next>(b"pcap_next_ex\0") }.unwrap();
        let name = CString::new(file.to_str().unwrap()).unwrap();
        let mut problem = [0; 256];
        // SAFETY: a name, and room for a message of `PCAP_ERRBUF_SIZE`.
        let handle = unsafe { open(name.as_ptr(), problem.as_mut_ptr()) };
        let mut frames = Vec::new();
        if handle.is_null() {
            return frames;
        }
        let (mut header, mut bytes) = (std::ptr::null(), std::ptr::null());
        // SAFETY: an open handle, and room for two pointers.
        while unsafe { next(handle, &raw mut header, &raw mut bytes) } == 1 {
            // SAFETY: libpcap has just said that both are there.
            let header: &PacketHeader = unsafe { &*header };
            // SAFETY: as above.
            let bytes = unsafe { std::slice::from_raw_parts(bytes, header.captured as usize) };
            frames.push(Seen { bytes: bytes.to_vec(), length: header.length });
        }
        // SAFETY: the handle that was opened above.
        unsafe { (self.close)(handle) };
        frames
    }
}
