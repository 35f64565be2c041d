//! Life and death of flows: by rule, by a new connection, by deletion; and no frame is lost over it.

use switch_common::Tally;
use switch_common::flow::{MARK_CLOSED, MARK_OPENED, TCP_ACK, TCP_FIN, TCP_RST, TCP_SYN};

use super::bench::Bench;
use super::books::{other_life, plain};
use super::lab::{enter, wait_for};
use super::packets::{Segment, small};

/// Ticks after which a flow is dead in these tests.
const SOON: u32 = 2;

impl Bench {
    /// Waits until no flow has had a frame for longer than [`SOON`].
    fn outlive(&mut self) {
        let last = self.flows().values().map(|flow| flow.last_jiffies).max().unwrap();
        wait_for("flows die", || self.reflex.clock().unwrap().jiffies().unwrap().wrapping_sub(last) > SOON);
    }

    /// What all flows of guest 1 have counted, those that were freed among them.
    fn sums(&self) -> Tally {
        self.reflex.flows().totals(&self.reflex.brain()).unwrap()[&1]
    }
}

#[test]
fn a_flow_that_is_dead_is_left_alone_and_its_tuple_goes_on_beside_it() {
    let test = "flow_lives::a_flow_that_is_dead_is_left_alone_and_its_tuple_goes_on_beside_it";
    let Some(lab) = enter(test) else { return };
    let mut bench = Bench::new(&lab);
    bench.settings(|settings| settings.flow_idle_jiffies = SOON);
    let frame = small(1000, 53);
    bench.send(1, &frame);
    let (key, first) = bench.flow();
    bench.outlive();
    bench.send(1, &frame);
    let flows = bench.flows();
    assert_eq!(flows[&key], first, "nobody touches what is dead");
    assert_eq!((flows.len(), flows[&other_life(key)].frames), (2, 1));
    // Both dead: no room until one is deleted.
    bench.outlive();
    bench.send(1, &frame);
    assert_eq!((bench.flows(), bench.overflow(1)), (flows, plain(1, 60)));
    assert_eq!(bench.sums(), plain(2, 120));
    bench.balance();
    // Deleted, and what it had counted is not lost.
    bench.free([key]);
    assert_eq!(bench.sums(), plain(2, 120));
    bench.balance();
    bench.send(1, &frame);
    let flows = bench.flows();
    assert_eq!((flows.len(), flows[&key].frames), (2, 1), "the first life again");
    assert!(flows[&key].first_ns > first.first_ns);
    bench.free([other_life(key)]);
    assert_eq!(bench.sums(), plain(3, 180));
    // The first life dies once more, and the second one is free to be begun.
    bench.outlive();
    bench.send(1, &frame);
    assert_eq!(bench.flows().len(), 2);
    assert_eq!(bench.sums(), plain(4, 240));
    bench.balance();
}

#[test]
fn the_second_life_is_found_when_the_first_is_deleted_and_not_looked_for_when_there_is_none() {
    let test = "flow_lives::the_second_life_is_found_when_the_first_is_deleted_and_not_looked_for_when_there_is_none";
    let Some(lab) = enter(test) else { return };
    let mut bench = Bench::new(&lab);
    bench.settings(|settings| settings.flow_closed_jiffies = SOON);
    let alternates = |bench: &Bench| {
        let used = bench.reflex.buckets(switch_common::PortId::new(1).unwrap()).unwrap().alternates_used;
        (used, bench.reflex.brain().port(1).alternates_freed.get())
    };
    bench.send(1, &Segment::at(1, 1).flags(TCP_ACK | TCP_FIN).over_ipv4());
    let (key, _) = bench.flow();
    assert_eq!(alternates(&bench), (0, 0));
    bench.outlive();
    bench.send(1, &Segment::at(2, 1).over_ipv4());
    assert_eq!(alternates(&bench), (1, 0));
    bench.free([key]);
    bench.send(1, &Segment::at(3, 1).over_ipv4());
    let (found, value) = bench.flow();
    assert_eq!((found, value.frames), (other_life(key), 2));
    bench.free([found]);
    assert_eq!(alternates(&bench), (1, 1));
    bench.send(1, &Segment::at(4, 1).over_ipv4());
    assert_eq!((bench.flow().0, bench.sums().frames), (key, 4));
    bench.balance();
}

#[test]
fn a_flow_that_has_ended_dies_sooner() {
    let Some(lab) = enter("flow_lives::a_flow_that_has_ended_dies_sooner") else { return };
    let mut bench = Bench::new(&lab);
    bench.settings(|settings| settings.flow_closed_jiffies = SOON);
    let last_ack = Segment::at(3, 0).over_ipv4();
    for (flags, lives) in [(TCP_ACK, 1), (TCP_ACK | TCP_FIN, 2), (TCP_RST, 2)] {
        bench.send(1, &Segment::at(1, 1).flags(flags).over_ipv4());
        bench.outlive();
        bench.send(1, &last_ack);
        assert_eq!(bench.flows().len(), lives, "{flags:#x}");
        bench.free(bench.flows().into_keys());
        bench.balance();
    }
    assert_eq!(bench.sums().frames, 6);
}

#[test]
fn a_connection_that_begins_anew_ends_what_its_tuple_was() {
    let Some(lab) = enter("flow_lives::a_connection_that_begins_anew_ends_what_its_tuple_was") else { return };
    let mut bench = Bench::new(&lab);
    bench.settings(|_| {});
    for (over, last) in [(false, TCP_ACK | TCP_FIN), (false, TCP_RST), (true, TCP_ACK | TCP_FIN)] {
        let send = |bench: &mut Bench, segment: Segment| {
            bench.send(1, &if over { segment.over_ipv6() } else { segment.over_ipv4() });
        };
        send(&mut bench, Segment::at(1, 10).flags(last));
        let (key, first) = bench.flow();
        // What comes late, without SYN, is still of the old one.
        send(&mut bench, Segment::at(12, 0));
        assert_eq!(bench.flow().1.frames, 2);
        send(&mut bench, Segment::at(900, 0).flags(TCP_SYN));
        send(&mut bench, Segment::at(901, 100));
        let flows = bench.flows();
        let (old, new) = (flows[&key], flows[&other_life(key)]);
        assert_eq!((old.frames, old.marks & MARK_CLOSED), (2, MARK_CLOSED));
        assert_eq!((new.frames, new.marks & MARK_OPENED, new.seq_end), (2, MARK_OPENED, 1001));
        assert_eq!((new.retransmitted_bytes, first.marks & MARK_OPENED), (0, 0));
        // A third connection while both are there: no room.
        send(&mut bench, Segment::at(1001, 0).flags(TCP_FIN | TCP_ACK));
        let before = bench.overflow(1).frames;
        send(&mut bench, Segment::at(5, 0).flags(TCP_SYN));
        assert_eq!(bench.overflow(1).frames, before + 1);
        bench.balance();
        bench.free(bench.flows().into_keys());
        bench.balance();
    }
}

#[test]
fn a_deletion_in_whose_middle_the_daemon_was_killed_is_finished_by_the_next() {
    let test = "flow_lives::a_deletion_in_whose_middle_the_daemon_was_killed_is_finished_by_the_next";
    let Some(lab) = enter(test) else { return };
    let mut bench = Bench::new(&lab);
    for port in [1000, 1001, 1002] {
        bench.send(1, &small(port, 53));
    }
    let mut flows: Vec<_> = bench.flows().into_iter().collect();
    flows.sort_by_key(|(_, flow)| flow.first_ns);
    let brain = bench.reflex.brain();
    let begin = |flow: &switch_common::flow::FlowValue, flows_freed| {
        let freed = plain(flows_freed, 60 * flows_freed);
        let (echo, first_ns) = (flow.echo.into(), flow.first_ns);
        brain.port(0).freeing.write(&switch_common::Freeing { port: 1, echo, first_ns, flows_freed, freed });
    };
    // Killed before the flow was deleted: nothing is booked.
    begin(&flows[0].1, 1);
    bench.reflex.book_unobserved().unwrap();
    assert_eq!((brain.port(1).flows_freed.get(), brain.port(0).freeing.snapshot().port), (0, 0));
    bench.balance();
    // Killed behind that: what was to be booked is, and once only.
    bench.free([flows[0].0]);
    for _ in 0..2 {
        begin(&flows[0].1, 1);
        bench.reflex.book_unobserved().unwrap();
        assert_eq!((brain.port(1).flows_freed.get(), brain.port(1).freed.snapshot()), (1, plain(1, 60)));
        bench.balance();
    }
}
