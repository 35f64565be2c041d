//! Which events somebody wants: by kind, by port and by time; the same word repeated is OR, different ones are AND.

use jiff::Timestamp;

use super::{Event, EventKind};

/// What is asked for; everything, by default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventFilter {
    kinds: Vec<EventKind>,
    ports: Vec<String>,
    since: Option<Timestamp>,
    until: Option<Timestamp>,
}

/// A word of a query that has no meaning, or a value that it does not take.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// Not a kind.
    #[error("{0}")]
    Kind(#[from] super::kind::NoSuchKind),
    /// Not a word.
    #[error("there is no filter '{}'; there are kind and port", .0.escape_default())]
    Word(String),
}

/// A word of the query and what it asks for.
pub type Word<'a> = (&'static str, &'a str);

impl EventFilter {
    /// Adds a word.
    ///
    /// # Errors
    /// It means nothing.
    pub fn add(&mut self, word: &str, value: &str) -> Result<(), FilterError> {
        match word {
            "kind" => self.kinds.push(value.parse()?),
            "port" => self.ports.push(value.to_owned()),
            _ => return Err(FilterError::Word(word.to_owned())),
        }
        Ok(())
    }

    /// Asks for what happened from a time on, and before a time. So two neighbouring spans share no event.
    pub fn between(&mut self, since: Option<Timestamp>, until: Option<Timestamp>) {
        (self.since, self.until) = (since, until);
    }

    /// The span of time that is asked for.
    pub fn span(&self) -> (Option<Timestamp>, Option<Timestamp>) {
        (self.since, self.until)
    }

    /// Whether it asks for this event; for a port also if it is the other one.
    pub fn matches(&self, event: &Event) -> bool {
        let is_named = |port: &Option<String>| port.as_ref().is_some_and(|port| self.ports.contains(port));
        (self.kinds.is_empty() || self.kinds.contains(&event.kind))
            && self.since.is_none_or(|since| event.time >= since)
            && self.until.is_none_or(|until| event.time < until)
            && (self.ports.is_empty() || is_named(&event.port) || is_named(&event.other_port))
    }

    /// Whether events of a kind can match.
    pub fn wants(&self, kind: EventKind) -> bool {
        self.kinds.is_empty() || self.kinds.contains(&kind)
    }

    /// The words again.
    pub fn words(&self) -> impl Iterator<Item = Word<'_>> {
        let kinds = self.kinds.iter().map(|kind| ("kind", kind.label()));
        kinds.chain(self.ports.iter().map(|port| ("port", port.as_str())))
    }
}
