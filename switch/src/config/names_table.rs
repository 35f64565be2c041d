//! What a file says of names and events: what is kept of who is who, and how much is told.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::values::Bounded;
use crate::events::Limit;
use crate::names::Limits;
use crate::reflex::HearingRate;

/// Frames a second, or at once.
type Frames = Bounded<1, 1_000_000>;
/// Events a second, or at once.
type PerPort = Bounded<1, 100_000>;
/// Seconds of DNS and of claims.
type Secs = Bounded<1, 86_400>;
/// Seconds until a port is dormant: ten years at most.
type DormantSecs = Bounded<1, 315_360_000>;
/// Bindings that are kept.
type BindingsMax = Bounded<16, 262_144>;

/// `[names]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NamesTable {
    /// Whether frames that say who is who are looked at.
    pub enabled: bool,
    /// So many a second of each port, in the long run.
    pub frames_per_sec: Frames,
    /// So many at once.
    pub frames_burst: Frames,
    /// Times in which a station had an address that are kept.
    pub bindings_max: BindingsMax,
    /// Two that claim an address within this time have it both.
    pub duplicate_secs: Secs,
    /// How long an answer of DNS may take.
    pub dns_timeout_secs: Secs,
}

impl Default for NamesTable {
    fn default() -> Self {
        Self {
            enabled: true,
            frames_per_sec: Frames::fixed(1000),
            frames_burst: Frames::fixed(1000),
            bindings_max: BindingsMax::fixed(16_384),
            duplicate_secs: Secs::fixed(60),
            dns_timeout_secs: Secs::fixed(5),
        }
    }
}

/// `[events]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EventsTable {
    /// Events of one kind at one port that are told a second, in the long run.
    pub per_sec: PerPort,
    /// So many at once.
    pub burst: PerPort,
    /// How long a port may send nothing useful.
    pub dormant_secs: DormantSecs,
}

impl Default for EventsTable {
    fn default() -> Self {
        Self { per_sec: PerPort::fixed(10), burst: PerPort::fixed(100), dormant_secs: DormantSecs::fixed(7 * 86_400) }
    }
}

/// What the daemon runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Names {
    /// What of frames that say who is who is looked at; nothing when absent.
    pub hearing: Option<HearingRate>,
    /// How long things take, and how much is kept.
    pub limits: Limits,
    /// How much is told.
    pub told: Limit,
}

impl Default for Names {
    fn default() -> Self {
        Self::of(&NamesTable::default(), &EventsTable::default())
    }
}

impl Names {
    /// What both tables say.
    pub fn of(names: &NamesTable, events: &EventsTable) -> Self {
        let secs = |value: u32| Duration::from_secs(value.into());
        let rate = HearingRate { per_second: names.frames_per_sec.get(), burst: names.frames_burst.get() };
        Self {
            hearing: names.enabled.then_some(rate),
            limits: Limits {
                window: secs(names.duplicate_secs.get()),
                dns_timeout: secs(names.dns_timeout_secs.get()),
                dormant_after: secs(events.dormant_secs.get()),
                bindings_max: names.bindings_max.get() as usize,
            },
            told: Limit { per_second: events.per_sec.get(), burst: events.burst.get() },
        }
    }

    /// The tables that say this.
    pub(super) fn describe(&self) -> Result<(NamesTable, EventsTable), String> {
        let secs = |time: Duration| i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
        let Limits { window, dns_timeout, dormant_after, bindings_max } = self.limits;
        let HearingRate { per_second, burst } = self.hearing.unwrap_or_default();
        let names = NamesTable {
            enabled: self.hearing.is_some(),
            frames_per_sec: Frames::try_from(i64::from(per_second))?,
            frames_burst: Frames::try_from(i64::from(burst))?,
            bindings_max: BindingsMax::try_from(i64::try_from(bindings_max).unwrap_or(i64::MAX))?,
            duplicate_secs: Secs::try_from(secs(window))?,
            dns_timeout_secs: Secs::try_from(secs(dns_timeout))?,
        };
        let events = EventsTable {
            per_sec: PerPort::try_from(i64::from(self.told.per_second))?,
            burst: PerPort::try_from(i64::from(self.told.burst))?,
            dormant_secs: DormantSecs::try_from(secs(dormant_after))?,
        };
        Ok((names, events))
    }
}
