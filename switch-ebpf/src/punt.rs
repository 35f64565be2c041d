//! Handing a frame to the brain, within what the brain takes.
//!
//! Four gates, in this order: a brain must be there; the port must be within its token bucket (group frames have one
//! of their own, so that ARP survives a scan); its own frames on their way must leave room for other ports'; and those of all
//! ports must fit the punt tap's ring. The ring never overflows, so what the gates refuse is all that the reflex loses, and
//! each refusal has its reason.
//!
//! What the kernel frees behind the gates (a super-frame that contradicts itself) is on its way until the brain closes its
//! epoch. So the flags are read once: a frame is counted in the epoch that its tag names.

use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::helpers::generated::{bpf_ktime_get_ns, bpf_redirect, bpf_skb_vlan_push};
use switch_common::{
    BrainPort, DropReason, PUNT_EPOCH_BIT, PUNT_IN_FLIGHT_PORT_MAX, PUNT_TPID, PortBuckets, PortConfig, SETTING_EPOCH,
    SETTING_PUNT, SETTING_PUNT_UNLIMITED,
};

use crate::booking::add_shared;
use crate::maps::{BRAIN, BUCKETS, PORTS, PUNTS, SETTINGS};
use crate::packet::Skb;

/// Set in the answer of [`punt`] when the frame is to be dropped; the low byte is the reason's number then.
pub(crate) const REFUSED: u32 = 0x100;

/// Punts a frame that came in by port `id`, or says why not: what to return to the kernel, or [`REFUSED`]. A global function: what
/// is punted waits for the brain anyway.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn punt(skb: *mut __sk_buff, id: u32, to_group: u32) -> u32 {
    let (skb, to_group) = (Skb(skb), to_group != 0);
    // Booked in one place, by the caller, who knows the flow as well.
    let drop = |reason: DropReason| REFUSED | reason as u32;
    let (Some(settings), Some(port)) = (SETTINGS.get_ptr(0), PORTS.get_ptr(id)) else { return drop(DropReason::Other) };
    let (Some(buckets), Some(punts)) = (BUCKETS.get_ptr_mut(id), PUNTS.get_ptr_mut(0)) else {
        return drop(DropReason::Other);
    };
    // SAFETY: an element of a map, found by a lookup; the brain replaces it as a whole.
    let settings = unsafe { settings.read_volatile() };
    if settings.flags & SETTING_PUNT == 0 {
        return drop(DropReason::BrainAbsent);
    }
    if settings.flags & SETTING_PUNT_UNLIMITED == 0 && !conforms(buckets, port, to_group) {
        return drop(if to_group { DropReason::FloodLimited } else { DropReason::PuntLimited });
    }
    // SAFETY: the field of an element of a map, found by a lookup.
    if in_flight(unsafe { &raw const (*buckets).punted }, id) >= PUNT_IN_FLIGHT_PORT_MAX.cast_signed() {
        return drop(DropReason::PuntLimited);
    }
    if in_flight(punts, 0) >= i64::from(settings.punt_in_flight_max) {
        return drop(DropReason::PuntLimited);
    }
    let odd = settings.flags & SETTING_EPOCH != 0;
    let tag = if odd { id as u16 | PUNT_EPOCH_BIT } else { id as u16 };
    // SAFETY: the context of a running classifier.
    if unsafe { bpf_skb_vlan_push(skb.0, PUNT_TPID.to_be(), tag) } != 0 {
        // No memory for a header: not punted, so booked as dropped.
        return drop(DropReason::Other);
    }
    // SAFETY: the field of an element of a map, found by a lookup.
    add_shared(unsafe { &raw mut (*buckets).punted }, 1);
    if odd {
        // SAFETY: as above.
        add_shared(unsafe { &raw mut (*buckets).punted_odd }, 1);
    } else {
        // SAFETY: as above.
        add_shared(unsafe { &raw mut (*buckets).punted_even }, 1);
    }
    add_shared(punts, 1);
    // SAFETY: a helper without pointers.
    unsafe { bpf_redirect(settings.punt_ifindex, 0) }.cast_unsigned() as u32
}

/// Whether none of a port's frames is on its way through the brain, so that none can be overtaken: 1, or else 0. A global function.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn punt_is_quiet(id: u32) -> u32 {
    let Some(buckets) = BUCKETS.get_ptr_mut(id) else { return 0 };
    // SAFETY: the field of an element of a map, found by a lookup.
    u32::from(in_flight(unsafe { &raw const (*buckets).punted }, id) <= 0)
}

/// Of `punted` frames those that the brain has not answered for, neither decided nor booked as lost with its
/// predecessor. Slot 0 of the brain's counters holds its sums.
#[inline(always)]
fn in_flight(punted: *const u64, slot: u32) -> i64 {
    let Some(brain) = BRAIN.get_ptr(slot) else { return i64::MAX };
    // SAFETY: the field of an element of a map, found by a lookup; other CPUs add to it.
    let punted = unsafe { punted.read_volatile() };
    // SAFETY: as above; the brain writes it through its own mapping.
    let BrainPort { settled, unobserved, .. } = unsafe { *brain };
    punted.wrapping_sub(settled + unobserved).cast_signed()
}

/// The generic cell rate algorithm (ITU-T I.371, annex A): whether a frame conforms, and if so, books it. Two CPUs that
/// meet here may let one frame too many pass; the ring has room for that.
#[inline(always)]
fn conforms(buckets: *mut PortBuckets, port: *const PortConfig, to_group: bool) -> bool {
    // SAFETY: an element of a map, found by a lookup.
    let port = unsafe { &*port };
    // SAFETY: as above; only programs write it.
    let buckets = unsafe { &mut *buckets };
    let (tat_ns, interval_ns, ahead_ns) = if to_group {
        (&mut buckets.group_tat_ns, port.group_interval_ns, port.group_ahead_ns)
    } else {
        (&mut buckets.punt_tat_ns, port.punt_interval_ns, port.punt_ahead_ns)
    };
    // SAFETY: a helper without arguments.
    let now_ns = unsafe { bpf_ktime_get_ns() };
    let expected_ns = if *tat_ns > now_ns { *tat_ns } else { now_ns };
    if expected_ns - now_ns > ahead_ns {
        return false;
    }
    *tat_ns = expected_ns + interval_ns;
    true
}
