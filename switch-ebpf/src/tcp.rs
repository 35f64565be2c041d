//! What a TCP segment says about its flow: how far the stream is, what was sent again, who opened and when.
//!
//! Only the direction that the segment goes in is looked at; user space puts both together. The clock is read on SYN and on the
//! first segment behind it, nowhere else.
//!
//! **Sent again** is what was seen before, not what merely comes late. Segments of one stream overtake each other before they come here
//! when their sender runs on two processors (each has a backlog of its own), and some are lost. So a segment that leaves a gap before it
//! adds the gap to what is missing; one that begins below the highest number takes from what is missing first, and only the
//! rest of it was sent again. Over a stream: bytes sent again = payload bytes − distinct bytes, once the gaps are closed.

use aya_ebpf::helpers::generated::bpf_ktime_get_ns;
use switch_common::flow::{
    ACK_UNIT_NS, MARK_ACKED, MARK_OPENED, MARK_SEQUENCE, MARK_SYN_AGAIN, TCP_FIN, TCP_RST, TCP_SYN, Tcp,
};

use crate::field::Flow;

/// Looks at a segment.
#[inline(always)]
pub(crate) fn look(flow: Flow, tcp: &Tcp, gso_size: u32) {
    let marks = flow.marks().peek();
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
    } else if payload_bytes != 0 || end != flow.seq_end().get() {
        take_in(flow, sequence, end, payload_bytes, gso_size);
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
        let after_ns = unsafe { bpf_ktime_get_ns() }.wrapping_sub(flow.first_ns().get());
        let after = after_ns / ACK_UNIT_NS;
        flow.ack_after().set(if after == 0 {
            1
        } else if after > u64::from(u32::MAX) {
            u32::MAX
        } else {
            after as u32
        });
        flow.marks().set_bits(MARK_ACKED);
    }
    if flags & TCP_RST != 0 {
        flow.resets().add(1);
    } else if window == 0 && flags & TCP_SYN == 0 {
        flow.zero_windows().add(1);
    }
    0
}

/// How often two processors may take a stream's end from each other before one of them lets it be.
const TRIES: u32 = 4;

/// Moves the stream's end, notes what it leaves out, or books what came before.
#[inline(always)]
fn take_in(flow: Flow, sequence: u32, end: u32, payload_bytes: u32, gso_size: u32) {
    let mut tries = 0;
    while tries < TRIES {
        let highest = flow.seq_end().get();
        let ahead = end.wrapping_sub(highest).cast_signed();
        let below = highest.wrapping_sub(sequence).cast_signed();
        if ahead <= 0 || flow.seq_end().replace(highest, end) {
            if below < 0 && payload_bytes != 0 {
                flow.missing_bytes().add(below.wrapping_neg().cast_unsigned());
            } else if below > 0 && payload_bytes != 0 {
                seen_before(flow, below.cast_unsigned(), payload_bytes, gso_size);
            }
            return;
        }
        tries += 1;
    }
}

/// Books `payload_bytes` that begin `below` the highest number seen.
#[inline(never)]
fn seen_before(flow: Flow, below: u32, payload_bytes: u32, gso_size: u32) -> u32 {
    // A keepalive repeats one byte (RFC 9293, section 3.8.4).
    if payload_bytes == 1 && below == 1 {
        return 0;
    }
    let overlap = if payload_bytes < below { payload_bytes } else { below };
    let missing = flow.missing_bytes().get();
    // Another processor may take from it at the same time: what is more than there can be is nothing.
    let late = if missing.cast_signed() <= 0 {
        0
    } else if missing < overlap {
        missing
    } else {
        overlap
    };
    if late != 0 {
        flow.missing_bytes().add(late.wrapping_neg());
    }
    let again = overlap - late;
    if again != 0 {
        let segments = if gso_size == 0 { 1 } else { again.div_ceil(gso_size) };
        flow.retransmitted_bytes().add(u64::from(again));
        flow.retransmitted_segments().add(segments);
    }
    0
}
