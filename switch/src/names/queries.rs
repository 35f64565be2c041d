//! DNS queries and their answers: matched by addresses, ports, id and name; timed by the kernel's clock.
//!
//! **Bounds.** A port may have [`ROOM`] queries open; the oldest gives way and is counted. **Hostile answers.** An answer counts only
//! if somebody asked: same addresses and ports the other way round, same id, and the same question if it repeats one. All others are
//! counted as ignored, and the query goes on waiting.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use jiff::Timestamp;

use super::Port;
use super::dns::{Malformed, Message, Question, Rcode};
use super::shelf::{Room, Shelf};
use crate::events::{Detail, Event, EventKind};
use crate::fdb::Nanos;
use crate::flow::Histogram;

/// Queries that may wait for an answer.
const ROOM: Room = Room { total: 8192, per_port: 512 };
/// Names of addresses that are remembered.
const NAMES: Room = Room { total: 8192, per_port: 2048 };

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key {
    vlan: u16,
    client: SocketAddr,
    server: SocketAddr,
    id: u16,
}

#[derive(Clone, Debug)]
struct Query {
    at: Nanos,
    time: Timestamp,
    port: Port,
    key: Key,
    question: Option<Question>,
}

/// What there was of DNS at a port.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PortDns {
    /// Queries that came in by it.
    pub queries: u64,
    /// Answers to these, by response code.
    pub answers: [u64; Rcode::ALL.len()],
    /// Queries that nobody answered in time.
    pub timeouts: u64,
    /// Queries that gave way to others before they were answered.
    pub evicted: u64,
    /// Messages that came in by it and could not be read.
    pub malformed: u64,
    /// Answers that came in by it and that nobody had asked for.
    pub unmatched: u64,
    /// How long answers took.
    pub latency: Histogram,
}

/// The same for all ports.
pub type DnsCounts = BTreeMap<Port, PortDns>;

/// The open queries, the sums, and the names that answers gave.
#[derive(Clone, Debug)]
pub(super) struct Queries {
    open: Shelf<Key, Query>,
    names: Shelf<(IpAddr, String), Timestamp>,
    counts: DnsCounts,
    timeout: Duration,
}

impl Queries {
    pub(super) fn new(timeout: Duration) -> Self {
        Self { open: Shelf::new(ROOM), names: Shelf::new(NAMES), counts: DnsCounts::new(), timeout }
    }

    pub(super) fn counts(&self) -> &DnsCounts {
        &self.counts
    }

    /// Whether a query waits.
    pub(super) fn is_waiting(&self) -> bool {
        self.open.len() > 0
    }

    /// Names that answers gave to an address.
    pub(super) fn names_of(&self, address: IpAddr) -> Vec<String> {
        let mut names: Vec<_> = self.names.iter().filter(|((named, _), _)| *named == address).collect();
        names.sort_by_key(|(_, time)| std::cmp::Reverse(**time));
        names.into_iter().take(4).map(|((_, name), _)| name.clone()).collect()
    }

    fn of(&mut self, port: &Port) -> &mut PortDns {
        self.counts.entry(port.clone()).or_default()
    }

    /// Forgets the sums of ports that are no more.
    pub(super) fn keep(&mut self, is_known: impl Fn(&str) -> bool) {
        self.counts.retain(|port, _| is_known(port));
    }

    /// Takes a message that came in by `port`; what there is to tell of it.
    pub(super) fn hear(
        &mut self,
        port: &Port,
        vlan: u16,
        (from, to): (SocketAddr, SocketAddr),
        message: Result<Message, Malformed>,
        (at, time): (Nanos, Timestamp),
    ) -> Option<Event> {
        let Ok(message) = message else {
            self.of(port).malformed += 1;
            return None;
        };
        if !message.is_answer {
            self.of(port).queries += 1;
            let key = Key { vlan, client: from, server: to, id: message.id };
            // Asked again: the first one counts.
            if self.open.get(&key).is_some_and(|open| open.question == message.question) {
                return None;
            }
            let query = Query { at, time, port: port.clone(), key, question: message.question };
            if let Some((_, gone)) = self.open.insert(port.clone(), key, query) {
                self.of(&gone.port).evicted += 1;
            }
            return None;
        }
        let key = Key { vlan, client: to, server: from, id: message.id };
        let fits = |query: &Query| message.question.is_none() || message.question == query.question;
        let Some(query) = self.open.get(&key).filter(|query| fits(query)).cloned() else {
            self.of(port).unmatched += 1;
            return None;
        };
        self.open.remove(&key);
        let latency = at.since(query.at);
        let counts = self.of(&query.port);
        if let Some(count) = counts.answers.get_mut(message.rcode as usize) {
            *count += 1;
        }
        counts.latency.observe(latency);
        if let (Some(question), Rcode::NoError) = (&message.question, message.rcode) {
            for address in message.addresses {
                self.names.insert(query.port.clone(), (address, question.name.clone()), time);
            }
        }
        let mut event = query.event(EventKind::DnsAnswer, time);
        event.detail.rcode = Some(message.rcode.label().to_owned());
        event.detail.latency_us = u64::try_from(latency.as_micros()).ok();
        Some(event)
    }

    /// Gives up on queries that wait for too long.
    pub(super) fn give_up(&mut self, now: Nanos) -> Vec<Event> {
        let timeout = self.timeout;
        let over = self.open.take_while(|query| now.since(query.at) > timeout);
        over.into_iter()
            .map(|(_, query)| {
                self.of(&query.port).timeouts += 1;
                query.event(EventKind::DnsTimeout, query.time)
            })
            .collect()
    }
}

impl Query {
    fn event(&self, kind: EventKind, time: Timestamp) -> Event {
        Event {
            address: Some(self.key.client.ip()),
            name: self.question.as_ref().map(|question| question.name.clone()),
            detail: Detail {
                vlan: (self.key.vlan != 0).then_some(self.key.vlan),
                server: Some(self.key.server.ip()),
                query_type: self.question.as_ref().map(Question::type_name),
                ..Detail::default()
            },
            ..Event::new(time, kind, Some(self.port.to_string()))
        }
    }
}
