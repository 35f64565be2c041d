//! A look at all that goes on, for who wants to see a few of them whole.

use jiff::Timestamp;

use super::super::conversation::{Conversation, Live};
use super::super::pace::Glance;
use super::Tracker;

impl Tracker {
    /// How many go on.
    pub fn conversations(&self) -> u64 {
        (self.conversations.len() - self.vacant.len()) as u64
    }

    /// When the last sweep was, by the time of day.
    pub fn swept_at(&self) -> Timestamp {
        self.now.map(|now| now.wall).unwrap_or_default()
    }

    /// A look at each that goes on, in no order.
    pub fn glances(&self) -> impl Iterator<Item = Glance> {
        let places = self.conversations.iter().enumerate();
        places.filter_map(|(place, live)| live.as_ref()?.glance(place, self.sweeps))
    }

    /// The conversation that was looked at, as it would be given out now.
    pub fn at(&self, place: usize) -> Option<Conversation> {
        self.conversations.get(place)?.as_ref().map(Live::snapshot)
    }
}
