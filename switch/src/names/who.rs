//! Questions to the register: who has, or had, this address; what had this station; what was behind this port.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::register::Register;
use crate::port::spec::{Mac, PortName};

/// What is asked about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// An address.
    Address(IpAddr),
    /// A station.
    Station(Mac),
    /// A port, whether there is one of that name still or not.
    Port(PortName),
}

/// It is nothing that can be asked about.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{}' is neither an IP address nor a MAC address nor a port's name", .0.escape_default())]
pub struct NoSubject(String);

impl FromStr for Subject {
    type Err = NoSubject;

    fn from_str(text: &str) -> Result<Self, NoSubject> {
        // In this order: a port's name may look like either of the others.
        if let Ok(address) = text.parse() {
            return Ok(Self::Address(address));
        }
        if let Ok(mac) = text.parse() {
            return Ok(Self::Station(mac));
        }
        text.parse().map(Self::Port).map_err(|_no_name| NoSubject(text.to_owned()))
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Station(mac) => mac.fmt(f),
            Self::Port(port) => port.fmt(f),
        }
    }
}

/// A station behind a port, and the IP address that it had there, if any was seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Holder {
    /// The IP address; absent when only the station was seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub address: Option<IpAddr>,
    /// The station.
    #[schema(value_type = String)]
    pub mac: Mac,
    /// The VLAN of the outer tag, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vlan: Option<u16>,
    /// The port it was behind.
    pub port: String,
    /// When it was first seen so.
    #[schema(value_type = String)]
    pub from: Timestamp,
    /// When it was last seen so.
    #[schema(value_type = String)]
    pub until: Timestamp,
    /// By what it was seen: `arp`, `nd`, `dhcp`, or `frame` for a station without an address.
    pub source: String,
    /// How often it was seen.
    pub claims: u64,
    /// Nobody else was seen with the address since (of a station without one: behind another port).
    pub is_latest: bool,
    /// What the station calls itself (DHCP), and what others call its address (DNS, not older than the daemon): printable ASCII.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<String>,
}

impl Register {
    /// Who it is, the latest first. With `at`: who it was then, as far as was known then.
    pub fn who(&self, subject: &Subject, at: Option<Timestamp>) -> Vec<Holder> {
        let mut found: Vec<Holder> = self.holders().filter(|holder| holder.is_about(subject)).collect();
        if let Some(at) = at {
            found.retain(|holder| holder.from <= at);
            let all = found.clone();
            // Who was seen later, and no later than then, was the one.
            let is_past = |old: &Holder, new: &Holder| {
                let of_one = if old.address.is_some() {
                    old.address == new.address && old.vlan == new.vlan
                } else {
                    old.mac == new.mac
                };
                of_one && old.until < at && new.from > old.until
            };
            found.retain(|old| !all.iter().any(|new| is_past(old, new)));
        }
        found.sort_by(|a, b| (b.is_latest, b.until, b.from, &b.port).cmp(&(a.is_latest, a.until, a.from, &a.port)));
        for holder in &mut found {
            if let Some(address) = holder.address {
                holder.names.extend(self.names_of(address));
            }
        }
        found
    }
}

impl Holder {
    fn is_about(&self, subject: &Subject) -> bool {
        match subject {
            Subject::Address(address) => self.address == Some(*address),
            Subject::Station(mac) => self.mac == *mac,
            Subject::Port(port) => self.port == port.as_str(),
        }
    }
}
