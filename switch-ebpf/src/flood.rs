//! Floods: the brain decides that a frame goes to every port, and writes it once; here its copies are made.
//!
//! Each port's copy is booked as one that the brain injected. The list of ports is the brain's, too, and does not change while a
//! frame is written: whoever writes the frame has written the list.
//!
//! The verifier of Linux 6.1 walks a callback of `bpf_loop` once, with what it knows before the first turn, and takes out what it
//! never comes to; that of 6.12 does not. So what a later turn has otherwise must not be known to it then: [`forget`].

use core::ffi::c_void;

use aya_ebpf::bindings::TC_ACT_SHOT;
use aya_ebpf::helpers::bpf_skb_load_bytes;
use aya_ebpf::helpers::generated::{bpf_clone_redirect, bpf_loop, bpf_redirect, bpf_skb_vlan_pop};
use switch_common::{DropReason, PORT_SLOTS, PUNT_ID_MASK, Way};

use crate::booking::drop_frame;
use crate::field::Field;
use crate::maps::{BRAIN, COUNTERS, PORTS};
use crate::packet::{Skb, forget};
use crate::weight::Weight;

/// Where the tag that tells the ingress port has its content, while the one before it lies beside the bytes.
const ORIGIN_AT: u32 = 14;

/// A frame whose copies are being made.
struct Flood {
    skb: Skb,
    weight: Weight,
    /// The port that gets no copy.
    ingress: u32,
    /// Neither of the brain's tags is on it any more.
    is_bare: bool,
    /// The port whose copy is next: it waits for another to come, because the last one gets the frame itself.
    waiting: u32,
}

/// Hands copies to all ports of the list, but for the one that the frame came in by.
#[inline(never)]
pub(crate) fn copy_to_all(skb: Skb) -> i32 {
    let ingress = origin(skb);
    // SAFETY: the context of a running classifier.
    let mut is_bare = unsafe { bpf_skb_vlan_pop(skb.0) } == 0;
    // SAFETY: as above.
    is_bare = is_bare && unsafe { bpf_skb_vlan_pop(skb.0) } == 0;
    let mut flood = Flood { skb, weight: Weight::of(skb, true), ingress, is_bare, waiting: forget(0) as u32 };
    let (step, about) = (copy_to_one as *const (), &raw mut flood);
    // SAFETY: `step` takes what is given here, and `flood` outlives the call.
    unsafe { bpf_loop(listed(0), step.cast_mut().cast(), about.cast(), 0) };
    let ifindex = flood.admit();
    if ifindex == 0 {
        return TC_ACT_SHOT;
    }
    book(flood.waiting, &flood.weight);
    // SAFETY: a helper without pointers.
    unsafe { bpf_redirect(ifindex, 0) as i32 }
}

/// One turn of [`copy_to_all`]: the port that waits gets its copy, and another waits.
extern "C" fn copy_to_one(turn: u64, about: *mut c_void) -> u64 {
    // SAFETY: the `Flood` that `copy_to_all` gave.
    let flood = unsafe { &mut *about.cast::<Flood>() };
    let id = listed(turn as u32 + 1);
    if id == flood.ingress || id == 0 {
        return 0;
    }
    let ifindex = flood.admit();
    if ifindex != 0 {
        // What the netdev itself refuses is a drop of the kernel's, and comes as a positive number.
        // SAFETY: the context of a running classifier.
        if unsafe { bpf_clone_redirect(flood.skb.0, ifindex, 0) } < 0 {
            drop_frame(flood.skb, flood.waiting, Way::Egress, DropReason::InjectFailed, flood.weight.bytes);
        } else {
            book(flood.waiting, &flood.weight);
        }
    }
    flood.waiting = id;
    0
}

impl Flood {
    /// The netdev for the copy of the port that waits; 0: it gets none, which is booked, unless none waits. A frame that still bears a
    /// tag of ours goes nowhere.
    #[inline(always)]
    fn admit(&self) -> u32 {
        let id = self.waiting;
        let (Some(port), Some(counters)) = (PORTS.get_ptr(id), COUNTERS.get_ptr_mut(id)) else { return 0 };
        if id == 0 {
            return 0;
        }
        // SAFETY: an element of a per-CPU map.
        unsafe { (*counters).injected += 1 };
        // SAFETY: an element of a map, found by a lookup.
        let ifindex = unsafe { (*port).ifindex };
        if ifindex == 0 || !self.is_bare {
            let reason = if self.is_bare { DropReason::EgressGone } else { DropReason::InjectFailed };
            drop_frame(self.skb, id, Way::Egress, reason, self.weight.bytes);
            return 0;
        }
        ifindex
    }
}

/// The port that the frame came in by, as its second tag says.
#[inline(always)]
fn origin(skb: Skb) -> u32 {
    let mut content = [0_u8; 2];
    // SAFETY: the context of a running classifier, and room for two bytes.
    unsafe { bpf_skb_load_bytes(skb.0.cast(), ORIGIN_AT, content.as_mut_ptr().cast(), 2) };
    u32::from(u16::from_be_bytes(content) & PUNT_ID_MASK)
}

/// What stands at a place of the list.
#[inline(always)]
fn listed(place: u32) -> u32 {
    let Some(brain) = BRAIN.get_ptr_mut(place & (PORT_SLOTS as u32 - 1)) else { return 0 };
    // SAFETY: the field of an element of a map, found by a lookup; the brain writes it through its own mapping.
    Field::at(unsafe { &raw mut (*brain).flood_port }).get() as u32
}

#[inline(always)]
fn book(id: u32, weight: &Weight) {
    let Some(counters) = COUNTERS.get_ptr_mut(id) else { return };
    // SAFETY: an element of a per-CPU map.
    weight.book(unsafe { &raw mut (*counters).egress });
}
