//! Evidence under the names that people know: the port's, and the time of day.

use std::fmt::Write as _;

use jiff::{SignedDuration, Timestamp};
use switch_common::PortId;

use super::Control;
use super::accounts::side;
use crate::api::Witnessed;
use crate::api::schema::Sample;
use crate::dataplane::thread::now;
use crate::evidence::Evidence;
use crate::fdb::Nanos;

impl Control {
    /// Names the ports; what belongs to a port that is no more is left out.
    pub(super) fn name_evidence(&self, seen: Vec<Evidence>) -> Vec<Witnessed> {
        let (at, wall) = (now(), Timestamp::now());
        let named = |evidence: Evidence| {
            let port = match PortId::new(evidence.port) {
                Some(id) => self.name_of(id)?.to_string(),
                None => String::new(),
            };
            let sample = Sample {
                time: time_of_day(evidence.time, at, wall).to_string(),
                length: evidence.length,
                bytes: hex(&evidence.bytes),
            };
            Some(Witnessed { port, side: side(evidence.way), reason: evidence.reason.into_owned(), sample })
        };
        seen.into_iter().filter_map(named).collect()
    }
}

/// A time of the monotonic clock as a time of day, to the microsecond.
fn time_of_day(time: Nanos, now: Nanos, wall: Timestamp) -> Timestamp {
    let ago = SignedDuration::try_from(now.since(time)).unwrap_or_default();
    let then = wall.checked_sub(ago).unwrap_or(wall);
    Timestamp::from_microsecond(then.as_microsecond()).unwrap_or(then)
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        // Writing to a string cannot fail.
        write!(text, "{byte:02x}").ok();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drop_is_told_by_the_time_of_day_and_its_bytes_in_hex() {
        let wall: Timestamp = "2026-11-22T07:00:00Z".parse().unwrap_or_default();
        let then = time_of_day(Nanos(1_000_000_000), Nanos(3_500_000_000), wall);
        assert_eq!(then.to_string(), "2026-11-22T06:59:57.5Z");
        assert_eq!(time_of_day(Nanos(5), Nanos(4), wall), wall, "never in the future");
        assert_eq!(hex(&[0, 0x1b, 0xff]), "001bff");
    }
}
