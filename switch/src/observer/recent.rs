//! What ended not long ago, and the choice of what somebody wants to see.

use std::cmp::{Ordering, Reverse};
use std::collections::{BinaryHeap, VecDeque};
use std::sync::Arc;

use jiff::Timestamp;

use crate::flow::{Conversation, Filter, Record};

/// Records that are kept.
pub const RECENT_MAX: usize = 10_000;

/// The last records, oldest first.
#[derive(Debug, Default)]
pub(super) struct Recent(VecDeque<Arc<Record>>);

impl Recent {
    pub(super) fn push(&mut self, record: Arc<Record>) {
        if self.0.len() >= RECENT_MAX {
            self.0.pop_front();
        }
        self.0.push_back(record);
    }

    /// What was told last of the conversation with this id.
    pub(super) fn newest(&self, id: &str) -> Option<&Arc<Record>> {
        self.0.iter().rev().find(|record| record.id == id)
    }

    /// The `last` of these and of the `live` ones that `filter` asks for, in the order of their last frames. A record is made of a
    /// live one only if it is among the last.
    pub(super) fn choose(
        &self,
        live: impl Iterator<Item = Conversation>,
        name: impl Fn(&Conversation) -> Record,
        filter: &Filter,
        last: usize,
    ) -> Vec<Arc<Record>> {
        let mut chosen = Chosen { last, heap: BinaryHeap::new() };
        for record in self.0.iter().filter(|record| filter.matches(record)) {
            chosen.offer(record.end, || Some(Arc::clone(record)));
        }
        // One that was given out a moment ago and has added nothing since is among those above.
        let has_counted = |told: &Conversation| !told.forward.is_zero() || !told.reverse.is_zero();
        for told in live.filter(has_counted) {
            chosen.offer(told.ended, || Some(name(&told)).filter(|record| filter.matches(record)).map(Arc::new));
        }
        chosen.heap.into_sorted_vec().into_iter().rev().map(|Reverse(ByEnd(record))| record).collect()
    }
}

/// At most `last` records; the one that ended first is on top, and goes first.
struct Chosen {
    last: usize,
    heap: BinaryHeap<Reverse<ByEnd>>,
}

impl Chosen {
    fn offer(&mut self, end: Timestamp, record: impl FnOnce() -> Option<Arc<Record>>) {
        let is_full = self.heap.len() >= self.last;
        let is_late = |first: &Reverse<ByEnd>| first.0.0.end < end;
        if is_full && !self.heap.peek().is_some_and(is_late) {
            return;
        }
        let Some(record) = record() else { return };
        if is_full {
            self.heap.pop();
        }
        self.heap.push(Reverse(ByEnd(record)));
    }
}

/// A record in the order of its last frame.
struct ByEnd(Arc<Record>);

impl ByEnd {
    fn rank(&self) -> (Timestamp, &str) {
        (self.0.end, &self.0.id)
    }
}

impl Ord for ByEnd {
    fn cmp(&self, other: &Self) -> Ordering {
        self.rank().cmp(&other.rank())
    }
}

impl PartialOrd for ByEnd {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for ByEnd {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for ByEnd {}
