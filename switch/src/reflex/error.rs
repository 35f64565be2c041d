//! What can go wrong between the switch and its kernel half, and what to do about it.

use std::io;
use std::path::PathBuf;

/// One variant per step that can fail.
#[derive(Debug, thiserror::Error)]
pub enum ReflexError {
    /// The kernel lets nobody but root load programs here.
    #[error("not permitted to load eBPF programs; run as root, or with CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON")]
    NotPermitted,
    /// There is no bpffs, and it could not be mounted.
    #[error("no bpffs at {path}; mount it: mount -t bpf bpf /sys/fs/bpf")]
    NoBpffs {
        /// Where it was looked for.
        path: PathBuf,
        /// Why it could not be mounted.
        #[source]
        source: io::Error,
    },
    /// The pin directory could not be read or changed.
    #[error("cannot use the pin {path}; `weft down` takes a dead instance away")]
    Pin {
        /// The pin.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The kernel refused the maps or the object as a whole.
    #[error("the kernel refused the eBPF object; `weft doctor` says what this kernel lacks")]
    Object {
        /// Why.
        #[source]
        source: Box<aya::EbpfError>,
    },
    /// The kernel refused a program.
    #[error("the kernel refused the program '{program}'; `weft doctor` says what this kernel lacks")]
    Program {
        /// Its name.
        program: &'static str,
        /// Why, with the verifier's log.
        #[source]
        source: Box<aya::programs::ProgramError>,
    },
    /// The kernel refused the program that the filters were made into.
    #[error("this filter cannot be run in the kernel; try a simpler one")]
    Filter {
        /// Why, with the end of the verifier's log.
        #[source]
        source: io::Error,
    },
    /// The embedded object is not the one that this library was written for.
    #[error("the embedded eBPF object has no {what}; rebuild it with `cargo xtask ebpf` and build again")]
    Foreign {
        /// What it lacks.
        what: String,
    },
    /// A map could not be read or written.
    #[error("the map {map} cannot be used")]
    Map {
        /// Its name.
        map: &'static str,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The verdict map was handed out before.
    #[error("the verdict map has been taken before; only one loop may own it")]
    VerdictsTaken,
    /// TCX was asked for, and this kernel has none.
    #[error("this kernel has no TCX (it came with 6.6); use --hook clsact or auto")]
    NoTcx,
    /// A program could not be put on a netdev, or taken off it.
    #[error("cannot change the programs of interface {ifname}; see whether it still exists: ip link show {ifname}")]
    Attach {
        /// The netdev.
        ifname: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The interface was renamed or made anew while it was being attached.
    #[error("interface {ifname} is not number {ifindex} any more; try again")]
    Moved {
        /// The netdev's name.
        ifname: String,
        /// The number it was to have.
        ifindex: u32,
    },
}

impl ReflexError {
    pub(super) fn map<E: Into<Box<dyn std::error::Error + Send + Sync>>>(map: &'static str) -> impl FnOnce(E) -> Self {
        move |source| Self::Map { map, source: source.into() }
    }

    pub(super) fn attach<E: Into<Box<dyn std::error::Error + Send + Sync>>>(ifname: &str) -> impl FnOnce(E) -> Self {
        move |source| Self::Attach { ifname: ifname.to_owned(), source: source.into() }
    }

    pub(super) fn pin(path: &std::path::Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Pin { path: path.to_path_buf(), source }
    }

    /// Says `NotPermitted` when that is what is at the bottom of an error.
    pub(super) fn or_not_permitted(self) -> Self {
        let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&self);
        while let Some(error) = cause {
            // EPERM alone: EACCES is what the verifier says of a program it does not believe.
            if error.downcast_ref::<io::Error>().is_some_and(|io| io.raw_os_error() == Some(libc::EPERM)) {
                return Self::NotPermitted;
            }
            cause = error.source();
        }
        self
    }
}
