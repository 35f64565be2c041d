//! The reflex: the kernel half of Weft. It repeats the brain's verdicts, and it counts.
//!
//! [`port_ingress`] sits on every port's netdev, [`inject`] on the punt tap. No frame that reaches either of them goes on
//! into the host's own stack. Neither decides what the brain would have decided otherwise.
//!
//! ```text
//! port ── port_ingress ─ count in ─ flow ─ verdict? ─ yes ─ count out ─▶ egress netdev
//!                                            └───── no ── punt ──▶ punt tap ──▶ brain
//! brain ── punt tap ── inject ─ count out ─▶ egress netdev
//! ```
//!
//! The cached way costs one hash lookup, that of the flow, which has a copy of the verdict; array lookups are inlined by the verifier,
//! a port's counters are plain adds on this CPU's own element. Everything else sits in cold branches.
#![no_std]
#![no_main]
#![expect(internal_features, reason = "atomic_xadd is the only atomic add this target has")]
#![feature(core_intrinsics)]
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]

mod booking;
mod capture;
mod evidence;
mod field;
mod flood;
mod flow;
mod kernel_drop;
mod maps;
mod names;
mod packet;
mod punt;
mod shape;
mod tcp;
mod verdict;
mod watch;
mod weight;

use aya_ebpf::bindings::TC_ACT_SHOT;
use aya_ebpf::helpers::generated::{bpf_jiffies64, bpf_redirect, bpf_redirect_peer, bpf_skb_vlan_pop};
use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use aya_log_ebpf::warn;
use switch_common::{
    DropReason, FLOOD_ID, INJECT_AGAIN_BIT, INJECT_ORIGIN_BIT, LINK_SLOTS, PORT_GUEST_OFFLOADS, PORT_ID_MAX, PORT_UP,
    PORT_WATCHED, PUNT_ID_MASK, PUNT_TPID, VERDICT_DROP, VERDICT_FORWARD, VERDICT_FORWARD_PEER, VERDICT_PUNT,
    WATCHERS_FILTER, Way,
};

use booking::{drop_by_number, drop_frame};
use maps::{COUNTERS, LINKS, LINKS_HIGH, PORTS, PairWords, SETTINGS};
use packet::{Packet, RawEthernet, Skb};
use verdict::Repeated;
use watch::{Fate, WATCHERS};
use weight::Weight;

/// What a port sends: counted, accounted to its flow, then forwarded by its pair's verdict, or punted.
#[classifier]
fn port_ingress(ctx: TcContext) -> i32 {
    let skb = Skb(ctx.skb.skb);
    let id = port_of(skb.ifindex());
    let (Some(settings), Some(port), Some(counters)) =
        (SETTINGS.get_ptr(0), PORTS.get_ptr(id), COUNTERS.get_ptr_mut(id))
    else {
        return TC_ACT_SHOT;
    };
    // SAFETY: an element of a map, found by a lookup.
    let flags = unsafe { (*port).flags };
    let weight = Weight::of(skb, flags & PORT_GUEST_OFFLOADS == 0);
    // SAFETY: an element of a per-CPU map.
    weight.book(unsafe { &raw mut (*counters).ingress });
    let (account, way, reason) = 'refused: {
        if flags & PORT_UP == 0 {
            // Slot 0 is no port, and never up.
            let reason = if id == 0 { DropReason::Other } else { DropReason::PortDown };
            break 'refused (id, Way::Ingress, reason as u8);
        }
        if weight.fault != 0 {
            break 'refused (id, Way::Ingress, weight.fault);
        }
        let Some(pair) = pair_of(skb, id) else {
            break 'refused (id, Way::Ingress, DropReason::Malformed as u8);
        };
        // SAFETY: a helper without arguments.
        let now = unsafe { bpf_jiffies64() };
        let Some(generation) = flow::generation(id) else { return TC_ACT_SHOT };
        let (mut flow, mut verdict) = (None, Repeated::default());
        if flow::is_on() {
            // SAFETY: an element of a map, found by a lookup.
            let settings = unsafe { &*settings };
            flow = flow::take_in(skb, id, pair, counters, &weight, settings, now as u32);
            if let Some(flow) = flow {
                verdict = flow::copy_of(flow, generation, now as u32);
                flow::account(flow, &weight, now as u32);
            }
        }
        if verdict.route.action() == 0 {
            verdict = verdict::of_pair(pair, id, now);
            if let Some(flow) = flow {
                flow::keep_copy(flow, id, verdict, generation);
            }
        }
        let action = verdict.route.action();
        if action == VERDICT_FORWARD || action == VERDICT_FORWARD_PEER {
            let Repeated { route, frame_bytes_max } = verdict;
            let egress = u32::from(route.egress());
            let Some(out) = COUNTERS.get_ptr_mut(egress) else {
                break 'refused (id, Way::Ingress, DropReason::Other as u8);
            };
            // SAFETY: elements of a per-CPU map; one CPU runs one program at a time here.
            unsafe { (*counters).forwarded += 1 };
            // SAFETY: as above.
            unsafe { (*out).copies += 1 };
            if weight.exceeds(frame_bytes_max, skb) {
                flow::note_drop(flow, DropReason::TooBig as u8);
                break 'refused (egress, Way::Egress, DropReason::TooBig as u8);
            }
            // SAFETY: as above.
            weight.book(unsafe { &raw mut (*out).egress });
            let to_peer = action == VERDICT_FORWARD_PEER;
            if flags & PORT_WATCHED != 0 && watch::is_wanted(skb, Fate::forwarded(id, egress, to_peer), route.ifindex())
            {
                // SAFETY: no value of this function needs to be dropped.
                unsafe { WATCHERS.tail_call(&ctx, WATCHERS_FILTER) };
            }
            return if to_peer {
                // SAFETY: a helper without pointers.
                unsafe { bpf_redirect_peer(route.ifindex(), 0) as i32 }
            } else {
                // SAFETY: a helper without pointers.
                unsafe { bpf_redirect(route.ifindex(), 0) as i32 }
            };
        }
        if action == VERDICT_DROP {
            let reason = verdict.route.reason();
            flow::note_drop(flow, reason);
            break 'refused (id, Way::Ingress, reason);
        }
        let outcome = punt::punt(skb.0, id, u32::from(pair[0] & 1 == 1));
        if outcome & punt::REFUSED != 0 {
            flow::note_drop(flow, outcome as u8);
            break 'refused (id, Way::Ingress, outcome as u8);
        }
        if action == VERDICT_DROP | VERDICT_PUNT {
            // The brain will say the same again, and books the drop; the flow is the kernel's to keep.
            flow::note_drop(flow, verdict.route.reason());
        }
        // SAFETY: an element of a map, found by a lookup.
        let punt_ifindex = unsafe { (*settings).punt_ifindex };
        if flags & PORT_WATCHED != 0 && watch::is_wanted(skb, Fate::punted(id), punt_ifindex) {
            // SAFETY: no value of this function needs to be dropped.
            unsafe { WATCHERS.tail_call(&ctx, WATCHERS_FILTER) };
        }
        return outcome.cast_signed();
    };
    drop_by_number(skb, account, way, reason, weight.bytes);
    let egress = if account == id { 0 } else { account };
    if flags & PORT_WATCHED != 0 && watch::is_wanted(skb, Fate::dropped(id, egress, reason), 0) {
        // SAFETY: no value of this function needs to be dropped.
        unsafe { WATCHERS.tail_call(&ctx, WATCHERS_FILTER) };
    }
    TC_ACT_SHOT
}

/// What the brain writes into the punt tap: one copy for the port that its tag names.
#[classifier]
fn inject(ctx: TcContext) -> i32 {
    let skb = Skb(ctx.skb.skb);
    // Without the punt tag: the copy's own tags are among its bytes until the punt tag is popped.
    let bytes = skb.len();
    let content = skb.vlan_tci() as u16;
    let (tag, told) = (content & PUNT_ID_MASK, content & INJECT_ORIGIN_BIT != 0);
    let tagged = skb.vlan_present() != 0 && skb.vlan_proto() == usize::from(PUNT_TPID.to_be());
    if tagged && tag == FLOOD_ID {
        return flood::copy_to_all(skb);
    }
    let id = if tagged && tag <= PORT_ID_MAX { u32::from(tag) } else { 0 };
    let (Some(port), Some(counters)) = (PORTS.get_ptr(id), COUNTERS.get_ptr_mut(id)) else { return TC_ACT_SHOT };
    // SAFETY: an element of a per-CPU map.
    unsafe { (*counters).injected += 1 };
    if id == 0 {
        // Only the brain writes here, and never this: worth a line in the log, and no guest can cause it.
        warn!(&ctx, "a copy of {} bytes for port {} was written to the punt tap: dropped", bytes, tag);
        return drop_frame(skb, 0, Way::Egress, DropReason::Other, bytes);
    }
    // SAFETY: an element of a map, found by a lookup.
    let ifindex = unsafe { (*port).ifindex };
    if ifindex == 0 {
        return drop_frame(skb, id, Way::Egress, DropReason::EgressGone, bytes);
    }
    // SAFETY: the context of a running classifier.
    if unsafe { bpf_skb_vlan_pop(skb.0) } != 0 {
        return drop_frame(skb, id, Way::Egress, DropReason::InjectFailed, bytes);
    }
    // A second tag of the same kind, which nobody but the brain puts there when the first one says so.
    let from = skb.vlan_tci() as u16;
    // SAFETY: the context of a running classifier.
    if told && unsafe { bpf_skb_vlan_pop(skb.0) } != 0 {
        return drop_frame(skb, id, Way::Egress, DropReason::InjectFailed, bytes);
    }
    // Without a look at its fault: the brain has decided.
    let weight = Weight::of(skb, true);
    // SAFETY: an element of a per-CPU map.
    weight.book(unsafe { &raw mut (*counters).egress });
    if told {
        let fate = Fate::forwarded(u32::from(from & PUNT_ID_MASK), id, false);
        if watch::is_wanted_injected(skb, fate, ifindex, from & INJECT_AGAIN_BIT != 0) {
            // SAFETY: no value of this function needs to be dropped.
            unsafe { WATCHERS.tail_call(&ctx, WATCHERS_FILTER) };
        }
    }
    // SAFETY: a helper without pointers.
    unsafe { bpf_redirect(ifindex, 0) as i32 }
}

/// The clock in jiffies (the low half), for user space to ask: it has no other way to read the one that flows are stamped with.
#[classifier]
fn clock(_ctx: TcContext) -> i32 {
    // SAFETY: a helper without arguments.
    unsafe { bpf_jiffies64() as i32 }
}

/// The port whose netdev this is, 0 for none.
#[inline(always)]
fn port_of(ifindex: u32) -> u32 {
    let id = if ifindex < LINK_SLOTS as u32 { LINKS.get_ptr(ifindex) } else { LINKS_HIGH.get_ptr(ifindex) };
    // SAFETY: an element of a map, found by a lookup.
    id.map_or(0, |id| unsafe { *id })
}

/// The key of the frame's pair at its ingress port, in VLAN 0.
#[inline(always)]
fn pair_of(skb: Skb, id: u32) -> Option<PairWords> {
    let ethernet = Packet::of(skb).ethernet()?;
    // SAFETY: `ethernet` has compared it with the end of the packet.
    let RawEthernet { first, second, .. } = unsafe { *ethernet };
    Some([first, u64::from(second) | u64::from(id) << 32])
}

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
