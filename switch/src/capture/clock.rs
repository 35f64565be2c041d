//! Two clocks: the monotonic one by which both halves stamp frames, and the time of day that a file has.
//!
//! Their distance is taken once per session, so that times in a file never go back when somebody sets the host's clock.

use rustix::time::{ClockId, clock_gettime};

use crate::fdb::Nanos;

/// The monotonic clock.
pub(crate) fn monotonic() -> Nanos {
    Nanos(read(ClockId::Monotonic))
}

/// Nanoseconds since 1970.
pub(crate) fn time_of_day_ns() -> u64 {
    read(ClockId::Realtime)
}

/// What is to be added to the monotonic clock to get nanoseconds since 1970.
pub(crate) fn distance_ns() -> u64 {
    time_of_day_ns().saturating_sub(monotonic().0)
}

fn read(clock: ClockId) -> u64 {
    let time = clock_gettime(clock);
    let (secs, nanos) = (u64::try_from(time.tv_sec).unwrap_or(0), u64::try_from(time.tv_nsec).unwrap_or(0));
    secs.saturating_mul(1_000_000_000).saturating_add(nanos)
}
