//! Which verdicts the kernel remembers: a quota per port, and an index to forget them by.
//!
//! The kernel's map is a plain hash that never evicts by itself. The index decides: a port at its quota loses its oldest
//! pair, and when the whole map is full the port with the most pairs loses its oldest; so a guest that forges addresses
//! pushes out its own pairs only. A pair that was pushed out is punted again, nothing worse.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use switch_common::{
    MacAddr, PairKey, PairVerdict, PortId, VERDICT_ARMED, VERDICT_DROP, VERDICT_PUNT, VERDICTS_MAX, VlanId,
};

use crate::fdb::Nanos;
use crate::reflex::{BrainPage, Cell, ReflexError, VerdictError, VerdictMap};

/// Pairs one ingress port may have in the kernel.
pub const PAIRS_PER_PORT: usize = 8192;
/// How long a backlog may keep a verdict from taking effect. An armed verdict takes effect by itself as soon as its port
/// has nothing in flight, and the punt buckets see to it that a port falls quiet; only a brain that is starved of the
/// processor comes here, and then a forced install reorders frames, which costs a guest more than the wait.
pub const BACKLOG_MAX: Duration = Duration::from_secs(1);

/// Who remembers verdicts for the loop.
pub trait VerdictCache {
    /// The frames that follow in this pair get this verdict. `forced` counts an install at the deadline.
    fn teach(&mut self, key: PairKey, verdict: PairVerdict, now: Nanos, forced: &Cell);
    /// The loop found nothing waiting.
    fn backlog_ended(&mut self);
    /// Forgets every pair with this station in it.
    fn forget_station(&mut self, vlan: VlanId, mac: MacAddr);
    /// Forgets every pair whose verdict is `stale`.
    fn forget_where(&mut self, stale: &mut dyn FnMut(&PairKey, &PairVerdict) -> bool);
    /// Forgets every pair that enters or leaves by this port.
    fn forget_port(&mut self, port: PortId) {
        self.forget_where(&mut |key, verdict| key.ingress == port.get() || verdict.egress == port.get());
    }
    /// Names every pair that was used since the last call.
    fn seen_since_last(&mut self, each: &mut dyn FnMut(&PairKey));
    /// How many pairs are remembered.
    fn held(&self) -> usize;
}

/// Remembers nothing: for a loop without a kernel half.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoCache;

impl VerdictCache for NoCache {
    fn teach(&mut self, _: PairKey, _: PairVerdict, _: Nanos, _: &Cell) {}
    fn backlog_ended(&mut self) {}
    fn forget_station(&mut self, _: VlanId, _: MacAddr) {}
    fn forget_where(&mut self, _: &mut dyn FnMut(&PairKey, &PairVerdict) -> bool) {}
    fn seen_since_last(&mut self, _: &mut dyn FnMut(&PairKey)) {}
    fn held(&self) -> usize {
        0
    }
}

/// What the index knows of a pair that is in the kernel.
#[derive(Clone, Copy, Debug)]
struct Installed {
    verdict: PairVerdict,
    /// Position in the port's order of age.
    age: u64,
    /// The backlog during which frames of this pair still came, and since when.
    backlog: u64,
    since: Nanos,
}

/// Where the verdicts lie: the kernel's map, and in tests its twin in memory.
pub trait PairStore {
    /// Writes a pair's verdict, new or instead of the old one.
    ///
    /// # Errors
    /// The store is full, or refuses.
    fn insert(&mut self, key: &PairKey, verdict: &PairVerdict) -> Result<(), VerdictError>;
    /// Removes a pair; one that is not there is no error.
    ///
    /// # Errors
    /// The store refuses.
    fn remove(&mut self, key: &PairKey) -> Result<(), VerdictError>;
    /// Appends every pair and its verdict.
    ///
    /// # Errors
    /// The store cannot be read.
    fn dump(&self, into: &mut Vec<(PairKey, PairVerdict)>) -> Result<(), ReflexError>;
}

impl PairStore for VerdictMap {
    fn insert(&mut self, key: &PairKey, verdict: &PairVerdict) -> Result<(), VerdictError> {
        Self::insert(self, key, verdict)
    }

    fn remove(&mut self, key: &PairKey) -> Result<(), VerdictError> {
        Self::remove(self, key).map(drop)
    }

    fn dump(&self, into: &mut Vec<(PairKey, PairVerdict)>) -> Result<(), ReflexError> {
        Self::dump(self, into)
    }
}

/// Whether the reflex does what it is taught.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Obedience {
    /// It repeats verdicts (kernel datapath).
    Repeats,
    /// It notes them in its flows and punts every frame all the same (user-space datapath).
    Notes,
}

/// The verdicts in the kernel's map, indexed.
///
/// **Invariant**: whenever a pair is taken back, or gets another verdict, its ingress port's generation is bumped afterwards, so that no
/// flow goes on with its copy of the old one. A pair that only makes room for another needs no bump: its copies still say what the brain
/// would. But its port is remembered, because nobody knows any more of which stations there are copies: it is bumped with whatever is
/// taken back next. So what a guest does to its own pairs costs its own port's flows a second look, and nobody else's.
pub struct VerdictIndex<S = VerdictMap> {
    map: S,
    brain: Arc<BrainPage>,
    obedience: Obedience,
    pairs: HashMap<PairKey, Installed>,
    stations: HashMap<[u8; 6], HashSet<PairKey>>,
    ports: HashMap<u16, BTreeMap<u64, PairKey>>,
    fullest: BTreeSet<(usize, u16)>,
    evicted: BTreeSet<u16>,
    serial: u32,
    age: u64,
    backlog: u64,
}

impl<S: PairStore> VerdictIndex<S> {
    /// Adopts what the map holds for this obedience, and removes the rest.
    pub fn adopt(map: S, brain: Arc<BrainPage>, obedience: Obedience) -> Self {
        let mut index = Self {
            map,
            brain,
            obedience,
            pairs: HashMap::new(),
            stations: HashMap::new(),
            ports: HashMap::new(),
            fullest: BTreeSet::new(),
            evicted: BTreeSet::new(),
            serial: 0,
            age: 0,
            backlog: 0,
        };
        for (key, verdict) in index.dump() {
            let noted = verdict.action & VERDICT_PUNT != 0;
            if noted == (obedience == Obedience::Notes) {
                index.note(key, verdict, Nanos::default());
            } else {
                index.map_remove(&key);
            }
        }
        index.brain.bump_generations();
        index
    }

    /// The pairs that are in the kernel, and their verdicts.
    pub fn iter(&self) -> impl Iterator<Item = (&PairKey, &PairVerdict)> {
        self.pairs.iter().map(|(key, installed)| (key, &installed.verdict))
    }

    fn dump(&mut self) -> Vec<(PairKey, PairVerdict)> {
        let mut all = Vec::new();
        if let Err(error) = self.map.dump(&mut all) {
            tracing::warn!(%error, "verdicts could not be read; they age as if unused");
        }
        all
    }

    fn note(&mut self, key: PairKey, verdict: PairVerdict, now: Nanos) {
        self.age += 1;
        let installed = Installed { verdict, age: self.age, backlog: self.backlog, since: now };
        self.pairs.insert(key, installed);
        self.stations.entry(key.source).or_default().insert(key);
        self.stations.entry(key.destination).or_default().insert(key);
        let order = self.ports.entry(key.ingress).or_default();
        self.fullest.remove(&(order.len(), key.ingress));
        order.insert(self.age, key);
        self.fullest.insert((order.len(), key.ingress));
    }

    fn map_remove(&mut self, key: &PairKey) {
        if let Err(error) = self.map.remove(key) {
            tracing::warn!(%error, "a verdict could not be forgotten");
        }
    }

    fn forget(&mut self, key: &PairKey) {
        let Some(installed) = self.pairs.remove(key) else { return };
        self.map_remove(key);
        for station in [key.source, key.destination] {
            if let Some(pairs) = self.stations.get_mut(&station) {
                pairs.remove(key);
                if pairs.is_empty() {
                    self.stations.remove(&station);
                }
            }
        }
        if let Some(order) = self.ports.get_mut(&key.ingress) {
            self.fullest.remove(&(order.len(), key.ingress));
            order.remove(&installed.age);
            if order.is_empty() {
                self.ports.remove(&key.ingress);
            } else {
                self.fullest.insert((order.len(), key.ingress));
            }
        }
    }

    fn oldest_of(&self, ingress: u16) -> Option<PairKey> {
        self.ports.get(&ingress).and_then(|order| order.first_key_value()).map(|(_, key)| *key)
    }

    /// Makes room for one more pair of this port.
    fn make_room(&mut self, ingress: u16) {
        let crowded = self.ports.get(&ingress).is_some_and(|order| order.len() >= PAIRS_PER_PORT);
        let victim = if crowded {
            self.oldest_of(ingress)
        } else if self.pairs.len() >= VERDICTS_MAX {
            self.fullest.last().and_then(|(_, port)| self.oldest_of(*port))
        } else {
            None
        };
        if let Some(key) = victim {
            self.forget(&key);
            self.evicted.insert(key.ingress);
        }
    }

    fn forget_all(&mut self, keys: &[PairKey]) {
        for key in keys {
            self.forget(key);
        }
        self.make_stale(keys.iter().map(|key| key.ingress));
    }

    /// Makes stale the copies in the flows of these ports, and of those whose pairs had to make room.
    fn make_stale(&mut self, ports: impl IntoIterator<Item = u16>) {
        let mut stale = std::mem::take(&mut self.evicted);
        stale.extend(ports);
        for port in stale {
            self.brain.bump_generation(port.into());
        }
    }

    fn install(&mut self, key: PairKey, mut verdict: PairVerdict, now: Nanos) {
        self.make_room(key.ingress);
        self.serial = self.serial.wrapping_add(1);
        verdict.serial = self.serial;
        match self.map.insert(&key, &verdict) {
            Ok(()) => self.note(key, verdict, now),
            // The pair stays unknown to the kernel and is punted again: slower, not wrong.
            Err(error) => tracing::debug!(%error, "verdict not installed"),
        }
    }
}

impl<S: PairStore> VerdictCache for VerdictIndex<S> {
    fn held(&self) -> usize {
        self.pairs.len()
    }

    fn teach(&mut self, key: PairKey, mut verdict: PairVerdict, now: Nanos, forced: &Cell) {
        if self.obedience == Obedience::Notes {
            verdict.action |= VERDICT_PUNT;
        }
        let backlog = self.backlog;
        let known = self.pairs.get_mut(&key).filter(|installed| same(&installed.verdict, &verdict));
        let Some(installed) = known else {
            let changes = self.pairs.contains_key(&key);
            self.forget(&key);
            if self.obedience == Obedience::Repeats && verdict.action != VERDICT_DROP {
                verdict.action |= VERDICT_ARMED;
            }
            self.install(key, verdict, now);
            if changes {
                self.make_stale([key.ingress]);
            }
            return;
        };
        // A frame of a pair that is installed: it was on its way already, or the verdict is still armed.
        if installed.backlog != backlog {
            installed.backlog = backlog;
            installed.since = now;
        } else if installed.verdict.action & VERDICT_ARMED != 0 && now.since(installed.since) >= BACKLOG_MAX {
            installed.verdict.action &= !VERDICT_ARMED;
            let unarmed = installed.verdict;
            if self.map.insert(&key, &unarmed).is_ok() {
                forced.add(1);
            }
        }
    }

    fn backlog_ended(&mut self) {
        self.backlog += 1;
    }

    fn forget_station(&mut self, vlan: VlanId, mac: MacAddr) {
        let pairs = self.stations.get(&mac.0).into_iter().flatten();
        let keys: Vec<PairKey> = pairs.filter(|key| key.vlan == vlan.0).copied().collect();
        self.forget_all(&keys);
    }

    fn forget_where(&mut self, stale: &mut dyn FnMut(&PairKey, &PairVerdict) -> bool) {
        let keys: Vec<PairKey> =
            self.pairs.iter().filter(|(key, installed)| stale(key, &installed.verdict)).map(|(key, _)| *key).collect();
        self.forget_all(&keys);
    }

    fn seen_since_last(&mut self, each: &mut dyn FnMut(&PairKey)) {
        for (key, current) in self.dump() {
            let Some(installed) = self.pairs.get_mut(&key) else { continue };
            if installed.verdict.last_seen_jiffies != current.last_seen_jiffies {
                installed.verdict.last_seen_jiffies = current.last_seen_jiffies;
                each(&key);
            }
        }
    }
}

/// Whether two verdicts say the same, apart from what the reflex writes and the key that the store adds.
fn same(installed: &PairVerdict, new: &PairVerdict) -> bool {
    let plain = |verdict: &PairVerdict| PairVerdict {
        key: PairKey::default(),
        serial: 0,
        action: verdict.action & !VERDICT_ARMED,
        last_seen_jiffies: 0,
        ..*verdict
    };
    plain(installed) == plain(new)
}

#[cfg(test)]
mod tests;
