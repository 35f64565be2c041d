//! Sums since the daemon began, for the metrics: by pair of ports, by transport, by port.
//!
//! What an entry had counted before the tracker first saw it, at the start, is not in here: it belongs to an earlier daemon's
//! sums. The number of pairs is bounded; what comes beyond is folded into one sum.

use std::collections::{HashMap, HashSet};

use jiff::Timestamp;
use switch_common::Tally;
use switch_common::flow::{FlowValue, Route};

use super::counters::Counters;
use super::histogram::Histogram;
use super::key::{RawKey, Transport};
use super::moment::Moment;
use super::tcp::Handshake;

/// Pairs of ports that are told apart.
pub const PAIRS_MAX: usize = 65_536;

/// Traffic by source port id and destination port id; 0 as destination: flooded, dropped or unknown.
pub type PairTraffic = HashMap<(u16, u16), Tally>;

/// The sums.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Totals {
    /// What went from port to port.
    pub pairs: PairTraffic,
    /// What went between pairs beyond [`PAIRS_MAX`].
    pub pairs_folded: Tally,
    /// Conversations that began, or were found at the start.
    pub opened: Transports,
    /// Conversations that ended.
    pub closed: Transports,
    /// Conversations that there are.
    pub active: Transports,
    /// How the ports' guests fare, by port id.
    pub ports: HashMap<u16, PortHealth>,
    /// Entries of the last sweep whose key the reflex would not write; stays 0, or it is a defect.
    pub rejected: u64,
}

/// A number for each transport.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Transports {
    /// TCP.
    pub tcp: u64,
    /// UDP.
    pub udp: u64,
    /// ICMP and `ICMPv6`.
    pub icmp: u64,
    /// Any other protocol above IP.
    pub other_ip: u64,
    /// Not IP.
    pub link: u64,
}

impl Transports {
    /// The number of one.
    pub fn of(&self, transport: Transport) -> u64 {
        match transport {
            Transport::Tcp => self.tcp,
            Transport::Udp => self.udp,
            Transport::Icmp => self.icmp,
            Transport::OtherIp => self.other_ip,
            Transport::Link => self.link,
        }
    }

    /// Over all.
    pub fn sum(&self) -> u64 {
        Transport::ALL.into_iter().map(|transport| self.of(transport)).sum()
    }

    pub(super) fn of_mut(&mut self, transport: Transport) -> &mut u64 {
        match transport {
            Transport::Tcp => &mut self.tcp,
            Transport::Udp => &mut self.udp,
            Transport::Icmp => &mut self.icmp,
            Transport::OtherIp => &mut self.other_ip,
            Transport::Link => &mut self.link,
        }
    }
}

/// How the guest behind a port fares, from what it sends.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PortHealth {
    /// TCP segments it sent again.
    pub retransmitted_segments: u64,
    /// TCP payload bytes it sent again.
    pub retransmitted_bytes: u64,
    /// Times it closed its window.
    pub zero_windows: u64,
    /// Connections it reset.
    pub resets: u64,
    /// Its SYNs that nobody answered (conversations that ended so).
    pub half_open: u64,
    /// Its half of handshakes: how long it took to answer, as seen by the switch.
    pub rtt: Histogram,
    /// When it last sent a useful frame: unicast, and neither ARP nor neighbour discovery.
    pub last_useful: Option<Timestamp>,
}

impl Totals {
    pub(super) fn opened(&mut self, transport: Transport) {
        *self.opened.of_mut(transport) += 1;
        *self.active.of_mut(transport) += 1;
    }

    pub(super) fn closed(&mut self, transport: Transport) {
        *self.closed.of_mut(transport) += 1;
        let active = self.active.of_mut(transport);
        *active = active.saturating_sub(1);
    }

    /// Counts what an entry added.
    pub(super) fn count(&mut self, key: &RawKey, value: &FlowValue, delta: &Counters, now: &Moment) {
        if delta.is_zero() {
            return;
        }
        self.add(key.ingress(), Route(value.route).egress(), &delta.tally);
        let port = self.port(key.ingress());
        port.retransmitted_segments += delta.retransmitted_segments;
        port.retransmitted_bytes += delta.retransmitted_bytes;
        port.zero_windows += delta.zero_windows;
        port.resets += delta.resets;
        if key.is_useful() && delta.tally.frames > 0 {
            port.last_useful = port.last_useful.max(Some(now.wall_of(value.last_jiffies)));
        }
    }

    /// Counts a handshake between two ports, each with its half.
    pub(super) fn shaken(&mut self, (source, destination): (u16, u16), handshake: Option<Handshake>) {
        let Some(handshake) = handshake else { return };
        self.port(source).rtt.observe(handshake.source);
        self.port(destination).rtt.observe(handshake.destination);
    }

    fn add(&mut self, source: u16, destination: u16, tally: &Tally) {
        let full = self.pairs.len() >= PAIRS_MAX;
        match self.pairs.get_mut(&(source, destination)) {
            Some(pair) => pair.add(tally),
            None if full => self.pairs_folded.add(tally),
            None => drop(self.pairs.insert((source, destination), *tally)),
        }
    }

    pub(super) fn port(&mut self, id: u16) -> &mut PortHealth {
        self.ports.entry(id).or_default()
    }

    /// Forgets ports that are gone, and every pair with them.
    pub(super) fn forget(&mut self, gone: &HashSet<u16>) {
        self.ports.retain(|id, _| !gone.contains(id));
        self.pairs.retain(|(source, destination), _| !gone.contains(source) && !gone.contains(destination));
    }
}
