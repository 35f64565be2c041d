//! What lies in the maps that tell of drops beyond their plain count: those of the kernel itself, and evidence.
//!
//! | map | kind | key → value | written by | read by |
//! |---|---|---|---|---|
//! | `KERNEL_DROPS` | hash, [`KERNEL_DROPS_MAX`] | [`KernelDropKey`] → [`KernelDropCell`] | `book_kernel` (atomic) | control |
//! | `KERNEL_DROPS_REST` | array, `PORT_SLOTS` | port id → [`KernelDropCell`] | `book_kernel`, when the hash is full | control |
//! | `KERNEL_DROP` | program array, 1 | → `book_kernel` of the daemon that counts | control | `kernel_drop` |
//! | `EVENTS` | ring buffer, [`EVENTS_BYTES`] | [`Evidence`] | reflex | the daemon |
//! | `EVIDENCE_TURNS` | array, `PORT_SLOTS` | port id → [`EvidenceTurns`] | reflex | reflex |
//! | `EVIDENCE_COUNTS` | array, 1 | → [`EvidenceCounts`] | reflex (atomic) | control |

use crate::{DropCell, REASON_SLOTS};

/// Different (port, side, reason) that the kernel's drops are told apart by.
pub const KERNEL_DROPS_MAX: usize = 16_384;
/// Size of the ring buffer of evidence.
pub const EVENTS_BYTES: usize = 1 << 18;
/// Bytes kept of a frame.
pub const EVIDENCE_BYTES_MAX: usize = 128;

/// It is not known on which side of the port the kernel dropped; else the number of a [`crate::Way`].
pub const WAY_UNKNOWN: u16 = 2;

/// Whose drop, and why.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct KernelDropKey {
    /// Number in the kernel's own `enum skb_drop_reason`, which differs from kernel to kernel.
    pub reason: u32,
    /// Port id.
    pub port: u16,
    /// The number of a [`crate::Way`], or [`WAY_UNKNOWN`].
    pub way: u16,
}

/// What the kernel dropped for one reason.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KernelDropCell {
    /// Frames and bytes.
    pub dropped: DropCell,
    /// The second that evidence was kept in last.
    pub evidence_second: u32,
    /// Nothing.
    pub reserved: u32,
}

/// The seconds that evidence was kept in last, by way × [`REASON_SLOTS`] + reason.
pub type EvidenceTurns = [u32; 2 * REASON_SLOTS];

/// How much evidence there was. Produced = lost + delivered + what still waits in the ring.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EvidenceCounts {
    /// Frames whose turn it was.
    pub produced: u64,
    /// Of these: those that found the ring full.
    pub lost: u64,
}

/// The reason in [`Evidence`] is a [`crate::DropReason`].
pub const EVIDENCE_OURS: u16 = 0;
/// The reason in [`Evidence`] is one of the kernel's.
pub const EVIDENCE_KERNEL: u16 = 1;

/// The beginning of one frame that did not arrive.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Evidence {
    /// When: `bpf_ktime_get_ns`, the monotonic clock.
    pub time_ns: u64,
    /// Why, as a number of `origin`'s.
    pub reason: u32,
    /// Length of the frame in bytes, tags included.
    pub length: u32,
    /// Port id.
    pub port: u16,
    /// The number of a [`crate::Way`], or [`WAY_UNKNOWN`].
    pub way: u16,
    /// `EVIDENCE_*`: whose reason.
    pub origin: u16,
    /// How many of `bytes` there are.
    pub captured: u16,
    /// The frame's first bytes, its tags included; zeros behind them.
    pub bytes: [u8; EVIDENCE_BYTES_MAX],
}

/// Where things are in the running kernel's memory, and what some of its reasons are called there. Found in its BTF
/// when the programs are loaded, and constant for them. Offsets are in bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KernelLayout {
    /// Number of the network namespace that the ports are in.
    pub netns: u32,
    /// `sk_buff.dev`.
    pub skb_dev: u32,
    /// `sk_buff.skb_iif`.
    pub skb_iif: u32,
    /// `sk_buff.len`.
    pub skb_len: u32,
    /// `sk_buff.data_len`.
    pub skb_data_len: u32,
    /// `sk_buff.head`.
    pub skb_head: u32,
    /// `sk_buff.data`.
    pub skb_data: u32,
    /// `sk_buff.mac_header`.
    pub skb_mac_header: u32,
    /// `sk_buff.vlan_proto`.
    pub skb_vlan_proto: u32,
    /// `sk_buff.vlan_tci`.
    pub skb_vlan_tci: u32,
    /// The word that tells whether there is a tag beside the bytes: any bit of `skb_vlan_mask` says so.
    pub skb_vlan_word: u32,
    /// See `skb_vlan_word`.
    pub skb_vlan_mask: u32,
    /// `sk_buff.mark`.
    pub skb_mark: u32,
    /// `net_device.ifindex`.
    pub dev_ifindex: u32,
    /// `net_device.nd_net.net`.
    pub dev_net: u32,
    /// `net.ns.inum`.
    pub net_inum: u32,
    /// `SKB_DROP_REASON_TC_INGRESS`: our own program said so, and has booked it.
    pub reason_tc_ingress: u32,
    /// `SKB_DROP_REASON_PACKET_SOCK_ERROR`: a sniffer's copy; the frame itself goes on. `u32::MAX` where there is none.
    pub reason_packet_socket: u32,
}

const _: () = {
    assert!(size_of::<KernelDropKey>() == 8);
    assert!(size_of::<KernelDropCell>() == 24);
    assert!(size_of::<EvidenceCounts>() == 16);
    assert!(size_of::<Evidence>() == 24 + EVIDENCE_BYTES_MAX);
    assert!(size_of::<KernelLayout>() == 18 * 4);
};

#[cfg(feature = "user")]
mod pod {
    #![expect(unsafe_code, reason = "`aya::Pod` is an unsafe trait: the type must be plain data without padding")]
    use super::{Evidence, EvidenceCounts, KernelDropCell, KernelDropKey, KernelLayout};

    // SAFETY: `repr(C)`, integers only; the sizes asserted above equal the sums of the fields, so there is no padding.
    unsafe impl aya::Pod for KernelDropKey {}
    // SAFETY: as above.
    unsafe impl aya::Pod for KernelDropCell {}
    // SAFETY: as above.
    unsafe impl aya::Pod for EvidenceCounts {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Evidence {}
    // SAFETY: as above.
    unsafe impl aya::Pod for KernelLayout {}
}
