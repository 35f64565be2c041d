//! Ports that have sent nothing useful for longer than an operator allows, and those that wake up again.
//!
//! Useful is what the observer calls so: a frame to one station, and neither ARP nor neighbour discovery. The clock of a port that never
//! sent any runs from when it was first seen. What is known of ports outlives the daemon.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::Port;
use crate::events::{Detail, Event, EventKind};

/// A port as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortSeen {
    /// Its name.
    pub name: Port,
    /// When it last sent something useful, as far as this daemon knows.
    pub last_useful: Option<Timestamp>,
    /// No configuration file names it, though there is one.
    pub is_unconfigured: bool,
}

/// What is remembered of a port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Remembered {
    /// When it was first seen, or last sent something useful.
    pub(super) useful: Timestamp,
    /// It was told to be dormant.
    pub(super) is_dormant: bool,
}

/// All ports that there are.
#[derive(Clone, Debug)]
pub(super) struct Dormancy {
    after: SignedDuration,
    ports: BTreeMap<Port, Remembered>,
}

impl Dormancy {
    pub(super) fn new(after: Duration) -> Self {
        Self { after: SignedDuration::try_from(after).unwrap_or(SignedDuration::MAX), ports: BTreeMap::new() }
    }

    pub(super) fn ports(&self) -> &BTreeMap<Port, Remembered> {
        &self.ports
    }

    pub(super) fn restore(&mut self, port: Port, remembered: Remembered) {
        self.ports.insert(port, remembered);
    }

    /// Looks at all ports that there are; those that are no more are forgotten.
    pub(super) fn look(&mut self, seen: &[PortSeen], now: Timestamp) -> Vec<Event> {
        let mut events = Vec::new();
        let mut before = std::mem::take(&mut self.ports);
        for PortSeen { name, last_useful, is_unconfigured } in seen {
            let event = |kind| Event::new(now, kind, Some(name.to_string()));
            let known = before.remove(name);
            if known.is_none() && *is_unconfigured {
                events.push(event(EventKind::PortUnconfigured));
            }
            let Remembered { useful: since, is_dormant } =
                known.unwrap_or(Remembered { useful: last_useful.unwrap_or(now), is_dormant: false });
            let useful = last_useful.map_or(since, |last| last.max(since));
            let silent =
                |time: SignedDuration| Detail { silent_secs: u64::try_from(time.as_secs()).ok(), ..Detail::default() };
            let is_over = now.duration_since(useful) > self.after;
            match (is_dormant, is_over) {
                (false, true) => {
                    events.push(Event { detail: silent(now.duration_since(useful)), ..event(EventKind::PortDormant) });
                }
                (true, false) => {
                    events.push(Event { detail: silent(useful.duration_since(since)), ..event(EventKind::PortAwake) });
                }
                (true, true) | (false, false) => {}
            }
            self.ports.insert(name.clone(), Remembered { useful, is_dormant: is_over });
        }
        events
    }
}
