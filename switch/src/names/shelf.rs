//! A table that guests can fill: so much in all, so much per owner, and the oldest of who has most gives way.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;

use super::Port;

/// How much a shelf holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Room {
    /// In all.
    pub(super) total: usize,
    /// Of one port.
    pub(super) per_port: usize,
}

#[derive(Clone, Debug)]
struct Slot<V> {
    owner: Port,
    serial: u64,
    value: V,
}

/// Entries by key, each on the account of a port, in the order of their age.
#[derive(Clone, Debug)]
pub(super) struct Shelf<K, V> {
    room: Room,
    slots: HashMap<K, Slot<V>>,
    orders: BTreeMap<Port, BTreeMap<u64, K>>,
    serial: u64,
    evicted: u64,
}

impl<K: Clone + Eq + Hash, V> Shelf<K, V> {
    pub(super) fn new(room: Room) -> Self {
        Self { room, slots: HashMap::new(), orders: BTreeMap::new(), serial: 0, evicted: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    /// Entries that had to give way, ever.
    pub(super) fn evicted(&self) -> u64 {
        self.evicted
    }

    pub(super) fn get(&self, key: &K) -> Option<&V> {
        self.slots.get(key).map(|slot| &slot.value)
    }

    pub(super) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        self.slots.get_mut(key).map(|slot| &mut slot.value)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.slots.iter().map(|(key, slot)| (key, &slot.value))
    }

    /// Entries from the oldest to the youngest of each port, by port.
    pub(super) fn in_order(&self) -> impl Iterator<Item = (&K, &V)> {
        self.orders.values().flat_map(BTreeMap::values).filter_map(|key| Some((key, self.get(key)?)))
    }

    /// Puts an entry on the shelf as the youngest of its owner's; answers with the one that had to give way.
    pub(super) fn insert(&mut self, owner: Port, key: K, value: V) -> Option<(K, V)> {
        self.remove(&key);
        let theirs = self.orders.get(&owner).map_or(0, BTreeMap::len);
        let crowded = if theirs >= self.room.per_port {
            Some(owner.clone())
        } else if self.slots.len() >= self.room.total {
            self.orders.iter().max_by_key(|(_, order)| order.len()).map(|(port, _)| port.clone())
        } else {
            None
        };
        let gone =
            crowded.and_then(|port| self.oldest(&port)).and_then(|key| self.remove(&key).map(|value| (key, value)));
        self.evicted += u64::from(gone.is_some());
        self.serial += 1;
        self.orders.entry(owner.clone()).or_default().insert(self.serial, key.clone());
        self.slots.insert(key, Slot { owner, serial: self.serial, value });
        gone
    }

    /// Makes an entry the youngest of its owner's.
    pub(super) fn touch(&mut self, key: &K) {
        let Some(slot) = self.slots.get_mut(key) else { return };
        self.serial += 1;
        if let Some(order) = self.orders.get_mut(&slot.owner) {
            order.remove(&slot.serial);
            order.insert(self.serial, key.clone());
        }
        slot.serial = self.serial;
    }

    pub(super) fn remove(&mut self, key: &K) -> Option<V> {
        let slot = self.slots.remove(key)?;
        if let Some(order) = self.orders.get_mut(&slot.owner) {
            order.remove(&slot.serial);
            if order.is_empty() {
                self.orders.remove(&slot.owner);
            }
        }
        Some(slot.value)
    }

    fn oldest(&self, port: &Port) -> Option<K> {
        self.orders.get(port)?.values().next().cloned()
    }

    /// Takes the oldest of each port's entries off as long as `is_over` says so of them.
    pub(super) fn take_while(&mut self, is_over: impl Fn(&V) -> bool) -> Vec<(K, V)> {
        let ports: Vec<Port> = self.orders.keys().cloned().collect();
        let mut taken = Vec::new();
        for port in ports {
            while let Some(key) = self.oldest(&port).filter(|key| self.get(key).is_some_and(&is_over)) {
                if let Some(value) = self.remove(&key) {
                    taken.push((key, value));
                }
            }
        }
        taken
    }
}
