//! The register: everything that is known of who is who, and what there is to tell when it changes.

use std::net::IpAddr;
use std::time::Duration;

use jiff::Timestamp;
use switch_common::MacAddr;

use super::Port;
use super::bindings::{Bindings, Claim, Source};
use super::dhcp::Dhcp;
use super::dormancy::{Dormancy, PortSeen};
use super::leases::Leases;
use super::neighbours::Spoken;
use super::packet::{Saying, Told, tell};
use super::queries::{DnsCounts, Queries};
use super::shelf::Room;
use super::stations::Stations;
use super::who::Holder;
use crate::events::Event;
use crate::fdb::Nanos;

/// How long things take, and how much is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Two that claim an address within this time have it both.
    pub window: Duration,
    /// How long an answer of DNS may take.
    pub dns_timeout: Duration,
    /// How long a port may send nothing useful.
    pub dormant_after: Duration,
    /// Spans of addresses that are kept, and as many stations; a quarter of one port.
    pub bindings_max: usize,
}

/// What is known.
#[derive(Clone, Debug)]
pub struct Register {
    pub(super) bindings: Bindings,
    pub(super) stations: Stations,
    pub(super) dormancy: Dormancy,
    leases: Leases,
    queries: Queries,
}

impl Register {
    /// Nothing is known yet.
    pub fn new(limits: Limits) -> Self {
        let room = Room { total: limits.bindings_max.max(4), per_port: (limits.bindings_max / 4).max(1) };
        Self {
            bindings: Bindings::new(room, limits.window),
            stations: Stations::new(room),
            dormancy: Dormancy::new(limits.dormant_after),
            leases: Leases::new(),
            queries: Queries::new(limits.dns_timeout),
        }
    }

    /// Takes the first bytes of a frame that came in by `port`. `admits`: whether the port may speak as a station; of others it is
    /// dropped, so nobody heard it.
    pub fn hear(
        &mut self,
        port: &Port,
        frame: &[u8],
        admits: impl Fn(MacAddr) -> bool,
        at: (Nanos, Timestamp),
    ) -> Vec<Event> {
        let Some(Told { source, vlan, saying }) = tell(frame).filter(|told| admits(told.source)) else {
            return Vec::new();
        };
        match saying {
            Saying::Neighbour(spoken) => self.hear_neighbour(port, vlan, &spoken, at.1).into_iter().collect(),
            Saying::Dhcp(dhcp) => self.hear_dhcp(port, vlan, source, &dhcp, at.1),
            Saying::Dns { from, to, message } => {
                self.queries.hear(port, vlan, (from, to), message, at).into_iter().collect()
            }
        }
    }

    fn hear_neighbour(&mut self, port: &Port, vlan: u16, spoken: &Spoken, time: Timestamp) -> Option<Event> {
        let Spoken { address, mac, is_probe, is_nd } = *spoken;
        let source = if is_nd { Source::Nd } else { Source::Arp };
        let claim = Claim { time, vlan, address, mac, port: port.clone(), source, name: None };
        if is_probe { self.bindings.probe(&claim) } else { self.bindings.claim(&claim) }
    }

    fn hear_dhcp(&mut self, port: &Port, vlan: u16, source: MacAddr, dhcp: &Dhcp<'_>, time: Timestamp) -> Vec<Event> {
        if dhcp.given.is_empty() {
            self.leases.ask(port, vlan, source, dhcp);
            return Vec::new();
        }
        let Some(client) = self.leases.answer(vlan, dhcp).cloned() else { return Vec::new() };
        let name = client.name.clone().or_else(|| dhcp.name.clone());
        let claim = |address: &IpAddr| Claim {
            time,
            vlan,
            address: *address,
            mac: client.mac,
            port: client.port.clone(),
            source: Source::Dhcp,
            name: name.clone(),
        };
        dhcp.given.iter().map(claim).filter_map(|claim| self.bindings.claim(&claim)).collect()
    }

    /// The switch has learnt a station, from another port if it knew it there.
    pub fn see(&mut self, mac: MacAddr, port: &Port, from: Option<Port>, time: Timestamp) -> Option<Event> {
        self.stations.see(mac, port, from, time)
    }

    /// Looks at all ports that there are.
    pub fn look(&mut self, ports: &[PortSeen], now: Timestamp) -> Vec<Event> {
        self.queries.keep(|port| ports.iter().any(|seen| *seen.name == *port));
        self.dormancy.look(ports, now)
    }

    /// Gives up on queries that wait for too long.
    pub fn give_up(&mut self, now: Nanos) -> Vec<Event> {
        self.queries.give_up(now)
    }

    /// Whether time itself may bring something to tell soon.
    pub fn is_waiting(&self) -> bool {
        self.queries.is_waiting()
    }

    /// What there was of DNS, by port.
    pub fn dns(&self) -> &DnsCounts {
        self.queries.counts()
    }

    /// Spans of addresses that are kept.
    pub fn bindings(&self) -> usize {
        self.bindings.len()
    }

    /// Spans and stations that had to give way.
    pub fn evicted(&self) -> u64 {
        self.bindings.evicted() + self.stations.evicted()
    }

    /// Ports that are dormant.
    pub fn dormant(&self) -> impl Iterator<Item = (&Port, bool)> {
        self.dormancy.ports().iter().map(|(port, known)| (port, known.is_dormant))
    }

    pub(super) fn names_of(&self, address: IpAddr) -> Vec<String> {
        self.queries.names_of(address)
    }

    /// Everybody, in the form in which it is asked for.
    pub(super) fn holders(&self) -> impl Iterator<Item = Holder> {
        let bound = self.bindings.spans().map(|span| Holder {
            address: Some(span.address),
            mac: span.mac,
            vlan: (span.vlan != 0).then_some(span.vlan),
            port: span.port.clone(),
            from: span.from,
            until: span.until,
            source: span.source.label().to_owned(),
            claims: span.claims,
            is_latest: self.bindings.is_latest(span),
            names: span.name.iter().cloned().collect(),
        });
        let heard = self.stations.iter().map(|heard| Holder {
            address: None,
            mac: heard.mac,
            vlan: None,
            port: heard.port.clone(),
            from: heard.from,
            until: heard.until,
            source: "frame".to_owned(),
            claims: 1,
            is_latest: true,
            names: Vec::new(),
        });
        bound.chain(heard)
    }
}
