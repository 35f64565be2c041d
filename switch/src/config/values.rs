//! Values that are checked where they are read, so that an error has the position of the value itself.

use std::fmt;
use std::net::IpAddr;
use std::path::Path;
use std::str::FromStr;

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::port::spec::Mac;

/// Longest path: the kernel's limit, less what rotation appends.
const FILE_PATH_BYTES_MAX: usize = 4000;

/// A type that is read from and written as text. Read by a visitor of its own, for then an error belongs to the value; with
/// `#[serde(try_from)]` it would belong to the list around it, and so would the position that an operator is told.
macro_rules! text_type {
    ($name:ident, $expected:literal) => {
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Text;

                impl Visitor<'_> for Text {
                    type Value = $name;
                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str($expected)
                    }
                    fn visit_str<E: de::Error>(self, text: &str) -> Result<$name, E> {
                        text.parse().map_err(E::custom)
                    }
                }

                deserializer.deserialize_str(Text)
            }
        }

        impl From<$name> for String {
            fn from(value: $name) -> Self {
                value.to_string()
            }
        }
    };
}
pub(super) use text_type;

/// The same for what is kept as it is shown.
macro_rules! shown_type {
    ($name:ident, $expected:literal) => {
        text_type!($name, $expected);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    };
}

/// The address of one station: neither a group address nor all zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(into = "String")]
pub struct StationMac(Mac);
shown_type!(StationMac, "a MAC address");

impl StationMac {
    /// The address.
    pub fn mac(self) -> Mac {
        self.0
    }
}

impl FromStr for StationMac {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let mac: Mac = text.parse().map_err(|e| format!("'{}' is {e}", text.escape_default()))?;
        Self::try_from(mac)
    }
}

impl TryFrom<Mac> for StationMac {
    type Error = String;
    fn try_from(mac: Mac) -> Result<Self, String> {
        if mac.0.is_group() {
            Err(format!("{mac} is a group (multicast) address, which no station has; use a unicast address"))
        } else if mac.0.is_zero() {
            Err(format!("{mac} is no station's address; use the guest's own"))
        } else {
            Ok(Self(mac))
        }
    }
}

/// An IP address with its prefix length, as `198.18.0.1/24` or `2001:db8::1/64`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(into = "String")]
pub struct Cidr(String);
shown_type!(Cidr, "an IP address with its prefix length");

impl FromStr for Cidr {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let shown = text.escape_default();
        let (address, prefix) = text
            .split_once('/')
            .ok_or_else(|| format!("'{shown}' lacks a prefix length; write it as 198.18.0.1/24 or 2001:db8::1/64"))?;
        let Ok(address) = address.parse::<IpAddr>() else {
            return Err(format!("'{shown}' does not begin with an IP address, as 198.18.0.1/24 or 2001:db8::1/64 do"));
        };
        let longest = if address.is_ipv4() { 32 } else { 128 };
        match prefix.parse::<u8>() {
            Ok(length) if length <= longest => Ok(Self(format!("{address}/{length}"))),
            _ => Err(format!("the prefix length of '{shown}' is not a number from 0 to {longest}")),
        }
    }
}

/// A network namespace: a name under /run/netns, an absolute path, or a process id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(into = "String")]
pub struct Netns(String);
shown_type!(Netns, "a network namespace");

impl FromStr for Netns {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let is_name = !text.is_empty() && !text.contains('/') && text != "." && text != "..";
        let sane = text.len() <= 255 && !text.contains(char::is_control);
        if sane && (is_name || (text.starts_with('/') && text.len() > 1)) {
            Ok(Self(text.to_owned()))
        } else {
            Err(format!(
                "'{}' is no network namespace; give a name of `ip netns list`, an absolute path or a process id",
                text.escape_default()
            ))
        }
    }
}

/// The absolute path of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(into = "String")]
pub struct FilePath(String);
shown_type!(FilePath, "the absolute path of a file");

impl FilePath {
    /// The path.
    pub fn as_path(&self) -> &Path {
        Path::new(&self.0)
    }
}

impl FromStr for FilePath {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let names_a_file = Path::new(text).file_name().is_some() && !text.ends_with(['/', '.']);
        let sane = text.len() <= FILE_PATH_BYTES_MAX && !text.contains(char::is_control);
        if sane && names_a_file && text.starts_with('/') {
            Ok(Self(text.to_owned()))
        } else {
            Err(format!(
                "'{}' is not the absolute path of a file; write it as /var/log/weft/flows.jsonl",
                text.escape_default()
            ))
        }
    }
}

/// A whole number within limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "i64", into = "i64")]
pub struct Bounded<const MIN: u32, const MAX: u32>(u32);

impl<const MIN: u32, const MAX: u32> Bounded<MIN, MAX> {
    /// The number.
    pub const fn get(self) -> u32 {
        self.0
    }

    /// The number, known to be within the limits when the program is compiled.
    pub const fn fixed(number: u32) -> Self {
        assert!(MIN <= number && number <= MAX, "out of range");
        Self(number)
    }
}

impl<const MIN: u32, const MAX: u32> TryFrom<i64> for Bounded<MIN, MAX> {
    type Error = String;
    fn try_from(number: i64) -> Result<Self, String> {
        match u32::try_from(number) {
            Ok(within) if (MIN..=MAX).contains(&within) => Ok(Self(within)),
            _ => Err(format!("{number} is out of range; take a number from {MIN} to {MAX}")),
        }
    }
}

impl<const MIN: u32, const MAX: u32> From<Bounded<MIN, MAX>> for i64 {
    fn from(value: Bounded<MIN, MAX>) -> Self {
        value.0.into()
    }
}

impl<const MIN: u32, const MAX: u32> FromStr for Bounded<MIN, MAX> {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse::<i64>() {
            Ok(number) => Self::try_from(number),
            Err(_) => Err(format!("not a number; take one from {MIN} to {MAX}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stations_have_unicast_addresses() {
        assert!("52:54:00:12:34:56".parse::<StationMac>().is_ok());
        for wrong in ["01:00:5e:00:00:01", "ff:ff:ff:ff:ff:ff", "00:00:00:00:00:00", "52:54:00:12:34", "", "x"] {
            assert!(wrong.parse::<StationMac>().is_err(), "{wrong} was taken");
        }
    }

    #[test]
    fn addresses_need_a_prefix_length_that_fits() {
        for right in ["198.18.0.1/24", "198.18.0.1/0", "2001:db8::1/64", "2001:db8::/128"] {
            assert_eq!(right.parse::<Cidr>().map(String::from), Ok(right.to_owned()));
        }
        for wrong in ["198.18.0.1", "198.18.0.1/33", "198.18.0.1/", "198.18.0/24", "2001:db8::1/129", "a/b", "/", ""] {
            assert!(wrong.parse::<Cidr>().is_err(), "{wrong} was taken");
        }
    }

    #[test]
    fn a_path_is_absolute_and_names_a_file() {
        for right in ["/f", "/var/log/weft/flows.jsonl", "/a b/é"] {
            assert!(right.parse::<FilePath>().is_ok(), "{right} was refused");
        }
        for wrong in ["", "/", "flows.jsonl", "./f", "/var/log/", "/var/..", "/var/.", "/a\nb", "/a\0", "~/f"] {
            assert!(wrong.parse::<FilePath>().is_err(), "{wrong} was taken");
        }
        assert!(format!("/{}", "f".repeat(FILE_PATH_BYTES_MAX)).parse::<FilePath>().is_err());
    }

    #[test]
    fn a_namespace_is_a_name_a_path_or_a_process() {
        for right in ["blue", "4711", "/proc/1/ns/net"] {
            assert!(right.parse::<Netns>().is_ok(), "{right} was refused");
        }
        for wrong in ["", "/", "a/b", "..", "a\nb"] {
            assert!(wrong.parse::<Netns>().is_err(), "{wrong} was taken");
        }
    }
}
