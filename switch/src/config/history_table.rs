//! What a file says of the history: whether there is one, where, and how much of it is kept.

use std::fmt;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use super::runtime::{HISTORY_FILE, HISTORY_MAX_AGE_DAYS, HISTORY_MAX_MIB, HistoryConfig};
use super::values::{Bounded, FilePath, text_type};

const DAY_SECS: u64 = 86_400;
/// Longest age, in seconds: a hundred years.
const AGE_SECS_MAX: u64 = 36_500 * DAY_SECS;
/// How large the file may become, in MiB.
type HistoryMib = Bounded<16, 1_048_576>;

/// `[history]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HistoryTable {
    /// Whether there is one.
    pub enabled: bool,
    /// The file; in the state directory by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<FilePath>,
    /// How old what is kept may become.
    pub max_age: Age,
    /// How large the file may become.
    pub max_mib: HistoryMib,
}

impl Default for HistoryTable {
    fn default() -> Self {
        Self {
            enabled: true,
            path: None,
            max_age: Age(HISTORY_MAX_AGE_DAYS * DAY_SECS),
            max_mib: HistoryMib::fixed(HISTORY_MAX_MIB),
        }
    }
}

impl HistoryTable {
    /// What the daemon runs on, if at all.
    pub fn history(&self, state_dir: &Path) -> Option<HistoryConfig> {
        self.enabled.then(|| HistoryConfig {
            path: self.path.as_ref().map_or_else(|| state_dir.join(HISTORY_FILE), |path| path.as_path().to_owned()),
            max_age: Duration::from_secs(self.max_age.0),
            max_bytes: u64::from(self.max_mib.get()) << 20,
        })
    }

    pub(super) fn describe(history: Option<&HistoryConfig>) -> Result<Self, String> {
        let Some(HistoryConfig { path, max_age, max_bytes }) = history else {
            return Ok(Self { enabled: false, ..Self::default() });
        };
        Ok(Self {
            enabled: true,
            path: Some(path.to_str().ok_or_else(|| format!("{} is no text", path.display()))?.parse()?),
            max_age: Age(max_age.as_secs()),
            max_mib: HistoryMib::try_from(i64::try_from(max_bytes >> 20).unwrap_or(i64::MAX))?,
        })
    }
}

/// A length of time, as `90s`, `30m`, `12h` or `30d`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(into = "String")]
pub struct Age(u64);
text_type!(Age, "a length of time, as \"30d\"");

impl fmt::Display for Age {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [(DAY_SECS, "d"), (3600, "h"), (60, "m")];
        match units.into_iter().find(|(secs, _)| self.0.is_multiple_of(*secs)) {
            Some((secs, unit)) => write!(f, "{}{unit}", self.0 / secs),
            None => write!(f, "{}s", self.0),
        }
    }
}

impl FromStr for Age {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let units = [("s", 1), ("m", 60), ("h", 3600), ("d", DAY_SECS)];
        let read =
            units.into_iter().find_map(|(unit, secs)| Some((text.strip_suffix(unit)?.parse::<u64>().ok()?, secs)));
        let age = read.and_then(|(count, secs)| count.checked_mul(secs)).filter(|age| (1..=AGE_SECS_MAX).contains(age));
        age.map(Self).ok_or_else(|| {
            format!("'{}' is not a length of time from 1s to 36500d; write it as 12h or 30d", text.escape_default())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_age_is_read_and_written_in_the_largest_unit_that_fits() {
        for (text, written) in [("30d", "30d"), ("48h", "2d"), ("90s", "90s"), ("90m", "90m"), ("36500d", "36500d")] {
            assert_eq!(text.parse::<Age>().map(|age| age.to_string()).as_deref(), Ok(written), "{text}");
        }
        for wrong in ["", "d", "0s", "30", "-1d", "1.5h", "36501d", "18446744073709551615d", "30 d", "1w"] {
            assert!(wrong.parse::<Age>().is_err(), "{wrong} was taken");
        }
    }
}
