//! Every reason for which the kernel half drops a frame, provoked; each beside a frame that passes.

use switch_common::{
    DropReason, FLOOD_ID, PORT_UP, PUNT_IN_FLIGHT_PORT_MAX, PortConfig, SETTING_PUNT, SETTING_PUNT_UNLIMITED,
    VERDICT_DROP, Way,
};

use super::bench::{Bench, PLAIN, frame, id, mac, pair};
use super::lab::{enter, ifindex};

const SMALL: (u64, u64) = (1, 60);

#[test]
fn a_port_that_is_down_sends_nothing() {
    let Some(lab) = enter("refusals::a_port_that_is_down_sends_nothing") else { return };
    let mut bench = Bench::new(&lab);
    bench.decide(1, 2, |_| {});
    let small = frame(1, 2, &PLAIN, 46);
    bench.send(1, &small);
    bench.port(1, |port| port.flags &= !PORT_UP);
    bench.send(1, &small);
    assert_eq!(bench.received(2), [small]);
    assert_eq!(bench.dropped(1, Way::Ingress, DropReason::PortDown), SMALL);
    bench.balance();
}

#[test]
fn a_frame_of_no_port_is_booked_on_slot_zero() {
    let Some(lab) = enter("refusals::a_frame_of_no_port_is_booked_on_slot_zero") else { return };
    let mut bench = Bench::new(&lab);
    bench.decide(1, 2, |_| {});
    bench.reflex.unlink(ifindex("guest1")).unwrap();
    bench.send(1, &frame(1, 2, &PLAIN, 46));
    assert_eq!(bench.received(2), Vec::<Vec<u8>>::new());
    let other = DropReason::Other as usize;
    let drops = bench.reflex.all_drops().unwrap()[0];
    assert_eq!((drops.ingress[other].frames, drops.ingress[other].bytes), SMALL);
    assert_eq!(bench.reflex.all_counters().unwrap()[0].ingress.frames, 1);
    bench.balance();
}

#[test]
fn a_cut_tag_among_the_bytes_is_malformed() {
    let Some(lab) = enter("refusals::a_cut_tag_among_the_bytes_is_malformed") else { return };
    let mut bench = Bench::new(&lab);
    bench.decide(1, 2, |_| {});
    // The kernel itself frees a frame whose first tag is cut, before any program. The second is ours to find.
    let cut = frame(1, 2, &[0x88, 0xa8, 0, 5, 0x81, 0x00], 2);
    let whole = frame(1, 2, &[0x88, 0xa8, 0, 5, 0x81, 0x00], 4);
    bench.send(1, &cut);
    bench.send(1, &whole);
    assert_eq!(bench.received(2), [whole]);
    assert_eq!(bench.dropped(1, Way::Ingress, DropReason::Malformed), (1, cut.len() as u64));
    bench.balance();
}

#[test]
fn a_dropping_verdict_drops_with_its_reason() {
    let Some(lab) = enter("refusals::a_dropping_verdict_drops_with_its_reason") else { return };
    let mut bench = Bench::new(&lab);
    for reason in [DropReason::SpoofedSource, DropReason::GroupSource, DropReason::ReservedAddress, DropReason::Hairpin]
    {
        bench.decide(1, 2, |verdict| {
            verdict.action = VERDICT_DROP;
            verdict.reason = reason as u8;
        });
        bench.send(1, &frame(1, 2, &PLAIN, 46));
        assert_eq!(bench.dropped(1, Way::Ingress, reason), SMALL);
    }
    assert_eq!(bench.received(2), Vec::<Vec<u8>>::new());
    bench.balance();
}

#[test]
fn a_frame_longer_than_the_egress_takes_is_too_big_and_tags_do_not_count() {
    let test = "refusals::a_frame_longer_than_the_egress_takes_is_too_big_and_tags_do_not_count";
    let Some(lab) = enter(test) else { return };
    let mut bench = Bench::new(&lab);
    bench.decide(1, 2, |_| {});
    let longest = frame(1, 2, &PLAIN, 1500);
    let tagged = frame(1, 2, &[0x81, 0, 0, 7, PLAIN[0], PLAIN[1]], 1500);
    let doubly = frame(1, 2, &[0x88, 0xa8, 0, 5, 0x81, 0, 0, 7, PLAIN[0], PLAIN[1]], 1500);
    let longer = frame(1, 2, &PLAIN, 1501);
    let tagged_longer = frame(1, 2, &[0x81, 0, 0, 7, PLAIN[0], PLAIN[1]], 1501);
    for frame in [&longest, &tagged, &doubly, &longer, &tagged_longer] {
        bench.send(1, frame);
    }
    assert_eq!(bench.received(2), [longest, tagged, doubly]);
    assert_eq!(bench.dropped(2, Way::Egress, DropReason::TooBig), (2, 1515 + 1519));
    assert_eq!(bench.ingress(1).bytes, 1514 + 1518 + 1522 + 1515 + 1519);
    assert_eq!(bench.egress(2).bytes, 1514 + 1518 + 1522);
    bench.balance();
}

#[test]
fn an_unknown_pair_without_a_brain_is_dropped() {
    let Some(lab) = enter("refusals::an_unknown_pair_without_a_brain_is_dropped") else { return };
    let mut bench = Bench::new(&lab);
    bench.send(1, &frame(1, 2, &PLAIN, 46));
    assert_eq!(bench.dropped(1, Way::Ingress, DropReason::BrainAbsent), SMALL);
    // An element that repeats another key is another pair's: its verdict is none.
    bench.decide(1, 2, |_| {});
    bench.verdicts.disguise(&pair(1, 2), &pair(1, 3));
    bench.send(1, &frame(1, 2, &PLAIN, 46));
    assert_eq!(bench.dropped(1, Way::Ingress, DropReason::BrainAbsent), (2, 120));
    assert_eq!(bench.received(2), Vec::<Vec<u8>>::new());
    bench.balance();
}

#[test]
fn a_port_punts_no_more_than_its_buckets_hold() {
    let Some(lab) = enter("refusals::a_port_punts_no_more_than_its_buckets_hold") else { return };
    let mut bench = Bench::new(&lab);
    let hour_ns = 3_600_000_000_000;
    bench.settings(|_| {});
    // A burst of four, then one per hour.
    let tight = |port: &mut PortConfig| {
        (port.punt_interval_ns, port.punt_ahead_ns) = (hour_ns, 3 * hour_ns);
        (port.group_interval_ns, port.group_ahead_ns) = (hour_ns, hour_ns);
    };
    bench.port(1, tight);
    let known = frame(1, 2, &PLAIN, 46);
    let mut group = known.clone();
    group[0] |= 1;
    for _ in 0..10 {
        bench.send(1, &known);
        bench.send(1, &group);
    }
    assert_eq!(bench.dropped(1, Way::Ingress, DropReason::PuntLimited).0, 6);
    assert_eq!(bench.dropped(1, Way::Ingress, DropReason::FloodLimited).0, 8);
    assert_eq!(bench.reflex.buckets(id(1)).unwrap().punted, 6);
    // Another port has buckets of its own, and the user-space datapath has none.
    bench.send(3, &frame(3, 2, &PLAIN, 46));
    assert_eq!(bench.reflex.buckets(id(3)).unwrap().punted, 1);
    bench.settings(|settings| settings.flags = SETTING_PUNT | SETTING_PUNT_UNLIMITED);
    bench.send(1, &known);
    assert_eq!(bench.reflex.buckets(id(1)).unwrap().punted, 7);
    bench.balance();
}

#[test]
fn no_more_frames_are_on_their_way_to_the_brain_than_its_ring_takes() {
    let test = "refusals::no_more_frames_are_on_their_way_to_the_brain_than_its_ring_takes";
    let Some(lab) = enter(test) else { return };
    let mut bench = Bench::new(&lab);
    bench.settings(|settings| settings.punt_in_flight_max = 5);
    for _ in 0..8 {
        bench.send(1, &frame(1, 2, &PLAIN, 46));
    }
    assert_eq!(bench.dropped(1, Way::Ingress, DropReason::PuntLimited).0, 3);
    bench.reflex.brain().port(0).settled.add(1);
    bench.reflex.brain().port(0).unobserved.add(1);
    for _ in 0..8 {
        bench.send(3, &frame(3, 2, &PLAIN, 46));
    }
    assert_eq!(bench.reflex.buckets(id(3)).unwrap().punted, 2);
    assert_eq!(bench.reflex.punts().unwrap(), 7);
    assert_eq!(std::iter::from_fn(|| bench.punt.receive()).count(), 7);
    bench.balance();
}

#[test]
fn a_port_whose_frames_never_arrive_leaves_room_for_other_ports() {
    let test = "refusals::a_port_whose_frames_never_arrive_leaves_room_for_other_ports";
    let Some(lab) = enter(test) else { return };
    let mut bench = Bench::new(&lab);
    let max = PUNT_IN_FLIGHT_PORT_MAX;
    bench.settings(|settings| settings.punt_in_flight_max = u32::try_from(max).unwrap() + 5);
    for _ in 0..max + 2 {
        bench.send(1, &frame(1, 2, &PLAIN, 46));
    }
    assert_eq!(bench.dropped(1, Way::Ingress, DropReason::PuntLimited).0, 2);
    for _ in 0..5 {
        bench.send(3, &frame(3, 2, &PLAIN, 46));
    }
    assert_eq!(bench.reflex.buckets(id(3)).unwrap().punted, 5);
    // What is booked makes room, for the port and for all.
    assert_eq!(bench.reflex.book_epoch(false).unwrap(), max + 5);
    bench.send(1, &frame(1, 2, &PLAIN, 46));
    assert_eq!(bench.reflex.buckets(id(1)).unwrap().punted, max + 1);
    bench.balance();
}

#[test]
fn a_copy_for_a_port_that_is_gone_or_for_none_is_dropped() {
    let Some(lab) = enter("refusals::a_copy_for_a_port_that_is_gone_or_for_none_is_dropped") else { return };
    let mut bench = Bench::new(&lab);
    let tagged = |tag: u16| {
        let [high, low] = tag.to_be_bytes();
        frame(1, 2, &[0x88, 0xa8, high, low, PLAIN[0], PLAIN[1]], 46)
    };
    bench.punt.send(&tagged(2));
    bench.reflex.clear_port(id(2)).unwrap();
    bench.punt.send(&tagged(2));
    assert_eq!(bench.received(2), [frame(1, 2, &PLAIN, 46)]);
    assert_eq!(bench.dropped(2, Way::Egress, DropReason::EgressGone), SMALL);
    // No port, a flood to no ports, a tag that is not ours, no tag: never into the host's own stack.
    bench.punt.send(&tagged(0));
    bench.punt.send(&tagged(FLOOD_ID));
    bench.punt.send(&frame(1, 2, &[0x81, 0, 0, 2, PLAIN[0], PLAIN[1]], 46));
    bench.punt.send(&frame(1, 2, &PLAIN, 46));
    let drops = bench.reflex.all_drops().unwrap()[0];
    assert_eq!(drops.egress[DropReason::Other as usize].frames, 3);
    for guest in 1..=3 {
        assert_eq!(bench.received(guest), Vec::<Vec<u8>>::new(), "{}", mac(guest));
    }
    bench.balance();
}

#[test]
fn a_flood_goes_to_every_port_of_the_list_but_the_one_it_came_from() {
    let Some(lab) = enter("refusals::a_flood_goes_to_every_port_of_the_list_but_the_one_it_came_from") else { return };
    let mut bench = Bench::new(&lab);
    let flood = |from: u8| frame(1, 2, &[0x88, 0xa8, 0x0f, 0xff, 0x88, 0xa8, 0, from, PLAIN[0], PLAIN[1]], 46);
    let plain = frame(1, 2, &PLAIN, 46);
    bench.reflex.brain().set_flood_ports([1, 2, 3].map(id).into_iter());
    bench.punt.send(&flood(1));
    bench.punt.send(&flood(3));
    let got: Vec<_> = (1..=3).map(|guest| bench.received(guest)).collect();
    assert_eq!(got, [vec![plain.clone()], vec![plain.clone(), plain.clone()], vec![plain.clone()]]);
    assert_eq!([1, 2, 3].map(|port| bench.egress(port).frames), [1, 2, 1]);
    // One that is gone gets none, which is its own trouble; one that is not on the list was not meant.
    bench.reflex.clear_port(id(3)).unwrap();
    bench.reflex.brain().set_flood_ports([1, 3].map(id).into_iter());
    bench.punt.send(&flood(2));
    let got: Vec<_> = (1..=3).map(|guest| bench.received(guest)).collect();
    assert_eq!(got, [vec![plain], vec![], vec![]]);
    assert_eq!(bench.dropped(3, Way::Egress, DropReason::EgressGone), SMALL);
    bench.balance();
}

#[test]
fn what_cannot_be_on_the_punt_tap_is_in_the_log() {
    let Some(lab) = enter("refusals::what_cannot_be_on_the_punt_tap_is_in_the_log") else { return };
    let mut bench = Bench::new(&lab);
    let mut diagnostics = bench.reflex.diagnostics().unwrap();
    assert!(bench.reflex.diagnostics().is_none());
    bench.punt.send(&frame(1, 2, &PLAIN, 46));
    let (reader, writer) = std::io::pipe().unwrap();
    let log = tracing_subscriber::fmt().with_writer(std::sync::Mutex::new(writer)).finish();
    tracing::subscriber::with_default(log, || diagnostics.drain());
    let said = std::io::read_to_string(reader).unwrap();
    assert!(said.contains("a copy of 60 bytes for port 0 was written to the punt tap"), "{said}");
}
