//! What a file says of captures: the flight recorder, how far it looks back, and when it writes by itself.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::runtime::Recorder;
use super::values::Bounded;
use crate::capture::trigger::Triggers;

/// Memory of the recorder per port, in KiB.
type ReelKib = Bounded<16, 1_048_576>;
/// How far it looks back, in seconds.
type ReelSecs = Bounded<1, 86_400>;
/// Bytes kept of a frame.
type ReelSnaplen = Bounded<14, 192>;
/// How many within a second.
type PerSec = Bounded<0, 1_000_000_000>;
/// Recordings kept.
type Recordings = Bounded<1, 9999>;
/// Their size together, in MiB.
type RecordingsMib = Bounded<1, 1_048_576>;

/// `[capture]`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CaptureTable {
    /// The flight recorder.
    pub recorder: RecorderTable,
}

/// `[capture.recorder]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RecorderTable {
    /// Whether headers are kept all the time.
    pub enabled: bool,
    /// How many seconds of them at most.
    pub secs: ReelSecs,
    /// How much memory each port has for them.
    pub kib_per_port: ReelKib,
    /// How many bytes of a frame; its headers are never longer.
    pub snaplen: ReelSnaplen,
    /// Write a recording when so many frames are dropped within a second for one reason; 0: never.
    pub on_drops: PerSec,
    /// The same for TCP connections that are reset.
    pub on_resets: PerSec,
    /// The same for stations that turn up on another port.
    pub on_moves: PerSec,
    /// The same for frames that no honest guest sends.
    pub on_violations: PerSec,
    /// How many recordings are kept.
    pub files: Recordings,
    /// How large they become together.
    pub max_mib: RecordingsMib,
}

impl Default for RecorderTable {
    fn default() -> Self {
        let set = Recorder::default();
        Self::describe(&set).expect("the defaults are within their bounds")
    }
}

impl RecorderTable {
    /// What the daemon runs on.
    pub fn recorder(&self) -> Recorder {
        Recorder {
            enabled: self.enabled,
            age_max: Duration::from_secs(self.secs.get().into()),
            bytes_per_port: (self.kib_per_port.get() as usize) << 10,
            snaplen: self.snaplen.get() as usize,
            triggers: Triggers {
                drops: self.on_drops.get().into(),
                resets: self.on_resets.get().into(),
                moves: self.on_moves.get().into(),
                violations: self.on_violations.get().into(),
            },
            files_max: self.files.get(),
            files_bytes_max: u64::from(self.max_mib.get()) << 20,
        }
    }

    pub(super) fn describe(set: &Recorder) -> Result<Self, String> {
        fn whole<T: TryFrom<i64, Error = String>>(number: impl TryInto<i64>) -> Result<T, String> {
            T::try_from(number.try_into().unwrap_or(i64::MAX))
        }
        Ok(Self {
            enabled: set.enabled,
            secs: whole(set.age_max.as_secs())?,
            kib_per_port: whole(set.bytes_per_port >> 10)?,
            snaplen: whole(set.snaplen)?,
            on_drops: whole(set.triggers.drops)?,
            on_resets: whole(set.triggers.resets)?,
            on_moves: whole(set.triggers.moves)?,
            on_violations: whole(set.triggers.violations)?,
            files: whole(set.files_max)?,
            max_mib: whole(set.files_bytes_max >> 20)?,
        })
    }
}
