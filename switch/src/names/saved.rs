//! The register as it is written down, so that it outlives the daemon.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::bindings::Span;
use super::dormancy::Remembered;
use super::register::Register;
use super::stations::Heard;

/// Version of the format.
const VERSION: u32 = 1;

/// The file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Saved {
    version: u32,
    bindings: Vec<Span>,
    stations: Vec<Heard>,
    ports: BTreeMap<String, Remembered>,
}

impl Saved {
    /// Whether this program understands it.
    pub fn is_known(&self) -> bool {
        self.version == VERSION
    }
}

impl Register {
    /// What is to be written down.
    pub fn save(&self) -> Saved {
        let mut bindings: Vec<Span> = self.bindings.spans().cloned().collect();
        bindings.sort_by_key(|span| span.until);
        let ports = self.dormancy.ports().iter().map(|(port, known)| (port.to_string(), known.clone())).collect();
        Saved { version: VERSION, bindings, stations: self.stations.iter().cloned().collect(), ports }
    }

    /// Takes over what an earlier daemon wrote down, the oldest first.
    pub fn restore(&mut self, saved: Saved) {
        saved.bindings.into_iter().for_each(|span| self.bindings.restore(span));
        saved.stations.into_iter().for_each(|heard| self.stations.restore(heard));
        for (port, known) in saved.ports {
            self.dormancy.restore(port.into(), known);
        }
    }
}
