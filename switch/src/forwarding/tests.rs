//! What becomes of a frame. Who must not get it is asserted as well as who must.
#![expect(clippy::unwrap_used, reason = "a test ends where an assumption fails")]

use std::time::Duration;

use super::*;
use crate::frame::Offload;
use crate::port::{FrameBuffer, Medium, TransmitError, memory::MemoryMedium};

const ANN: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
const BOB: MacAddr = MacAddr([2, 0, 0, 0, 0, 2]);
const EVE: MacAddr = MacAddr([2, 0, 0, 0, 0, 3]);
const MULTICAST: MacAddr = MacAddr([1, 0, 0x5e, 0, 0, 1]);
const START: Nanos = Nanos(3_600_000_000_000);

fn port(id: u16) -> PortId {
    PortId::new(id).unwrap()
}

fn view(id: u16) -> PortView {
    PortView {
        id: port(id),
        up: true,
        carrier: true,
        role: Role::Guest,
        macs: Vec::new(),
        station_limit: Some(1024),
        flood_per_sec: 2000,
        frame_bytes_max: 1514,
        trust: Trust::Guest,
    }
}

/// A switch with ports 1 to `ports`.
fn switch(ports: u16) -> Tables {
    let mut tables = Tables::new(FdbLimits::default());
    for id in 1..=ports {
        tables.set_port(view(id));
    }
    tables
}

fn change(tables: &mut Tables, id: u16, change: impl FnOnce(&mut PortView)) -> Vec<Station> {
    let mut view = tables.port(port(id)).unwrap().clone();
    change(&mut view);
    tables.set_port(view)
}

fn bytes(source: MacAddr, destination: MacAddr, payload: usize) -> Vec<u8> {
    [&destination.0[..], &source.0[..], &[0x88, 0xb5], &vec![0; payload]].concat()
}

fn decide_at(tables: &mut Tables, ingress: u16, source: MacAddr, destination: MacAddr, now: Nanos) -> Decision {
    let bytes = bytes(source, destination, 46);
    let frame = Frame::check(&bytes, Offload::default(), Trust::Guest).unwrap();
    decide(tables, port(ingress), &frame, now)
}

fn send(tables: &mut Tables, ingress: u16, source: MacAddr, destination: MacAddr) -> Decision {
    decide_at(tables, ingress, source, destination, START)
}

/// The ports that a frame leaves by.
fn leaves_by(tables: &mut Tables, ingress: u16, source: MacAddr, destination: MacAddr) -> Vec<u16> {
    match send(tables, ingress, source, destination).verdict {
        Verdict::Forward(egress) => vec![egress.get()],
        Verdict::Flood => tables.flood_ports(port(ingress)).map(|view| view.id.get()).collect(),
        Verdict::Drop(_) => Vec::new(),
    }
}

fn reason(decision: Decision) -> DropReason {
    match decision.verdict {
        Verdict::Drop(reason) => reason,
        other => panic!("expected a drop, not {other:?}"),
    }
}

#[test]
fn unknown_unicast_reaches_every_other_port_and_not_its_own() {
    assert_eq!(leaves_by(&mut switch(4), 2, ANN, BOB), [1, 3, 4]);
}

#[test]
fn known_unicast_reaches_one_port_and_no_other() {
    let mut tables = switch(4);
    send(&mut tables, 3, BOB, ANN);
    assert_eq!(leaves_by(&mut tables, 1, ANN, BOB), [3]);
    assert_eq!(leaves_by(&mut tables, 3, BOB, ANN), [1], "and the answer finds its way back");
}

#[test]
fn broadcast_and_multicast_reach_every_other_port_even_when_the_sender_is_known() {
    let mut tables = switch(3);
    for _ in 0..2 {
        assert_eq!(leaves_by(&mut tables, 1, ANN, MacAddr::BROADCAST), [2, 3]);
        assert_eq!(leaves_by(&mut tables, 1, ANN, MULTICAST), [2, 3]);
    }
}

#[test]
fn a_station_that_moves_is_found_where_it_is_now() {
    let mut tables = switch(4);
    send(&mut tables, 2, BOB, ANN);
    assert_eq!(leaves_by(&mut tables, 1, ANN, BOB), [2]);
    let moved = send(&mut tables, 4, BOB, ANN);
    assert_eq!(moved.learned, Learned::Moved { from: port(2), evicted: None });
    assert_eq!(leaves_by(&mut tables, 1, ANN, BOB), [4]);
}

#[test]
fn a_silent_station_is_flooded_to_again() {
    let mut tables = switch(3);
    send(&mut tables, 2, BOB, ANN);
    let later = START + Duration::from_mins(5);
    let mut idle = Vec::new();
    tables.fdb.idle(later, &mut idle);
    assert!(idle.iter().all(|station| tables.fdb.expire(station.vlan, station.mac)));
    assert_eq!(leaves_by(&mut tables, 1, ANN, BOB), [2, 3]);
}

#[test]
fn a_static_station_is_reached_before_it_was_ever_heard_and_cannot_be_stolen() {
    let mut tables = switch(3);
    tables.fdb.add_static(VlanId::default(), BOB, port(3), START).unwrap();
    assert_eq!(leaves_by(&mut tables, 1, ANN, BOB), [3]);
    let stolen = send(&mut tables, 2, BOB, ANN);
    assert_eq!((stolen.learned, stolen.cacheable), (Learned::Static, false));
    assert_eq!(leaves_by(&mut tables, 1, ANN, BOB), [3]);
}

#[test]
fn reserved_addresses_go_nowhere_from_guests_and_from_uplinks() {
    let mut tables = switch(3);
    change(&mut tables, 2, |view| view.role = Role::Uplink);
    for last in 0..=0x0f {
        let reserved = MacAddr([1, 0x80, 0xc2, 0, 0, last]);
        assert_eq!(reason(send(&mut tables, 1, ANN, reserved)), DropReason::ReservedAddress);
        assert_eq!(reason(send(&mut tables, 2, ANN, reserved)), DropReason::ReservedAddress);
    }
    assert!(tables.fdb.is_empty(), "and teach nothing");
    assert_eq!(leaves_by(&mut tables, 1, ANN, MacAddr([1, 0x80, 0xc2, 0, 0, 0x10])), [2, 3], "the next one is free");
}

#[test]
fn a_group_or_zero_source_is_refused_and_never_learned() {
    let mut tables = switch(3);
    for source in [MacAddr::ZERO, MacAddr::BROADCAST, MULTICAST] {
        let decision = send(&mut tables, 1, source, BOB);
        assert_eq!((reason(decision), decision.learned), (DropReason::GroupSource, Learned::NotLearned));
    }
    assert!(tables.fdb.is_empty());
}

#[test]
fn only_allowed_sources_may_speak() {
    let mut tables = switch(3);
    change(&mut tables, 1, |view| view.macs = vec![BOB, ANN]);
    assert_eq!(reason(send(&mut tables, 1, EVE, BOB)), DropReason::SpoofedSource);
    assert_eq!(tables.fdb.lookup(VlanId::default(), EVE), None, "nothing is learned of a spoofed source");
    assert_eq!(leaves_by(&mut tables, 1, ANN, EVE), [2, 3]);
    assert_eq!(leaves_by(&mut tables, 2, EVE, ANN), [1], "elsewhere it may");
}

#[test]
fn a_station_that_may_no_longer_speak_does_not_attract_frames_either() {
    let mut tables = switch(3);
    send(&mut tables, 1, EVE, BOB);
    assert_eq!(leaves_by(&mut tables, 2, ANN, EVE), [1]);
    change(&mut tables, 1, |view| view.macs = vec![BOB]);
    assert_eq!(leaves_by(&mut tables, 2, ANN, EVE), [1, 3], "it is unknown again");
}

#[test]
fn a_frame_for_a_station_behind_its_own_port_is_not_sent_back() {
    let mut tables = switch(3);
    send(&mut tables, 1, BOB, ANN);
    assert_eq!(reason(send(&mut tables, 1, ANN, BOB)), DropReason::Hairpin);
    assert_eq!(reason(send(&mut tables, 1, ANN, ANN)), DropReason::Hairpin, "nor one to itself");
}

#[test]
fn a_port_that_is_down_neither_sends_nor_receives_but_keeps_its_stations() {
    let mut tables = switch(3);
    send(&mut tables, 2, BOB, ANN);
    change(&mut tables, 2, |view| view.up = false);
    assert_eq!(reason(send(&mut tables, 2, EVE, ANN)), DropReason::PortDown);
    assert_eq!(reason(send(&mut tables, 1, ANN, BOB)), DropReason::PortDown, "known, but unreachable: not flooded");
    assert_eq!(leaves_by(&mut tables, 1, ANN, MacAddr::BROADCAST), [3]);
    change(&mut tables, 2, |view| view.up = true);
    assert_eq!(leaves_by(&mut tables, 1, ANN, BOB), [2]);
}

#[test]
fn a_removed_port_takes_its_stations_along() {
    let mut tables = switch(3);
    send(&mut tables, 2, BOB, ANN);
    tables.fdb.add_static(VlanId::default(), EVE, port(2), START).unwrap();
    assert_eq!(tables.remove_port(port(2)).len(), 2, "the static one too");
    assert_eq!(leaves_by(&mut tables, 1, ANN, BOB), [3], "unknown again, and the removed port gets no copy");
    assert_eq!(reason(send(&mut tables, 2, BOB, ANN)), DropReason::PortDown);
    assert!(tables.port(port(2)).is_none());
}

#[test]
fn a_flood_with_nowhere_to_go_is_said_so_and_costs_nothing() {
    let mut tables = switch(1);
    change(&mut tables, 1, |view| view.flood_per_sec = 1);
    for _ in 0..3 {
        assert_eq!(reason(send(&mut tables, 1, ANN, MacAddr::BROADCAST)), DropReason::NoEgress);
        assert_eq!(reason(send(&mut tables, 1, ANN, BOB)), DropReason::NoEgress);
    }
    tables.set_port(view(2));
    assert_eq!(leaves_by(&mut tables, 1, ANN, BOB), [2], "the bucket is still full");
}

#[test]
fn a_guest_with_only_static_stations_at_its_limit_may_not_bring_another() {
    let mut tables = switch(2);
    change(&mut tables, 1, |view| view.station_limit = Some(1));
    tables.fdb.add_static(VlanId::default(), ANN, port(1), START).unwrap();
    assert_eq!(reason(send(&mut tables, 1, EVE, BOB)), DropReason::StationLimit);
    assert_eq!(leaves_by(&mut tables, 1, ANN, BOB), [2], "the static one may speak");
    change(&mut tables, 1, |view| view.role = Role::Uplink);
    assert_eq!(leaves_by(&mut tables, 1, EVE, BOB), [2], "an uplink is exempt");
}

#[test]
fn lowering_a_ports_limit_says_which_stations_had_to_go() {
    let mut tables = switch(2);
    for (second, n) in (0..5).zip(0_u8..) {
        decide_at(&mut tables, 1, MacAddr([2, 0, 0, 0, 1, n]), BOB, START + Duration::from_secs(second));
    }
    assert!(change(&mut tables, 1, |view| view.station_limit = Some(5)).is_empty());
    let gone = change(&mut tables, 1, |view| view.station_limit = Some(2));
    assert_eq!(gone.iter().map(|station| station.mac.0[5]).collect::<Vec<_>>(), [0, 1, 2]);
}

#[test]
fn ten_thousand_new_sources_a_second_leave_the_neighbours_alone() {
    let mut tables = Tables::new(FdbLimits { stations_max: 4096, ..FdbLimits::default() });
    for id in 1..=3 {
        tables.set_port(view(id));
    }
    send(&mut tables, 1, ANN, BOB);
    send(&mut tables, 2, BOB, ANN);
    for n in 0..30_000_u32 {
        let now = START + Duration::from_micros(100) * n;
        let [a, b, c, d] = n.to_be_bytes();
        decide_at(&mut tables, 3, MacAddr([6, 0, a, b, c, d]), EVE, now);
        if n % 100 == 0 {
            let there = decide_at(&mut tables, 1, ANN, BOB, now).verdict;
            let back = decide_at(&mut tables, 2, BOB, ANN, now).verdict;
            assert_eq!(
                (there, back),
                (Verdict::Forward(port(2)), Verdict::Forward(port(1))),
                "never flooded to port 3"
            );
        }
    }
    assert_eq!(tables.fdb.len(), 1024 + 2, "the scanner has its limit, and not one more");
}

#[test]
fn arp_survives_a_unicast_scan() {
    let mut tables = switch(3);
    let mut scanned = 0;
    for n in 0..10_000_u32 {
        let [_, b, c, d] = n.to_be_bytes();
        scanned += u32::from(send(&mut tables, 1, ANN, MacAddr([6, 6, 6, b, c, d])).verdict == Verdict::Flood);
    }
    assert_eq!(scanned, 2000);
    assert_eq!(reason(send(&mut tables, 1, ANN, BOB)), DropReason::FloodLimited);
    assert_eq!(leaves_by(&mut tables, 1, ANN, MacAddr::BROADCAST), [2, 3], "its broadcasts still pass");
    assert_eq!(leaves_by(&mut tables, 2, BOB, EVE), [1, 3], "and so do its neighbours' frames");
}

#[test]
fn changing_a_port_does_not_refill_its_flood_buckets() {
    let mut tables = switch(2);
    change(&mut tables, 1, |view| view.flood_per_sec = 1);
    assert_eq!(leaves_by(&mut tables, 1, ANN, MULTICAST), [2]);
    change(&mut tables, 1, |view| view.frame_bytes_max = 9014);
    assert_eq!(reason(send(&mut tables, 1, ANN, MULTICAST)), DropReason::FloodLimited);
    change(&mut tables, 1, |view| view.flood_per_sec = 2);
    assert_eq!(leaves_by(&mut tables, 1, ANN, MULTICAST), [2], "a new rate is a new bucket");
}

#[test]
fn only_what_depends_on_the_pair_alone_may_be_repeated() {
    let mut tables = switch(4);
    send(&mut tables, 2, BOB, ANN);
    change(&mut tables, 4, |view| view.macs = vec![EVE]);
    let cacheable = |tables: &mut Tables, ingress, source, destination| {
        let decision = send(tables, ingress, source, destination);
        (decision.verdict, decision.cacheable)
    };
    let drop = Verdict::Drop;
    assert_eq!(cacheable(&mut tables, 1, ANN, BOB), (Verdict::Forward(port(2)), true));
    assert_eq!(cacheable(&mut tables, 1, MULTICAST, BOB), (drop(DropReason::GroupSource), true));
    assert_eq!(cacheable(&mut tables, 4, ANN, BOB), (drop(DropReason::SpoofedSource), true));
    assert_eq!(
        cacheable(&mut tables, 1, ANN, MacAddr([1, 0x80, 0xc2, 0, 0, 0])),
        (drop(DropReason::ReservedAddress), true)
    );
    assert_eq!(cacheable(&mut tables, 2, EVE, BOB), (drop(DropReason::Hairpin), true));
    assert_eq!(cacheable(&mut tables, 1, ANN, MULTICAST), (Verdict::Flood, false));
    change(&mut tables, 2, |view| view.up = false);
    assert_eq!(cacheable(&mut tables, 1, ANN, BOB), (drop(DropReason::PortDown), false));
}

#[test]
fn a_damped_station_is_served_but_nothing_of_it_is_repeated() {
    let mut tables = switch(3);
    send(&mut tables, 3, BOB, ANN);
    for n in 0..20 {
        send(&mut tables, 1 + n % 2, ANN, BOB);
    }
    let (one, two) = (send(&mut tables, 1, ANN, BOB), send(&mut tables, 2, ANN, BOB));
    assert_eq!((one.verdict, two.verdict), (Verdict::Forward(port(3)), Verdict::Forward(port(3))));
    let damped = if one.learned == Learned::Damped { one } else { two };
    assert_eq!((damped.learned, damped.cacheable), (Learned::Damped, false));
}

#[test]
fn a_frame_fits_where_its_longest_wire_frame_fits() {
    let frame_of = |len: usize| bytes(ANN, BOB, len - 14);
    let fits_1514 = |bytes: &[u8], offload| fits(&view(1), &Frame::check(bytes, offload, Trust::Kernel).unwrap());
    assert!(fits_1514(&frame_of(1514), Offload::default()));
    assert!(!fits_1514(&frame_of(1515), Offload::default()));
    assert!(fits_1514(&frame_of(60_000), Offload::segment(1, 1500)));
    assert!(!fits_1514(&frame_of(60_000), Offload::segment(1, 1501)));
    let mut tagged = frame_of(1518);
    tagged.splice(12..14, [0x81, 0x00]);
    assert!(fits_1514(&tagged, Offload::default()), "tags do not count");
}

/// Provokes a reason, and answers with what came; `None` for those that only the reflex gives.
fn provoke(wanted: DropReason) -> Option<DropReason> {
    let mut tables = switch(2);
    let transmit = |spoil: fn(&mut MemoryMedium)| {
        let mut medium = MemoryMedium::new();
        spoil(&mut medium);
        medium.transmit(&FrameBuffer::new(), port(2)).unwrap_err()
    };
    let got = match wanted {
        DropReason::Malformed => Frame::check(&[0; 13], Offload::default(), Trust::Guest).unwrap_err(),
        DropReason::BadOffload => {
            Frame::check(&bytes(ANN, BOB, 500), Offload::segment(1, 1), Trust::Guest).unwrap_err()
        }
        DropReason::TooBig => {
            let bytes = bytes(ANN, BOB, 1501);
            let frame = Frame::check(&bytes, Offload::default(), Trust::Guest).unwrap();
            assert!(!fits(&view(2), &frame));
            wanted
        }
        DropReason::GroupSource => reason(send(&mut tables, 1, MULTICAST, BOB)),
        DropReason::SpoofedSource => {
            change(&mut tables, 1, |view| view.macs = vec![ANN]);
            reason(send(&mut tables, 1, EVE, BOB))
        }
        DropReason::ReservedAddress => reason(send(&mut tables, 1, ANN, MacAddr([1, 0x80, 0xc2, 0, 0, 0]))),
        DropReason::Hairpin => reason(send(&mut tables, 1, ANN, ANN)),
        DropReason::NoEgress => reason(send(&mut switch(1), 1, ANN, BOB)),
        DropReason::PortDown => reason(send(&mut tables, 9, ANN, BOB)),
        DropReason::StationLimit => {
            change(&mut tables, 1, |view| view.station_limit = Some(0));
            reason(send(&mut tables, 1, ANN, BOB))
        }
        DropReason::FloodLimited => {
            change(&mut tables, 1, |view| view.flood_per_sec = 0);
            reason(send(&mut tables, 1, ANN, BOB))
        }
        DropReason::EgressGone => {
            assert_eq!(transmit(|medium| medium.lose(PortId::new(2).unwrap())), TransmitError::Gone);
            wanted
        }
        DropReason::InjectFailed => {
            assert_eq!(transmit(|medium| medium.refuse(PortId::new(2).unwrap(), 22)), TransmitError::Refused(22));
            wanted
        }
        DropReason::PuntLimited | DropReason::BrainAbsent | DropReason::Other => return None,
    };
    Some(got)
}

#[test]
fn every_reason_the_brain_can_give_is_provoked() {
    for wanted in DropReason::ALL {
        if let Some(got) = provoke(*wanted) {
            assert_eq!(got, *wanted);
        }
    }
}
