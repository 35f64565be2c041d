//! The one place through which events go: counted, limited, numbered, kept, logged, and handed to those who follow.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt::Debug;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::broadcast;

use super::{Event, EventFilter, EventKind};
use crate::fdb::Nanos;

/// Events of one kind that are kept.
pub const RECENT_MAX: usize = 1000;
/// Events that a follower may be behind.
pub const FOLLOW_MAX: usize = 8192;
/// Pairs of port and kind whose buckets are remembered; beyond, those that are full are forgotten.
const BUCKETS_MAX: usize = 16_384;

/// How many events of one kind may be told of one port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// So many a second, in the long run.
    pub per_second: u32,
    /// So many at once.
    pub burst: u32,
}

impl Limit {
    fn interval(self) -> Duration {
        Duration::from_secs(1) / self.per_second.max(1)
    }
}

impl Default for Limit {
    fn default() -> Self {
        Self { per_second: 10, burst: 100 }
    }
}

/// How many events there were since the daemon began.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventCounts {
    /// By kind, what happened, told or not.
    pub happened: BTreeMap<EventKind, u64>,
    /// By kind, what of it was not told because there was too much of it.
    pub suppressed: BTreeMap<EventKind, u64>,
    /// What followers were too slow for.
    pub follow_lost: u64,
}

/// A token bucket as a theoretical arrival time, and what it has refused since it was last conformed to.
#[derive(Clone, Copy, Debug, Default)]
struct Bucket {
    due: Nanos,
    refused: u64,
}

/// Who keeps events for longer than memory does.
pub trait Keeper: Debug + Send + Sync {
    /// The event that was told as the `number`-th, from 0 on. Must not wait: it is called for one after the other.
    fn keep(&self, number: u64, event: &Arc<Event>);
}

/// Events that were told, by the numbers in whose order they were, and by what memory lacks of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// In the order of time.
    pub events: Vec<(u64, Arc<Event>)>,
    /// When the last one happened of those kinds that are asked for, and that memory has no longer.
    pub forgotten: Option<Timestamp>,
}

#[derive(Debug, Default)]
struct State {
    recent: BTreeMap<EventKind, VecDeque<(u64, Arc<Event>)>>,
    /// Of each kind the last time of what is not among the recent ones any more.
    forgotten: BTreeMap<EventKind, Timestamp>,
    /// Events that were told.
    told: u64,
    buckets: HashMap<(Option<String>, EventKind), Bucket>,
    happened: BTreeMap<EventKind, u64>,
    suppressed: BTreeMap<EventKind, u64>,
}

#[derive(Debug)]
struct Shared {
    limit: Limit,
    state: Mutex<State>,
    keeper: OnceLock<Box<dyn Keeper>>,
    followers: broadcast::Sender<Arc<Event>>,
    follow_lost: AtomicU64,
}

/// The way to tell and to hear of events. A cheap clone.
#[derive(Clone, Debug)]
pub struct Events(Arc<Shared>);

impl Default for Events {
    fn default() -> Self {
        Self::new(Limit::default())
    }
}

impl Events {
    /// Nothing has happened yet.
    pub fn new(limit: Limit) -> Self {
        Self(Arc::new(Shared {
            limit,
            state: Mutex::default(),
            keeper: OnceLock::new(),
            followers: broadcast::Sender::new(FOLLOW_MAX),
            follow_lost: AtomicU64::new(0),
        }))
    }

    /// Has every event kept that is told from now on. There is one keeper: a second one is not taken.
    pub fn keep_with(&self, keeper: Box<dyn Keeper>) {
        let is_first = self.0.keeper.set(keeper).is_ok();
        debug_assert!(is_first, "two keepers");
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something happened; `now` is what its bucket goes by. Never waits for anybody who listens.
    pub fn tell(&self, mut event: Event, now: Nanos) {
        let mut state = self.state();
        *state.happened.entry(event.kind).or_insert(0) += 1;
        let Some(refused) = state.conforms(self.0.limit, &event, now) else {
            *state.suppressed.entry(event.kind).or_insert(0) += 1;
            return;
        };
        event.detail.suppressed = (refused > 0).then_some(refused);
        let event = Arc::new(event);
        let number = state.told;
        state.told += 1;
        state.remember(number, &event);
        // Under the lock, so that those who follow hear of them in the order in which they are kept. That nobody follows is no loss.
        self.0.followers.send(Arc::clone(&event)).ok();
        if let Some(keeper) = self.0.keeper.get() {
            keeper.keep(number, &event);
        }
        drop(state);
        if event.kind == EventKind::DuplicateAddress {
            tracing::warn!(kind = %event.kind, "{}", event.sentence());
        } else if event.kind.is_rare() {
            tracing::info!(kind = %event.kind, "{}", event.sentence());
        } else {
            tracing::debug!(kind = %event.kind, "{}", event.sentence());
        }
    }

    /// Events from now on. Who lags behind says so: [`Self::lagged`].
    pub fn subscribe(&self) -> broadcast::Receiver<Arc<Event>> {
        self.0.followers.subscribe()
    }

    /// How many follow.
    pub fn followers(&self) -> usize {
        self.0.followers.receiver_count()
    }

    /// A follower was too slow for so many.
    pub fn lagged(&self, events: u64) {
        self.0.follow_lost.fetch_add(events, Ordering::Relaxed);
    }

    /// Of those that are kept and that `filter` asks for the `last`, oldest first.
    pub fn recent(&self, filter: &EventFilter, last: usize) -> Vec<Arc<Event>> {
        self.told(filter, last).events.into_iter().map(|(_, event)| event).collect()
    }

    /// The same with their numbers, and whether there were more.
    pub fn told(&self, filter: &EventFilter, last: usize) -> Told {
        let state = self.state();
        let kinds = state.recent.iter().filter(|(kind, _)| filter.wants(**kind));
        let mut chosen: Vec<_> =
            kinds.flat_map(|(_, kept)| kept).filter(|(_, event)| filter.matches(event)).cloned().collect();
        let forgotten = state.forgotten.iter().filter(|(kind, _)| filter.wants(**kind)).map(|(_, time)| *time).max();
        drop(state);
        chosen.sort_by_key(|(number, event)| (event.time, *number));
        Told { events: chosen.split_off(chosen.len().saturating_sub(last)), forgotten }
    }

    /// How many there were.
    pub fn counts(&self) -> EventCounts {
        let state = self.state();
        let of = |counts: &BTreeMap<EventKind, u64>| {
            EventKind::ALL.iter().map(|kind| (*kind, counts.get(kind).copied().unwrap_or(0))).collect()
        };
        EventCounts {
            happened: of(&state.happened),
            suppressed: of(&state.suppressed),
            follow_lost: self.0.follow_lost.load(Ordering::Relaxed),
        }
    }
}

impl State {
    fn remember(&mut self, number: u64, event: &Arc<Event>) {
        let recent = self.recent.entry(event.kind).or_default();
        if recent.len() >= RECENT_MAX
            && let Some((_, oldest)) = recent.pop_front()
        {
            let forgotten = self.forgotten.entry(event.kind).or_insert(oldest.time);
            *forgotten = oldest.time.max(*forgotten);
        }
        recent.push_back((number, Arc::clone(event)));
    }

    /// Whether the event may be told; with how many before it were not.
    fn conforms(&mut self, limit: Limit, event: &Event, now: Nanos) -> Option<u64> {
        let key = (event.port.clone(), event.kind);
        if self.buckets.len() >= BUCKETS_MAX && !self.buckets.contains_key(&key) {
            self.buckets.retain(|_, bucket| bucket.due > now || bucket.refused > 0);
        }
        let bucket = self.buckets.entry(key).or_default();
        let due = bucket.due.max(now);
        let ahead = limit.interval() * limit.burst.max(1).saturating_sub(1);
        if due.since(now) > ahead {
            bucket.refused += 1;
            return None;
        }
        bucket.due = due + limit.interval();
        Some(std::mem::take(&mut bucket.refused))
    }
}
