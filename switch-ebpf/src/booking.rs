//! Drops: booked by port, way and reason, and shot. Nothing is dropped without passing here.

use core::intrinsics::{AtomicOrdering, atomic_xadd};

use aya_ebpf::bindings::{__sk_buff, TC_ACT_SHOT};
use switch_common::{DropCell, DropReason, PortDrops, REASON_SLOTS, Way};

use crate::evidence;
use crate::maps::DROPS;
use crate::packet::Skb;

/// Adds to a value that several CPUs add to.
#[inline(always)]
pub(crate) fn add_shared(to: *mut u64, value: u64) {
    // SAFETY: `to` points into an element of a map, found by a lookup, and is aligned as `u64` is.
    unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(to, value) };
}

/// Drops a frame (or a copy of it) of `bytes` on a port's account.
#[inline(always)]
pub(crate) fn drop_frame(skb: Skb, id: u32, way: Way, reason: DropReason, bytes: u32) -> i32 {
    drop_by_number(skb, id, way, reason as u8, bytes)
}

/// The same, for a reason that comes as a number: out of a verdict, or a weight.
#[inline(always)]
pub(crate) fn drop_by_number(skb: Skb, id: u32, way: Way, reason: u8, bytes: u32) -> i32 {
    let first = match way {
        Way::Ingress => 0,
        Way::Egress => REASON_SLOTS,
    };
    booking_drop(skb.0, id, (first + (usize::from(reason) & (REASON_SLOTS - 1))) as u32, bytes);
    TC_ACT_SHOT
}

/// Books on a cell of a port: [`PortDrops`] is two arrays of [`REASON_SLOTS`] cells, one behind the other. A global function, out
/// of the way of frames that pass.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn booking_drop(skb: *mut __sk_buff, id: u32, place: u32, bytes: u32) -> u32 {
    let Some(drops) = DROPS.get_ptr_mut(id) else { return 0 };
    let place = evidence::bounded(place, 2 * REASON_SLOTS as u32 - 1) as usize;
    // SAFETY: below the number of cells.
    let cell = unsafe { drops.cast::<DropCell>().add(place) };
    // SAFETY: the cell lies in the element.
    add_shared(unsafe { &raw mut (*cell).frames }, 1);
    // SAFETY: as above.
    add_shared(unsafe { &raw mut (*cell).bytes }, u64::from(bytes));
    let (way, reason) = ((place / REASON_SLOTS) as u16, (place % REASON_SLOTS) as u32);
    evidence::keep(Skb(skb), id, way, reason, place, bytes);
    0
}

const _: () = assert!(REASON_SLOTS.is_power_of_two());
const _: () = assert!(size_of::<PortDrops>() == 2 * REASON_SLOTS * size_of::<DropCell>());
