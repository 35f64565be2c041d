//! The kinds of events: a closed list, which metrics have as a label.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

macro_rules! kinds {
    ($($(#[doc = $doc:literal])+ $kind:ident = $label:literal;)+) => {
        /// What happened.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
        #[serde(rename_all = "snake_case")]
        pub enum EventKind {
            $($(#[doc = $doc])+ $kind,)+
        }

        impl EventKind {
            /// Every kind.
            pub const ALL: &[Self] = &[$(Self::$kind),+];

            /// Its word in metrics, in JSON and on the command line.
            pub const fn label(self) -> &'static str {
                match self {
                    $(Self::$kind => $label,)+
                }
            }

            /// What it means, in a sentence.
            pub fn describe(self) -> &'static str {
                match self {
                    $(Self::$kind => concat!($($doc),+).trim_ascii(),)+
                }
            }
        }
    };
}

kinds! {
    /// A station was heard that nothing is remembered of.
    NewStation = "new_station";
    /// A station turned up behind another port.
    StationMoved = "station_moved";
    /// Two stations, or one behind two ports, claim one IP address.
    DuplicateAddress = "duplicate_address";
    /// An IP address was seen for the first time.
    BindingNew = "binding_new";
    /// An IP address is another station's than before, or behind another port.
    BindingChanged = "binding_changed";
    /// A port has sent nothing useful for longer than an operator allows.
    PortDormant = "port_dormant";
    /// A dormant port sends again.
    PortAwake = "port_awake";
    /// A port was made by a command, though a configuration file says which ports there are.
    PortUnconfigured = "port_unconfigured";
    /// A DNS query was answered.
    DnsAnswer = "dns_answer";
    /// A DNS query was not answered in time.
    DnsTimeout = "dns_timeout";
}

impl EventKind {
    /// Whether the log has it at the level `info`; DNS is for those who ask for `debug`.
    pub const fn is_rare(self) -> bool {
        !matches!(self, Self::DnsAnswer | Self::DnsTimeout)
    }
}

impl fmt::Display for EventKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

/// There is no such kind.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no kind of event '{}'; there are {}", .0.escape_default(), labels())]
pub struct NoSuchKind(String);

fn labels() -> String {
    EventKind::ALL.iter().map(|kind| kind.label()).collect::<Vec<_>>().join(", ")
}

impl FromStr for EventKind {
    type Err = NoSuchKind;

    fn from_str(text: &str) -> Result<Self, NoSuchKind> {
        Self::ALL.iter().find(|kind| kind.label() == text).copied().ok_or_else(|| NoSuchKind(text.to_owned()))
    }
}
