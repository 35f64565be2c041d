//! What lies in the maps. A change here is a change of [`LAYOUT_VERSION`].
//!
//! | map | kind | key → value | written by | read by |
//! |---|---|---|---|---|
//! | `SETTINGS` | array, 1 | → [`Settings`] | brain | reflex |
//! | `LINKS` | array, [`LINK_SLOTS`] | ifindex → port id (`u32`, 0 none) | control | reflex |
//! | `LINKS_HIGH` | hash | ifindex (`u32`) → port id (`u32`) | control | reflex, when ifindex ≥ [`LINK_SLOTS`] |
//! | `PORTS` | array, [`PORT_SLOTS`] | port id → [`PortConfig`] | control | reflex |
//! | `BUCKETS` | array, [`PORT_SLOTS`] | port id → [`PortBuckets`] | reflex | reflex |
//! | `VERDICTS` | hash, [`VERDICTS_MAX`] | [`PairKey`] → [`PairVerdict`] | brain; `last_seen` and the armed bit: reflex | reflex, brain (aging) |
//! | `COUNTERS` | per-CPU array, [`PORT_SLOTS`] | port id → [`PortCounters`] | reflex | control |
//! | `DROPS` | array, [`PORT_SLOTS`] | port id → [`PortDrops`] | reflex (atomic) | control |
//! | `PUNTS` | array, 1 | → `u64` punted since load (atomic) | reflex | reflex, control |
//! | `FLOWS4` | hash, [`FLOWS_MAX`] by default | [`crate::flow::FlowKey4`] → [`crate::flow::FlowValue`] | reflex; deleted by the observer | reflex, observer |
//! | `FLOWS6` | hash, half as many | [`crate::flow::FlowKey6`] → [`crate::flow::FlowValue6`] | the same | the same |
//! | `TEMPLATE` | per-CPU array, 1 | → [`crate::flow::FlowValue6`], what a new flow begins with; not pinned | reflex | reflex |
//! | `SHAPE`, `FORGOTTEN` | per-CPU arrays, 1 | what the reflex reads of a frame that is not plain; not pinned | reflex | reflex |
//! | `BRAIN` | array, mmapable, [`PORT_SLOTS`] | port id → [`BrainPort`]; slot 0 is the switch itself | the brain's loop; `unobserved*`: control | reflex (`settled`, `unobserved`), control |
//!
//! **Epochs.** Each punted frame belongs to the even or to the odd epoch: to the one that [`SETTING_EPOCH`] named when the
//! reflex counted it. Its tag says so, so that the brain settles it in the same. Once no frame of an epoch is on its way any
//! more, what was punted in it and not settled is lost, whatever the other epoch's frames do meanwhile. Each epoch has
//! counters of its own, not a share of the total: a difference of two numbers that others add to is never exact.
//!
//! **Flows.** Every frame that the reflex accepts (all but those of a port that is down, and what is malformed or a bad offload) is
//! accounted before its verdict: to its flow, to its port's `overflow` when there is no room for another flow, or to its port's
//! `unparsable`. A flow carries a copy of its pair's verdict, good while its port's [`BrainPort::generation`] is the one that was
//! read before the pair; and for at most 64 jiffies, so that a pair in use is seen to be in use.
//!
//! **Death of a flow** is a rule, not an act: when its last frame is older than [`Settings::flow_idle_jiffies`] (after FIN or RST:
//! [`Settings::flow_closed_jiffies`]), or it is marked closed, no program touches it again; the tuple goes on in an entry whose key
//! has [`crate::flow::FLOW_ALTERNATE`]. So the observer can read a dead entry, wait for a grace period, see that nothing was added, and
//! delete it without losing a frame.
//!
//! **Elements are reused.** A preallocated element that is deleted may be another key's at once, while a program still looks at it.
//! So each value repeats its key ([`PairVerdict::key`] whole, [`crate::flow::FlowValue::echo`] mixed), and a program that finds another
//! key's takes it for a miss.

use crate::DropReason;

/// Version of everything in this file; part of the pin path, so that two layouts never meet.
pub const LAYOUT_VERSION: u32 = 4;

/// Entries of the arrays indexed by port id (0 to 4095).
pub const PORT_SLOTS: usize = 4096;
/// Entries of the array indexed by interface index; larger indices are in `LINKS_HIGH`.
pub const LINK_SLOTS: usize = 65_536;
/// Entries of `LINKS_HIGH`.
pub const LINKS_HIGH_MAX: usize = 4096;
/// Station pairs whose verdict the kernel remembers.
pub const VERDICTS_MAX: usize = 131_072;
/// Flows over IPv4 (and over no IP) by default; over IPv6 half as many.
pub const FLOWS_MAX: u32 = 262_144;
/// Copies of verdicts are looked up anew when the low bits of the clock in jiffies turn over: every 64 (0.06 to 0.64 s).
pub const FLOW_RECHECK_SHIFT: u32 = 6;
/// Room for drop reasons, more than there are.
pub const REASON_SLOTS: usize = 32;

/// TPID of the punt tag (IEEE 802.1Q-2022, table 9-1: S-VLAN).
pub const PUNT_TPID: u16 = 0x88a8;
/// Bits of the punt tag that hold the port id.
pub const PUNT_ID_MASK: u16 = 0x0fff;
/// In the place of a port's id in the tag of an injected frame: the copies are the reflex's to make, one for each port of the list in
/// [`BrainPort::flood_port`]. Another tag of the same type follows, whose id is the port that the frame came in by and that gets none.
pub const FLOOD_ID: u16 = 0x0fff;
/// Bit of the punt tag (its DEI) that is set in frames of the odd epoch.
pub const PUNT_EPOCH_BIT: u16 = 0x1000;

/// Frames of one port that may be on their way to the brain at once. A quarter of what all ports may have together, so
/// that a port whose frames the kernel frees on the way denies nobody else the brain.
pub const PUNT_IN_FLIGHT_PORT_MAX: u64 = 2048;

/// The smallest segment size accepted from a guest: Linux's own `TCP_MIN_SND_MSS` (include/net/tcp.h). Below it one
/// 64 KiB write becomes tens of thousands of wire frames.
pub const GSO_SIZE_MIN: u16 = 48;

/// What both programs read once per frame. One element, written by the brain.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Interface index of the punt tap.
    pub punt_ifindex: u32,
    /// `SETTING_*`.
    pub flags: u32,
    /// Frames that may be on their way to the brain at once, over all ports; below the punt tap's ring size, so that
    /// the ring never overflows.
    pub punt_in_flight_max: u32,
    /// Flows that one port may have at once.
    pub flow_port_max: u32,
    /// A flow is dead when its last frame is older, in jiffies.
    pub flow_idle_jiffies: u32,
    /// The same once FIN or RST was seen in its direction.
    pub flow_closed_jiffies: u32,
}

/// A brain listens: misses are punted. Without it they are dropped as `brain_absent`.
pub const SETTING_PUNT: u32 = 1;
/// Punt buckets are off (user-space datapath: every frame is punted).
pub const SETTING_PUNT_UNLIMITED: u32 = 2;
/// The epoch is the odd one.
pub const SETTING_EPOCH: u32 = 4;

/// A port as the reflex needs it. Written by control, read by both programs.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortConfig {
    /// Interface index of the port's netdev; 0: no such port, `inject` drops as `egress_gone`.
    pub ifindex: u32,
    /// `PORT_*`.
    pub flags: u32,
    /// Unicast frames to unknown stations the brain takes from this port: interval between two of them, in ns, in the long run.
    pub punt_interval_ns: u64,
    /// How far such frames may run ahead: burst × interval, in ns.
    pub punt_ahead_ns: u64,
    /// The same for group frames (a bucket of its own, so that ARP survives a scan): interval, in ns.
    pub group_interval_ns: u64,
    /// The same: burst × interval, in ns.
    pub group_ahead_ns: u64,
}

/// The port is attached and up; without it everything it sends is dropped as `port_down`.
pub const PORT_UP: u32 = 1;
/// Offload requests come from a guest (tap) and are checked, not from a kernel.
pub const PORT_GUEST_OFFLOADS: u32 = 2;

/// What a port may still punt, and what it has. Token buckets are kept as theoretical arrival times (GCRA): a frame conforms when `tat − now ≤ ahead`, and moves
/// `tat = max(tat, now) + interval`. Written by the reflex alone; times are `bpf_ktime_get_ns`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortBuckets {
    /// Unicast to unknown stations.
    pub punt_tat_ns: u64,
    /// Group frames.
    pub group_tat_ns: u64,
    /// Frames handed to the brain since the port was made (atomic add, before the redirect). What is on its way is
    /// `punted` − ([`BrainPort::settled`] + [`BrainPort::unobserved`]).
    pub punted: u64,
    /// Of `punted`: those of the even epoch (atomic add).
    pub punted_even: u64,
    /// Of `punted`: those of the odd epoch (atomic add).
    pub punted_odd: u64,
    /// Flows opened since the port was made (atomic add). Those it has are `flows_used` − [`BrainPort::flows_freed`].
    pub flows_used: u64,
    /// Of `flows_used`: those whose key has [`crate::flow::FLOW_ALTERNATE`] (atomic add, before they are there to be found). While
    /// it equals [`BrainPort::alternates_freed`] nobody looks for such a key.
    pub alternates_used: u64,
}

/// Set in [`PairVerdict::action`] while frames of the pair may still be on their way through the brain. The reflex follows
/// an armed verdict only when nothing of the ingress port is in flight (`BUCKETS[ingress].punted` equals
/// `BRAIN[ingress].settled + unobserved`); it clears the bit in place then, and punts otherwise. So no frame overtakes an
/// earlier one, and no clock is involved. Only forwarding verdicts are armed.
pub const VERDICT_ARMED: u8 = 0x80;

/// Whose verdict: frames of one station to one other, at one ingress port.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct PairKey {
    /// Destination address.
    pub destination: [u8; 6],
    /// Source address.
    pub source: [u8; 6],
    /// Ingress port id.
    pub ingress: u16,
    /// VLAN of the filtering database; 0 until VLANs are built.
    pub vlan: u16,
}

/// Set in [`PairVerdict::action`] when the reflex is to punt every frame of the pair (user-space datapath): the verdict is there
/// for the flows' records.
pub const VERDICT_PUNT: u8 = 0x40;

/// What the brain decided for a pair. Written by the brain (whole element); `last_seen_jiffies` and the clearing of
/// [`VERDICT_ARMED`] by the reflex.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PairVerdict {
    /// The key again.
    pub key: PairKey,
    /// Interface to redirect to.
    pub ifindex: u32,
    /// Longest frame the egress takes, in bytes, Ethernet header included, tags not counted.
    pub frame_bytes_max: u32,
    /// Egress port id.
    pub egress: u16,
    /// `VERDICT_*`: what to do.
    pub action: u8,
    /// [`DropReason`] number when the action is to drop.
    pub reason: u8,
    /// Another with each verdict that is installed: an element that was taken back may be given to the next one at once.
    pub serial: u32,
    /// When the reflex last looked it up, in jiffies; keeps the source station alive.
    pub last_seen_jiffies: u64,
}

/// Redirect to the egress netdev.
pub const VERDICT_FORWARD: u8 = 1;
/// Redirect to the peer of the egress veth, inside the container's namespace.
pub const VERDICT_FORWARD_PEER: u8 = 2;
/// Drop with the reason.
pub const VERDICT_DROP: u8 = 3;

/// Frames and what they weigh.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Frames; a super-frame (GSO) counts once.
    pub frames: u64,
    /// Bytes from the destination address on, tags included, FCS not; a super-frame counts once.
    pub bytes: u64,
    /// Wire frames beyond `frames`: a super-frame of n segments adds n − 1.
    pub extra_frames: u64,
    /// Header bytes the extra wire frames would repeat.
    pub extra_bytes: u64,
}

impl Tally {
    /// Frames as a wire would have carried them.
    pub const fn wire_frames(&self) -> u64 {
        self.frames + self.extra_frames
    }

    /// Bytes as a wire would have carried them.
    pub const fn wire_bytes(&self) -> u64 {
        self.bytes + self.extra_bytes
    }

    /// Adds another tally to this one.
    pub const fn add(&mut self, other: &Self) {
        self.frames += other.frames;
        self.bytes += other.bytes;
        self.extra_frames += other.extra_frames;
        self.extra_bytes += other.extra_bytes;
    }
}

/// A port's counters on one CPU. Written by the reflex alone, with plain adds: a CPU runs one program at a time here.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortCounters {
    /// What came in by this port (in\[p\]), counted before anything else.
    pub ingress: Tally,
    /// Frames that came in here and were forwarded by a cached verdict.
    pub forwarded: u64,
    /// Keeps the ingress and the egress side in a cache line each.
    pub reserved_ingress: [u64; 3],
    /// What was handed to this port's netdev (out\[q\]), by cached verdicts and by the brain.
    pub egress: Tally,
    /// Copies that cached verdicts decided for this port, before any egress check.
    pub copies: u64,
    /// Copies that the brain injected, as they reached `inject`.
    pub injected: u64,
    /// See `reserved_ingress`.
    pub reserved_egress: [u64; 2],
    /// What came in and had no room among the flows.
    pub overflow: Tally,
    /// What came in and promised an IP header that was not whole.
    pub unparsable: Tally,
}

/// Frames and bytes dropped for one reason.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DropCell {
    /// Frames; a super-frame counts once.
    pub frames: u64,
    /// Bytes, as in [`Tally::bytes`].
    pub bytes: u64,
}

/// A port's drops in the kernel half, by reason number. Written by the reflex with atomic adds.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortDrops {
    /// Refused at ingress.
    pub ingress: [DropCell; REASON_SLOTS],
    /// Copies refused at egress.
    pub egress: [DropCell; REASON_SLOTS],
}

impl Default for PortDrops {
    fn default() -> Self {
        Self { ingress: [DropCell::default(); REASON_SLOTS], egress: [DropCell::default(); REASON_SLOTS] }
    }
}

/// The brain's own counters of a port, in a map that user space maps into its memory, so that they survive it.
/// Written by the brain alone: `unobserved` and its shares by control, `flows_freed` by the observer, all else by the loop. Slot 0 holds the sums over all
/// ports.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BrainPort {
    /// Punted frames of this port whose fate is decided (forwarded, flooded or dropped).
    pub settled: u64,
    /// Of these: sent to one port.
    pub forwarded: u64,
    /// Of these: flooded.
    pub flooded: u64,
    /// Punted frames that never reached the loop: the kernel freed them on the way, or they died with a killed brain.
    pub unobserved: u64,
    /// Copies the brain decided for this port as egress.
    pub copies: u64,
    /// Of `copies`: those that a flood made.
    pub flood_copies: u64,
    /// Over this port's flooded frames: the sum of the egress ports that were eligible.
    pub flood_eligible: u64,
    /// Verdicts installed at the deadline, with frames of the pair possibly still on their way.
    pub forced_installs: u64,
    /// Of `settled`: those of the even epoch.
    pub settled_even: u64,
    /// Of `settled`: those of the odd epoch.
    pub settled_odd: u64,
    /// Of `unobserved`: those of the even epoch.
    pub unobserved_even: u64,
    /// Of `unobserved`: those of the odd epoch.
    pub unobserved_odd: u64,
    /// Drops at ingress, by reason number.
    pub ingress_drops: [DropCell; REASON_SLOTS],
    /// Drops of copies at egress, by reason number.
    pub egress_drops: [DropCell; REASON_SLOTS],
    /// Flows of this port that were deleted. Written by the observer.
    pub flows_freed: u64,
    /// Of `flows_freed`: those whose key had [`crate::flow::FLOW_ALTERNATE`]; no more than were deleted. Written by the observer.
    pub alternates_freed: u64,
    /// Copies of verdicts in flows of this port are good only if they are of this generation. Written by the loop, after the pairs.
    pub generation: u64,
    /// Slot 0: how many ports a flood goes to; slot n: the id of the nth. Written by the loop, between two frames.
    pub flood_port: u64,
    /// What the deleted flows of this port had counted. Written by the observer.
    pub freed: Tally,
    /// Slot 0: the flow that is being deleted and booked. Written by the observer.
    pub freeing: Freeing,
}

/// What is needed to finish a deletion in whose middle the daemon was killed.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Freeing {
    /// Id of the port whose flow it is; 0: none is being deleted.
    pub port: u64,
    /// The flow's [`crate::flow::FlowValue::echo`].
    pub echo: u64,
    /// Its [`crate::flow::FlowValue::first_ns`].
    pub first_ns: u64,
    /// The port's [`BrainPort::flows_freed`] once it is booked.
    pub flows_freed: u64,
    /// The port's [`BrainPort::freed`] once it is booked.
    pub freed: Tally,
}

impl Default for BrainPort {
    fn default() -> Self {
        Self {
            settled: 0,
            forwarded: 0,
            flooded: 0,
            unobserved: 0,
            copies: 0,
            flood_copies: 0,
            flood_eligible: 0,
            forced_installs: 0,
            settled_even: 0,
            settled_odd: 0,
            unobserved_even: 0,
            unobserved_odd: 0,
            ingress_drops: [DropCell::default(); REASON_SLOTS],
            egress_drops: [DropCell::default(); REASON_SLOTS],
            flows_freed: 0,
            alternates_freed: 0,
            generation: 0,
            flood_port: 0,
            freed: Tally::default(),
            freeing: Freeing::default(),
        }
    }
}

const _: () = {
    assert!(size_of::<Settings>() == 24);
    assert!(size_of::<PortConfig>() == 40);
    assert!(size_of::<PortBuckets>() == 56);
    assert!(size_of::<PairKey>() == 16);
    assert!(size_of::<PairVerdict>() == 40);
    assert!(size_of::<Tally>() == 32);
    assert!(size_of::<PortCounters>() == 192);
    assert!(size_of::<PortDrops>() == 1024);
    assert!(size_of::<BrainPort>() == 1248);
    assert!(DropReason::ALL.len() < REASON_SLOTS);
};

#[cfg(feature = "user")]
mod pod {
    #![expect(unsafe_code, reason = "`aya::Pod` is an unsafe trait: the type must be plain data without padding")]
    use super::{BrainPort, PairKey, PairVerdict, PortBuckets, PortConfig, PortCounters, PortDrops, Settings};

    // SAFETY: `repr(C)`, integers only; the sizes asserted above equal the sums of the fields, so there is no padding.
    unsafe impl aya::Pod for Settings {}
    // SAFETY: as above.
    unsafe impl aya::Pod for PortConfig {}
    // SAFETY: as above.
    unsafe impl aya::Pod for PortBuckets {}
    // SAFETY: as above.
    unsafe impl aya::Pod for PairKey {}
    // SAFETY: as above.
    unsafe impl aya::Pod for PairVerdict {}
    // SAFETY: as above.
    unsafe impl aya::Pod for PortCounters {}
    // SAFETY: as above.
    unsafe impl aya::Pod for PortDrops {}
    // SAFETY: as above.
    unsafe impl aya::Pod for BrainPort {}
}
