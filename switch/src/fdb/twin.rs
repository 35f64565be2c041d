//! A naive twin of the database (one list, searched from end to end), and random steps that both must answer alike.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

/// Stations, and the moves of each within the second that its first recent move began.
pub(crate) struct Twin {
    limits: FdbLimits,
    stations: Vec<(Station, Vec<Nanos>)>,
    moves_total: u64,
}

impl Twin {
    pub(crate) fn new(limits: FdbLimits) -> Self {
        Self { limits, stations: Vec::new(), moves_total: 0 }
    }

    fn find(&mut self, mac: MacAddr) -> Option<&mut (Station, Vec<Nanos>)> {
        self.stations.iter_mut().find(|(station, _)| station.mac == mac)
    }

    pub(crate) fn lookup(&self, mac: MacAddr) -> Option<PortId> {
        self.stations.iter().find(|(station, _)| station.mac == mac).map(|(station, _)| station.port)
    }

    pub(crate) fn learn(&mut self, mac: MacAddr, port: PortId, limit: Option<u32>, now: Nanos) -> Learned {
        if mac.is_group() || mac.is_zero() {
            return Learned::NotLearned;
        }
        let Some((station, moves)) = self.find(mac) else {
            let Ok(evicted) = self.make_room(port, limit, true) else { return Learned::Refused };
            let station = Station { mac, vlan: VlanId(0), port, is_static: false, last_seen: now, moves: 0 };
            self.stations.push((station, Vec::new()));
            return Learned::Added { evicted };
        };
        if station.port == port {
            self.touch(mac, port, now);
            return Learned::Known;
        }
        if station.is_static {
            return Learned::Static;
        }
        let from = station.port;
        if moves.first().is_some_and(|first| now.0 - first.0 >= 1_000_000_000) {
            moves.clear();
        }
        if moves.len() >= 5 {
            return Learned::Damped;
        }
        let Ok(evicted) = self.make_room(port, limit, false) else { return Learned::Refused };
        if let Some((station, moves)) = self.find(mac) {
            moves.push(now);
            *station = Station { port, last_seen: now, moves: station.moves + 1, ..*station };
        }
        self.moves_total += 1;
        Learned::Moved { from, evicted }
    }

    fn make_room(&mut self, port: PortId, limit: Option<u32>, is_new: bool) -> Result<Option<Station>, ()> {
        let of = |port: PortId| self.stations.iter().filter(move |(station, _)| station.port == port);
        let learned = |port: PortId| of(port).filter(|(station, _)| !station.is_static);
        let oldest = |port: PortId| learned(port).map(|(s, _)| *s).min_by_key(|s| (s.last_seen, s.mac));
        let victim = if limit.is_some_and(|limit| of(port).count() >= limit as usize) {
            oldest(port)
        } else if is_new && self.learned().len() >= self.limits.stations_max {
            let heaviest = self.learned().iter().map(|s| s.port).max_by_key(|port| (learned(*port).count(), *port));
            heaviest.and_then(oldest)
        } else {
            return Ok(None);
        };
        let victim = victim.ok_or(())?;
        self.remove(victim.mac);
        Ok(Some(victim))
    }

    fn learned(&self) -> Vec<Station> {
        self.stations.iter().map(|(station, _)| *station).filter(|station| !station.is_static).collect()
    }

    pub(crate) fn touch(&mut self, mac: MacAddr, port: PortId, when: Nanos) {
        let step = (self.limits.aging / 256).min(Duration::from_secs(1));
        if let Some((station, _)) = self.find(mac)
            && station.port == port
            && !station.is_static
            && when > station.last_seen
            && when.since(station.last_seen) >= step
        {
            station.last_seen = when;
        }
    }

    pub(crate) fn idle(&self, now: Nanos) -> Vec<Station> {
        let mut idle = self.learned();
        idle.retain(|station| now.0 >= station.last_seen.0 + u64::try_from(self.limits.aging.as_nanos()).unwrap_or(0));
        idle.sort_by_key(|station| (station.last_seen, station.mac));
        idle
    }

    pub(crate) fn add_static(&mut self, mac: MacAddr, port: PortId, now: Nanos) -> Result<(), FdbError> {
        let found = self.find(mac).map(|(station, _)| *station);
        match found {
            _ if !mac.is_station() => return Err(FdbError::NotAStation { mac }),
            Some(Station { is_static: true, port: pinned, .. }) if pinned == port => return Ok(()),
            Some(Station { is_static: true, port, .. }) => return Err(FdbError::PinnedElsewhere { mac, port }),
            _ => {}
        }
        let stations_max = self.limits.stations_max;
        if self.stations.len() - self.learned().len() >= stations_max {
            return Err(FdbError::Full { stations_max });
        }
        self.remove(mac);
        let moves = found.map_or(0, |station| station.moves);
        let station = Station { mac, vlan: VlanId(0), port, is_static: true, last_seen: now, moves };
        self.stations.push((station, Vec::new()));
        Ok(())
    }

    pub(crate) fn remove(&mut self, mac: MacAddr) -> Option<Station> {
        let at = self.stations.iter().position(|(station, _)| station.mac == mac)?;
        Some(self.stations.remove(at).0)
    }

    pub(crate) fn flush(&mut self, port: Option<PortId>, keep_static: bool) -> Vec<Station> {
        let goes =
            |station: &Station| port.is_none_or(|port| port == station.port) && !(keep_static && station.is_static);
        let gone = self.all().into_iter().filter(goes).collect();
        self.stations.retain(|(station, _)| !goes(station));
        gone
    }

    pub(crate) fn trim(&mut self, port: PortId, limit: u32) -> Vec<Station> {
        let count = self.stations.iter().filter(|(station, _)| station.port == port).count();
        let mut oldest = self.learned();
        oldest.retain(|station| station.port == port);
        oldest.sort_by_key(|station| (station.last_seen, station.mac));
        oldest.truncate(count.saturating_sub(limit as usize));
        for station in &oldest {
            self.remove(station.mac);
        }
        sorted(oldest)
    }

    pub(crate) fn all(&self) -> Vec<Station> {
        sorted(self.stations.iter().map(|(station, _)| *station).collect())
    }
}

pub(crate) fn sorted(mut stations: Vec<Station>) -> Vec<Station> {
    stations.sort_by_key(|station| station.mac);
    stations
}

/// One thing that may happen to a database.
#[derive(Clone, Debug)]
enum Step {
    Learn(MacAddr, PortId, Option<u32>),
    Touch(MacAddr, PortId, Duration),
    Expire,
    Pin(MacAddr, PortId),
    Remove(MacAddr),
    FlushPort(PortId, bool),
    Flush(bool),
    Trim(PortId, u32),
}

/// Few enough stations and ports for everything to collide, two of them heard often enough to be damped; among the
/// addresses a group address and zero.
pub(crate) fn stations() -> impl Strategy<Value = MacAddr> {
    prop_oneof![2 => 0..40_u8, 1 => 2..4_u8].prop_map(|n| match n {
        0 => MacAddr::ZERO,
        1 => MacAddr::BROADCAST,
        n => MacAddr([2, 0, 0, 0, 0, n]),
    })
}

pub(crate) fn ports() -> impl Strategy<Value = PortId> {
    (1..=5_u16).prop_filter_map("an id", PortId::new)
}

/// Mostly no time at all, sometimes long enough to end a damping or an aging.
pub(crate) fn pauses() -> impl Strategy<Value = Duration> {
    prop_oneof![
        6 => (0..2_000_u64).prop_map(Duration::from_micros),
        3 => (0..400_u64).prop_map(Duration::from_millis),
        1 => (0..8_u64).prop_map(Duration::from_secs),
    ]
}

fn steps() -> impl Strategy<Value = Step> {
    let limit = prop_oneof![Just(None), (0..6_u32).prop_map(Some)];
    prop_oneof![
        60 => (stations(), ports(), limit).prop_map(|(mac, port, limit)| Step::Learn(mac, port, limit)),
        10 => (stations(), ports(), pauses()).prop_map(|(mac, port, ago)| Step::Touch(mac, port, ago)),
        8 => Just(Step::Expire),
        3 => (stations(), ports()).prop_map(|(mac, port)| Step::Pin(mac, port)),
        6 => stations().prop_map(Step::Remove),
        1 => (ports(), any::<bool>()).prop_map(|(port, keep)| Step::FlushPort(port, keep)),
        1 => any::<bool>().prop_map(Step::Flush),
        1 => (ports(), 0..6_u32).prop_map(|(port, limit)| Step::Trim(port, limit)),
    ]
}

pub(crate) fn limits() -> impl Strategy<Value = FdbLimits> {
    (1..=16_usize).prop_map(|stations_max| FdbLimits { stations_max, aging: Duration::from_secs(6) })
}

const VLAN: VlanId = VlanId(0);

fn take(step: &Step, fdb: &mut Fdb, twin: &mut Twin, now: Nanos) -> Result<(), TestCaseError> {
    match *step {
        Step::Learn(mac, port, limit) => {
            prop_assert_eq!(fdb.learn(VLAN, mac, port, limit, now), twin.learn(mac, port, limit, now));
        }
        Step::Touch(mac, port, ago) => {
            let when = Nanos(now.0.saturating_sub(u64::try_from(ago.as_nanos()).unwrap_or(0)));
            fdb.touch(VLAN, mac, port, when);
            twin.touch(mac, port, when);
        }
        Step::Expire => {
            let mut idle = Vec::new();
            fdb.idle(now, &mut idle);
            prop_assert_eq!(&idle, &twin.idle(now));
            for station in idle {
                prop_assert!(fdb.expire(VLAN, station.mac));
                twin.remove(station.mac);
            }
        }
        Step::Pin(mac, port) => {
            prop_assert_eq!(fdb.add_static(VLAN, mac, port, now), twin.add_static(mac, port, now));
        }
        Step::Remove(mac) => prop_assert_eq!(fdb.remove(VLAN, mac), twin.remove(mac)),
        Step::FlushPort(port, keep) => {
            prop_assert_eq!(sorted(fdb.flush_port(port, keep)), twin.flush(Some(port), keep));
        }
        Step::Flush(keep) => prop_assert_eq!(sorted(fdb.flush(keep)), twin.flush(None, keep)),
        Step::Trim(port, limit) => prop_assert_eq!(sorted(fdb.trim_port(port, limit)), twin.trim(port, limit)),
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(120) })]

    /// 120 × 500 steps.
    #[test]
    fn the_database_answers_as_its_naive_twin(limits in limits(), story in vec((pauses(), steps()), 500)) {
        let (mut fdb, mut twin) = (Fdb::new(limits), Twin::new(limits));
        let mut now = Nanos(7_000_000_000);
        for (pause, step) in story {
            now = now + pause;
            take(&step, &mut fdb, &mut twin, now)?;
            prop_assert_eq!(sorted(fdb.iter().copied().collect()), twin.all());
            prop_assert_eq!(fdb.moves_total(), twin.moves_total);
            prop_assert!(fdb.len() <= 2 * limits.stations_max);
            let oldest = twin.learned().iter().map(|station| station.last_seen).min();
            prop_assert_eq!(fdb.next_expiry(), oldest.map(|seen| seen + limits.aging));
        }
    }
}
