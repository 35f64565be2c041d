//! What ended not long ago, and the choice of what somebody wants to see.

use std::cmp::{Ordering, Reverse};
use std::collections::{BinaryHeap, VecDeque};
use std::sync::Arc;

use jiff::Timestamp;

use crate::flow::{Conversation, Facts, Filter, Names, Record};

/// Records that are kept.
pub const RECENT_MAX: usize = 10_000;

/// What memory knows of what somebody asked for, and where it ends.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Remembered {
    /// What was asked for, in the order of their last frames.
    pub records: Vec<Arc<Record>>,
    /// The number of the first record that is kept; those before it were given out by this observer and are kept no more.
    pub first: u64,
    /// When the last frame came of what is kept no more; nothing when that is nothing.
    pub forgotten: Option<Timestamp>,
}

/// The last records, oldest first.
#[derive(Debug, Default)]
pub(super) struct Recent {
    records: VecDeque<Arc<Record>>,
    /// Records before the first that is kept.
    first: u64,
    /// The last end among those.
    forgotten: Option<Timestamp>,
}

impl Recent {
    pub(super) fn push(&mut self, record: Arc<Record>) {
        if self.records.len() >= RECENT_MAX
            && let Some(gone) = self.records.pop_front()
        {
            self.first += 1;
            self.forgotten = self.forgotten.max(Some(gone.end));
        }
        self.records.push_back(record);
    }

    /// What was told last of the conversation with this id.
    pub(super) fn newest(&self, id: &str) -> Option<&Arc<Record>> {
        self.records.iter().rev().find(|record| record.id == id)
    }

    /// The `last` of these and of the `live` ones that `filter` asks for. A record is made of a live one only if it is among them.
    pub(super) fn choose(
        &self,
        live: impl Iterator<Item = Conversation>,
        names: &impl Names,
        switch: &str,
        filter: &Filter,
        last: usize,
    ) -> Remembered {
        let mut chosen = Chosen { last, heap: BinaryHeap::new(), offered: 0 };
        for record in &self.records {
            chosen.offer(record.end, || filter.matches(record).then(|| Candidate::Ended(Arc::clone(record))));
        }
        // One that was given out a moment ago and has added nothing since is among those above.
        let has_counted = |told: &Conversation| !told.forward.is_zero() || !told.reverse.is_zero();
        for told in live.filter(has_counted) {
            chosen.offer(told.ended, || {
                filter.asks_for(&Facts::of(&told, names)).then(|| Candidate::Live(Box::new(told)))
            });
        }
        let made = |Reverse(ranked): Reverse<Ranked>| match ranked.candidate {
            Candidate::Ended(record) => record,
            Candidate::Live(told) => Arc::new(Record::new(&told, switch, names)),
        };
        let records = chosen.heap.into_sorted_vec().into_iter().rev().map(made).collect();
        Remembered { records, first: self.first, forgotten: self.forgotten }
    }
}

/// What may be among the last.
enum Candidate {
    Ended(Arc<Record>),
    Live(Box<Conversation>),
}

/// At most `last` candidates; the one that ended first is on top, and goes first.
struct Chosen {
    last: usize,
    heap: BinaryHeap<Reverse<Ranked>>,
    offered: u64,
}

impl Chosen {
    fn offer(&mut self, end: Timestamp, candidate: impl FnOnce() -> Option<Candidate>) {
        let is_full = self.heap.len() >= self.last;
        let is_late = |first: &Reverse<Ranked>| first.0.end < end;
        if is_full && !self.heap.peek().is_some_and(is_late) {
            return;
        }
        let Some(candidate) = candidate() else { return };
        if is_full {
            self.heap.pop();
        }
        self.offered += 1;
        self.heap.push(Reverse(Ranked { end, turn: self.offered, candidate }));
    }
}

/// A candidate in the order of its last frame; of equal ones, in the order in which they were looked at.
struct Ranked {
    end: Timestamp,
    turn: u64,
    candidate: Candidate,
}

impl Ord for Ranked {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.end, self.turn).cmp(&(other.end, other.turn))
    }
}

impl PartialOrd for Ranked {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Ranked {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Ranked {}
