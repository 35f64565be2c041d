//! Rates: the difference between two answers over that of the daemon's own times. Nobody's sleep is measured.

use std::collections::HashMap;

use crate::api::top::{Top, TopDrop, TopPort};

/// A port and what it carries a second; nothing until there are two answers to compare.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PortRow {
    pub(super) port: TopPort,
    pub(super) rates: Option<PortRates>,
}

/// A second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct PortRates {
    pub(super) in_bits: u64,
    pub(super) in_frames: u64,
    pub(super) out_bits: u64,
    pub(super) out_frames: u64,
    pub(super) drops: u64,
}

impl PortRates {
    /// Both directions.
    pub(super) fn bits(&self) -> u64 {
        self.in_bits.saturating_add(self.out_bits)
    }
}

/// Drops of one port for one reason, and how many a second.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct DropRow {
    pub(super) drop: TopDrop,
    pub(super) frames_per_sec: Option<u64>,
}

/// The answer before, by what its rows are told apart by.
#[derive(Debug, Default)]
pub(super) enum Before {
    #[default]
    Nothing,
    Ports(u64, HashMap<String, TopPort>),
    Drops(u64, HashMap<(String, &'static str, String), u64>),
}

/// So many a second; nothing when no time has passed, or the counter began anew.
fn rate(now: u64, before: u64, ns: u64) -> Option<u64> {
    let rate = u128::from(now.checked_sub(before)?) * 1_000_000_000 / u128::from((ns > 0).then_some(ns)?);
    Some(u64::try_from(rate).unwrap_or(u64::MAX))
}

impl Before {
    /// Ports with their rates since the answer before; this one is the next one's.
    pub(super) fn ports(&mut self, answer: Top<TopPort>) -> Vec<PortRow> {
        let Top { at_ns, rows, .. } = answer;
        let (then, known) = match self {
            Self::Ports(then, known) => (*then, std::mem::take(known)),
            Self::Nothing | Self::Drops(..) => (at_ns, HashMap::new()),
        };
        let rates = |now: &TopPort| {
            let (before, ns) = (known.get(&now.name)?, at_ns.checked_sub(then)?);
            Some(PortRates {
                in_bits: rate(now.in_bytes, before.in_bytes, ns)?.saturating_mul(8),
                in_frames: rate(now.in_frames, before.in_frames, ns)?,
                out_bits: rate(now.out_bytes, before.out_bytes, ns)?.saturating_mul(8),
                out_frames: rate(now.out_frames, before.out_frames, ns)?,
                drops: rate(now.drops, before.drops, ns)?,
            })
        };
        let rows: Vec<PortRow> = rows.into_iter().map(|port| PortRow { rates: rates(&port), port }).collect();
        *self = Self::Ports(at_ns, rows.iter().map(|row| (row.port.name.clone(), row.port.clone())).collect());
        rows
    }

    /// The same for drops. A line that is new had dropped nothing before.
    pub(super) fn drops(&mut self, answer: Top<TopDrop>) -> Vec<DropRow> {
        let Top { at_ns, rows, .. } = answer;
        let before = match self {
            Self::Drops(then, known) => Some((*then, std::mem::take(known))),
            Self::Nothing | Self::Ports(..) => None,
        };
        let key = |drop: &TopDrop| (drop.port.clone(), drop.side.label(), drop.reason.clone());
        let per_sec = |now: &TopDrop| {
            let (then, known) = before.as_ref()?;
            rate(now.frames, known.get(&key(now)).copied().unwrap_or(0), at_ns.checked_sub(*then)?)
        };
        let rows: Vec<DropRow> =
            rows.into_iter().map(|drop| DropRow { frames_per_sec: per_sec(&drop), drop }).collect();
        *self = Self::Drops(at_ns, rows.iter().map(|row| (key(&row.drop), row.drop.frames)).collect());
        rows
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::indexing_slicing, reason = "a test that fails here has failed")]
    use super::*;
    use crate::api::schema::Side;
    use crate::port::spec::PortState;

    fn port(name: &str, frames: u64) -> TopPort {
        TopPort {
            name: name.to_owned(),
            netdev: name.to_owned(),
            state: PortState::Up,
            in_frames: frames,
            in_bytes: frames * 100,
            out_frames: 0,
            out_bytes: 0,
            drops: 0,
        }
    }

    fn at<T>(at_ns: u64, rows: Vec<T>) -> Top<T> {
        Top { at_ns, total: rows.len() as u64, matched: rows.len() as u64, rows }
    }

    #[test]
    fn a_rate_is_a_difference_over_the_daemons_own_time() {
        let mut before = Before::default();
        assert_eq!(before.ports(at(1_000_000_000, vec![port("a", 10)]))[0].rates, None, "there is nothing to compare");
        let rows = before.ports(at(3_000_000_000, vec![port("a", 30), port("b", 7)]));
        let expected = PortRates { in_bits: 8000, in_frames: 10, ..PortRates::default() };
        assert_eq!((rows[0].rates, rows[1].rates), (Some(expected), None), "b is new");
    }

    #[test]
    fn a_counter_that_began_anew_has_no_rate_once() {
        let mut before = Before::default();
        before.ports(at(1, vec![port("a", 10)]));
        assert_eq!(before.ports(at(2, vec![port("a", 3)]))[0].rates, None);
        assert!(before.ports(at(3, vec![port("a", 4)]))[0].rates.is_some());
        assert_eq!(before.ports(at(3, vec![port("a", 9)]))[0].rates, None, "no time has passed");
        assert_eq!(before.ports(at(1, vec![port("a", 10)]))[0].rates, None, "the host was started anew");
    }

    #[test]
    fn a_drop_that_is_seen_first_began_since_the_answer_before() {
        let drop = |frames| TopDrop { port: "a".into(), side: Side::Ingress, reason: "r".into(), frames, bytes: 0 };
        let mut before = Before::default();
        assert_eq!(before.drops(at(0, vec![])), []);
        assert_eq!(before.drops(at(2_000_000_000, vec![drop(10)]))[0].frames_per_sec, Some(5));
        assert_eq!(Before::default().drops(at(1, vec![drop(10)]))[0].frames_per_sec, None);
    }
}
