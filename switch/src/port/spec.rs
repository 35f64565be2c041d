//! What an operator asks for when a port is to be, checked once.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use switch_common::MacAddr;

/// Longest interface name the kernel takes, without its NUL (include/uapi/linux/if.h, IFNAMSIZ).
pub const IF_NAME_BYTES_MAX: usize = 15;
/// Longest port name.
pub const PORT_NAME_BYTES_MAX: usize = 63;

/// What is wrong with a name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing in it.
    #[error("a name must not be empty")]
    Empty,
    /// Too long.
    #[error("'{name}' is {bytes} bytes long, at most {max} are allowed", bytes = name.len())]
    TooLong {
        /// The name.
        name: String,
        /// The limit in bytes.
        max: usize,
    },
    /// A character that may not be in it.
    #[error(
        "'{name}' contains {character:?}; allowed are letters, digits, '.', '_', ':', '@' and '-', and not '.' or '..' alone"
    )]
    Character {
        /// The name, escaped.
        name: String,
        /// The first bad character.
        character: char,
    },
}

fn check(name: &str, max: usize) -> Result<(), NameError> {
    if name.is_empty() {
        return Err(NameError::Empty);
    }
    if name.len() > max {
        return Err(NameError::TooLong { name: name.escape_default().to_string(), max });
    }
    let bad = |c: char| !(c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | ':' | '@' | '-'));
    let first = if name == "." || name == ".." { Some('.') } else { name.chars().find(|c| bad(*c)) };
    first.map_or(Ok(()), |character| Err(NameError::Character { name: name.escape_default().to_string(), character }))
}

macro_rules! name_type {
    ($(#[$doc:meta])+ $name:ident, $max:expr) => {
        $(#[$doc])+
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> {
                check(text, $max).map(|()| Self(text.to_owned()))
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;
            fn try_from(text: String) -> Result<Self, NameError> {
                check(&text, $max).map(|()| Self(text))
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name_type! {
    /// A port's name, given by the operator; it becomes a metric label.
    PortName, PORT_NAME_BYTES_MAX
}
name_type! {
    /// The name of a network interface.
    IfName, IF_NAME_BYTES_MAX
}

/// What lives behind a port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// A guest or a container: untrusted, limited.
    #[default]
    Guest,
    /// The outside: exempt from the station limit, made promiscuous.
    Uplink,
}

/// Who asked for a port; a reload touches only those of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// The configuration file.
    File,
    /// A command.
    Command,
}

/// What a port's netdev is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum PortState {
    /// Attached, with carrier.
    Up,
    /// Attached and administratively up, but nobody holds the other end.
    NoCarrier,
    /// Attached, administratively down.
    Down,
    /// The netdev does not exist; it is attached when it appears.
    Absent,
    /// Attaching failed; the reason is in the log and in `port show`.
    Failed,
}

/// What a port attaches to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Attachment {
    /// An existing tap, veth or uplink of the host.
    Netdev {
        /// Its name.
        #[schema(value_type = String)]
        netdev: IfName,
        /// Take it although it is a bridge member or has an address.
        #[serde(default)]
        force: bool,
    },
    /// A persistent tap created for a VMM to open; removed with the port.
    Tap {
        /// Its name.
        #[schema(value_type = String)]
        tap: IfName,
        /// The user who may open it (name or number); root when absent.
        #[serde(default)]
        user: Option<String>,
    },
    /// A veth pair whose far end is in a network namespace.
    Netns {
        /// A name under /run/netns, an absolute path, or a process id.
        netns: String,
        /// The interface's name inside.
        #[schema(value_type = String)]
        ifname: IfName,
        /// Addresses with prefix length to give it.
        #[serde(default)]
        addresses: Vec<String>,
        /// Its own MAC address; chosen by the kernel when absent.
        #[serde(default)]
        #[schema(value_type = Option<String>)]
        mac: Option<Mac>,
    },
    /// A veth pair whose far end is the host's.
    Host {
        /// The interface's name on the host.
        #[schema(value_type = String)]
        ifname: IfName,
        /// Addresses with prefix length to give it.
        #[serde(default)]
        addresses: Vec<String>,
        /// Its own MAC address; chosen by the kernel when absent.
        #[serde(default)]
        #[schema(value_type = Option<String>)]
        mac: Option<Mac>,
    },
}

impl Attachment {
    /// The word in tables and records.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Netdev { .. } => "netdev",
            Self::Tap { .. } => "tap",
            Self::Netns { .. } => "netns",
            Self::Host { .. } => "host",
        }
    }
}

/// A [`MacAddr`] that reads and writes itself as text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Mac(pub MacAddr);

impl TryFrom<String> for Mac {
    type Error = switch_common::NotAMac;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse().map(Self)
    }
}

impl FromStr for Mac {
    type Err = switch_common::NotAMac;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

impl From<Mac> for String {
    fn from(mac: Mac) -> Self {
        mac.0.to_string()
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// Stations a guest port may have by default.
pub const STATION_LIMIT: u32 = 1024;
/// Frames per second a port may have flooded by default; its burst is one second's worth.
pub const FLOOD_PER_SEC: u32 = 2000;

fn default_station_limit() -> u32 {
    STATION_LIMIT
}

fn default_flood_per_sec() -> u32 {
    FLOOD_PER_SEC
}

/// A port as asked for. The configuration file, the API and the state file all come down to this.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct PortSpec {
    /// Its name.
    #[schema(value_type = String)]
    pub name: PortName,
    /// What it attaches to.
    #[serde(flatten)]
    pub attachment: Attachment,
    /// What lives behind it.
    #[serde(default)]
    pub role: Role,
    /// Who asked for it.
    pub origin: Origin,
    /// The only sources allowed; empty: learn, up to `station_limit`.
    #[serde(default)]
    #[schema(value_type = Vec<String>)]
    pub macs: Vec<Mac>,
    /// The netdev's MTU to set; its own when absent.
    #[serde(default)]
    pub mtu: Option<u32>,
    /// Stations it may have; uplinks are exempt.
    #[serde(default = "default_station_limit")]
    pub station_limit: u32,
    /// Broadcast, multicast and unknown unicast frames per second it may cause.
    #[serde(default = "default_flood_per_sec")]
    pub flood_per_sec: u32,
    /// Words of the operator's own.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}
