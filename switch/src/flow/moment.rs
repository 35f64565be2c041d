//! The clocks at one moment, and how long things take.

use std::time::Duration;

use jiff::Timestamp;

pub(super) const NANOS_PER_SEC: u64 = 1_000_000_000;

/// All clocks at one moment, at which the entries were read or shortly after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// The time of day.
    pub wall: Timestamp,
    /// `CLOCK_MONOTONIC` in ns.
    pub ktime_ns: u64,
    /// The low half of the kernel's jiffies.
    pub jiffies: u32,
    /// Jiffies in a second.
    pub hz: u32,
}

impl Moment {
    /// Time of day − `CLOCK_MONOTONIC`.
    pub(super) fn offset_ns(&self) -> i64 {
        let offset = self.wall.as_nanosecond() - i128::from(self.ktime_ns);
        i64::try_from(offset).unwrap_or_default()
    }

    /// How long ago something was, in jiffies; 0 when it is still to come (it came while we looked).
    pub(super) fn age(&self, jiffies: u32) -> u32 {
        let age = self.jiffies.wrapping_sub(jiffies);
        if age > u32::MAX / 2 { 0 } else { age }
    }

    /// `CLOCK_MONOTONIC` at some earlier time in jiffies.
    pub(super) fn ktime_of(&self, jiffies: u32) -> u64 {
        let age_ns = u64::from(self.age(jiffies)) * NANOS_PER_SEC / u64::from(self.hz.max(1));
        self.ktime_ns.saturating_sub(age_ns)
    }

    /// The time of day at some earlier time in jiffies.
    pub(super) fn wall_of(&self, jiffies: u32) -> Timestamp {
        let age_ns = self.ktime_ns.saturating_sub(self.ktime_of(jiffies));
        self.wall.checked_sub(Duration::from_nanos(age_ns)).unwrap_or(Timestamp::MIN)
    }

    /// A length of time in jiffies, rounded up.
    pub(super) fn jiffies_in(&self, time: Duration) -> u32 {
        let jiffies = (time.as_nanos() * u128::from(self.hz)).div_ceil(u128::from(NANOS_PER_SEC));
        u32::try_from(jiffies).unwrap_or(u32::MAX)
    }
}

/// How long things take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// A conversation that goes on is given out this often.
    pub active: Duration,
    /// An entry is dead when its last frame is older: `flow_idle_jiffies` of the reflex's settings.
    pub idle: Duration,
    /// The same after FIN or RST: `flow_closed_jiffies`.
    pub closed: Duration,
    /// How much longer until it may be deleted.
    pub grace: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            active: Duration::from_mins(5),
            idle: Duration::from_mins(1),
            closed: Duration::from_secs(10),
            grace: Duration::from_secs(2),
        }
    }
}
