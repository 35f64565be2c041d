//! Which pairs of ports have series of their own: those with most traffic, so many at most; the others are summed in `other`.
//!
//! A series never decreases while it is told, and neither does `other`. So what a pair carried while it was folded stays in
//! `other` when it gets a series, which then begins at 0; and a series that ends leaves its value with the pair, to go on
//! from should it come back. What both grow by between two looks is what the pair carried: Σ series (told or not) + `other`
//! is Σ traffic, exactly.
//!
//! A pair keeps its series until one of its ports goes, or until a folded pair has carried more than twice as much. Twice, so
//! that two pairs of equal traffic do not take turns: a guest that wants a series must double what it carried each time.

use std::cmp::Reverse;
use std::collections::HashMap;

use switch_common::Tally;

use super::sample::PortSample;
use crate::flow::Totals;

/// Pairs with series of their own, unless told otherwise.
pub const SERIES_MAX: usize = 256;

/// Source and destination port id; 0 as destination: none.
type Key = (u16, u16);

/// What was told of the pairs so far.
#[derive(Debug)]
pub struct Pairs {
    series_max: usize,
    names: HashMap<u16, String>,
    known: HashMap<Key, Pair>,
    other: Tally,
    /// [`Totals::pairs_folded`] at the last look.
    beyond: Tally,
    folded: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Pair {
    /// Its traffic at the last look.
    seen: Tally,
    /// Its series.
    series: Tally,
    is_told: bool,
}

/// A series to tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PairSeries {
    /// The source port's name.
    pub source: String,
    /// The destination port's name; empty: none.
    pub destination: String,
    /// Its traffic.
    pub traffic: Tally,
}

impl Default for Pairs {
    fn default() -> Self {
        Self::new(SERIES_MAX)
    }
}

impl Pairs {
    /// Nothing seen yet; so many pairs at most get series of their own.
    pub fn new(series_max: usize) -> Self {
        let (names, known) = (HashMap::new(), HashMap::new());
        Self { series_max, names, known, other: Tally::default(), beyond: Tally::default(), folded: 0 }
    }

    /// Takes in what was carried since the last look, by the ports that there are.
    pub fn look(&mut self, totals: &Totals, ports: &[PortSample]) {
        self.forget_gone(totals, ports);
        let mut newcomers = Vec::new();
        for (key, now) in &totals.pairs {
            if !self.is_named(*key) {
                continue;
            }
            let Some(pair) = self.known.get_mut(key) else {
                newcomers.push((*key, *now));
                continue;
            };
            match since(now, &pair.seen) {
                Some(delta) if pair.is_told => pair.series.add(&delta),
                Some(delta) => self.other.add(&delta),
                // Its port was made anew since.
                None if pair.is_told => pair.series = *now,
                None => {
                    pair.series = Tally::default();
                    self.other.add(now);
                }
            }
            pair.seen = *now;
        }
        self.promote();
        self.welcome(newcomers);
        self.other.add(&since(&totals.pairs_folded, &self.beyond).unwrap_or_default());
        self.beyond = totals.pairs_folded;
    }

    /// The series to tell; what is folded last.
    pub fn series(&self) -> Vec<PairSeries> {
        let name = |id| self.names.get(id).cloned().unwrap_or_default();
        let told = self.known.iter().filter(|(_, pair)| pair.is_told);
        let mut all: Vec<_> = told
            .map(|((source, destination), pair)| PairSeries {
                source: name(source),
                destination: name(destination),
                traffic: pair.series,
            })
            .collect();
        let other = || "other".to_owned();
        all.push(PairSeries { source: other(), destination: other(), traffic: self.other });
        all
    }

    /// Pairs that there are.
    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// Whether there was no traffic yet.
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// How often a pair was folded.
    pub fn folded(&self) -> u64 {
        self.folded
    }

    /// Everything that was ever told of the pairs that there are, and `other`.
    #[cfg(test)]
    pub(super) fn counted(&self) -> Tally {
        self.known.values().fold(self.other, |mut sum, pair| {
            sum.add(&pair.series);
            sum
        })
    }

    fn is_named(&self, (source, destination): Key) -> bool {
        self.names.contains_key(&source) && (destination == 0 || self.names.contains_key(&destination))
    }

    /// Forgets the pairs of ports that are gone, or that have their number from another port by now.
    fn forget_gone(&mut self, totals: &Totals, ports: &[PortSample]) {
        let names: HashMap<u16, String> = ports.iter().map(|port| (port.id, port.name.clone())).collect();
        let stays = |id: &u16| *id == 0 || names.get(id).is_some_and(|name| self.names.get(id) == Some(name));
        self.known.retain(|key, _| stays(&key.0) && stays(&key.1) && totals.pairs.contains_key(key));
        self.names = names;
    }

    /// Gives series to folded pairs: free ones to the largest, and those of pairs they have outgrown twofold.
    fn promote(&mut self) {
        let told = self.known.iter().filter(|(_, pair)| pair.is_told);
        let mut told: Vec<(u64, Key)> = told.map(|(key, pair)| (pair.seen.bytes, *key)).collect();
        told.sort_unstable_by_key(|pair| Reverse(*pair));
        let mut free = self.series_max.saturating_sub(told.len());
        let least = if free > 0 { 0 } else { told.last().map_or(u64::MAX, |(bytes, _)| bytes.saturating_mul(2)) };
        let folded = self.known.iter().filter(|(_, pair)| !pair.is_told && pair.seen.bytes > least);
        let mut folded: Vec<(u64, Key)> = folded.map(|(key, pair)| (pair.seen.bytes, *key)).collect();
        folded.sort_unstable_by_key(|pair| Reverse(*pair));
        for (bytes, key) in folded {
            if free > 0 {
                free -= 1;
            } else {
                let Some((_, smallest)) = told.pop_if(|(smallest, _)| bytes > smallest.saturating_mul(2)) else {
                    return;
                };
                self.tell(smallest, false);
                self.folded += 1;
            }
            self.tell(key, true);
        }
    }

    /// Pairs never seen before: told from their first byte on where there is room, else folded.
    fn welcome(&mut self, mut newcomers: Vec<(Key, Tally)>) {
        newcomers.sort_unstable_by_key(|(key, tally)| (Reverse(tally.bytes), *key));
        let mut free = self.series_max.saturating_sub(self.known.values().filter(|pair| pair.is_told).count());
        for (key, seen) in newcomers {
            let is_told = free > 0;
            free = free.saturating_sub(1);
            if !is_told {
                self.other.add(&seen);
                self.folded += 1;
            }
            let series = if is_told { seen } else { Tally::default() };
            self.known.insert(key, Pair { seen, series, is_told });
        }
    }

    fn tell(&mut self, key: Key, is_told: bool) {
        if let Some(pair) = self.known.get_mut(&key) {
            pair.is_told = is_told;
        }
    }
}

/// What was added; `None` when it began anew.
fn since(now: &Tally, before: &Tally) -> Option<Tally> {
    Some(Tally {
        frames: now.frames.checked_sub(before.frames)?,
        bytes: now.bytes.checked_sub(before.bytes)?,
        extra_frames: now.extra_frames.checked_sub(before.extra_frames)?,
        extra_bytes: now.extra_bytes.checked_sub(before.extra_bytes)?,
    })
}
