//! When the recorder writes by itself: signs of trouble, read from the counters once a second. Pure.

use std::collections::BTreeMap;

use crate::metrics::Sample;

/// Reasons that an honest guest never causes.
const VIOLATIONS: [&str; 4] = ["spoofed_source", "group_source", "bad_offload", "malformed"];

/// What makes the recorder write: so many within a second; 0: never.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Triggers {
    /// Frames dropped for one reason.
    pub drops: u64,
    /// TCP connections reset.
    pub resets: u64,
    /// Stations that turned up on another port.
    pub moves: u64,
    /// Frames that no honest guest sends.
    pub violations: u64,
}

/// The counters that are looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Signs {
    drops: BTreeMap<String, u64>,
    resets: u64,
    moves: u64,
}

impl Signs {
    /// What a sample says.
    pub fn of(sample: &Sample) -> Self {
        let mut drops = BTreeMap::new();
        let of_ports = sample.ports.iter().flat_map(|port| &port.drops);
        for drop in of_ports.chain(&sample.strangers) {
            *drops.entry(drop.reason.to_string()).or_insert(0) += drop.cell.frames;
        }
        let resets = sample.seen.totals.ports.values().map(|health| health.resets).sum();
        Self { drops, resets, moves: sample.station_moves }
    }

    fn violations(&self) -> u64 {
        VIOLATIONS.iter().filter_map(|reason| self.drops.get(*reason)).sum()
    }
}

/// What happened between two looks that is worth a recording: words that may be part of a file's name.
pub fn sprung(triggers: Triggers, before: &Signs, now: &Signs) -> Option<String> {
    let enough = |max: u64, before: u64, now: u64| max > 0 && now.saturating_sub(before) >= max;
    if enough(triggers.violations, before.violations(), now.violations()) {
        let grown = |reason: &&&str| now.drops.get(**reason) > before.drops.get(**reason);
        return VIOLATIONS.iter().find(grown).map(|reason| format!("violation-{reason}"));
    }
    if enough(triggers.moves, before.moves, now.moves) {
        return Some("station-move".to_owned());
    }
    if enough(triggers.resets, before.resets, now.resets) {
        return Some("tcp-resets".to_owned());
    }
    let burst = |(reason, frames): &(&String, &u64)| {
        enough(triggers.drops, before.drops.get(*reason).copied().unwrap_or(0), **frames)
    };
    now.drops.iter().find(burst).map(|(reason, _)| format!("drops-{reason}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signs(drops: &[(&str, u64)], resets: u64, moves: u64) -> Signs {
        let drops = drops.iter().map(|(reason, frames)| ((*reason).to_owned(), *frames)).collect();
        Signs { drops, resets, moves }
    }

    #[test]
    fn a_recording_is_made_for_what_grows_fast_enough_and_for_nothing_else() {
        let triggers = Triggers { drops: 100, resets: 10, moves: 1, violations: 1 };
        let before = signs(&[("ring_full", 50), ("spoofed_source", 7)], 5, 3);
        let after = |drops: &[(&str, u64)], resets, moves| sprung(triggers, &before, &signs(drops, resets, moves));
        let quiet = [("ring_full", 149), ("spoofed_source", 7)];
        assert_eq!(after(&quiet, 14, 3), None);
        assert_eq!(after(&[("ring_full", 150), ("spoofed_source", 7)], 5, 3).as_deref(), Some("drops-ring_full"));
        assert_eq!(after(&[("too_big", 100), ("spoofed_source", 7)], 5, 3).as_deref(), Some("drops-too_big"));
        assert_eq!(after(&quiet, 15, 3).as_deref(), Some("tcp-resets"));
        assert_eq!(after(&quiet, 5, 4).as_deref(), Some("station-move"));
        assert_eq!(after(&[("spoofed_source", 8)], 5, 3).as_deref(), Some("violation-spoofed_source"));
        let never = Triggers { drops: 0, resets: 0, moves: 0, violations: 0 };
        assert_eq!(sprung(never, &before, &signs(&[("spoofed_source", 9999)], 999, 999)), None);
    }
}
