//! Events: what an operator or a security team wants to hear of, once, when it happens.
//!
//! ```text
//! the loop ─▶ sightings ─┐
//! frames' first bytes ───┼▶ clerk ─▶ Events::tell ─┬▶ counted, whatever happens to it next
//! the observer's sums ───┘                         └▶ limited per port and kind ─▶ log, recent ones, history, who follows
//! ```
//!
//! [`Event`] is the form in which it is told, [`Events`] the one place through which it goes. **Bounds.** A guest can make events
//! happen as fast as it can send, so each port has a token bucket for each kind: what is above is counted and not told, and the next
//! one that is told says how many that were. The last [`RECENT_MAX`] of each kind are kept, so that the noise of one kind never
//! pushes another one out. Who follows too slowly loses the oldest, which is counted.
//!
//! **Untrusted words** (names out of DNS and DHCP) are printable ASCII before they become part of an event.

mod filter;
mod hub;
mod kind;
pub mod sighting;
mod words;

#[cfg(test)]
mod tests;

use std::net::IpAddr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

pub use filter::{EventFilter, FilterError, Word};
pub use hub::{EventCounts, Events, FOLLOW_MAX, Keeper, Limit, RECENT_MAX, Told};
pub use kind::EventKind;

use crate::port::spec::Mac;

/// Something that happened. What does not apply is absent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Event {
    /// When, by RFC 3339 in UTC.
    #[schema(value_type = String)]
    pub time: Timestamp,
    /// What.
    pub kind: EventKind,
    /// The port it happened at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<String>,
    /// The station it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub mac: Option<Mac>,
    /// The IP address it is about; of a DNS query: who asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub address: Option<IpAddr>,
    /// The other port: where the station or the address was, or is as well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub other_port: Option<String>,
    /// The other station: who had the address, or has it as well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub other_mac: Option<Mac>,
    /// The name that was asked for in DNS, or that a DHCP client gave itself: printable ASCII, everything else as `\DDD`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What only some kinds say.
    #[serde(flatten)]
    pub detail: Detail,
}

/// What only some kinds of events say.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Detail {
    /// The VLAN of the outer tag, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vlan: Option<u16>,
    /// By what a binding was seen: `arp`, `nd`, `dhcp`, or `probe` (an address that is asked for before it is used).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// DNS: who was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub server: Option<IpAddr>,
    /// DNS: the type that was asked for: `A`, `AAAA`, …, or `TYPE65280`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub query_type: Option<String>,
    /// DNS: the response code: `noerror`, `nxdomain`, ….
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rcode: Option<String>,
    /// DNS: from the query to its answer as the switch saw them, in µs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency_us: Option<u64>,
    /// For how long the port had sent nothing useful, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub silent_secs: Option<u64>,
    /// Events of this kind at this port that happened since the last one that was told, and were not told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suppressed: Option<u64>,
}

impl Event {
    /// An event that says no more than when, what and where.
    pub fn new(time: Timestamp, kind: EventKind, port: Option<String>) -> Self {
        Self {
            time,
            kind,
            port,
            mac: None,
            address: None,
            other_port: None,
            other_mac: None,
            name: None,
            detail: Detail::default(),
        }
    }
}
