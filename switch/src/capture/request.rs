//! What a capture is asked for.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::session::Keep;
use crate::port::spec::PortName;

/// The snaplen that keeps every frame whole, as tcpdump's own.
pub const SNAPLEN_FULL: u32 = 262_144;
/// Longest time that may be asked for.
pub const DURATION_MAX: Duration = Duration::from_hours(24 * 365);

/// What is to be captured, and how much of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(as = CaptureRequest)]
pub struct Request {
    /// Frames that came in by one of these ports or were sent to one; empty: all.
    #[schema(value_type = Vec<String>)]
    pub ports: Vec<PortName>,
    /// An expression of tcpdump's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub filter: Option<String>,
    /// Bytes kept of a frame; without it its headers, to the end of TCP's or UDP's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snaplen: Option<u32>,
    /// Only what was refused or lost.
    pub dropped: bool,
    /// Of that only what was for this reason.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// End after so many frames.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub frames: Option<u64>,
    /// End after so many milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duration_ms: Option<u64>,
    /// End before the stream becomes longer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// Not what comes, but what the recorder has kept of so many milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recall_ms: Option<u64>,
}

impl Request {
    /// Whether it makes sense, as far as that can be said without a switch.
    ///
    /// # Errors
    /// What is wrong, and what would be right.
    pub fn check(&self) -> Result<(), String> {
        if self.snaplen.is_some_and(|bytes| !(1..=SNAPLEN_FULL).contains(&bytes)) {
            return Err(format!("the snaplen must be from 1 to {SNAPLEN_FULL} bytes; leave it out for headers only"));
        }
        if self.frames == Some(0) || self.bytes == Some(0) || self.duration_ms == Some(0) || self.recall_ms == Some(0) {
            return Err("a capture of nothing was asked for; every limit must be more than 0".to_owned());
        }
        let max = u64::try_from(DURATION_MAX.as_millis()).unwrap_or(u64::MAX);
        if self.duration_ms.is_some_and(|ms| ms > max) {
            return Err("no capture lasts longer than a year; ask for less".to_owned());
        }
        if self.reason.is_some() && !self.dropped {
            return Err(
                "a drop reason is given, but not asked for drops; say that only dropped frames are wanted".to_owned()
            );
        }
        if self.recall_ms.is_some() && self.duration_ms.is_some() {
            return Err("what is recalled is past, and has no duration; say how far to look back".to_owned());
        }
        Ok(())
    }

    /// What is to be kept of a frame.
    pub fn keep(&self) -> Keep {
        self.snaplen.map_or(Keep::Headers, |bytes| Keep::Bytes(usize::try_from(bytes).unwrap_or(usize::MAX)))
    }

    /// How long it is to go on, if there is an end.
    pub fn duration(&self) -> Option<Duration> {
        self.duration_ms.map(Duration::from_millis)
    }

    /// What it is a capture of, for people.
    pub fn describe(&self) -> String {
        let ports: Vec<_> = self.ports.iter().map(ToString::to_string).collect();
        let of = if ports.is_empty() { "all ports".to_owned() } else { ports.join(", ") };
        let what = match (self.dropped, &self.reason) {
            (false, _) => "frames".to_owned(),
            (true, None) => "dropped frames".to_owned(),
            (true, Some(reason)) => format!("frames dropped as {reason}"),
        };
        format!("{what} of {of}; inbound is what the guest sent into the switch's port")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_makes_no_sense_is_refused_and_said_why() {
        let fine = Request { snaplen: Some(SNAPLEN_FULL), frames: Some(1), ..Request::default() };
        assert_eq!(fine.check(), Ok(()));
        for (wrong, said) in [
            (Request { snaplen: Some(0), ..fine.clone() }, "from 1 to 262144"),
            (Request { snaplen: Some(SNAPLEN_FULL + 1), ..fine.clone() }, "from 1 to 262144"),
            (Request { frames: Some(0), ..fine.clone() }, "of nothing"),
            (Request { reason: Some("hairpin".into()), ..fine.clone() }, "only dropped frames"),
            (Request { duration_ms: Some(u64::MAX), ..fine.clone() }, "longer than a year"),
            (Request { duration_ms: Some(1), recall_ms: Some(1), ..fine.clone() }, "is past"),
        ] {
            assert!(wrong.check().is_err_and(|error| error.contains(said)), "{said}");
        }
    }
}
