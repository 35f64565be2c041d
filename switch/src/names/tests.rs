//! Who is who, from frames written out; and nothing that a guest can write does harm.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

mod addresses;
mod hostile;
mod leases;
mod names;
mod ports;

use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use etherparse::PacketBuilder;
use jiff::{SignedDuration, Timestamp};
use switch_common::MacAddr;

use super::*;
use crate::events::{Event, EventKind};
use crate::fdb::Nanos;

const WINDOW_SECS: u64 = 60;

fn limits() -> Limits {
    let secs = Duration::from_secs;
    Limits { window: secs(WINDOW_SECS), dns_timeout: secs(5), dormant_after: secs(1000), bindings_max: 400 }
}

fn mac(last: u8) -> MacAddr {
    MacAddr([2, 0, 0, 0, 0, last])
}

fn v4(last: u8) -> [u8; 4] {
    [198, 18, 0, last]
}

fn v6(last: u8) -> [u8; 16] {
    Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, last.into()).octets()
}

/// So many milliseconds after the beginning, by both clocks.
fn at_ms(ms: u64) -> (Nanos, Timestamp) {
    let wall: Timestamp = "2026-11-22T07:00:00Z".parse().unwrap();
    (Nanos(ms * 1_000_000), wall + SignedDuration::from_millis(i64::try_from(ms).unwrap()))
}

fn at(secs: u64) -> (Nanos, Timestamp) {
    at_ms(secs * 1000)
}

/// A register, and what it told.
struct Desk {
    register: Register,
    told: Vec<Event>,
}

impl Desk {
    fn new() -> Self {
        Self { register: Register::new(limits()), told: Vec::new() }
    }

    fn hear(&mut self, port: &str, frame: &[u8], when: (Nanos, Timestamp)) -> &mut Self {
        let events = self.register.hear(&port.into(), frame, |_| true, when);
        self.told.extend(events);
        self
    }

    fn kinds(&mut self) -> Vec<EventKind> {
        self.told.drain(..).map(|event| event.kind).collect()
    }

    fn who(&self, subject: &str) -> Vec<Holder> {
        self.register.who(&subject.parse().unwrap(), None)
    }
}

fn ethernet(from: MacAddr, ethertype: u16, payload: &[u8]) -> Vec<u8> {
    [&[0xff; 6][..], &from.0, &ethertype.to_be_bytes(), payload].concat()
}

/// ARP: `sender` says that `address` is its own; zeros: it asks whether anybody has `target`.
fn arp(sender: MacAddr, address: [u8; 4], target: [u8; 4]) -> Vec<u8> {
    let body = [&[0, 1, 8, 0, 6, 4, 0, 1][..], &sender.0, &address, &[0; 6], &target].concat();
    ethernet(sender, 0x0806, &body)
}

fn udp_v4(from: (u8, u16), to: (u8, u16), payload: &[u8]) -> Vec<u8> {
    let builder = PacketBuilder::ethernet2(mac(from.0).0, mac(to.0).0).ipv4(v4(from.0), v4(to.0), 64).udp(from.1, to.1);
    let mut frame = Vec::new();
    builder.write(&mut frame, payload).unwrap();
    frame
}

fn icmpv6(from: MacAddr, source: [u8; 16], hops: u8, message: &[u8]) -> Vec<u8> {
    let length = u16::try_from(message.len()).unwrap().to_be_bytes();
    let all_nodes = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1).octets();
    let packet = [&[0x60, 0, 0, 0, length[0], length[1], 58, hops][..], &source, &all_nodes, message].concat();
    ethernet(from, 0x86dd, &packet)
}

/// A name on the wire.
fn wire(name: &str) -> Vec<u8> {
    let labels = name.split('.').filter(|label| !label.is_empty());
    let mut bytes: Vec<u8> =
        labels.flat_map(|label| [&[u8::try_from(label.len()).unwrap()], label.as_bytes()].concat()).collect();
    bytes.push(0);
    bytes
}

fn query(id: u16, name: &[u8], query_type: u16) -> Vec<u8> {
    [&id.to_be_bytes()[..], &[1, 0, 0, 1, 0, 0, 0, 0, 0, 0], name, &query_type.to_be_bytes(), &[0, 1]].concat()
}

/// The answer to a query, with addresses.
fn answer(query: &[u8], rcode: u8, addresses: &[Ipv4Addr]) -> Vec<u8> {
    let mut bytes = query.to_vec();
    bytes[2] |= 0x80;
    bytes[3] = rcode;
    bytes[7] = u8::try_from(addresses.len()).unwrap();
    for address in addresses {
        bytes.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
        bytes.extend(address.octets());
    }
    bytes
}
