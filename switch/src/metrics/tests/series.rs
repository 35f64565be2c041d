//! Series of pairs never decrease, are never too many, and add up.

use std::collections::{BTreeMap, HashMap};

use proptest::prelude::*;
use switch_common::Tally;

use super::super::pairs::{PairSeries, Pairs};
use super::{port, tally};
use crate::flow::Totals;
use crate::metrics::sample::PortSample;

const SERIES: usize = 3;
const PORTS: u16 = 5;

#[derive(Clone, Debug)]
enum Step {
    /// A pair carries so many frames.
    Carry(u16, u16, u64),
    /// A port goes, and comes back with no past.
    Replug(u16),
    /// A port goes and stays away.
    Unplug(u16),
    Look,
}

fn step() -> impl Strategy<Value = Step> {
    let id = || 1..=PORTS;
    prop_oneof![
        8 => (id(), 0..=PORTS, prop_oneof![1..10u64, 10..1000u64]).prop_map(|(s, d, frames)| Step::Carry(s, d, frames)),
        1 => id().prop_map(Step::Replug),
        1 => id().prop_map(Step::Unplug),
        6 => Just(Step::Look),
    ]
}

fn forget(totals: &mut Totals, id: u16) {
    totals.pairs.retain(|(source, destination), _| *source != id && *destination != id);
}

fn values(series: Vec<PairSeries>) -> BTreeMap<(String, String), Tally> {
    series.into_iter().map(|pair| ((pair.source, pair.destination), pair.traffic)).collect()
}

fn sum<'a>(all: impl IntoIterator<Item = &'a Tally>) -> Tally {
    all.into_iter().fold(Tally::default(), |mut sum, tally| {
        sum.add(tally);
        sum
    })
}

proptest! {
    #[test]
    fn no_series_decreases_while_its_ports_live(steps in prop::collection::vec(step(), 1..200)) {
        let mut pairs = Pairs::new(SERIES);
        let mut totals = Totals::default();
        let mut ports: Vec<PortSample> = (1..=PORTS).map(port).collect();
        let mut last: HashMap<(String, String), Tally> = HashMap::new();
        for step in steps {
            match step {
                Step::Carry(source, destination, frames) => {
                    let lives = |id| id == 0 || ports.iter().any(|port| port.id == id);
                    if lives(source) && lives(destination) {
                        totals.pairs.entry((source, destination)).or_default().add(&tally(frames));
                    }
                }
                Step::Replug(id) | Step::Unplug(id) => {
                    forget(&mut totals, id);
                    if matches!(step, Step::Unplug(_)) {
                        ports.retain(|port| port.id != id);
                    }
                    let gone = port(id).name;
                    last.retain(|(source, destination), _| *source != gone && *destination != gone);
                }
                Step::Look => {
                    pairs.look(&totals, &ports);
                    let told = values(pairs.series());
                    prop_assert!(told.len() <= SERIES + 1);
                    for (key, before) in &last {
                        // A series that is not told now may come back; it may not have fallen then.
                        if let Some(now) = told.get(key) {
                            prop_assert!(now.bytes >= before.bytes && now.frames >= before.frames, "{key:?}");
                        }
                    }
                    last.extend(told);
                }
            }
        }
    }

    #[test]
    fn what_is_told_and_what_is_folded_add_up(steps in prop::collection::vec((1..=PORTS, 0..=PORTS, 1..1000u64), 1..100)) {
        let mut pairs = Pairs::new(SERIES);
        let mut totals = Totals::default();
        let ports: Vec<PortSample> = (1..=PORTS).map(port).collect();
        for (source, destination, frames) in steps {
            totals.pairs.entry((source, destination)).or_default().add(&tally(frames));
            pairs.look(&totals, &ports);
            prop_assert_eq!(pairs.counted(), sum(totals.pairs.values()));
        }
    }
}

#[test]
fn a_folded_pair_that_outgrows_the_smallest_twofold_gets_its_series_from_zero_on() {
    let ports: Vec<PortSample> = (1..=3).map(port).collect();
    let mut totals = Totals::default();
    let mut pairs = Pairs::new(1);
    let mut tell = |totals: &Totals| {
        pairs.look(totals, &ports);
        let told = values(pairs.series());
        let frames = |source: &str, destination: &str| {
            told.get(&(source.to_owned(), destination.to_owned())).map(|tally| tally.frames)
        };
        (frames("web1", "web2"), frames("web1", "web3"), frames("other", "other"))
    };
    totals.pairs.insert((1, 2), tally(100));
    totals.pairs.insert((1, 3), tally(50));
    assert_eq!(tell(&totals), (Some(100), None, Some(50)), "the larger is told from its first frame on");
    totals.pairs.insert((1, 3), tally(200));
    assert_eq!(tell(&totals), (Some(100), None, Some(200)), "not more than twice as much");
    totals.pairs.insert((1, 3), tally(201));
    assert_eq!(tell(&totals), (None, Some(0), Some(201)), "its past stays in other");
    totals.pairs.insert((1, 3), tally(211));
    totals.pairs.insert((1, 2), tally(103));
    assert_eq!(tell(&totals), (None, Some(10), Some(204)));
    totals.pairs.insert((1, 2), tally(423));
    assert_eq!(tell(&totals), (Some(100), None, Some(524)), "what comes back goes on from where it was");
}

#[test]
fn pairs_beyond_what_the_totals_tell_apart_are_in_other() {
    let mut totals = Totals { pairs_folded: tally(5), ..Totals::default() };
    let mut pairs = Pairs::default();
    pairs.look(&totals, &[]);
    totals.pairs_folded = tally(7);
    pairs.look(&totals, &[]);
    assert_eq!(pairs.counted(), tally(7));
}
