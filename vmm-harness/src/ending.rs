//! How a guest ended, and why one could not be started.
//!
//! The two are kept apart: an [`Error`] is the host's trouble (no `/dev/kvm`, a tap in use, a kernel that is none); an
//! [`Ending`] is what the guest did. Each prints as one line, and an error says what to do about it.

use std::io;
use std::path::PathBuf;

use crate::config::{ATTACKS, MacAddr};

/// Why a guest could not be started. What the kernel answered is the error's source.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// `/dev/kvm` could not be opened.
    #[error("cannot open /dev/kvm: {0}; {advice}", advice = way_to_kvm(*.0))]
    NoKvm(kvm_ioctls::Error),
    /// A request to KVM failed.
    #[error("KVM refused to {what}")]
    Kvm {
        /// What was asked of it.
        what: &'static str,
        /// What it answered.
        source: kvm_ioctls::Error,
    },
    /// Another process holds the tap.
    #[error("tap {0} is in use by another process: end that one, or name another tap with --tap")]
    TapBusy(String),
    /// A netdev of that name is no tap, or one of another kind.
    #[error("{0} is there and no tap of a single queue: name another with --tap, or delete it (`ip link del {0}`)")]
    NoTap(String),
    /// Only root may make taps, or open those of others.
    #[error(
        "no permission for tap {name} (run as root, or have root make it: \
         `ip tuntap add dev {name} mode tap user NAME vnet_hdr`)"
    )]
    TapDenied {
        /// The tap.
        name: String,
        /// What the kernel answered.
        source: io::Error,
    },
    /// `/dev/net/tun` is not there.
    #[error("the kernel offers no taps (load the module: `modprobe tun`): /dev/net/tun")]
    NoTun(#[source] io::Error),
    /// The tap could not be opened or set up.
    #[error("cannot open tap {name}")]
    Tap {
        /// The tap.
        name: String,
        /// What the kernel answered.
        source: io::Error,
    },
    /// A tap's name must be 1 to 15 bytes long.
    #[error("{0:?} is no name for a tap (1 to 15 bytes, no slash, no space)")]
    TapName(String),
    /// Memory for the guest could not be mapped.
    #[error("cannot map {mib} MiB for the guest: {reason}")]
    Memory {
        /// How much was asked for.
        mib: u64,
        /// Why not.
        reason: String,
    },
    /// The size of memory is out of range.
    #[error("memory of {0} MiB is out of range: give --mem 16 to 3072")]
    MemorySize(u64),
    /// The number of processors is out of range.
    #[error("{0} processors are out of range: give --cpus 1 to 16")]
    Cpus(u8),
    /// A hostile guest does not know the attack.
    #[error("there is no attack {0:?}: give --attack one of {names}", names = ATTACKS.join(", "))]
    AttackName(String),
    /// A guest's own address must be one that a station can have.
    #[error("{0} can be no guest's address: give --mac one that is not zero and whose first octet is even")]
    GuestMac(MacAddr),
    /// A talker needs somebody to talk to.
    #[error("a talker needs a peer that answers: give --peer its IPv4 address")]
    NoPeer,
    /// A file could not be read.
    #[error("cannot read {path}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the kernel answered.
        source: io::Error,
    },
    /// The kernel is no kernel.
    #[error(
        "{path} is no kernel that can be booted: {reason}; --guest linux takes a bzImage (such as /boot/vmlinuz-*), \
         the others an ELF image (made by `cargo xtask micro`)"
    )]
    Kernel {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The initial file system does not fit.
    #[error("initrd of {initrd} bytes does not fit into {mib} MiB of memory beside the kernel: give more with --mem")]
    Initrd {
        /// Its length.
        initrd: u64,
        /// The guest's memory.
        mib: u64,
    },
    /// The kernel's command line is malformed.
    #[error("command line: {0}")]
    Cmdline(String),
    /// No image of the micro guest is known.
    #[error("no image of the micro guest: name one with --kernel")]
    NoMicroGuest,
    /// Something that the guest's memory was to hold before boot did not fit.
    #[error("cannot write {0} into the guest's memory")]
    Layout(&'static str),
    /// A thread, an event or a signal could not be set up.
    #[error("cannot {what}")]
    Host {
        /// What was to be done.
        what: &'static str,
        /// What the kernel answered.
        source: io::Error,
    },
}

/// What to do when `/dev/kvm` does not open.
fn way_to_kvm(error: kvm_ioctls::Error) -> &'static str {
    match error.errno() {
        libc::EACCES | libc::EPERM => "run as root, or join the group that it belongs to (`usermod -aG kvm NAME`)",
        _ => "load kvm_intel or kvm_amd; the firmware, or the outer virtual machine, must allow virtualization",
    }
}

/// How a guest ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Ending {
    /// It wrote an exit code to the exit port.
    #[error("exited with code {0}")]
    Exited(u8),
    /// It powered itself off or asked for a reset.
    #[error("powered off")]
    PoweredOff,
    /// The monitor stopped it.
    #[error("stopped")]
    Stopped,
    /// A triple fault.
    #[error("triple fault")]
    TripleFault,
    /// The processor or KVM could not go on.
    #[error("the processor stopped: {0}")]
    Processor(String),
    /// It did not start its network driver in time.
    #[error("no driver took the network device within {0} s (a slow machine needs a longer --driver-timeout)")]
    NoDriver(u64),
    /// It broke the rules of the device.
    #[error("{0}")]
    Device(#[from] Fault),
}

impl Ending {
    /// Whether the guest ended of its own will and content.
    pub const fn is_good(&self) -> bool {
        matches!(self, Self::Exited(0) | Self::PoweredOff | Self::Stopped)
    }
}

/// A rule of the device that the guest broke. It ends the guest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// A ring does not lie in memory or is not aligned.
    #[error("queue {0}: the rings are misaligned or not in memory")]
    Rings(u16),
    /// The size of a queue is zero, no power of two, or too large.
    #[error("queue {queue}: size {size} is none that the device offers")]
    QueueSize {
        /// The queue.
        queue: u16,
        /// The size.
        size: u32,
    },
    /// `DRIVER_OK` without an agreement on features, or without the queues.
    #[error("DRIVER_OK before {0}")]
    Premature(&'static str),
    /// The index of the available ring is further ahead than the queue is long.
    #[error("queue {0}: the available index jumped beyond the queue's size")]
    IndexJump(u16),
    /// A chain that loops, leaves the table, or has a broken indirect table.
    #[error("queue {0}: a descriptor chain loops or leaves its table")]
    Chain(u16),
    /// A descriptor whose buffer does not lie in memory.
    #[error("queue {0}: a descriptor's buffer is not in memory")]
    Buffer(u16),
    /// A buffer that the device may not read, or may not write.
    #[error("queue {0}: a descriptor has the wrong direction")]
    Direction(u16),
    /// A frame longer than any that a tap takes.
    #[error("transmit chain of {0} bytes is longer than any frame")]
    TooLong(u64),
    /// A chain too short for the header in front of each frame.
    #[error("queue {queue}: chain of {bytes} bytes is shorter than the frame's header")]
    NoHeader {
        /// The queue.
        queue: u16,
        /// Its length.
        bytes: u64,
    },
    /// Kicks without end and without anything to do.
    #[error("queue {queue}: kicked {kicks} times with nothing to do")]
    IdleKicks {
        /// The queue.
        queue: u16,
        /// How often.
        kicks: u64,
    },
}
