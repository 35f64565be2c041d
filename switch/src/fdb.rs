//! The filtering database: which station was heard on which port, and when (IEEE 802.1Q-2022, clause 8.8).
//!
//! It knows nothing of ports but their id, and nothing of time but what it is told. A station is *learned* from the source
//! address of a frame, *moves* when it is heard on another port, *ages* when it has been silent for long enough, and is
//! *evicted* when a newer one needs its room. A *static* station was put there by the operator: it does none of these.
//!
//! **What a hostile guest could try**, and why it does not help:
//! - Many sources: a port at its own limit loses its own oldest station. When the whole table is full, the port with the
//!   most learned stations loses its oldest, so whoever fills the table pays for it.
//! - Another station's address: it moves, and the real one's next frame moves it back. After [`MOVES_PER_SECOND`] moves
//!   within a second it stays where it is for the rest of that second, so flapping costs nobody else anything.
//! - Addresses that collide in the hash: the keys are hashed with a random seed (`RandomState`).
//!
//! **Limits.** At most `stations_max` learned stations, and at most as many static ones. Every operation is O(1) or
//! O(log n), but those that answer with many stations, which are linear in their answer. Hearing a known station again is
//! one look-up and does not allocate: to spare the orders of age, the time of a station is kept in steps of 1/256 of the
//! aging time, one second at most, so a station may age by that much too early.

mod order;

use std::collections::HashMap;
use std::ops::Add;
use std::time::Duration;

use switch_common::{MacAddr, PortId, VlanId};

use order::Order;

/// Moves of one station within a second that are believed; later ones in that second are not.
pub const MOVES_PER_SECOND: u32 = 5;

const SECOND: Duration = Duration::from_secs(1);

/// A moment of a monotonic clock, in nanoseconds. Always passed in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Nanos(pub u64);

impl Nanos {
    /// The time from an earlier moment to this one; zero when it is not earlier.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Nanos {
    type Output = Self;

    fn add(self, later: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(later.as_nanos()).unwrap_or(u64::MAX)))
    }
}

/// How much the database may hold, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FdbLimits {
    /// Learned stations, over all ports; and as many static ones.
    pub stations_max: usize,
    /// Silence after which a learned station is forgotten.
    pub aging: Duration,
}

impl Default for FdbLimits {
    fn default() -> Self {
        Self { stations_max: 65_536, aging: Duration::from_mins(5) }
    }
}

/// One entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Station {
    /// Its address.
    pub mac: MacAddr,
    /// The VLAN it was heard in.
    pub vlan: VlanId,
    /// The port it lives behind.
    pub port: PortId,
    /// Put there by the operator: it neither moves nor ages nor is evicted.
    pub is_static: bool,
    /// When it was last heard (static: when it was put there), in steps of 1/256 of the aging time.
    pub last_seen: Nanos,
    /// How often it moved.
    pub moves: u32,
}

/// What the database made of a source address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Learned {
    /// It lives here, as known before.
    Known,
    /// It is new; another one may have had to go.
    Added {
        /// The station that was evicted for it.
        evicted: Option<Station>,
    },
    /// It lived behind another port and lives here now; one of this port's own may have had to go.
    Moved {
        /// Where it lived.
        from: PortId,
        /// The station that was evicted for it.
        evicted: Option<Station>,
    },
    /// It moves too often: it stays where it was.
    Damped,
    /// It is pinned to another port: it stays there.
    Static,
    /// There is no room, and nothing that could be evicted.
    Refused,
    /// Nothing was to be learned: the frame was refused before, or its source is a group address or zero.
    NotLearned,
}

/// Why a station could not be pinned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FdbError {
    /// A group address or zero.
    #[error("{mac} is a group address or zero, which no station has; give the address of one interface")]
    NotAStation {
        /// The address.
        mac: MacAddr,
    },
    /// Already pinned elsewhere.
    #[error("{mac} is already pinned to another port (id {port}); remove it there first")]
    PinnedElsewhere {
        /// The address.
        mac: MacAddr,
        /// Where it is pinned.
        port: PortId,
    },
    /// As many as there may be.
    #[error("there are already {stations_max} static stations; remove one or raise stations_max")]
    Full {
        /// The limit.
        stations_max: usize,
    },
}

type Key = (VlanId, MacAddr);

/// A station and how fast it has been moving.
#[derive(Clone, Copy, Debug)]
struct Entry {
    station: Station,
    pace: Pace,
}

/// Moves within a second that began at the first of them.
#[derive(Clone, Copy, Debug, Default)]
struct Pace {
    since: Nanos,
    moves: u32,
}

impl Pace {
    /// Whether one more move now would be believed; answers with the pace after it.
    fn quicken(self, now: Nanos) -> Option<Self> {
        if self.moves == 0 || now.since(self.since) >= SECOND {
            Some(Self { since: now, moves: 1 })
        } else if self.moves < MOVES_PER_SECOND {
            Some(Self { moves: self.moves + 1, ..self })
        } else {
            None
        }
    }
}

/// The filtering database.
#[derive(Clone, Debug)]
pub struct Fdb {
    limits: FdbLimits,
    step: Duration,
    stations: HashMap<Key, Entry>,
    order: Order,
    moves_total: u64,
}

impl Fdb {
    /// An empty database.
    pub fn new(limits: FdbLimits) -> Self {
        let step = (limits.aging / 256).clamp(Duration::from_nanos(1), SECOND);
        Self { limits, step, stations: HashMap::new(), order: Order::default(), moves_total: 0 }
    }

    /// Notes that a station was heard on a port, which may have `limit` stations, its static ones included.
    pub fn learn(&mut self, vlan: VlanId, mac: MacAddr, port: PortId, limit: Option<u32>, now: Nanos) -> Learned {
        if !mac.is_station() {
            return Learned::NotLearned;
        }
        let Some(Entry { station, pace }) = self.stations.get(&(vlan, mac)).copied() else {
            return self.add(vlan, mac, port, limit, now);
        };
        if station.port == port {
            self.refresh(station, now);
            return Learned::Known;
        }
        if station.is_static {
            return Learned::Static;
        }
        let Some(pace) = pace.quicken(now) else { return Learned::Damped };
        let Ok(evicted) = self.make_room(port, limit, Newcomer::No) else {
            return Learned::Refused;
        };
        let from = station.port;
        self.take((vlan, mac));
        self.put(Station { port, last_seen: now, moves: station.moves.saturating_add(1), ..station }, pace);
        self.moves_total += 1;
        Learned::Moved { from, evicted }
    }

    /// The port a station lives behind.
    pub fn lookup(&self, vlan: VlanId, mac: MacAddr) -> Option<PortId> {
        self.stations.get(&(vlan, mac)).map(|entry| entry.station.port)
    }

    /// Notes that a station was heard at `when` by someone else (the reflex). Nothing is learned: a station that is
    /// unknown or lives elsewhere stays so.
    pub fn touch(&mut self, vlan: VlanId, mac: MacAddr, port: PortId, when: Nanos) {
        if let Some(Entry { station, .. }) = self.stations.get(&(vlan, mac)).copied()
            && station.port == port
        {
            self.refresh(station, when);
        }
    }

    /// Appends the learned stations that have been silent for the aging time, the longest silent first. They stay until
    /// [`Self::expire`] is told: the reflex may have heard them.
    pub fn idle(&self, now: Nanos, out: &mut Vec<Station>) {
        let silent = self.order.by_age().take_while(|(seen, _)| now.since(*seen) >= self.limits.aging);
        out.extend(silent.filter_map(|(_, key)| self.stations.get(&key).map(|entry| entry.station)));
    }

    /// Forgets a learned station; false when there is none.
    pub fn expire(&mut self, vlan: VlanId, mac: MacAddr) -> bool {
        let learned = self.stations.get(&(vlan, mac)).is_some_and(|entry| !entry.station.is_static);
        learned && self.take((vlan, mac)).is_some()
    }

    /// Pins a station to a port, whatever was learned of it before and whatever limit the port has.
    ///
    /// # Errors
    /// [`FdbError`]; then nothing has changed. Pinning it again where it is pinned is no error.
    pub fn add_static(&mut self, vlan: VlanId, mac: MacAddr, port: PortId, now: Nanos) -> Result<(), FdbError> {
        if !mac.is_station() {
            return Err(FdbError::NotAStation { mac });
        }
        let known = self.stations.get(&(vlan, mac)).map(|entry| entry.station);
        match known {
            Some(station) if station.is_static && station.port == port => return Ok(()),
            Some(station) if station.is_static => return Err(FdbError::PinnedElsewhere { mac, port: station.port }),
            Some(_) | None => {}
        }
        if self.len() - self.order.learned() >= self.limits.stations_max {
            return Err(FdbError::Full { stations_max: self.limits.stations_max });
        }
        self.take((vlan, mac));
        let moves = known.map_or(0, |station| station.moves);
        self.put(Station { mac, vlan, port, is_static: true, last_seen: now, moves }, Pace::default());
        Ok(())
    }

    /// Forgets a station, learned or static; answers with what was known of it.
    pub fn remove(&mut self, vlan: VlanId, mac: MacAddr) -> Option<Station> {
        self.take((vlan, mac))
    }

    /// Forgets a port's stations.
    pub fn flush_port(&mut self, port: PortId, keep_static: bool) -> Vec<Station> {
        let keys: Vec<Key> = self.order.of_port(port, keep_static).collect();
        self.take_all(&keys)
    }

    /// Forgets every station.
    pub fn flush(&mut self, keep_static: bool) -> Vec<Station> {
        let gone = |entry: &&Entry| !(keep_static && entry.station.is_static);
        let keys: Vec<Key> =
            self.stations.values().filter(gone).map(|entry| (entry.station.vlan, entry.station.mac)).collect();
        self.take_all(&keys)
    }

    /// Forgets a port's oldest stations until it has no more than `limit`, or only static ones.
    pub fn trim_port(&mut self, port: PortId, limit: u32) -> Vec<Station> {
        let excess = self.order.len_of(port).saturating_sub(limit as usize);
        let keys: Vec<Key> = self.order.of_port(port, true).take(excess).collect();
        self.take_all(&keys)
    }

    /// Every station, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &Station> {
        self.stations.values().map(|entry| &entry.station)
    }

    /// Stations, learned and static.
    pub fn len(&self) -> usize {
        self.stations.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.stations.is_empty()
    }

    /// Moves of all stations, since the database was made.
    pub fn moves_total(&self) -> u64 {
        self.moves_total
    }

    /// When the next station will have been silent for the aging time, should it stay silent.
    pub fn next_expiry(&self) -> Option<Nanos> {
        self.order.by_age().next().map(|(seen, _)| seen + self.limits.aging)
    }

    fn add(&mut self, vlan: VlanId, mac: MacAddr, port: PortId, limit: Option<u32>, now: Nanos) -> Learned {
        let Ok(evicted) = self.make_room(port, limit, Newcomer::Yes) else { return Learned::Refused };
        self.put(Station { mac, vlan, port, is_static: false, last_seen: now, moves: 0 }, Pace::default());
        Learned::Added { evicted }
    }

    /// Sees to it that a port may have one more station: its own oldest goes when the port is full, the oldest of the
    /// port that has most when the table is.
    fn make_room(&mut self, port: PortId, limit: Option<u32>, newcomer: Newcomer) -> Result<Option<Station>, NoRoom> {
        let victim = if limit.is_some_and(|limit| self.order.len_of(port) >= limit as usize) {
            self.order.oldest_of(port)
        } else if newcomer == Newcomer::Yes && self.order.learned() >= self.limits.stations_max {
            self.order.heaviest().and_then(|heaviest| self.order.oldest_of(heaviest))
        } else {
            return Ok(None);
        };
        Ok(self.take(victim.ok_or(NoRoom)?))
    }

    fn refresh(&mut self, station: Station, when: Nanos) {
        if station.is_static || when.since(station.last_seen) < self.step {
            return;
        }
        if let Some(entry) = self.stations.get_mut(&(station.vlan, station.mac)) {
            self.order.remove(&entry.station);
            entry.station.last_seen = when;
            self.order.insert(&entry.station);
        }
    }

    fn put(&mut self, station: Station, pace: Pace) {
        self.order.insert(&station);
        self.stations.insert((station.vlan, station.mac), Entry { station, pace });
    }

    fn take(&mut self, key: Key) -> Option<Station> {
        let entry = self.stations.remove(&key)?;
        self.order.remove(&entry.station);
        Some(entry.station)
    }

    fn take_all(&mut self, keys: &[Key]) -> Vec<Station> {
        keys.iter().filter_map(|key| self.take(*key)).collect()
    }
}

/// Whether room is for a station that is not in the table yet.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Newcomer {
    Yes,
    No,
}

/// Nothing that could be evicted.
struct NoRoom;

#[cfg(test)]
mod tests;
#[cfg(test)]
pub(crate) mod twin;
