//! The index over a store in memory: who has to make room, what is forgotten, and when a verdict is disarmed by force.
#![expect(clippy::unwrap_used, reason = "a test may fail")]

use std::collections::BTreeMap;

use switch_common::VERDICT_FORWARD;

use super::*;

/// A pair as something that has an order.
type Place = (u16, [u8; 6], [u8; 6]);

/// The kernel's map, in memory.
#[derive(Debug, Default)]
struct Memory(BTreeMap<Place, (PairKey, PairVerdict)>);

fn place(key: &PairKey) -> Place {
    (key.ingress, key.source, key.destination)
}

impl PairStore for Memory {
    fn insert(&mut self, key: &PairKey, verdict: &PairVerdict) -> Result<(), VerdictError> {
        self.0.insert(place(key), (*key, *verdict));
        Ok(())
    }

    fn remove(&mut self, key: &PairKey) -> Result<(), VerdictError> {
        self.0.remove(&place(key));
        Ok(())
    }

    fn dump(&self, into: &mut Vec<(PairKey, PairVerdict)>) -> Result<(), ReflexError> {
        into.extend(self.0.values());
        Ok(())
    }
}

fn mac(number: u32) -> [u8; 6] {
    let [a, b, c, d] = number.to_be_bytes();
    [2, 0, a, b, c, d]
}

fn key(ingress: u16, source: u32, destination: u32) -> PairKey {
    PairKey { destination: mac(destination), source: mac(source), ingress, vlan: 0 }
}

fn to(egress: u16) -> PairVerdict {
    PairVerdict { egress, action: VERDICT_FORWARD, ..PairVerdict::default() }
}

fn millis(millis: u64) -> Nanos {
    Nanos(millis * 1_000_000)
}

fn index() -> VerdictIndex<Memory> {
    VerdictIndex::adopt(Memory::default(), Arc::new(BrainPage::in_memory()), Obedience::Repeats)
}

fn has(index: &VerdictIndex<Memory>, key: &PairKey) -> bool {
    let (indexed, stored) = (index.pairs.contains_key(key), index.map.0.contains_key(&place(key)));
    assert_eq!(indexed, stored, "index and store disagree on {key:?}");
    stored
}

fn stored(index: &VerdictIndex<Memory>, key: &PairKey) -> PairVerdict {
    index.map.0.get(&place(key)).unwrap().1
}

#[test]
fn a_port_at_its_quota_loses_its_own_oldest_and_nobody_elses() {
    let (mut index, forced) = (index(), Cell::default());
    let bystander = key(2, 1, 2);
    index.teach(bystander, to(1), millis(0), &forced);
    let many = u32::try_from(PAIRS_PER_PORT).unwrap();
    for source in 0..=many {
        index.teach(key(1, 1000 + source, 1), to(2), millis(1), &forced);
    }
    assert!(has(&index, &bystander));
    assert!(!has(&index, &key(1, 1000, 1)), "the oldest went");
    assert!(has(&index, &key(1, 1001, 1)) && has(&index, &key(1, 1000 + many, 1)));
    assert_eq!(index.pairs.len(), PAIRS_PER_PORT + 1);
}

#[test]
fn a_full_map_takes_from_the_port_that_has_most() {
    let (mut index, forced) = (index(), Cell::default());
    let ports = u16::try_from(VERDICTS_MAX / PAIRS_PER_PORT).unwrap();
    let many = u32::try_from(PAIRS_PER_PORT).unwrap();
    // All ports but the last are at their quota; the last has one pair less.
    for port in 1..=ports {
        for source in 0..many - u32::from(port == ports) {
            index.teach(key(port, source + 10, 1), to(4000), millis(0), &forced);
        }
    }
    index.teach(key(4001, 1, 2), to(4000), millis(1), &forced);
    assert_eq!(index.pairs.len(), VERDICTS_MAX);
    index.teach(key(4001, 1, 3), to(4000), millis(2), &forced);
    assert_eq!(index.pairs.len(), VERDICTS_MAX, "one went for one that came");
    assert!(has(&index, &key(4001, 1, 2)) && has(&index, &key(4001, 1, 3)), "the small port kept both");
    assert!(has(&index, &key(ports, 10, 1)), "and so did the one below its quota");
}

#[test]
fn forgetting_a_station_takes_it_as_source_and_as_destination() {
    let (mut index, forced) = (index(), Cell::default());
    for pair in [key(1, 1, 2), key(2, 2, 1), key(3, 3, 2)] {
        index.teach(pair, to(9), millis(0), &forced);
    }
    index.forget_station(VlanId(0), MacAddr(mac(1)));
    assert!(!has(&index, &key(1, 1, 2)) && !has(&index, &key(2, 2, 1)));
    assert!(has(&index, &key(3, 3, 2)), "a pair without it stays");
    index.forget_port(PortId::new(9).unwrap());
    assert!(!has(&index, &key(3, 3, 2)), "a pair that leaves by the port goes with the port");
    assert!(index.stations.is_empty() && index.ports.is_empty() && index.fullest.is_empty(), "nothing is left behind");
}

#[test]
fn a_verdict_is_installed_armed_and_disarmed_by_force_only_after_an_unbroken_backlog() {
    let (mut index, forced) = (index(), Cell::default());
    let pair = key(1, 1, 2);
    index.teach(pair, to(2), millis(0), &forced);
    assert_eq!(stored(&index, &pair).action, VERDICT_FORWARD | VERDICT_ARMED);

    // The control: a backlog that ends in between gives the pair a new start.
    index.teach(pair, to(2), millis(900), &forced);
    index.backlog_ended();
    index.teach(pair, to(2), millis(1000), &forced);
    index.teach(pair, to(2), millis(1999), &forced);
    assert_eq!((forced.get(), stored(&index, &pair).action), (0, VERDICT_FORWARD | VERDICT_ARMED));

    index.teach(pair, to(2), millis(2000), &forced);
    assert_eq!((forced.get(), stored(&index, &pair).action), (1, VERDICT_FORWARD));
    index.teach(pair, to(2), millis(9000), &forced);
    assert_eq!(forced.get(), 1, "once is enough");
}

#[test]
fn another_verdict_replaces_the_old_one_and_is_armed_again() {
    let (mut index, forced) = (index(), Cell::default());
    let pair = key(1, 1, 2);
    index.teach(pair, to(2), millis(0), &forced);
    index.teach(pair, to(3), millis(1), &forced);
    assert_eq!((stored(&index, &pair).egress, stored(&index, &pair).action), (3, VERDICT_FORWARD | VERDICT_ARMED));
    let refusal = PairVerdict { action: VERDICT_DROP, reason: 5, ..PairVerdict::default() };
    index.teach(pair, refusal, millis(2), &forced);
    assert_eq!(stored(&index, &pair).action, VERDICT_DROP, "a refusal overtakes nothing");
}

#[test]
fn adoption_keeps_what_its_datapath_can_use_and_removes_the_others() {
    for (obedience, kept, removed) in [(Obedience::Repeats, 1, 2), (Obedience::Notes, 2, 1)] {
        let mut map = Memory::default();
        map.insert(&key(1, 1, 2), &to(3)).unwrap();
        map.insert(&key(2, 1, 2), &PairVerdict { action: VERDICT_FORWARD | VERDICT_PUNT, ..to(3) }).unwrap();
        let index = VerdictIndex::adopt(map, Arc::new(BrainPage::in_memory()), obedience);
        assert!(has(&index, &key(kept, 1, 2)), "{obedience:?}");
        assert!(!has(&index, &key(removed, 1, 2)), "{obedience:?}");
    }
}

#[test]
fn a_reflex_that_only_notes_is_told_to_punt_what_it_is_taught() {
    let mut index = VerdictIndex::adopt(Memory::default(), Arc::new(BrainPage::in_memory()), Obedience::Notes);
    index.teach(key(1, 1, 2), to(2), millis(0), &Cell::default());
    assert_eq!(stored(&index, &key(1, 1, 2)).action, VERDICT_FORWARD | VERDICT_PUNT);
}

#[test]
fn what_is_taken_back_or_changed_makes_the_copies_of_its_own_port_stale_and_nobody_elses() {
    let (mut index, forced) = (index(), Cell::default());
    let (pair, other) = (key(1, 1, 2), key(3, 5, 6));
    let stale = |index: &VerdictIndex<Memory>| [1, 3].map(|port| index.brain.port(port).generation.get());
    let [one, three] = stale(&index);
    assert!(one > 0 && three > 0, "no copy is of generation 0");
    index.teach(pair, to(2), millis(0), &forced);
    index.teach(pair, to(2), millis(1), &forced);
    index.teach(other, to(2), millis(1), &forced);
    assert_eq!(stale(&index), [one, three], "a first verdict, and the same again");
    index.teach(pair, to(3), millis(2), &forced);
    assert_eq!(stale(&index), [one + 1, three], "another verdict");
    index.forget_station(VlanId::default(), MacAddr(mac(2)));
    assert_eq!(stale(&index), [one + 2, three], "a station");
    index.forget_station(VlanId::default(), MacAddr(mac(77)));
    assert_eq!(stale(&index), [one + 2, three], "a station of no pair");
    for number in 0..=PAIRS_PER_PORT {
        index.teach(key(3, u32::try_from(number).unwrap() + 100, 6), to(2), millis(3), &forced);
    }
    assert_eq!(stale(&index), [one + 2, three], "a pair that makes room");
    index.forget_station(VlanId::default(), MacAddr(mac(77)));
    assert_eq!(stale(&index), [one + 2, three + 1], "its copies may be of any station");
}

#[test]
fn only_pairs_that_the_reflex_used_since_are_named() {
    let (mut index, forced) = (index(), Cell::default());
    for pair in [key(1, 1, 2), key(2, 2, 1)] {
        index.teach(pair, to(2), millis(0), &forced);
    }
    index.map.0.get_mut(&place(&key(1, 1, 2))).unwrap().1.last_seen_jiffies = 99;
    let mut seen = Vec::new();
    index.seen_since_last(&mut |key| seen.push(*key));
    assert_eq!(seen, [key(1, 1, 2)]);
    seen.clear();
    index.seen_since_last(&mut |key| seen.push(*key));
    assert!(seen.is_empty(), "not used again since");
}
