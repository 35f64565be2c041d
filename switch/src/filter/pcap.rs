//! libpcap, loaded when it is first needed: it compiles expressions, and nothing else.
#![expect(unsafe_code, reason = "calls into a C library that is loaded at run time; each block says why it is sound")]

use std::ffi::{CStr, CString, c_char, c_int, c_uint, c_void};
use std::sync::{Mutex, OnceLock, PoisonError};

use libloading::Library;

use super::instruction::{INSTRUCTIONS_MAX, Raw};

/// `DLT_EN10MB` (`pcap/dlt.h`).
const ETHERNET: c_int = 1;
/// As tcpdump's default: frames are whole.
const SNAPLEN: c_int = 65_535;
/// `PCAP_NETMASK_UNKNOWN` (`pcap/pcap.h`).
const NETMASK_UNKNOWN: c_uint = u32::MAX;
/// Names of the library: Debian's, everybody else's.
const NAMES: [&str; 2] = ["libpcap.so.0.8", "libpcap.so.1"];

/// `struct bpf_program` (`pcap/bpf.h`).
#[repr(C)]
struct RawProgram {
    length: c_uint,
    instructions: *mut Raw,
}

/// `pcap_t`.
type Handle = c_void;

/// The functions that are used, as `pcap/pcap.h` declares them.
pub(super) struct Pcap {
    open_dead: unsafe extern "C" fn(c_int, c_int) -> *mut Handle,
    compile: unsafe extern "C" fn(*mut Handle, *mut RawProgram, *const c_char, c_int, c_uint) -> c_int,
    error_text: unsafe extern "C" fn(*mut Handle) -> *mut c_char,
    free_code: unsafe extern "C" fn(*mut RawProgram),
    close: unsafe extern "C" fn(*mut Handle),
    #[cfg(test)]
    pub(super) offline_filter: unsafe extern "C" fn(*const RawProgram, *const PacketHeader, *const u8) -> c_int,
    /// One expression at a time: compiling was not safe in several threads before libpcap 1.8.
    turn: Mutex<()>,
    /// Keeps the functions where they are.
    _library: Library,
}

/// The library, loaded once; or why it cannot be, every time anew.
pub(super) fn library() -> Result<&'static Pcap, String> {
    static LIBRARY: OnceLock<Pcap> = OnceLock::new();
    if let Some(library) = LIBRARY.get() {
        return Ok(library);
    }
    let loaded = Pcap::load(&NAMES)?;
    Ok(LIBRARY.get_or_init(|| loaded))
}

impl Pcap {
    fn load(names: &[&str]) -> Result<Self, String> {
        // SAFETY: libpcap runs nothing when it is loaded.
        let library = names.iter().find_map(|name| unsafe { Library::new(name) }.ok()).ok_or_else(|| {
            format!(
                "filters are compiled by libpcap, which is not installed ({}); install the package libpcap0.8 (Debian, Ubuntu) or libpcap",
                names.join(", ")
            )
        })?;
        /// A function by its name, of the type that the field has.
        macro_rules! function {
            ($name:literal) => {
                // SAFETY: the field's type is the declaration in `pcap/pcap.h`, which has not changed since libpcap 0.8.
                *unsafe { library.get(concat!($name, "\0").as_bytes()) }
                    .map_err(|error| format!("this libpcap cannot be used: {error}; install the package libpcap0.8"))?
            };
        }
        Ok(Self {
            open_dead: function!("pcap_open_dead"),
            compile: function!("pcap_compile"),
            error_text: function!("pcap_geterr"),
            free_code: function!("pcap_freecode"),
            close: function!("pcap_close"),
            #[cfg(test)]
            offline_filter: function!("pcap_offline_filter"),
            turn: Mutex::new(()),
            _library: library,
        })
    }

    /// Compiles an expression, optimised.
    ///
    /// # Errors
    /// What libpcap says.
    pub(super) fn compile(&self, expression: &str) -> Result<Vec<Raw>, String> {
        self.with_compiled(expression, |program| {
            let length = program.length as usize;
            if program.instructions.is_null() || length > INSTRUCTIONS_MAX {
                return Err(format!("the filter becomes {length} instructions; at most {INSTRUCTIONS_MAX} are taken"));
            }
            // SAFETY: libpcap says that so many instructions lie there, until the program is freed.
            Ok(unsafe { std::slice::from_raw_parts(program.instructions, length) }.to_vec())
        })?
    }

    /// Compiles an expression, hands over what libpcap made of it, and frees that.
    fn with_compiled<T>(&self, expression: &str, then: impl FnOnce(&RawProgram) -> T) -> Result<T, String> {
        let text = CString::new(expression).map_err(|_nul| "the filter has a NUL byte in it".to_owned())?;
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: makes a handle of its own.
        let handle = unsafe { (self.open_dead)(ETHERNET, SNAPLEN) };
        if handle.is_null() {
            return Err("libpcap has no memory".to_owned());
        }
        let mut program = RawProgram { length: 0, instructions: std::ptr::null_mut() };
        // SAFETY: handle, program and text live until the call returns.
        let failed = unsafe { (self.compile)(handle, &raw mut program, text.as_ptr(), 1, NETMASK_UNKNOWN) } != 0;
        let answer = if failed {
            // SAFETY: the handle's own text, valid until the handle is closed.
            let said = unsafe { (self.error_text)(handle) };
            // SAFETY: a C string, as above.
            Err(unsafe { CStr::from_ptr(said) }.to_string_lossy().into_owned())
        } else {
            let answer = then(&program);
            // SAFETY: what `compile` has filled in.
            unsafe { (self.free_code)(&raw mut program) };
            Ok(answer)
        };
        // SAFETY: the handle that was opened above; nobody has it any more.
        unsafe { (self.close)(handle) };
        answer
    }
}

/// `struct pcap_pkthdr`.
#[cfg(test)]
#[repr(C)]
pub(super) struct PacketHeader {
    time: [libc::time_t; 2],
    captured: u32,
    length: u32,
}

#[cfg(test)]
impl Pcap {
    /// What libpcap's own interpreter says of frames, each with the length that it had.
    pub(super) fn judge(
        &self,
        raw: &[Raw],
        frames: &mut dyn Iterator<Item = (&[u8], u32)>,
        mut each: impl FnMut(bool),
    ) {
        let mut raw = raw.to_vec();
        let program = RawProgram { length: raw.len().try_into().unwrap(), instructions: raw.as_mut_ptr() };
        for (bytes, length) in frames {
            let header = PacketHeader { time: [0; 2], captured: bytes.len().try_into().unwrap(), length };
            // SAFETY: the program's instructions and the frame's bytes are there, as many as is said.
            each(unsafe { (self.offline_filter)(&raw const program, &raw const header, bytes.as_ptr()) } != 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_absent_library_is_said_with_the_name_of_its_package() {
        let Err(message) = Pcap::load(&["libpcap.so.none-of-this-name"]) else { panic!("it was found") };
        assert!(message.contains("libpcap0.8"), "{message}");
        // The control.
        assert!(Pcap::load(&NAMES).is_ok());
    }
}
