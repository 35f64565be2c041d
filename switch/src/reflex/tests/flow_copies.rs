//! The copy of a verdict in its flow: followed while it is good, looked up anew when it is not.

use switch_common::DropReason;
use switch_common::flow::Route;
use switch_common::{FLOW_RECHECK_SHIFT, VERDICT_DROP, VERDICT_FORWARD, VERDICT_PUNT};

use super::bench::{Bench, id, pair};
use super::lab::{enter, wait_for};
use super::packets::small;

impl Bench {
    fn window(&mut self) -> u32 {
        self.reflex.clock().unwrap().jiffies().unwrap() >> FLOW_RECHECK_SHIFT
    }

    /// Does something within one of the windows of 64 jiffies in which a copy is good; does it again when it took longer.
    fn in_one_window<T>(&mut self, mut work: impl FnMut(&mut Self) -> T) -> T {
        loop {
            let before = self.window();
            let done = work(self);
            if self.window() == before {
                return done;
            }
        }
    }

    fn punted(&self) -> u64 {
        self.reflex.buckets(id(1)).unwrap().punted
    }
}

#[test]
fn a_frame_of_a_known_flow_needs_nothing_but_its_flow() {
    let Some(lab) = enter("flow_copies::a_frame_of_a_known_flow_needs_nothing_but_its_flow") else { return };
    let mut bench = Bench::new(&lab);
    bench.settings(|_| {});
    let arrived = bench.in_one_window(|bench| {
        bench.decide(1, 2, |_| {});
        bench.send(1, &small(1000, 53));
        // Behind everybody's back: no generation says so.
        assert!(bench.verdicts.remove(&pair(1, 2)).unwrap());
        (0..100).for_each(|_| bench.send(1, &small(1000, 53)));
        bench.received(2).len()
    });
    assert_eq!((arrived, bench.punted()), (101, 0));
    let (_, flow) = bench.flow();
    let route = Route(flow.route);
    assert_eq!((route.egress(), route.action(), flow.guard >> 32), (2, VERDICT_FORWARD, 1514));
    // In the next window the pair is looked up, and is not there.
    let window = bench.window();
    wait_for("the next window", || bench.window() != window);
    bench.send(1, &small(1000, 53));
    assert_eq!((bench.received(2).len(), bench.punted()), (0, 1));
    bench.balance();
}

#[test]
fn a_copy_of_an_older_generation_is_not_followed() {
    let Some(lab) = enter("flow_copies::a_copy_of_an_older_generation_is_not_followed") else { return };
    let mut bench = Bench::new(&lab);
    bench.settings(|_| {});
    bench.decide(1, 2, |_| {});
    bench.send(1, &small(1000, 53));
    assert_eq!(bench.received(2).len(), 1);
    assert!(bench.verdicts.remove(&pair(1, 2)).unwrap());
    bench.reflex.brain().bump_generation(1);
    bench.send(1, &small(1000, 53));
    assert_eq!((bench.received(2).len(), bench.punted()), (0, 1));
    // The station is behind another port now, then refused.
    bench.decide(1, 2, |verdict| verdict.egress = 3);
    bench.decide(1, 2, |verdict| (verdict.egress, verdict.ifindex) = (3, super::lab::ifindex("guest3")));
    bench.send(1, &small(1000, 53));
    assert_eq!((bench.received(2).len(), bench.received(3).len()), (0, 1));
    bench.decide(1, 2, |verdict| (verdict.action, verdict.reason) = (VERDICT_DROP, DropReason::SpoofedSource as u8));
    bench.send(1, &small(1000, 53));
    assert_eq!((bench.received(2).len(), bench.received(3).len(), bench.punted()), (0, 0, 1));
    let (_, flow) = bench.flow();
    assert_eq!((flow.frames, flow.dropped_frames, flow.drop_reason), (4, 1, DropReason::SpoofedSource as u8));
    bench.balance();
}

#[test]
fn a_new_flow_of_a_known_pair_never_visits_the_brain() {
    let Some(lab) = enter("flow_copies::a_new_flow_of_a_known_pair_never_visits_the_brain") else { return };
    let mut bench = Bench::new(&lab);
    bench.settings(|_| {});
    bench.decide(1, 2, |_| {});
    for port in 1000..1100 {
        bench.send(1, &small(port, 53));
        assert_eq!(bench.received(2).len(), 1);
    }
    assert_eq!((bench.flows().len(), bench.punted()), (100, 0));
    bench.balance();
}

#[test]
fn a_pair_that_is_to_be_punted_is_kept_for_the_record_and_punted() {
    let test = "flow_copies::a_pair_that_is_to_be_punted_is_kept_for_the_record_and_punted";
    let Some(lab) = enter(test) else { return };
    let mut bench = Bench::new(&lab);
    bench.settings(|_| {});
    bench.decide(1, 2, |verdict| verdict.action = VERDICT_FORWARD | VERDICT_PUNT);
    (0..3).for_each(|_| bench.send(1, &small(1000, 53)));
    assert_eq!((bench.received(2).len(), bench.punted()), (0, 3));
    let (_, flow) = bench.flow();
    assert_eq!((flow.frames, Route(flow.route).egress()), (3, 2));
    bench.balance();
}
