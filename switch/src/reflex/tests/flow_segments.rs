//! What a flow says of its TCP, each fact beside what must not count as one.

use switch_common::flow::{
    FlowValue, MARK_ACKED, MARK_OPENED, MARK_SEQUENCE, MARK_SYN_AGAIN, TCP_ACK, TCP_FIN, TCP_RST, TCP_SYN,
};

use super::bench::Bench;
use super::lab::enter;
use super::packets::{Segment, request};

/// Sends segments as one flow over IPv4, and the same over IPv6; what became of it.
fn flow_of(test: &str, segments: &[Segment]) -> Option<FlowValue> {
    let lab = enter(&format!("flow_segments::{test}"))?;
    let mut bench = Bench::new(&lab);
    bench.settings(|settings| settings.flags = 0);
    for segment in segments {
        bench.send(1, &segment.over_ipv6());
    }
    let facts = |flow: FlowValue| {
        let FlowValue { seq_end, marks, retransmitted_bytes, retransmitted_segments, zero_windows, resets, .. } = flow;
        (seq_end, marks, retransmitted_bytes, retransmitted_segments, zero_windows, resets)
    };
    let (key, over_6) = bench.flow();
    bench.free([key]);
    for segment in segments {
        bench.send(1, &segment.over_ipv4());
    }
    let (_, over_4) = bench.flow();
    assert_eq!(facts(over_6), facts(over_4));
    bench.balance();
    Some(over_4)
}

#[test]
fn segments_sent_again_are_counted_exactly() {
    let mut segments: Vec<Segment> = (0..20).map(|number| Segment::at(1000 + number * 100, 100)).collect();
    // The fourth, the eighth and the last again, the eighth twice; half of one with half of what is new.
    segments.extend([3, 7, 7, 19].map(|number| Segment::at(1000 + number * 100, 100)));
    segments.push(Segment::at(2950, 100));
    let Some(flow) = flow_of("segments_sent_again_are_counted_exactly", &segments) else { return };
    assert_eq!((flow.retransmitted_segments, flow.retransmitted_bytes), (5, 450));
    assert_eq!(flow.seq_end, 3050);
}

#[test]
fn what_is_no_retransmission_is_not_counted_as_one() {
    let segments = [
        Segment::at(100, 0).flags(TCP_SYN),
        Segment::at(101, 50),
        // Acknowledgements, and keepalives with a byte and without (RFC 9293, section 3.8.4).
        Segment::at(151, 0),
        Segment::at(150, 0),
        Segment::at(150, 1),
        // A gap, as of a frame lost before us.
        Segment::at(500, 50),
        Segment::at(550, 0).flags(TCP_ACK | TCP_FIN),
        Segment::at(550, 0).flags(TCP_ACK | TCP_FIN),
        Segment::at(551, 0),
    ];
    let Some(flow) = flow_of("what_is_no_retransmission_is_not_counted_as_one", &segments) else { return };
    assert_eq!((flow.retransmitted_segments, flow.retransmitted_bytes, flow.seq_end), (0, 0, 551));
}

#[test]
fn sequence_numbers_turn_over_and_a_flow_may_be_met_in_the_middle() {
    let test = "sequence_numbers_turn_over_and_a_flow_may_be_met_in_the_middle";
    let start = u32::MAX - 149;
    let segments = [0, 100, 200, 100].map(|offset: u32| Segment::at(start.wrapping_add(offset), 100));
    let Some(flow) = flow_of(test, &segments) else { return };
    assert_eq!((flow.retransmitted_segments, flow.retransmitted_bytes, flow.seq_end), (1, 100, 150));
    assert_eq!(flow.marks & MARK_OPENED, 0);
}

#[test]
fn a_segment_that_is_overtaken_or_lost_before_the_hook_is_not_sent_again() {
    let test = "a_segment_that_is_overtaken_or_lost_before_the_hook_is_not_sent_again";
    // 1100 comes late; 1400 is lost on its way here and comes once, when its sender tries again.
    let segments = [1000, 1200, 1100, 1300, 1500, 1600, 1400, 1700].map(|sequence| Segment::at(sequence, 100));
    let Some(flow) = flow_of(test, &segments) else { return };
    assert_eq!((flow.retransmitted_segments, flow.retransmitted_bytes), (0, 0));
    assert_eq!((flow.missing_bytes, flow.seq_end), (0, 1800));
}

#[test]
fn once_the_gaps_are_closed_what_was_sent_again_is_what_was_seen_twice() {
    let test = "once_the_gaps_are_closed_what_was_sent_again_is_what_was_seen_twice";
    // While 1100 is missing, 1200 comes twice: which of both is late shows only in the end.
    let segments = [1000, 1200, 1200, 1100, 1300].map(|sequence| Segment::at(sequence, 100));
    let Some(flow) = flow_of(test, &segments) else { return };
    assert_eq!((flow.retransmitted_segments, flow.retransmitted_bytes), (1, 100));
    assert_eq!((flow.missing_bytes, flow.seq_end), (0, 1400));
}

#[test]
fn zero_windows_resets_and_repeated_syns_are_counted() {
    let segments = [
        Segment::at(100, 0).flags(TCP_SYN).window(0),
        Segment::at(100, 0).flags(TCP_SYN),
        Segment::at(101, 10),
        Segment::at(111, 0).window(0),
        Segment::at(111, 0).window(0),
        Segment::at(111, 0).window(1),
        // A reset closes no window, whatever it has there.
        Segment::at(111, 0).flags(TCP_RST).window(0),
        Segment::at(111, 0).flags(TCP_RST | TCP_ACK).window(0),
    ];
    let Some(flow) = flow_of("zero_windows_resets_and_repeated_syns_are_counted", &segments) else { return };
    assert_eq!((flow.zero_windows, flow.resets), (2, 2));
    let flags = u32::from(TCP_SYN | TCP_ACK | TCP_RST);
    assert_eq!(flow.marks, MARK_SEQUENCE | MARK_OPENED | MARK_ACKED | MARK_SYN_AGAIN | flags);
}

fn now_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    u64::try_from(now.tv_sec * 1_000_000_000 + now.tv_nsec).unwrap()
}

#[test]
fn the_times_of_a_handshake_are_those_of_its_frames() {
    let Some(lab) = enter("flow_segments::the_times_of_a_handshake_are_those_of_its_frames") else { return };
    let mut bench = Bench::new(&lab);
    let segments = [
        Segment::at(100, 0).flags(TCP_SYN),
        // Neither is the first frame behind the handshake.
        Segment::at(100, 0).flags(TCP_SYN),
        Segment::at(101, 0),
        Segment::at(101, 10),
    ];
    let times: Vec<(u64, u64)> = segments
        .iter()
        .map(|segment| {
            let before = now_ns();
            bench.send(1, &segment.over_ipv4());
            (before, now_ns())
        })
        .collect();
    let (_, flow) = bench.flow();
    let within = |at_ns: u64, (from, to): (u64, u64)| from <= at_ns && at_ns <= to;
    assert!(within(flow.first_ns, times[0]), "{} {times:?}", flow.first_ns);
    assert!(within(flow.ack_ns(), times[2]), "{} {times:?}", flow.ack_ns());
    bench.balance();
}

#[test]
fn of_a_super_frame_only_the_segments_below_what_was_seen_were_sent_again() {
    let test = "flow_segments::of_a_super_frame_only_the_segments_below_what_was_seen_were_sent_again";
    let Some(lab) = enter(test) else { return };
    let mut bench = Bench::new(&lab);
    let request = request(1, 54, 20, 1000);
    let mut send = |sequence| bench.guests[0].send_with(request, &Segment::at(sequence, 10_000).over_ipv4());
    send(0);
    send(10_000);
    // From the middle of the second on: 4,500 bytes, in four whole segments and a part of one.
    send(15_500);
    // All of it once more.
    send(15_500);
    let (_, flow) = bench.flow();
    assert_eq!((flow.retransmitted_bytes, flow.retransmitted_segments), (14_500, 5 + 10));
    assert_eq!((flow.frames, flow.extra_frames, flow.extra_bytes), (4, 36, 36 * 54));
    bench.balance();
}
