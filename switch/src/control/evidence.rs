//! Evidence under the names that people know: the port's, and the time of day.

use std::fmt::Write as _;

use jiff::Timestamp;
use switch_common::PortId;

use super::Control;
use super::accounts::side;
use crate::api::Witnessed;
use crate::api::schema::Sample;
use crate::dataplane::thread::now;
use crate::evidence::{Evidence, time_of_day};

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
    fn a_drop_is_told_by_its_bytes_in_hex() {
        assert_eq!(hex(&[0, 0x1b, 0xff]), "001bff");
    }
}
