//! The scenario language: what a switch must do, as data. [`crate::play`] performs a scenario on any fabric.
//!
//! ```toml
//! title = "A known station is reached alone"
//! needs = ["clock"]                # features without which the whole scenario makes no sense
//!
//! [switch]                         # aging_secs, stations_max
//!
//! [[port]]                         # name, role, macs, station_limit, flood_per_sec, mtu
//! name = "a"
//!
//! [[step]]
//! do = "send"                      # one frame, or `count` with consecutive source addresses
//! port = "a"
//! from = "A"                       # a station: a letter, `A+3` (three further), or an address
//! to = "broadcast"
//! reach = ["b", "c"]               # exactly once by each of these, and by no other port
//! drop = "hairpin"                 # and booked under this reason (at `drop_at`, or the sender's port)
//! needs = ["drops"]                # a step is left out where a feature is missing
//! ```
//!
//! Other steps: `down`, `up`, `remove`, `add` (a port); `advance` (`secs`); `pin` (`port`, `station`), `unpin` (`station`),
//! `flush` (`port` or all); `stations` (what the table must hold: `known`, `unknown`, `at_least`, `at_most`).

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context as _, Result};
use serde::Deserialize;
use switch_common::MacAddr;

/// What a fabric may be able to do beyond forwarding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Feature {
    /// Its time can be moved forward.
    Clock,
    /// It counts drops by Weft's reasons.
    Drops,
    /// It limits stations, per port and in all, and evicts fairly.
    Limits,
    /// It knows allowed sources.
    Sources,
    /// It keeps the stations of a port that is down.
    KeepsDown,
    /// It is a plain IEEE bridge in what it does with 01:80:C2:00:00:00 (a Linux bridge without STP is not).
    StrictReserved,
}

/// A whole scenario.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// One sentence.
    pub title: String,
    /// Features without which it is skipped.
    #[serde(default)]
    pub needs: Vec<Feature>,
    /// The switch's limits.
    #[serde(default)]
    pub switch: SwitchPlan,
    /// Its ports.
    pub port: Vec<PortPlan>,
    /// What happens.
    pub step: Vec<Entry>,
}

/// Limits of the switch.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SwitchPlan {
    /// Seconds after which a silent station is forgotten.
    pub aging_secs: Option<u64>,
    /// Stations in all, the player's own not counted.
    pub stations_max: Option<usize>,
}

/// A port.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PortPlan {
    /// Its name.
    pub name: String,
    /// `guest` or `uplink`.
    pub role: Option<String>,
    /// The only sources allowed, the player's own not counted.
    #[serde(default)]
    pub macs: Vec<Address>,
    /// Stations it may have, the player's own not counted.
    pub station_limit: Option<u32>,
    /// Floods per second it may cause.
    pub flood_per_sec: Option<u32>,
    /// Longest packet it takes, in bytes, Ethernet header not counted.
    pub mtu: Option<u32>,
    /// Not there from the start; a step adds it.
    #[serde(default)]
    pub late: bool,
}

/// A step, and what it needs.
#[derive(Clone, Debug, Deserialize)]
pub struct Entry {
    /// Features without which it is left out.
    #[serde(default)]
    pub needs: Vec<Feature>,
    /// What to do.
    #[serde(flatten)]
    pub step: Step,
}

/// What to do.
#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case", deny_unknown_fields)]
pub enum Step {
    /// A station sends.
    Send(Send),
    /// A port's netdev is set down.
    Down {
        /// The port.
        port: String,
    },
    /// It is set up again.
    Up {
        /// The port.
        port: String,
    },
    /// A port is taken away.
    Remove {
        /// The port.
        port: String,
    },
    /// A port (late, or removed before) is added.
    Add {
        /// The port.
        port: String,
    },
    /// Time passes.
    Advance {
        /// How much.
        secs: u64,
    },
    /// A static entry is made.
    Pin {
        /// The port behind which the station is.
        port: String,
        /// The station.
        station: Address,
    },
    /// A static entry is deleted.
    Unpin {
        /// The station.
        station: Address,
    },
    /// Learned stations are forgotten.
    Flush {
        /// Of this port; of all when absent.
        port: Option<String>,
    },
    /// The table is looked at.
    Stations {
        /// Stations that must be behind the given ports.
        #[serde(default)]
        known: BTreeMap<Address, String>,
        /// Stations that must not be in the table.
        #[serde(default)]
        unknown: Vec<Address>,
        /// The fewest stations a port must have.
        #[serde(default)]
        at_least: BTreeMap<String, usize>,
        /// The most stations a port may have.
        #[serde(default)]
        at_most: BTreeMap<String, usize>,
    },
}

/// One frame, or several.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Send {
    /// By which port it comes in.
    pub port: String,
    /// Its source.
    pub from: Address,
    /// Its destination.
    pub to: Address,
    /// How many, with consecutive sources.
    #[serde(default = "one")]
    pub count: u32,
    /// Its length.
    #[serde(default = "shortest")]
    pub bytes: usize,
    /// The ports it must reach.
    #[serde(default)]
    pub reach: Vec<String>,
    /// Why it is dropped.
    pub drop: Option<String>,
    /// At which port that is booked; the sender's when absent.
    pub drop_at: Option<String>,
}

fn one() -> u32 {
    1
}

fn shortest() -> usize {
    crate::frames::FRAME_BYTES_MIN
}

/// An address as a scenario writes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub struct Address(pub MacAddr);

impl Address {
    /// The address `count` further on.
    #[must_use]
    pub fn plus(self, count: u32) -> Self {
        let [high, low, last @ ..] = self.0.0;
        let [third, fourth, fifth, sixth] = u32::from_be_bytes(last).wrapping_add(count).to_be_bytes();
        Self(MacAddr([high, low, third, fourth, fifth, sixth]))
    }
}

impl TryFrom<String> for Address {
    type Error = anyhow::Error;

    fn try_from(text: String) -> Result<Self> {
        let (name, further) = text.split_once('+').unwrap_or((&text, "0"));
        let base = match name.as_bytes() {
            b"broadcast" => MacAddr::BROADCAST,
            // Letters leave room for 65,536 stations after each.
            [letter @ b'A'..=b'Z'] => MacAddr([0x02, 0x00, 0x00, *letter, 0x00, 0x00]),
            _ => MacAddr::from_str(name).with_context(|| format!("no station: {name}"))?,
        };
        Ok(Self(base).plus(further.parse()?))
    }
}

/// The folder of scenario files.
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios")
}

/// The names of all scenarios, sorted.
pub fn names() -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder())? {
        let path = entry?.path();
        let stem = path.file_stem().context("a file has a name")?.to_string_lossy().into_owned();
        if path.extension().is_some_and(|extension| extension == "toml") {
            names.push(stem);
        }
    }
    names.sort();
    Ok(names)
}

/// Reads a scenario.
pub fn read(name: &str) -> Result<Scenario> {
    let text = fs::read_to_string(folder().join(name).with_extension("toml")).with_context(|| name.to_owned())?;
    toml::from_str(&text).with_context(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_scenario_file_is_read() {
        let names = names().expect("the folder is there");
        assert!(names.len() >= 15);
        for name in names {
            read(&name).expect("a sound file");
        }
    }

    #[test]
    fn an_unknown_key_in_a_step_is_refused() {
        let text = "title = 't'\nport = []\n[[step]]\ndo = 'down'\nport = 'a'\nprot = 'b'\n";
        assert!(toml::from_str::<Scenario>(text).is_err());
    }

    #[test]
    fn addresses_are_letters_letters_with_a_number_or_written_out() {
        let read = |text: &str| Address::try_from(text.to_owned()).map(|address| address.0.to_string());
        assert_eq!(read("A").expect("a letter"), "02:00:00:41:00:00");
        assert_eq!(read("B+300").expect("a letter and a number"), "02:00:00:42:01:2c");
        assert_eq!(read("01:80:c2:00:00:0e").expect("an address"), "01:80:c2:00:00:0e");
        assert!(read("AB").is_err());
    }
}
