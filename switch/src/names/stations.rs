//! Stations that were heard, and behind which port they were last: for longer than the switch itself remembers them, so that one that
//! was silent for an hour is no news.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use switch_common::MacAddr;

use super::Port;
use super::shelf::{Room, Shelf};
use crate::events::{Event, EventKind};
use crate::port::spec::Mac;

/// A station that was heard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Heard {
    pub(super) mac: Mac,
    pub(super) port: String,
    /// When it was first heard behind this port.
    pub(super) from: Timestamp,
    /// When the switch last learnt it there.
    pub(super) until: Timestamp,
}

/// All of them.
#[derive(Clone, Debug)]
pub(super) struct Stations(Shelf<MacAddr, Heard>);

impl Stations {
    pub(super) fn new(room: Room) -> Self {
        Self(Shelf::new(room))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Heard> {
        self.0.in_order().map(|(_, heard)| heard)
    }

    pub(super) fn evicted(&self) -> u64 {
        self.0.evicted()
    }

    pub(super) fn restore(&mut self, heard: Heard) {
        self.0.insert(heard.port.as_str().into(), heard.mac.0, heard);
    }

    /// The switch has learnt a station, from another port if it knew it there; what there is to tell of it.
    pub(super) fn see(&mut self, mac: MacAddr, port: &Port, from: Option<Port>, time: Timestamp) -> Option<Event> {
        let known = self.0.get(&mac).cloned();
        let before = from.map(|port| port.to_string()).or_else(|| known.as_ref().map(|heard| heard.port.clone()));
        if let (Some(heard), Some(before)) = (self.0.get_mut(&mac), &before)
            && heard.port == **port
            && *before == heard.port
        {
            heard.until = time;
            self.0.touch(&mac);
            return None;
        }
        let heard = Heard { mac: Mac(mac), port: port.to_string(), from: time, until: time };
        self.0.insert(port.clone(), mac, heard);
        let kind = if before.is_some() { EventKind::StationMoved } else { EventKind::NewStation };
        let event = Event::new(time, kind, Some(port.to_string()));
        Some(Event { mac: Some(Mac(mac)), other_port: before, ..event })
    }
}
