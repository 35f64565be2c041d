//! Each law holds where it should, and is seen to be broken where it is.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test ends where an assumption fails")]

use switch_common::{DropReason, Tally};

use super::*;

/// A switch at rest. Ann (port 1) sent 10 frames: 4 forwarded by the reflex to Bob (port 2), 1 dropped, 5 punted; of these
/// 2 forwarded to Bob (one too big for him), 2 flooded to Bob, 1 dropped by the brain.
fn quiet() -> Snapshot {
    let mut ann = port("ann", 1);
    ann.counters.ingress.frames = 10;
    ann.counters.forwarded = 4;
    ann.drops.ingress[DropReason::BadOffload as usize].frames = 1;
    ann.punted = 5;
    ann.brain.settled = 5;
    ann.brain.forwarded = 2;
    ann.brain.flooded = 2;
    ann.brain.flood_eligible = 2;
    ann.brain.ingress_drops[DropReason::Hairpin as usize].frames = 1;
    ann.netdev = Some(NetdevNumbers { rx_frames: 10, ..NetdevNumbers::default() });

    let mut bob = port("bob", 2);
    bob.counters.copies = 4;
    bob.brain.copies = 4;
    bob.brain.flood_copies = 2;
    bob.brain.egress_drops[DropReason::TooBig as usize].frames = 1;
    bob.counters.egress = Tally { frames: 7, extra_frames: 3, ..Tally::default() };
    bob.netdev = Some(NetdevNumbers { tx_frames: 6, tx_dropped: 1, ..NetdevNumbers::default() });

    let switch = BrainPort { flood_eligible: 2, flood_copies: 2, ..BrainPort::default() };
    Snapshot {
        ports: vec![ann, bob],
        switch,
        strangers: PortDrops::default(),
        evidence: EvidenceSums::default(),
        sightings: EvidenceSums::default(),
        sessions: Vec::new(),
        readers: Vec::new(),
    }
}

fn port(name: &str, id: u16) -> PortNumbers {
    PortNumbers {
        heard: HeardSums::default(),
        name: name.to_owned(),
        id,
        counters: PortCounters::default(),
        punted: 0,
        drops: PortDrops::default(),
        brain: BrainPort::default(),
        netdev: None,
        flows: None,
    }
}

/// The laws that do not hold, as `law what`.
fn broken(results: &[LawResult]) -> Vec<String> {
    results.iter().filter(|result| !result.holds).map(|result| format!("{} {}", result.law, result.what)).collect()
}

/// The laws broken by one change to the quiet switch.
fn broken_by(spoil: impl FnOnce(&mut Snapshot)) -> Vec<String> {
    let mut snapshot = quiet();
    spoil(&mut snapshot);
    broken(&check_quiet(&snapshot))
}

fn note(snapshot: &Snapshot, what: &str) -> Option<String> {
    check_quiet(snapshot).into_iter().find(|result| result.what.contains(what)).unwrap().note
}

#[test]
fn every_law_holds_in_a_switch_that_keeps_its_books() {
    let results = check_quiet(&quiet());
    assert_eq!(broken(&results), [""; 0]);
    assert!(["L1", "L2", "L3", "L5", "other"].iter().all(|law| results.iter().any(|result| result.law == *law)));
    assert!(results.iter().all(|result| result.left == result.right), "all exact: {results:#?}");
    assert_eq!(broken(&check_quiet(&Snapshot::default())), [""; 0], "an empty switch keeps them too");
}

#[test]
fn a_frame_that_vanishes_at_ingress_breaks_l1() {
    let law = ["L1 ann: came in = forwarded + dropped + punted"];
    assert_eq!(broken_by(|s| s.ports[0].counters.forwarded -= 1), law);
    assert_eq!(broken_by(|s| s.ports[0].drops.ingress[3].frames = 0), law);
    assert_eq!(broken_by(|s| s.ports[0].drops.ingress[31].frames = 1), law, "nor may one be doubled");
}

#[test]
fn a_frame_that_stays_in_flight_breaks_l1_at_rest() {
    let mut snapshot = quiet();
    snapshot.ports[0].counters.ingress.frames += 1;
    snapshot.ports[0].punted += 1;
    snapshot.ports[0].netdev = None;
    assert_eq!(in_flight(&snapshot.ports[0]), 1);
    assert_eq!(broken(&check_quiet(&snapshot)), ["L1 ann: punted = settled + unobserved"]);
    assert_eq!(note(&snapshot, "punted = settled").unwrap(), "1 in flight");
    snapshot.ports[0].brain.unobserved += 1;
    assert_eq!(in_flight(&snapshot.ports[0]), 0);
    assert_eq!(broken(&check_quiet(&snapshot)), [""; 0], "one that died with a killed brain is accounted for");
}

#[test]
fn a_frame_settled_without_a_fate_breaks_l1() {
    let law = ["L1 ann: forwarded + flooded + dropped by the brain = settled"];
    assert_eq!(broken_by(|s| s.ports[0].brain.flooded -= 1), law);
    assert_eq!(broken_by(|s| s.ports[0].brain.ingress_drops[7].frames += 1), law);
}

#[test]
fn a_copy_that_vanishes_breaks_l2() {
    let law = ["L2 bob: copies = went out + dropped"];
    assert_eq!(broken_by(|s| s.ports[1].counters.copies += 1), law);
    assert_eq!(broken_by(|s| s.ports[1].brain.copies += 1), law);
    assert_eq!(broken_by(|s| s.ports[1].brain.egress_drops[2].frames = 0), law);
    assert_eq!(broken_by(|s| s.ports[1].drops.egress[2].frames = 1), law);
}

#[test]
fn evidence_that_vanishes_breaks_l7() {
    let sums = |produced| EvidenceSums { produced, delivered: 4, lost: 2 };
    assert_eq!(broken_by(|s| s.evidence = sums(6)), [""; 0]);
    assert_eq!(broken_by(|s| s.evidence = sums(7)), ["L7 the switch: evidence = delivered + lost"]);
    let waits = Snapshot { evidence: sums(7), ..quiet() };
    assert_eq!(note(&waits, "evidence").unwrap(), "1 not fetched yet");
    // Under traffic what waits is no fault, and what nobody produced is.
    assert_eq!(broken(&check_moving(&waits, &waits, &waits)), [""; 0]);
    let invented = Snapshot { evidence: sums(5), ..quiet() };
    assert_eq!(broken(&check_moving(&invented, &invented, &invented)).len(), 1);
}

#[test]
fn a_flood_that_misses_a_port_breaks_l3() {
    assert_eq!(broken_by(|s| s.switch.flood_eligible += 1), ["L3 the switch: eligible ports = copies of floods"]);
    let forgotten = broken_by(|s| {
        s.switch.flood_eligible = 0;
        s.switch.flood_copies = 0;
    });
    assert_eq!(
        forgotten,
        [
            "L3 the switch: its ports' eligible ports are in its sum",
            "L3 the switch: its ports' copies of floods are in its sum"
        ]
    );
    let removed = broken_by(|s| {
        s.switch.flood_eligible += 5;
        s.switch.flood_copies += 5;
    });
    assert_eq!(removed, [""; 0], "floods to ports that are no more");
}

#[test]
fn a_kernel_that_saw_fewer_frames_than_we_did_breaks_l5() {
    let mut snapshot = quiet();
    snapshot.ports[0].netdev = Some(NetdevNumbers { rx_frames: 9, ..NetdevNumbers::default() });
    assert_eq!(broken(&check_quiet(&snapshot)), ["L5 ann: the netdev received = came in"]);
    snapshot.ports[0].netdev = Some(NetdevNumbers { rx_frames: 12, ..NetdevNumbers::default() });
    assert_eq!(broken(&check_quiet(&snapshot)), [""; 0]);
    assert_eq!(note(&snapshot, "ann: the netdev received").unwrap(), "2 ended before the reflex");
}

#[test]
fn a_netdev_that_transmitted_something_else_breaks_l5() {
    let with = |tx_frames, change: fn(&mut NetdevNumbers)| {
        let mut netdev = NetdevNumbers { tx_frames, ..NetdevNumbers::default() };
        change(&mut netdev);
        let mut snapshot = quiet();
        snapshot.ports[1].netdev = Some(netdev);
        broken(&check_quiet(&snapshot))
    };
    let law = ["L5 bob: went out = the netdev transmitted or dropped"];
    assert_eq!(with(7, |_| ()), [""; 0]);
    assert_eq!(with(6, |_| ()), law, "one is missing");
    assert_eq!(with(10, |_| ()), [""; 0], "cut into as many as a wire would have carried");
    assert_eq!(with(11, |_| ()), law, "one too many");
    assert_eq!(with(6, |netdev| netdev.has_ring = true), [""; 0], "a tap: not read yet");
    assert_eq!(with(11, |netdev| netdev.has_ring = true), law);
    assert_eq!(with(0, |netdev| netdev.peer_redirected = true), [""; 0], "past the counters");
}

#[test]
fn a_drop_without_a_reason_of_its_own_is_a_fault() {
    let law = ["other the switch: no drop is without a reason of its own"];
    let other = DropReason::Other as usize;
    assert_eq!(broken_by(|s| s.strangers.ingress[other].frames = 1), law);
    assert!(broken_by(|s| s.ports[1].brain.egress_drops[other].frames = 1).contains(&law[0].to_owned()));
}

/// The switch with `more` frames sent by Ann, of which the brain has settled `settled`, all forwarded to Bob.
fn busy(more: u64, settled: u64) -> Snapshot {
    let mut snapshot = quiet();
    let [ann, bob] = &mut snapshot.ports[..] else { panic!("two ports") };
    ann.netdev.as_mut().unwrap().rx_frames += more;
    ann.counters.ingress.frames += more;
    ann.punted += more;
    ann.brain.settled += settled;
    ann.brain.forwarded += settled;
    bob.brain.copies += settled;
    bob.counters.egress.frames += settled;
    bob.netdev.as_mut().unwrap().tx_frames += settled;
    snapshot
}

#[test]
fn every_law_holds_under_traffic_though_no_two_numbers_agree() {
    let mut during = busy(200, 100);
    during.ports[0].counters.ingress.frames += 7;
    during.ports[1].brain.copies += 3;
    during.ports[1].netdev.as_mut().unwrap().tx_frames -= 50;
    assert!(!broken(&check_quiet(&during)).is_empty(), "at rest this would be a fault");
    let results = check_moving(&busy(100, 20), &during, &busy(300, 250));
    assert_eq!(broken(&results), [""; 0]);
    assert_eq!(results.len(), check_quiet(&during).len());
}

#[test]
fn what_is_lost_or_made_up_shows_under_traffic_too() {
    let lost = |spoil: fn(&mut Snapshot)| {
        let mut during = busy(200, 100);
        spoil(&mut during);
        broken(&check_moving(&busy(190, 90), &during, &busy(210, 110)))
    };
    assert_eq!(lost(|_| ()), [""; 0]);
    assert_eq!(lost(|s| s.ports[0].punted -= 50), ["L1 ann: came in = forwarded + dropped + punted"]);
    assert_eq!(lost(|s| s.ports[0].brain.unobserved += 200), ["L1 ann: punted = settled + unobserved"]);
    assert!(lost(|s| s.ports[1].counters.egress.frames += 50).contains(&"L2 bob: copies = went out + dropped".into()));
    assert!(lost(|s| s.strangers.egress[DropReason::Other as usize].frames = 1).concat().starts_with("other"));
}

#[test]
fn a_port_that_came_or_went_meanwhile_is_left_out() {
    let mut after = quiet();
    after.ports.remove(1);
    let results = check_moving(&quiet(), &quiet(), &after);
    assert!(results.iter().any(|result| result.what.starts_with("ann")));
    assert!(!results.iter().any(|result| result.what.starts_with("bob")));
}

/// The quiet switch with Ann's frames weighed, and accounted: 6 in flows, 2 beyond their table, 1 unparsable, 1 refused before.
fn accounted() -> Snapshot {
    let mut snapshot = quiet();
    let ann = &mut snapshot.ports[0];
    ann.counters.ingress = Tally { frames: 10, bytes: 1000, extra_frames: 7, extra_bytes: 70 };
    ann.drops.ingress[DropReason::BadOffload as usize].bytes = 100;
    ann.counters.overflow = Tally { frames: 2, bytes: 200, extra_frames: 3, extra_bytes: 30 };
    ann.counters.unparsable = Tally { frames: 1, bytes: 60, ..Tally::default() };
    ann.flows = Some(Tally { frames: 6, bytes: 640, extra_frames: 4, extra_bytes: 40 });
    snapshot
}

#[test]
fn a_frame_that_is_in_no_flow_and_nowhere_else_breaks_l4() {
    let broken_by = |spoil: fn(&mut PortNumbers)| {
        let mut snapshot = accounted();
        spoil(&mut snapshot.ports[0]);
        broken(&check_quiet(&snapshot))
    };
    assert_eq!(broken_by(|_| {}), [""; 0]);
    let frames = ["L4 ann: accepted frames = of flows + overflow + unparsable"];
    assert_eq!(broken_by(|ann| ann.flows.as_mut().unwrap().frames -= 1), frames);
    assert_eq!(broken_by(|ann| ann.counters.overflow.frames += 1), frames);
    assert_eq!(broken_by(|ann| ann.counters.unparsable.frames = 0), frames);
    let bytes = ["L4 ann: accepted bytes = of flows + overflow + unparsable"];
    assert_eq!(broken_by(|ann| ann.flows.as_mut().unwrap().bytes += 1), bytes);
    assert_eq!(broken_by(|ann| ann.drops.ingress[DropReason::BadOffload as usize].bytes = 0), bytes);
    let extra = ["L4 ann: extra wire frames that came in = of flows + overflow + unparsable"];
    assert_eq!(broken_by(|ann| ann.flows.as_mut().unwrap().extra_frames += 1), extra, "more than came in");
    assert_eq!(broken_by(|ann| ann.flows = None), [""; 0], "a switch without flows keeps no such books");
}

/// The quiet switch with a mirror, and a capture of whose 20 frames the reader has taken 12, 5 were lost and 3 passed over.
fn looked_on() -> Snapshot {
    let weighed = |frames| Tally { frames, bytes: 100 * frames, extra_frames: 2 * frames, extra_bytes: 0 };
    let mirror =
        SessionNumbers { name: "mirror m".to_owned(), matched: weighed(10), delivered: weighed(7), lost: weighed(3) };
    let name = "capture 1".to_owned();
    let capture = ReaderNumbers { name, matched: 20, delivered: 12, lost: 5, passed_over: 3 };
    Snapshot { sessions: vec![mirror], readers: vec![capture], ..quiet() }
}

#[test]
fn what_a_mirror_wanted_and_neither_got_nor_lost_breaks_l6() {
    let broken_by = |spoil: fn(&mut SessionNumbers)| {
        let mut snapshot = looked_on();
        spoil(&mut snapshot.sessions[0]);
        broken(&check_quiet(&snapshot))
    };
    assert_eq!(broken_by(|_| {}), [""; 0]);
    assert_eq!(broken_by(|m| m.lost.bytes -= 1), ["L6 mirror m: bytes matched = delivered + lost"]);
    assert_eq!(broken_by(|m| m.delivered.extra_frames -= 1), ["L6 mirror m: wire frames matched = delivered + lost"]);
    assert_eq!(broken_by(|m| m.matched.frames += 1).len(), 2, "a frame is a wire frame as well");
    assert_eq!(broken_by(|m| m.delivered.frames += 1).len(), 2, "nor may one be doubled");
}

#[test]
fn what_was_found_for_a_capture_and_is_nowhere_breaks_l6() {
    let broken_by = |spoil: fn(&mut ReaderNumbers)| {
        let mut snapshot = looked_on();
        spoil(&mut snapshot.readers[0]);
        broken(&check_quiet(&snapshot))
    };
    let law = ["L6 capture 1: frames matched = delivered + lost + passed over"];
    assert_eq!(broken_by(|_| {}), [""; 0]);
    assert_eq!(note(&looked_on(), "capture 1").unwrap(), "5 lost, 3 passed over");
    assert_eq!(broken_by(|capture| capture.matched += 1), law);
    assert_eq!(broken_by(|capture| capture.lost -= 1), law);
    assert_eq!(broken_by(|capture| capture.delivered += 1), law, "nor may one be doubled");
    assert_eq!(broken_by(|capture| capture.passed_over = 0), law);
}

#[test]
fn what_is_under_way_to_the_reader_of_a_capture_is_no_fault_under_traffic() {
    let at = |matched, delivered| {
        let mut snapshot = looked_on();
        let capture = &mut snapshot.readers[0];
        (capture.matched, capture.delivered) = (matched, delivered);
        snapshot
    };
    let waiting = at(500, 12);
    assert_eq!(waiting.readers[0].under_way(), 480);
    assert_eq!(note(&waiting, "capture 1").unwrap(), "5 lost, 3 passed over, 480 under way");
    assert_eq!(broken(&check_quiet(&waiting)).len(), 1, "at rest nothing is under way");
    // The reader takes nothing for a while.
    assert_eq!(broken(&check_moving(&at(400, 12), &waiting, &at(600, 12))), [""; 0]);
    // It may have taken what was found after the first look, and nothing that was not found by the last one.
    assert_eq!(broken(&check_moving(&at(400, 12), &at(500, 590), &at(600, 592))), [""; 0]);
    assert_eq!(broken(&check_moving(&at(400, 12), &at(500, 593), &at(600, 593))).len(), 1);
}
