//! Accounting: finds a frame's flow, or opens it, or books the frame where there is always room.
//!
//! A frame of an established flow costs one lookup, and two atomic adds: two processors may meet on a flow of a tap with several
//! queues, or of a container whose sender has moved. Everything else sits in functions of its own.

use core::intrinsics::{AtomicOrdering, atomic_or};

use aya_ebpf::bindings::BPF_NOEXIST;
use aya_ebpf::helpers::generated::bpf_ktime_get_ns;
use switch_common::flow::Route;
use switch_common::flow::{
    FlowValue, FlowValue6, KIND_IPV6, MARK_CLOSED, MARK_OPENED, TCP_FIN, TCP_RST, TCP_SYN, echo,
};
use switch_common::{BrainPort, FLOW_RECHECK_SHIFT, Settings};

use crate::booking::add_shared;
use crate::maps::{BRAIN, BUCKETS, FLOWS4, FLOWS6, TEMPLATE};
use crate::shape::{ALTERNATE, Shape, WORDS};
use crate::verdict::Repeated;
use crate::weight::Weight;

/// Whether flows are accounted: a constant that the loader sets, so that the verifier removes what is behind it.
#[unsafe(no_mangle)]
static ACCOUNT_FLOWS: u8 = 1;

/// Whether flows are accounted.
#[inline(always)]
pub(crate) fn is_on() -> bool {
    // SAFETY: a static. Volatile, because the value is the loader's, not the compiler's.
    unsafe { (&raw const ACCOUNT_FLOWS).read_volatile() != 0 }
}

/// The flow of a frame. `None`: there is no room for it.
#[inline(always)]
pub(crate) fn find(shape: &mut Shape, id: u32, settings: *const Settings, now: u32) -> Option<*mut FlowValue> {
    if let Some(flow) = look_up(&shape.words, shape.kind)
        && is_good(flow, shape, settings, now)
    {
        return Some(flow);
    }
    if find_another(shape, id, settings, now) == 0 {
        return None;
    }
    look_up(&shape.words, shape.kind)
}

#[inline(always)]
fn look_up(words: &[u64; WORDS], kind: u8) -> Option<*mut FlowValue> {
    if kind == KIND_IPV6 {
        FLOWS6.get_ptr_mut(words).map(<*mut FlowValue6>::cast)
    } else {
        // SAFETY: the first words of the array are an array.
        FLOWS4.get_ptr_mut(unsafe { &*words.as_ptr().cast::<[u64; 4]>() })
    }
}

/// Whether the entry is this key's and alive. A connection that begins anew ends what its tuple was before.
#[inline(always)]
fn is_good(flow: *mut FlowValue, shape: &Shape, settings: *const Settings, now: u32) -> bool {
    // SAFETY: an element of a map, found by a lookup. The clock is read before the echo: an element that becomes another
    // key's is written from its beginning, so who sees the new clock sees the new echo.
    let last = unsafe { (&raw const (*flow).last_jiffies).read_volatile() };
    // SAFETY: as above.
    let (seen, marks) = unsafe { ((*flow).echo, (*flow).marks) };
    let wanted = if shape.kind == KIND_IPV6 {
        echo(&shape.words)
    } else {
        echo(&[shape.words[0], shape.words[1], shape.words[2], shape.words[3]])
    };
    if seen != wanted || marks & MARK_CLOSED != 0 {
        return false;
    }
    let over = marks & u32::from(TCP_FIN | TCP_RST) != 0;
    if over && shape.is_tcp != 0 && shape.tcp.flags & TCP_SYN != 0 {
        mark(flow, MARK_CLOSED);
        return false;
    }
    if last == now {
        return true;
    }
    // SAFETY: an element of a map, found by a lookup.
    let limit = unsafe { if over { (*settings).flow_closed_jiffies } else { (*settings).flow_idle_jiffies } };
    // Another processor's clock may be a tick behind.
    now.wrapping_sub(last).cast_signed() <= limit.cast_signed()
}

/// Sets marks, where they are not set.
#[inline(always)]
pub(crate) fn mark(flow: *mut FlowValue, marks: u32) {
    // SAFETY: the field of an element of a map, found by a lookup; aligned as `u32` is.
    unsafe { atomic_or::<u32, u32, { AtomicOrdering::Relaxed }>(&raw mut (*flow).marks, marks) };
}

/// For a key whose entry is dead, or is not there: makes `shape` name the entry that is to be used, and opens it if need be. 0:
/// there is none.
#[inline(never)]
fn find_another(shape: &mut Shape, id: u32, settings: *const Settings, now: u32) -> u32 {
    let taken = look_up(&shape.words, shape.kind);
    let is_taken = taken.is_some();
    if let Some(flow) = taken
        && is_good(flow, shape, settings, now)
    {
        // Another processor has opened it meanwhile.
        return 1;
    }
    shape.words[1] ^= ALTERNATE;
    if let Some(other) = look_up(&shape.words, shape.kind) {
        if is_good(other, shape, settings, now) {
            return 1;
        }
        if is_taken {
            return 0;
        }
    }
    if !is_taken {
        shape.words[1] ^= ALTERNATE;
    }
    open(shape, id, settings, now)
}

#[inline(always)]
fn open(shape: &Shape, id: u32, settings: *const Settings, now: u32) -> u32 {
    let (Some(buckets), Some(brain), Some(template)) =
        (BUCKETS.get_ptr_mut(id), BRAIN.get_ptr(id), TEMPLATE.get_ptr_mut(0))
    else {
        return 0;
    };
    // SAFETY: an element of a map, found by a lookup.
    let used = unsafe { (&raw const (*buckets).flows_used).read_volatile() };
    // SAFETY: as above; the observer writes it through its own mapping.
    let BrainPort { flows_freed, .. } = unsafe { *brain };
    // SAFETY: as above.
    if used.wrapping_sub(flows_freed) >= u64::from(unsafe { (*settings).flow_port_max }) {
        return 0;
    }
    // SAFETY: this processor's own element; nothing else of it is ever written.
    let flow = unsafe { &mut (*template).flow };
    flow.last_jiffies = now;
    // SAFETY: a helper without arguments.
    flow.first_ns = unsafe { bpf_ktime_get_ns() };
    flow.marks = if shape.is_tcp != 0 && shape.tcp.flags & TCP_SYN != 0 { MARK_OPENED } else { 0 };
    let outcome = if shape.kind == KIND_IPV6 {
        flow.echo = echo(&shape.words);
        // SAFETY: as above.
        FLOWS6.insert(&shape.words, unsafe { &*template }, u64::from(BPF_NOEXIST))
    } else {
        // SAFETY: the first words of the array are an array.
        let words = unsafe { &*shape.words.as_ptr().cast::<[u64; 4]>() };
        flow.echo = echo(words);
        FLOWS4.insert(words, &*flow, u64::from(BPF_NOEXIST))
    };
    match outcome {
        Ok(()) => {
            // SAFETY: the field of an element of a map, found by a lookup.
            add_shared(unsafe { &raw mut (*buckets).flows_used }, 1);
            1
        }
        // Another processor was first.
        Err(-17) => 1,
        Err(_) => 0,
    }
}

/// Adds a frame to its flow.
#[inline(always)]
pub(crate) fn account(flow: *mut FlowValue, weight: &Weight, now: u32) {
    // SAFETY: an element of a map, found by a lookup, and not dead.
    unsafe {
        if (*flow).last_jiffies != now {
            (*flow).last_jiffies = now;
        }
    }
    // SAFETY: as above.
    add_shared(unsafe { &raw mut (*flow).frames }, 1);
    // SAFETY: as above.
    add_shared(unsafe { &raw mut (*flow).bytes }, u64::from(weight.bytes));
    if weight.extra_frames != 0 {
        // SAFETY: as above.
        add_shared(unsafe { &raw mut (*flow).extra_frames }, u64::from(weight.extra_frames));
        // SAFETY: as above.
        add_shared(unsafe { &raw mut (*flow).extra_bytes }, weight.extra_bytes());
    }
}

/// The flow's copy of its pair's verdict, if it is good. For the frame's time, before [`account`] moves the flow's clock.
#[inline(always)]
pub(crate) fn copy_of(flow: *mut FlowValue, generation: u32, now: u32) -> Repeated {
    // SAFETY: an element of a map, found by a lookup, and not dead. The guard is written after the route it speaks of, so it
    // is read before.
    let guard = unsafe { (&raw const (*flow).guard).read_volatile() };
    // SAFETY: as above.
    let last = unsafe { (&raw const (*flow).last_jiffies).read_volatile() };
    if guard as u32 != generation || (last ^ now) >> FLOW_RECHECK_SHIFT != 0 {
        return Repeated::default();
    }
    // SAFETY: as above.
    let route = unsafe { (&raw const (*flow).route).read_volatile() };
    Repeated { route: Route(route), frame_bytes_max: (guard >> 32) as u32 }
}

/// Copies the pair's verdict into the flow. What is to be punted is kept for the record, and never followed.
#[inline(always)]
pub(crate) fn keep_copy(flow: *mut FlowValue, verdict: Repeated, generation: u32) {
    // SAFETY: an element of a map, found by a lookup, and not dead.
    unsafe { (&raw mut (*flow).route).write_volatile(verdict.route.0) };
    let guard = u64::from(generation) | u64::from(verdict.frame_bytes_max) << 32;
    // SAFETY: as above.
    unsafe { (&raw mut (*flow).guard).write_volatile(guard) };
}

/// Notes that a frame of a flow was dropped.
#[inline(always)]
pub(crate) fn note_drop(flow: Option<*mut FlowValue>, reason: u8) {
    let Some(flow) = flow else { return };
    // SAFETY: an element of a map, found by a lookup, and not dead.
    add_shared(unsafe { &raw mut (*flow).dropped_frames }, 1);
    // SAFETY: as above.
    unsafe { (*flow).drop_reason = reason };
}
