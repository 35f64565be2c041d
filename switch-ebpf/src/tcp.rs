//! What a TCP segment says about its flow: how far the stream is, what was sent again, who opened and when.
//!
//! Only the direction that the segment goes in is looked at; user space puts both together. The clock is read on SYN and on the
//! first segment behind it, nowhere else. Two processors that meet in one flow may disturb each other's `seq_end`: a segment sent again
//! may then be missed or counted twice, frames and bytes never are.

use aya_ebpf::helpers::generated::bpf_ktime_get_ns;
use core::intrinsics::{AtomicOrdering, atomic_xadd};
use switch_common::flow::{
    FlowValue, MARK_ACKED, MARK_OPENED, MARK_SEQUENCE, MARK_SYN_AGAIN, TCP_FIN, TCP_RST, TCP_SYN, Tcp,
};

use crate::booking::add_shared;
use crate::flow::mark;

/// Looks at a segment.
#[inline(always)]
pub(crate) fn look(flow: *mut FlowValue, tcp: &Tcp, gso_size: u32) {
    // SAFETY: an element of a map, found by a lookup, and not dead.
    let marks = unsafe { (*flow).marks };
    let Tcp { sequence, payload_bytes, window, flags } = *tcp;
    let awaits_ack = marks & (MARK_OPENED | MARK_ACKED) == MARK_OPENED;
    if flags & (TCP_SYN | TCP_RST) != 0 || window == 0 || awaits_ack {
        look_closer(flow, marks, flags, window);
    }
    let mut fresh = u32::from(flags) & !marks;
    // SYN and FIN take a number each (RFC 9293, section 3.4).
    let end = sequence
        .wrapping_add(payload_bytes)
        .wrapping_add(u32::from(flags & TCP_SYN != 0))
        .wrapping_add(u32::from(flags & TCP_FIN != 0));
    if marks & MARK_SEQUENCE == 0 {
        fresh |= MARK_SEQUENCE;
        // SAFETY: as above.
        unsafe { (*flow).seq_end = end };
    } else {
        // SAFETY: as above.
        let highest = unsafe { (*flow).seq_end };
        let below = highest.wrapping_sub(sequence).cast_signed();
        if below > 0 && payload_bytes != 0 {
            sent_again(flow, below.cast_unsigned(), payload_bytes, gso_size);
        }
        if end.wrapping_sub(highest).cast_signed() > 0 {
            // SAFETY: as above.
            unsafe { (*flow).seq_end = end };
        }
    }
    if fresh != 0 {
        mark(flow, fresh);
    }
}

#[inline(never)]
fn look_closer(flow: *mut FlowValue, marks: u32, flags: u8, window: u16) -> u32 {
    if flags & TCP_SYN != 0 {
        if marks & u32::from(TCP_SYN) != 0 {
            mark(flow, MARK_SYN_AGAIN);
        }
    } else if marks & (MARK_OPENED | MARK_ACKED) == MARK_OPENED && marks & u32::from(TCP_SYN) != 0 {
        // SAFETY: an element of a map, found by a lookup, and not dead.
        unsafe { (*flow).ack_ns = bpf_ktime_get_ns() };
        mark(flow, MARK_ACKED);
    }
    if flags & TCP_RST != 0 {
        // SAFETY: as above.
        add_small(unsafe { &raw mut (*flow).resets });
    } else if window == 0 && flags & TCP_SYN == 0 {
        // SAFETY: as above.
        add_small(unsafe { &raw mut (*flow).zero_windows });
    }
    0
}

/// Books `payload_bytes` that begin `below` the highest number seen.
#[inline(never)]
fn sent_again(flow: *mut FlowValue, below: u32, payload_bytes: u32, gso_size: u32) -> u32 {
    // A keepalive repeats one byte (RFC 9293, section 3.8.4).
    if payload_bytes == 1 && below == 1 {
        return 0;
    }
    let overlap = if payload_bytes < below { payload_bytes } else { below };
    let segments = if gso_size == 0 { 1 } else { overlap.div_ceil(gso_size) };
    // SAFETY: an element of a map, found by a lookup, and not dead.
    add_shared(unsafe { &raw mut (*flow).retransmitted_bytes }, u64::from(overlap));
    // SAFETY: as above.
    let count = unsafe { &raw mut (*flow).retransmitted_segments };
    // SAFETY: the field of an element of a map, aligned as `u32` is.
    unsafe { atomic_xadd::<u32, u32, { AtomicOrdering::Relaxed }>(count, segments) };
    0
}

fn add_small(count: *mut u32) {
    // SAFETY: the field of an element of a map, found by a lookup; aligned as `u32` is.
    unsafe { atomic_xadd::<u32, u32, { AtomicOrdering::Relaxed }>(count, 1) };
}
