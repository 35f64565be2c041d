//! What a TCP segment says about its flow: how far the stream is, what was sent again, who opened and when.
//!
//! Only the direction that the segment goes in is looked at; user space puts both together. The clock is read on SYN and on the
//! first segment behind it, nowhere else. Two processors that meet in one flow may disturb each other's `seq_end`: a segment sent again
//! may then be missed or counted twice, frames and bytes never are.

use aya_ebpf::helpers::generated::bpf_ktime_get_ns;
use switch_common::flow::{MARK_ACKED, MARK_OPENED, MARK_SEQUENCE, MARK_SYN_AGAIN, TCP_FIN, TCP_RST, TCP_SYN, Tcp};

use crate::field::Flow;

/// Looks at a segment.
#[inline(always)]
pub(crate) fn look(flow: Flow, tcp: &Tcp, gso_size: u32) {
    let marks = flow.marks().get();
    let Tcp { sequence, payload_bytes, window, flags } = *tcp;
    if flags & (TCP_SYN | TCP_RST) != 0 || window == 0 || awaits_ack(marks) {
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
        flow.seq_end().set(end);
    } else {
        let highest = flow.seq_end().get();
        let below = highest.wrapping_sub(sequence).cast_signed();
        if below > 0 && payload_bytes != 0 {
            sent_again(flow, below.cast_unsigned(), payload_bytes, gso_size);
        }
        if end.wrapping_sub(highest).cast_signed() > 0 {
            flow.seq_end().set(end);
        }
    }
    if fresh != 0 {
        flow.marks().set_bits(fresh);
    }
}

/// Whether the direction has sent its SYN, and nothing behind it.
#[inline(always)]
fn awaits_ack(marks: u32) -> bool {
    marks & (MARK_OPENED | MARK_ACKED) == MARK_OPENED
}

#[inline(never)]
fn look_closer(flow: Flow, marks: u32, flags: u8, window: u16) -> u32 {
    if flags & TCP_SYN != 0 {
        if marks & u32::from(TCP_SYN) != 0 {
            flow.marks().set_bits(MARK_SYN_AGAIN);
        }
    } else if awaits_ack(marks) && marks & u32::from(TCP_SYN) != 0 {
        // SAFETY: a helper without arguments.
        flow.ack_ns().set(unsafe { bpf_ktime_get_ns() });
        flow.marks().set_bits(MARK_ACKED);
    }
    if flags & TCP_RST != 0 {
        flow.resets().add(1);
    } else if window == 0 && flags & TCP_SYN == 0 {
        flow.zero_windows().add(1);
    }
    0
}

/// Books `payload_bytes` that begin `below` the highest number seen.
#[inline(never)]
fn sent_again(flow: Flow, below: u32, payload_bytes: u32, gso_size: u32) -> u32 {
    // A keepalive repeats one byte (RFC 9293, section 3.8.4).
    if payload_bytes == 1 && below == 1 {
        return 0;
    }
    let overlap = if payload_bytes < below { payload_bytes } else { below };
    let segments = if gso_size == 0 { 1 } else { overlap.div_ceil(gso_size) };
    flow.retransmitted_bytes().add(u64::from(overlap));
    flow.retransmitted_segments().add(segments);
    0
}
