//! Events: kept as they are told, and found again.
//!
//! The hub tells events in one order, and says of each the how-manieth it is; in the file the first of a daemon comes behind the last
//! of the daemon before. So what memory and the file both have is told once, and what memory forgets of one kind sooner than of another
//! comes from the file. What does not reach the file is lost and counted with records.

use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;

use super::{EventRow, History, HistoryError, Item, query, reaches_beyond};
use crate::events::{Event, EventFilter, Keeper, Told};

impl History {
    /// Has an event kept, if there is room for it in the queue. Never waits.
    pub fn offer_event(&self, event: EventRow) {
        self.offer(Item::Event(event), 1);
    }

    /// What [`crate::events::Events`] gives its events to. There is one, and it is given every event from the first on.
    pub fn keeper(&self) -> Box<dyn Keeper> {
        Box::new(Keeping(self.clone()))
    }

    /// Adds to the events that memory knows those that the file knows, where the question reaches further back than memory.
    ///
    /// # Errors
    /// [`HistoryError`].
    pub async fn complete_events(
        &self,
        told: Told,
        filter: EventFilter,
        last: usize,
    ) -> Result<Vec<Arc<Event>>, HistoryError> {
        let Told { events, forgotten } = told;
        let known = self.shared.known().clone();
        if !reaches_beyond(filter.span(), forgotten.max(known.earlier_event), known.was_opened) {
            return Ok(events.into_iter().map(|(_, event)| event).collect());
        }
        let found = self.events(filter, last).await?;
        // What was not opened before may be now.
        let base = self.shared.known().base.events;
        let mut all: Vec<(Timestamp, u64, Arc<Event>)> =
            events.into_iter().map(|(number, event)| (event.time, base + number, event)).collect();
        all.extend(found.into_iter().map(|(number, event)| (event.time, number, Arc::new(event))));
        all.sort_by_key(|(time, number, _)| (*time, *number));
        all.dedup_by_key(|(_, number, _)| *number);
        all.drain(..all.len().saturating_sub(last));
        Ok(all.into_iter().map(|(_, _, event)| event).collect())
    }

    /// The last events in the file that are asked for with their numbers there, in the order of time.
    ///
    /// # Errors
    /// [`HistoryError`].
    pub async fn events(&self, filter: EventFilter, last: usize) -> Result<Vec<(u64, Event)>, HistoryError> {
        self.settle().await?;
        self.read(move |db| query::events(db, &filter, last)).await
    }
}

impl EventRow {
    /// An event as it is kept.
    fn of(number: u64, event: &Event) -> Self {
        let json = serde_json::to_string(event).expect("strings and numbers are JSON");
        Self { number, time: event.time, kind: event.kind.label().to_owned(), port: event.port.clone(), json }
    }
}

/// Takes what is told.
struct Keeping(History);

impl fmt::Debug for Keeping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Keeping").field(&self.0.shared.path).finish()
    }
}

impl Keeper for Keeping {
    fn keep(&self, number: u64, event: &Arc<Event>) {
        self.0.offer_event(EventRow::of(number, event));
    }
}
