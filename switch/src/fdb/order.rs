//! The orders in which stations age and are evicted: who has been silent longest, on each port and on all.
//!
//! Everything here is filed under what a [`Station`] says of itself, so a station is taken out by the same value by which
//! it was put in.

use std::collections::{BTreeMap, BTreeSet};

use switch_common::{MacAddr, PortId, VlanId};

use super::{Key, Nanos, Station};

/// Learned stations by age, and each port's stations by age with its static ones last.
#[derive(Clone, Debug, Default)]
pub(super) struct Order {
    by_age: BTreeSet<(Nanos, Key)>,
    by_port: BTreeSet<Place>,
    counts: BTreeMap<PortId, Count>,
    heaviest: BTreeSet<(usize, PortId)>,
}

/// Where a station is filed in the order of its port; compared field by field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    port: PortId,
    is_static: bool,
    last_seen: Nanos,
    vlan: VlanId,
    mac: MacAddr,
}

/// How many stations a port has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Count {
    learned: usize,
    pinned: usize,
}

impl Place {
    fn of(station: &Station) -> Self {
        let Station { mac, vlan, port, is_static, last_seen, moves: _ } = *station;
        Self { port, is_static, last_seen, vlan, mac }
    }

    /// Before every station of a port.
    fn first(port: PortId) -> Self {
        Self { port, is_static: false, last_seen: Nanos(0), vlan: VlanId(0), mac: MacAddr::ZERO }
    }

    fn key(&self) -> Key {
        (self.vlan, self.mac)
    }
}

impl Order {
    /// Files a station.
    pub(super) fn insert(&mut self, station: &Station) {
        self.by_port.insert(Place::of(station));
        if !station.is_static {
            self.by_age.insert((station.last_seen, (station.vlan, station.mac)));
        }
        self.count(station, |count| *count += 1);
    }

    /// Takes a station out.
    pub(super) fn remove(&mut self, station: &Station) {
        self.by_port.remove(&Place::of(station));
        if !station.is_static {
            self.by_age.remove(&(station.last_seen, (station.vlan, station.mac)));
        }
        self.count(station, |count| *count -= 1);
    }

    /// Learned stations, the longest silent first.
    pub(super) fn by_age(&self) -> impl Iterator<Item = (Nanos, Key)> {
        self.by_age.iter().copied()
    }

    /// How many stations are learned.
    pub(super) fn learned(&self) -> usize {
        self.by_age.len()
    }

    /// How many stations a port has, static ones included.
    pub(super) fn len_of(&self, port: PortId) -> usize {
        self.counts.get(&port).map_or(0, |count| count.learned + count.pinned)
    }

    /// A port's stations, the longest silent first, the static ones last or not at all.
    pub(super) fn of_port(&self, port: PortId, learned_only: bool) -> impl Iterator<Item = Key> {
        self.by_port
            .range(Place::first(port)..)
            .take_while(move |place| place.port == port && !(learned_only && place.is_static))
            .map(Place::key)
    }

    /// The learned station of a port that has been silent longest.
    pub(super) fn oldest_of(&self, port: PortId) -> Option<Key> {
        self.of_port(port, true).next()
    }

    /// The port with the most learned stations.
    pub(super) fn heaviest(&self) -> Option<PortId> {
        self.heaviest.last().map(|(_, port)| *port)
    }

    fn count(&mut self, station: &Station, change: impl FnOnce(&mut usize)) {
        let count = self.counts.entry(station.port).or_default();
        let before = count.learned;
        change(if station.is_static { &mut count.pinned } else { &mut count.learned });
        let after = *count;
        if before != after.learned {
            self.heaviest.remove(&(before, station.port));
            if after.learned > 0 {
                self.heaviest.insert((after.learned, station.port));
            }
        }
        if after == Count::default() {
            self.counts.remove(&station.port);
        }
    }
}
