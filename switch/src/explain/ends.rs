//! Who is meant: a port by its name, a station by its MAC address, or by an IP address that it was seen with.

use std::net::IpAddr;
use std::sync::Arc;

use switch_common::MacAddr;

use super::{End, Facts, filter_of};
use crate::api::ControlError;
use crate::api::schema::{PortInfo, StationInfo};
use crate::events::Event;
use crate::flow::{Filter, Record};
use crate::frame::Trust;
use crate::port::spec::{Mac, PortName};

/// What somebody may be called by.
enum Called {
    Mac(Mac),
    Address(IpAddr),
    Name,
}

/// A port's name is not taken for an address, unless it is one.
fn called(asked: &str) -> Called {
    if let Ok(mac) = asked.parse() {
        return Called::Mac(mac);
    }
    asked.parse().map_or(Called::Name, Called::Address)
}

/// The conversations to look at for an end; nothing when its name can be nobody's.
pub fn records_of(asked: &str) -> Option<Filter> {
    match called(asked) {
        Called::Mac(mac) => Some(filter_of("mac", &mac.to_string())),
        Called::Address(address) => Some(filter_of("ip", &address.to_string())),
        Called::Name => asked.parse::<PortName>().ok().map(|name| filter_of("port", name.as_str())),
    }
}

/// The IP address that an end is called by.
pub fn address_of(asked: &str) -> Option<IpAddr> {
    match called(asked) {
        Called::Address(address) => Some(address),
        Called::Mac(_) | Called::Name => None,
    }
}

/// Finds out who is meant.
pub(super) fn find(asked: &str, facts: &Facts, records: &[Arc<Record>]) -> Result<End, ControlError> {
    if let Some(port) = facts.ports.iter().find(|port| port.name.as_str() == asked) {
        return Ok(behind(asked, port, facts));
    }
    match called(asked) {
        Called::Mac(mac) => Ok(station(asked, mac, None, None, facts)),
        Called::Address(address) => {
            let held = facts.holders.iter().find(|holder| holder.address == Some(address));
            let held = held.map(|holder| (holder.port.clone(), holder.mac));
            let talked = || records.iter().rev().find_map(|record| seen_with(record, address));
            let (port, mac) = held.or_else(talked).ok_or_else(|| {
                ControlError::NotFound(format!(
                    "nobody was seen with the address {address} of late; name a port or a MAC address ('weft fdb', 'weft port list')"
                ))
            })?;
            Ok(station(asked, mac, Some(&port), Some(address), facts))
        }
        Called::Name => Err(ControlError::NotFound(format!(
            "'{}' is no port, MAC or IP address; see 'weft port list'",
            asked.escape_default()
        ))),
    }
}

/// The port and the station that used an address, as a record has it.
fn seen_with(record: &Record, address: IpAddr) -> Option<(String, Mac)> {
    if record.source_address == Some(address) {
        return Some((record.source_port_name.clone(), record.source_mac));
    }
    let answered = record.destination_address == Some(address) && record.reverse_frames > 0;
    let port = record.destination_port_name.clone().filter(|_| answered && record.destination_mac.0.is_station())?;
    Some((port, record.destination_mac))
}

/// A station, where the switch knows it to be; else at the port it was seen behind.
fn station(asked: &str, mac: Mac, seen: Option<&str>, address: Option<IpAddr>, facts: &Facts) -> End {
    let known = facts.stations.iter().find(|station| station.mac == mac);
    let place = known.map(|station| station.port.as_str()).or(seen);
    let port = facts.ports.iter().find(|port| Some(port.name.as_str()) == place);
    End { address, ..end(asked, port, mac, facts) }
}

/// Whoever is behind a port: the station that was heard last, else the first that is allowed, else nobody in particular.
fn behind(asked: &str, port: &PortInfo, facts: &Facts) -> End {
    let heard = facts.stations.iter().filter(|station| station.port == port.name);
    let last = heard.min_by_key(|station| (station.age_secs, station.is_static));
    let known = last.map(|station| station.mac).or_else(|| port.macs.first().copied());
    let nobody = || {
        // Locally administered, and not in use as long as nobody takes it on purpose.
        let [high, low] = port.id.to_be_bytes();
        Mac(MacAddr([0x02, 0x77, 0x65, 0x66, high, low]))
    };
    let stands_in = known.is_none();
    End { stands_in, ..end(asked, Some(port), known.unwrap_or_else(nobody), facts) }
}

fn end(asked: &str, port: Option<&PortInfo>, mac: Mac, facts: &Facts) -> End {
    let view = port.and_then(|port| facts.tables.port(facts.id_of(&port.name)?));
    let stations = facts.stations.iter().filter(|station| port.is_some_and(|port| station.port == port.name));
    End {
        asked: asked.to_owned(),
        port: port.map(|port| port.name.clone()),
        state: port.map(|port| port.state),
        problem: port.and_then(|port| port.problem.clone()),
        mtu: port.and_then(|port| port.mtu),
        guest_offloads: view.is_some_and(|view| view.trust == Trust::Guest),
        macs: port.map(|port| port.macs.clone()).unwrap_or_default(),
        mac,
        stands_in: false,
        address: None,
        station: known(mac, facts).cloned(),
        stations: stations.count() as u64,
    }
}

fn known(mac: Mac, facts: &Facts) -> Option<&StationInfo> {
    facts.stations.iter().find(|station| station.mac == mac)
}

impl End {
    /// Whether something happened to it, or at its port.
    pub(super) fn is_in(&self, event: &Event) -> bool {
        let at = |port: &Option<String>| self.port.as_ref().is_some_and(|name| port.as_deref() == Some(name.as_str()));
        at(&event.port)
            || at(&event.other_port)
            || [event.mac, event.other_mac].contains(&Some(self.mac))
            || (self.address.is_some() && event.address == self.address)
    }

    /// Takes another address for the station, at the same port.
    pub(super) fn become_station(&mut self, mac: Mac, facts: &Facts) {
        self.mac = mac;
        self.stands_in = false;
        self.station = known(mac, facts).cloned();
    }
}

/// Whether two ends talked: each side's port, and its station where it was asked for by that.
pub(super) fn is_between(record: &Record, from: &End, to: &End) -> bool {
    let is = |end: &End, port: Option<&str>, mac: Mac, address: Option<IpAddr>| {
        if end.address.is_some() {
            return end.address == address;
        }
        let by_name = end.port.as_ref().is_some_and(|name| name.as_str() == end.asked);
        if by_name { port == Some(end.asked.as_str()) } else { mac == end.mac }
    };
    let source = |end| is(end, Some(&record.source_port_name), record.source_mac, record.source_address);
    let destination =
        |end| is(end, record.destination_port_name.as_deref(), record.destination_mac, record.destination_address);
    (source(from) && destination(to)) || (source(to) && destination(from))
}
