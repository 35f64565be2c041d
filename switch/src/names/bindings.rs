//! Who had which IP address, behind which port, from when to when.
//!
//! A *span* is the time in which one station behind one port claimed one address. A claim makes the span of its holder longer. A
//! span begins when the holder is new, or when another one held the address meanwhile. So two spans of one address that overlap are
//! two holders at the same time; and a holder that fell silent is the holder until somebody else turns up.
//!
//! **Duplicate.** Two stations claim an address within the *window*; or one station does at two ports, to and fro. A takeover by
//! another station within the window (a fail-over) looks the same, and is told the same. A probe (RFC 5227, RFC 4862) for an
//! address that another station claimed within the window is told, too, though the one who probes will not use it.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use switch_common::MacAddr;

use super::Port;
use super::shelf::{Room, Shelf};
use crate::events::{Detail, Event, EventKind};
use crate::port::spec::Mac;

/// By what an address was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// ARP.
    Arp,
    /// Neighbour discovery.
    Nd,
    /// A DHCP server's answer.
    Dhcp,
}

impl Source {
    /// Its word.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Arp => "arp",
            Self::Nd => "nd",
            Self::Dhcp => "dhcp",
        }
    }
}

/// A station says that an address is its own, or a server says so of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// When.
    pub time: Timestamp,
    /// The VLAN, 0 without a tag.
    pub vlan: u16,
    /// The address.
    pub address: IpAddr,
    /// The station.
    pub mac: MacAddr,
    /// The port it is behind.
    pub port: Port,
    /// By what it was seen.
    pub source: Source,
    /// What the station calls itself.
    pub name: Option<String>,
}

/// A time in which one station behind one port had one address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Span {
    pub(super) vlan: u16,
    pub(super) address: IpAddr,
    pub(super) mac: Mac,
    pub(super) port: String,
    pub(super) from: Timestamp,
    pub(super) until: Timestamp,
    pub(super) source: Source,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) name: Option<String>,
    pub(super) claims: u64,
    /// When it was told that another one claims the address, too.
    #[serde(skip)]
    told: Option<Timestamp>,
}

impl Span {
    fn is_of(&self, claim: &Claim) -> bool {
        self.mac.0 == claim.mac && *self.port == *claim.port
    }
}

type Place = (u16, IpAddr);

/// All spans.
#[derive(Clone, Debug)]
pub(super) struct Bindings {
    spans: Shelf<u64, Span>,
    /// The spans of an address, in the order in which they began.
    places: HashMap<Place, Vec<u64>>,
    next: u64,
    window: SignedDuration,
}

impl Bindings {
    pub(super) fn new(room: Room, window: Duration) -> Self {
        let window = SignedDuration::try_from(window).unwrap_or(SignedDuration::MAX);
        Self { spans: Shelf::new(room), places: HashMap::new(), next: 0, window }
    }

    pub(super) fn len(&self) -> usize {
        self.spans.len()
    }

    pub(super) fn evicted(&self) -> u64 {
        self.spans.evicted()
    }

    /// Spans, by port and age.
    pub(super) fn spans(&self) -> impl Iterator<Item = &Span> {
        self.spans.in_order().map(|(_, span)| span)
    }

    /// The holder who was heard last at a place.
    pub(super) fn is_latest(&self, span: &Span) -> bool {
        self.of(&(span.vlan, span.address)).all(|(_, other)| other.until <= span.until)
    }

    /// Takes a span over from an earlier daemon.
    pub(super) fn restore(&mut self, span: Span) {
        self.put(span);
    }

    fn of(&self, place: &Place) -> impl Iterator<Item = (u64, &Span)> {
        let ids = self.places.get(place).map_or(&[][..], Vec::as_slice);
        ids.iter().filter_map(|id| Some((*id, self.spans.get(id)?)))
    }

    fn put(&mut self, span: Span) {
        self.next += 1;
        let (id, place) = (self.next, (span.vlan, span.address));
        if let Some((gone, evicted)) = self.spans.insert(span.port.as_str().into(), id, span) {
            let place = (evicted.vlan, evicted.address);
            if let Some(ids) = self.places.get_mut(&place) {
                ids.retain(|id| *id != gone);
                if ids.is_empty() {
                    self.places.remove(&place);
                }
            }
        }
        self.places.entry(place).or_default().push(id);
    }

    /// Takes a claim; what there is to tell of it.
    pub(super) fn claim(&mut self, claim: &Claim) -> Option<Event> {
        let place = (claim.vlan, claim.address);
        let is_recent = |span: &Span| claim.time.duration_since(span.until) <= self.window;
        let own = self.of(&place).filter(|(_, span)| span.is_of(claim)).last().map(|(id, span)| (id, span.clone()));
        let other = self.of(&place).filter(|(_, span)| !span.is_of(claim)).max_by_key(|(_, span)| span.until);
        let other = other.map(|(id, span)| (id, span.clone()));
        let rivals = other.as_ref().is_some_and(|(_, other)| {
            // One station at two ports has moved, unless it was here a moment ago, and there since.
            let is_back = |own: &Span| is_recent(own) && other.until > own.until;
            is_recent(other) && (other.mac.0 != claim.mac || own.as_ref().is_some_and(|(_, own)| is_back(own)))
        });
        let goes_on = own
            .as_ref()
            .is_some_and(|(_, own)| is_recent(own) || other.as_ref().is_none_or(|(_, other)| other.until <= own.until));
        let was_told = |span: &Span| span.told.is_some_and(|told| claim.time.duration_since(told) < self.window);
        let told_before = own.iter().chain(&other).any(|(_, span)| was_told(span));
        let tells_duplicate = rivals && !told_before;
        match own {
            Some((id, _)) if goes_on => self.extend(id, claim),
            Some(_) | None => self.put(Span {
                vlan: claim.vlan,
                address: claim.address,
                mac: Mac(claim.mac),
                port: claim.port.to_string(),
                from: claim.time,
                until: claim.time,
                source: claim.source,
                name: claim.name.clone(),
                claims: 1,
                told: None,
            }),
        }
        if tells_duplicate {
            self.note_told(&place, claim.time);
        }
        let kind = match other {
            Some(_) if tells_duplicate => EventKind::DuplicateAddress,
            Some(_) if rivals || goes_on => return None,
            Some(_) => EventKind::BindingChanged,
            None if goes_on => return None,
            None => EventKind::BindingNew,
        };
        Some(event(kind, claim, other.map(|(_, span)| span)))
    }

    /// A station asks whether anybody has an address; what there is to tell of it.
    pub(super) fn probe(&mut self, claim: &Claim) -> Option<Event> {
        let place = (claim.vlan, claim.address);
        let is_recent = |span: &Span| claim.time.duration_since(span.until) <= self.window;
        let was_told = |span: &Span| span.told.is_some_and(|told| claim.time.duration_since(told) < self.window);
        let latest = self.of(&place).max_by_key(|(_, span)| span.until).map(|(_, span)| span.clone())?;
        if latest.mac.0 == claim.mac || !is_recent(&latest) || was_told(&latest) {
            return None;
        }
        self.note_told(&place, claim.time);
        let mut told = event(EventKind::DuplicateAddress, claim, Some(latest));
        told.detail.source = Some("probe".to_owned());
        Some(told)
    }

    fn extend(&mut self, id: u64, claim: &Claim) {
        if let Some(span) = self.spans.get_mut(&id) {
            span.until = span.until.max(claim.time);
            span.claims += 1;
            if claim.name.is_some() {
                span.name.clone_from(&claim.name);
                span.source = claim.source;
            }
        }
        self.spans.touch(&id);
    }

    fn note_told(&mut self, place: &Place, time: Timestamp) {
        for id in self.places.get(place).into_iter().flatten() {
            if let Some(span) = self.spans.get_mut(id) {
                span.told = Some(time);
            }
        }
    }
}

fn event(kind: EventKind, claim: &Claim, other: Option<Span>) -> Event {
    let (other_mac, other_port) = other.map(|span| (span.mac, span.port)).unzip();
    let vlan = (claim.vlan != 0).then_some(claim.vlan);
    Event {
        mac: Some(Mac(claim.mac)),
        address: Some(claim.address),
        other_port,
        other_mac,
        name: claim.name.clone(),
        detail: Detail { vlan, source: Some(claim.source.label().to_owned()), ..Detail::default() },
        ..Event::new(claim.time, kind, Some(claim.port.to_string()))
    }
}
