//! Stations come, move, age and go.
#![expect(clippy::unwrap_used, reason = "a test ends where an assumption fails")]

use super::*;

const VLAN: VlanId = VlanId(0);
const HOUR: Duration = Duration::from_hours(1);

fn mac(n: u32) -> MacAddr {
    let [.., high, middle, low] = n.to_be_bytes();
    MacAddr([2, 0, 0, high, middle, low])
}

fn port(id: u16) -> PortId {
    PortId::new(id).unwrap()
}

fn at(secs: u64) -> Nanos {
    Nanos::default() + HOUR + Duration::from_secs(secs)
}

fn fdb(stations_max: usize) -> Fdb {
    Fdb::new(FdbLimits { stations_max, ..FdbLimits::default() })
}

fn added(learned: Learned) -> Option<Station> {
    match learned {
        Learned::Added { evicted } => evicted,
        other => panic!("expected a new station, not {other:?}"),
    }
}

fn idle(fdb: &Fdb, now: Nanos) -> Vec<MacAddr> {
    let mut out = Vec::new();
    fdb.idle(now, &mut out);
    out.iter().map(|station| station.mac).collect()
}

/// Learns `macs` on a port, one a second from `start` on.
fn fill(fdb: &mut Fdb, port: PortId, macs: std::ops::Range<u32>, limit: Option<u32>, start: u64) {
    for (second, n) in (start..).zip(macs) {
        fdb.learn(VLAN, mac(n), port, limit, at(second));
    }
}

#[test]
fn a_station_is_learned_where_it_is_heard_and_nowhere_else() {
    let mut fdb = fdb(8);
    assert_eq!(fdb.lookup(VLAN, mac(1)), None);
    assert_eq!(added(fdb.learn(VLAN, mac(1), port(1), None, at(0))), None);
    assert_eq!(fdb.learn(VLAN, mac(1), port(1), None, at(1)), Learned::Known);
    assert_eq!(fdb.lookup(VLAN, mac(1)), Some(port(1)));
    assert_eq!(fdb.lookup(VLAN, mac(2)), None);
    assert_eq!(fdb.lookup(VlanId(7), mac(1)), None, "another VLAN's station is another station");
    assert_eq!((fdb.len(), fdb.is_empty()), (1, false));
}

#[test]
fn group_and_zero_addresses_are_never_learned() {
    let mut fdb = fdb(8);
    for source in [MacAddr::BROADCAST, MacAddr([1, 0, 0x5e, 0, 0, 1]), MacAddr::ZERO] {
        assert_eq!(fdb.learn(VLAN, source, port(1), None, at(0)), Learned::NotLearned);
        assert_eq!(fdb.add_static(VLAN, source, port(1), at(0)), Err(FdbError::NotAStation { mac: source }));
    }
    assert!(fdb.is_empty());
}

#[test]
fn a_station_moves_to_where_it_was_heard_last() {
    let mut fdb = fdb(8);
    fdb.learn(VLAN, mac(1), port(1), None, at(0));
    assert_eq!(fdb.learn(VLAN, mac(1), port(2), None, at(5)), Learned::Moved { from: port(1), evicted: None });
    assert_eq!(fdb.lookup(VLAN, mac(1)), Some(port(2)));
    assert_eq!((fdb.moves_total(), fdb.iter().next().unwrap().moves), (1, 1));
    assert!(fdb.flush_port(port(1), false).is_empty(), "the old port has forgotten it");
}

#[test]
fn moving_to_a_full_port_evicts_that_ports_oldest() {
    let mut fdb = fdb(8);
    fill(&mut fdb, port(1), 1..2, None, 0);
    fill(&mut fdb, port(2), 10..12, None, 0);
    let Learned::Moved { from, evicted: Some(evicted) } = fdb.learn(VLAN, mac(1), port(2), Some(2), at(5)) else {
        panic!("it moves, and another has to go");
    };
    assert_eq!((from, evicted.mac), (port(1), mac(10)));
}

#[test]
fn a_flapping_station_is_damped_for_the_rest_of_the_second() {
    let mut fdb = fdb(8);
    let flap = |fdb: &mut Fdb, n: u16, now| fdb.learn(VLAN, mac(1), port(1 + n % 2), None, now);
    fdb.learn(VLAN, mac(1), port(2), None, at(0));
    for n in 0..5 {
        assert!(matches!(flap(&mut fdb, n, Nanos(at(0).0 + u64::from(n))), Learned::Moved { .. }));
    }
    for n in 0..100 {
        let learned = fdb.learn(VLAN, mac(1), port(2), None, Nanos(at(0).0 + 10 + n));
        assert_eq!(learned, Learned::Damped);
        assert_eq!(fdb.lookup(VLAN, mac(1)), Some(port(1)), "it stays where it was");
    }
    assert_eq!(fdb.moves_total(), 5);
    assert!(matches!(fdb.learn(VLAN, mac(1), port(2), None, at(1)), Learned::Moved { .. }), "a new second");
}

#[test]
fn damping_one_station_leaves_the_others_free_to_move() {
    let mut fdb = fdb(8);
    fdb.learn(VLAN, mac(2), port(1), None, at(0));
    for id in [1, 2, 1, 2, 1, 2, 1, 2] {
        fdb.learn(VLAN, mac(1), port(id), None, at(0));
    }
    assert!(matches!(fdb.learn(VLAN, mac(2), port(2), None, at(0)), Learned::Moved { .. }));
}

#[test]
fn a_silent_station_ages_and_one_that_is_heard_does_not() {
    let mut fdb = fdb(8);
    fill(&mut fdb, port(1), 1..4, None, 0);
    assert_eq!(fdb.next_expiry(), Some(at(300)));
    assert!(idle(&fdb, Nanos(at(300).0 - 1)).is_empty());
    fdb.learn(VLAN, mac(1), port(1), None, at(200));
    fdb.touch(VLAN, mac(2), port(1), at(100));
    assert_eq!(idle(&fdb, at(302)), [mac(3)]);
    assert_eq!(idle(&fdb, at(400)), [mac(3), mac(2)], "the longest silent first");
    assert!(fdb.expire(VLAN, mac(3)));
    assert!(!fdb.expire(VLAN, mac(3)), "it is gone");
    assert_eq!(fdb.lookup(VLAN, mac(3)), None);
    assert_eq!(fdb.lookup(VLAN, mac(1)), Some(port(1)));
    assert_eq!(fdb.next_expiry(), Some(at(400)));
}

#[test]
fn news_from_the_past_or_from_another_port_keeps_nobody_alive() {
    let mut fdb = fdb(8);
    fdb.learn(VLAN, mac(1), port(1), None, at(100));
    fdb.touch(VLAN, mac(1), port(1), at(50));
    fdb.touch(VLAN, mac(1), port(2), at(350));
    fdb.touch(VLAN, mac(2), port(1), at(350));
    assert_eq!(idle(&fdb, at(400)), [mac(1)]);
    assert_eq!(fdb.lookup(VLAN, mac(2)), None, "touching does not learn");
}

#[test]
fn a_static_station_neither_moves_nor_ages_nor_is_evicted() {
    let mut fdb = fdb(2);
    fdb.add_static(VLAN, mac(1), port(1), at(0)).unwrap();
    fill(&mut fdb, port(1), 2..100, None, 0);
    assert_eq!(fdb.learn(VLAN, mac(1), port(2), None, at(1)), Learned::Static);
    assert_eq!(fdb.learn(VLAN, mac(1), port(1), None, at(1)), Learned::Known);
    assert!(!idle(&fdb, at(9999)).contains(&mac(1)));
    assert!(!fdb.expire(VLAN, mac(1)));
    assert_eq!(fdb.lookup(VLAN, mac(1)), Some(port(1)));
    assert_eq!(fdb.remove(VLAN, mac(1)).map(|station| station.is_static), Some(true));
    assert_eq!(fdb.lookup(VLAN, mac(1)), None);
}

#[test]
fn pinning_takes_a_learned_station_over_and_is_refused_when_pinned_elsewhere() {
    let mut fdb = fdb(2);
    fdb.learn(VLAN, mac(1), port(1), None, at(0));
    fdb.add_static(VLAN, mac(1), port(2), at(1)).unwrap();
    assert_eq!((fdb.lookup(VLAN, mac(1)), fdb.len()), (Some(port(2)), 1));
    assert_eq!(fdb.add_static(VLAN, mac(1), port(2), at(2)), Ok(()), "again, at the same port");
    let elsewhere = FdbError::PinnedElsewhere { mac: mac(1), port: port(2) };
    assert_eq!(fdb.add_static(VLAN, mac(1), port(1), at(2)), Err(elsewhere));
    fdb.add_static(VLAN, mac(2), port(1), at(2)).unwrap();
    assert_eq!(fdb.add_static(VLAN, mac(3), port(1), at(2)), Err(FdbError::Full { stations_max: 2 }));
}

#[test]
fn a_port_at_its_limit_evicts_its_own_oldest() {
    let mut fdb = fdb(100);
    fill(&mut fdb, port(1), 1..4, Some(3), 0);
    fill(&mut fdb, port(2), 10..12, Some(3), 0);
    fdb.learn(VLAN, mac(1), port(1), Some(3), at(10));
    let evicted = added(fdb.learn(VLAN, mac(4), port(1), Some(3), at(11))).unwrap();
    assert_eq!((evicted.mac, evicted.port), (mac(2), port(1)), "station 1 was heard again, so 2 is the oldest");
    assert_eq!(fdb.iter().filter(|station| station.port == port(1)).count(), 3);
    assert_eq!(fdb.lookup(VLAN, mac(10)), Some(port(2)));
}

#[test]
fn a_port_full_of_static_stations_learns_nothing() {
    let mut fdb = fdb(100);
    for n in 1..3 {
        fdb.add_static(VLAN, mac(n), port(1), at(0)).unwrap();
    }
    fdb.learn(VLAN, mac(9), port(2), Some(2), at(0));
    assert_eq!(fdb.learn(VLAN, mac(3), port(1), Some(2), at(1)), Learned::Refused);
    assert_eq!(fdb.learn(VLAN, mac(9), port(1), Some(2), at(1)), Learned::Refused);
    assert_eq!(fdb.lookup(VLAN, mac(9)), Some(port(2)), "it could not move either");
    assert_eq!(fdb.learn(VLAN, mac(1), port(1), Some(2), at(1)), Learned::Known);
    assert!(matches!(fdb.learn(VLAN, mac(3), port(1), Some(3), at(1)), Learned::Added { .. }), "with a higher limit");
}

#[test]
fn a_full_table_evicts_from_the_port_that_has_most() {
    let mut fdb = fdb(10);
    fill(&mut fdb, port(1), 1..4, None, 0);
    fill(&mut fdb, port(2), 10..17, None, 100);
    let evicted = added(fdb.learn(VLAN, mac(50), port(3), None, at(200))).unwrap();
    assert_eq!((evicted.mac, evicted.port), (mac(10), port(2)), "not station 1, though it is older");
    fill(&mut fdb, port(2), 100..1000, None, 300);
    assert_eq!(fdb.len(), 10);
    assert!((1..4).all(|n| fdb.lookup(VLAN, mac(n)) == Some(port(1))), "the small port kept all of its stations");
    assert_eq!(fdb.lookup(VLAN, mac(50)), Some(port(3)));
}

#[test]
fn lowering_a_limit_trims_a_port_to_its_newest_stations() {
    let mut fdb = fdb(100);
    fill(&mut fdb, port(1), 1..6, None, 0);
    fdb.add_static(VLAN, mac(9), port(1), at(0)).unwrap();
    let gone: Vec<MacAddr> = fdb.trim_port(port(1), 3).iter().map(|station| station.mac).collect();
    assert_eq!(gone, [mac(1), mac(2), mac(3)]);
    assert_eq!(fdb.trim_port(port(1), 0).len(), 2, "the static one stays");
    assert_eq!(fdb.lookup(VLAN, mac(9)), Some(port(1)));
}

#[test]
fn flushing_forgets_what_it_is_told_to() {
    let mut fdb = fdb(100);
    fill(&mut fdb, port(1), 1..4, None, 0);
    fill(&mut fdb, port(2), 10..14, None, 0);
    fdb.add_static(VLAN, mac(20), port(1), at(0)).unwrap();
    assert_eq!(fdb.flush_port(port(1), true).len(), 3);
    assert_eq!((fdb.lookup(VLAN, mac(20)), fdb.lookup(VLAN, mac(10))), (Some(port(1)), Some(port(2))));
    assert_eq!(fdb.flush(true).len(), 4);
    assert_eq!(fdb.flush(false).len(), 1);
    assert!(fdb.is_empty() && fdb.next_expiry().is_none());
}

#[test]
fn a_table_for_nobody_learns_nobody() {
    assert_eq!(fdb(0).learn(VLAN, mac(1), port(1), None, at(0)), Learned::Refused);
    assert_eq!(fdb(9).learn(VLAN, mac(1), port(1), Some(0), at(0)), Learned::Refused);
}

#[test]
fn time_neither_overflows_nor_runs_backwards() {
    assert_eq!(Nanos(u64::MAX) + HOUR, Nanos(u64::MAX));
    assert_eq!(Nanos(0) + Duration::MAX, Nanos(u64::MAX));
    assert_eq!(Nanos(5).since(Nanos(9)), Duration::ZERO);
    assert_eq!(Nanos(9).since(Nanos(5)), Duration::from_nanos(4));
}
