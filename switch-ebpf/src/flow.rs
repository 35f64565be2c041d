//! Accounting: finds a frame's flow, or opens it, or books the frame where there is always room.
//!
//! A frame of an established flow costs one lookup, and two atomic adds: two processors may meet on a flow of a tap with several
//! queues, or of a container whose sender has moved. Everything else sits in functions of its own.

use aya_ebpf::bindings::BPF_NOEXIST;
use aya_ebpf::helpers::generated::bpf_ktime_get_ns;
use switch_common::flow::{
    FlowValue, KIND_IPV6, MARK_CLOSED, MARK_OPENED, MARK_TELLING, Route, TCP_FIN, TCP_RST, TCP_SYN, echo,
};
use switch_common::{BrainPort, FLOW_RECHECK_SHIFT, PortCounters, Settings};

use crate::field::{Field, Flow};
use crate::maps::{BRAIN, BUCKETS, FLOWS4, FLOWS6, PairWords, TEMPLATE};
use crate::names;
use crate::packet::Skb;
use crate::shape::{ALTERNATE, Shape, WORDS};
use crate::tcp;
use crate::verdict::Repeated;
use crate::weight::Weight;

/// Whether flows are accounted: a constant that the loader sets, so that the verifier removes what is behind it.
#[unsafe(no_mangle)]
static ACCOUNT_FLOWS: u8 = 1;

/// `EEXIST`: another processor was first.
const EXISTS: i32 = -17;

/// Whether flows are accounted.
#[inline(always)]
pub(crate) fn is_on() -> bool {
    // SAFETY: a static. Volatile, because the value is the loader's, not the compiler's.
    unsafe { (&raw const ACCOUNT_FLOWS).read_volatile() != 0 }
}

/// The generation that copies of verdicts must be of in flows of a port. To be read before the pair of a copy that is to be kept.
#[inline(always)]
pub(crate) fn generation(id: u32) -> Option<u32> {
    let brain = BRAIN.get_ptr_mut(id)?;
    // SAFETY: the field of an element of a map, found by a lookup.
    Some(Field::at(unsafe { &raw mut (*brain).generation }).get() as u32)
}

/// Finds the flow of a frame and tells it what the frame's TCP says. A frame that has none, or for whose flow there is no room, is
/// booked on the port.
#[inline(always)]
pub(crate) fn take_in(
    skb: Skb,
    id: u32,
    pair: PairWords,
    counters: *mut PortCounters,
    weight: &Weight,
    settings: &Settings,
    now: u32,
) -> Option<Flow> {
    let mut shape = Shape::of(skb, pair);
    if shape.kind == 0 {
        // SAFETY: an element of a per-CPU map.
        weight.book(unsafe { &raw mut (*counters).unparsable });
        return None;
    }
    let Some(flow) = find(&mut shape, id, settings, now) else {
        // SAFETY: as above.
        weight.book(unsafe { &raw mut (*counters).overflow });
        if names::is_wanted(&shape) {
            names::names_hand_over(skb.0, id);
        }
        return None;
    };
    if flow.marks().peek() & MARK_TELLING != 0 {
        names::names_hand_over(skb.0, id);
    }
    if shape.is_tcp != 0 {
        tcp::look(flow, &shape.tcp, skb.gso_size());
    }
    Some(flow)
}

/// The flow of a frame. `None`: there is no room for it.
#[inline(always)]
fn find(shape: &mut Shape, id: u32, settings: &Settings, now: u32) -> Option<Flow> {
    let found = look_up(shape);
    if let Some(flow) = found
        && is_good(flow, shape, settings, now)
    {
        return Some(flow);
    }
    if find_another(shape, id, settings, now, found.is_some()) == FULL {
        return None;
    }
    look_up(shape)
}

/// The words of an IPv4 key.
#[inline(always)]
fn short(words: &[u64; WORDS]) -> &[u64; 4] {
    // SAFETY: the first words of an array are an array.
    unsafe { &*words.as_ptr().cast::<[u64; 4]>() }
}

#[inline(always)]
fn look_up(shape: &Shape) -> Option<Flow> {
    if shape.kind == KIND_IPV6 {
        FLOWS6.get_ptr_mut(shape.words).map(|value| Flow(value.cast::<FlowValue>()))
    } else {
        FLOWS4.get_ptr_mut(short(&shape.words)).map(Flow)
    }
}

#[inline(always)]
fn echo_of(shape: &Shape) -> u32 {
    if shape.kind == KIND_IPV6 { echo(&shape.words) } else { echo(short(&shape.words)) }
}

/// Whether the entry is this key's and alive. A connection that begins anew ends what its tuple was before.
#[inline(always)]
fn is_good(flow: Flow, shape: &Shape, settings: &Settings, now: u32) -> bool {
    // The clock is read before the echo: an element that becomes another key's is written from its beginning, so who sees
    // the new clock sees the new echo.
    let last = flow.last_jiffies().get();
    let marks = flow.marks().peek();
    if flow.echo().get() != echo_of(shape) || marks & MARK_CLOSED != 0 {
        return false;
    }
    let over = marks & u32::from(TCP_FIN | TCP_RST) != 0;
    if over && shape.is_tcp != 0 && shape.tcp.flags & TCP_SYN != 0 {
        flow.marks().set_bits(MARK_CLOSED);
        return false;
    }
    if last == now {
        return true;
    }
    let limit = if over { settings.flow_closed_jiffies } else { settings.flow_idle_jiffies };
    // Another processor's clock may be a tick behind.
    now.wrapping_sub(last).cast_signed() <= limit.cast_signed()
}

/// What looking for another entry, or opening one, comes to.
type Outcome = u32;
/// There is no room.
const FULL: Outcome = 0;
/// It was opened.
const OPENED: Outcome = 1;
/// It was there.
const MET: Outcome = 2;

/// For a key whose entry is dead (`is_taken`), or is not there: makes `shape` name the entry that is to be used, and opens it if need
/// be. What was found is not looked up anew: an entry that another processor opens meanwhile is met when it is to be opened here, too.
/// For a key that is not there, the other life is looked for only while the port has entries of that kind.
#[inline(never)]
fn find_another(shape: &mut Shape, id: u32, settings: &Settings, now: u32, is_taken: bool) -> Outcome {
    let (Some(buckets), Some(brain)) = (BUCKETS.get_ptr_mut(id), BRAIN.get_ptr(id)) else { return FULL };
    // SAFETY: the field of an element of a map, found by a lookup.
    let used = Field::at(unsafe { &raw mut (*buckets).flows_used });
    // SAFETY: as above.
    let alternates = Field::at(unsafe { &raw mut (*buckets).alternates_used });
    // SAFETY: an element of a map, found by a lookup; the observer writes it through its own mapping.
    let BrainPort { flows_freed, alternates_freed, .. } = unsafe { *brain };
    if is_taken || alternates.get() != alternates_freed {
        shape.words[1] ^= ALTERNATE;
        if let Some(other) = look_up(shape) {
            if is_good(other, shape, settings, now) {
                return MET;
            }
            if is_taken {
                return FULL;
            }
        }
        if !is_taken {
            shape.words[1] ^= ALTERNATE;
        }
    }
    if used.get().wrapping_sub(flows_freed) >= u64::from(settings.flow_port_max) {
        return FULL;
    }
    // Counted before it is there to be found: who reads an equal count need not look for it.
    if is_taken {
        alternates.add(1);
    }
    let outcome = open(shape, now);
    if outcome == OPENED {
        used.add(1);
    } else if is_taken {
        alternates.add(1_u64.wrapping_neg());
    }
    outcome
}

#[inline(always)]
fn open(shape: &Shape, now: u32) -> Outcome {
    let Some(template) = TEMPLATE.get_ptr_mut(0) else { return FULL };
    // This processor's own element; nothing else of it is ever written.
    let flow = Flow(template.cast::<FlowValue>());
    flow.echo().set(echo_of(shape));
    flow.last_jiffies().set(now);
    // SAFETY: a helper without arguments.
    flow.first_ns().set(unsafe { bpf_ktime_get_ns() });
    let opens = shape.is_tcp != 0 && shape.tcp.flags & TCP_SYN != 0;
    let telling = if names::is_wanted(shape) { MARK_TELLING } else { 0 };
    flow.marks().set(telling | if opens { MARK_OPENED } else { 0 });
    let outcome = if shape.kind == KIND_IPV6 {
        // SAFETY: an element of a per-CPU map, found by a lookup.
        let value = unsafe { &*template };
        FLOWS6.insert(shape.words, value, u64::from(BPF_NOEXIST))
    } else {
        // SAFETY: as above; the flow is the first of its fields.
        let value = unsafe { &*template.cast::<FlowValue>() };
        FLOWS4.insert(short(&shape.words), value, u64::from(BPF_NOEXIST))
    };
    match outcome {
        Ok(()) => OPENED,
        Err(EXISTS) => MET,
        Err(_) => FULL,
    }
}

/// Adds a frame to its flow.
#[inline(always)]
pub(crate) fn account(flow: Flow, weight: &Weight, now: u32) {
    if flow.last_jiffies().peek() != now {
        flow.last_jiffies().set(now);
    }
    flow.frames().add(1);
    flow.bytes().add(u64::from(weight.bytes));
    if weight.extra_frames != 0 {
        flow.extra_frames().add(u64::from(weight.extra_frames));
        flow.extra_bytes().add(weight.extra_bytes());
    }
}

/// The flow's copy of its pair's verdict, if it is good. For the frame's time, before [`account`] moves the flow's clock.
#[inline(always)]
pub(crate) fn copy_of(flow: Flow, generation: u32, now: u32) -> Repeated {
    // The guard is written after the route that it speaks of, so it is read before.
    let guard = flow.guard().get();
    if guard as u32 != generation || (flow.last_jiffies().peek() ^ now) >> FLOW_RECHECK_SHIFT != 0 {
        return Repeated::default();
    }
    Repeated { route: Route(flow.route().get()), frame_bytes_max: (guard >> 32) as u32 }
}

/// A guard while a program writes the route that it speaks of: of no generation.
const BUSY: u64 = u64::MAX;

/// Copies the pair's verdict into the flow. What is to be punted is kept for the record, and never followed. A pair without a
/// verdict leaves the route as it was, for the record, and without a guard.
///
/// Only one program at a time writes a flow's route, and none that has read an older generation than the one there is now: or the
/// route of one and the guard of another would meet.
#[inline(always)]
pub(crate) fn keep_copy(flow: Flow, id: u32, verdict: Repeated, seen_generation: u32) {
    let seen = flow.guard().get();
    if seen == BUSY || !flow.guard().replace(seen, BUSY) {
        return;
    }
    let mut guard = 0;
    if verdict.route.action() != 0 && generation(id) == Some(seen_generation) {
        flow.route().set(verdict.route.0);
        guard = u64::from(seen_generation) | u64::from(verdict.frame_bytes_max) << 32;
    }
    flow.guard().set(guard);
}

/// Notes that a frame of a flow was dropped.
#[inline(always)]
pub(crate) fn note_drop(flow: Option<Flow>, reason: u8) {
    let Some(flow) = flow else { return };
    flow.dropped_frames().add(1);
    flow.drop_reason().set(reason);
}
