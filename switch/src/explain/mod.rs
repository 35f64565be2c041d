//! Why A can, or cannot, reach B: what is known of both, and what would become of the next frame.
//!
//! ```text
//! Question ─▶ ends      names, MAC and IP addresses become ports and stations, as they are now: an IP address by the register of
//!                       names, then by conversations
//!          ─▶ foresee   forwarding's own `decide` over a copy of the tables: there and back, a short frame and a long one
//!          ─▶ words     the same in sentences
//! ```
//!
//! **Invariant.** Nothing is decided here: [`crate::forwarding::decide`] is, with a copy of what the loop decides by, so the switch learns
//! nothing from a question and takes nothing from a bucket. What depends on the next second (a bucket that will be empty, a ring
//! that will be full) cannot be foreseen; drops that happened are told beside it.

mod ends;
mod foresee;
mod words;

#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use switch_common::{DropReason, PairKey, PairVerdict, VERDICT_ARMED, VERDICT_DROP, VERDICT_PUNT};
use utoipa::{IntoParams, ToSchema};

use crate::api::ControlError;
use crate::api::schema::{DropInfo, PortInfo, Side, StationInfo};
use crate::events::Event;
use crate::fdb::Nanos;
use crate::flow::{Filter, Record, Verdict};
use crate::forwarding::Tables;
use crate::names::Holder;
use crate::port::spec::{Mac, PortName, PortState};

pub use ends::{address_of, records_of};

/// Conversations that an explanation shows at most.
const CONVERSATIONS_MAX: usize = 5;
/// Events that an explanation shows at most.
const EVENTS_MAX: usize = 5;
/// The shortest frame, Ethernet header included, FCS not.
const SHORT_BYTES: u32 = 60;
/// Length of an Ethernet header, which an MTU does not count.
const ETHERNET_BYTES: u32 = 14;

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Question {
    /// Who sends: a port's name, a MAC or an IP address
    pub from: String,
    /// Who is to receive: a port's name, a MAC or an IP address
    pub to: String,
    /// Take this for the source's MAC address, whatever is known of it
    #[param(value_type = Option<String>)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<Mac>,
}

/// Everything that is known, read once.
#[derive(Debug)]
pub struct Facts {
    /// Every port.
    pub ports: Vec<PortInfo>,
    /// Every station.
    pub stations: Vec<StationInfo>,
    /// A copy of what the loop decides by.
    pub tables: Tables,
    /// Conversations of who sends, see [`records_of`].
    pub of_sender: Vec<Arc<Record>>,
    /// Conversations of who is to receive.
    pub of_receiver: Vec<Arc<Record>>,
    /// Who had the IP addresses that are asked for, the latest first: see [`address_of`].
    pub holders: Vec<Holder>,
    /// What happened not long ago, oldest first.
    pub events: Vec<Arc<Event>>,
    /// What did not arrive.
    pub drops: Vec<DropInfo>,
    /// When all of that was so.
    pub now: Nanos,
}

/// One side of the question.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct End {
    /// As it was asked for.
    pub asked: String,
    /// The port; absent when nobody knows behind which port the station is.
    #[schema(value_type = Option<String>)]
    pub port: Option<PortName>,
    /// What the port's interface is doing.
    pub state: Option<PortState>,
    /// Why it is not up, when there is more to say.
    pub problem: Option<String>,
    /// The port's MTU.
    pub mtu: Option<u32>,
    /// Whether the guest asks for segmentation through a tap, so that what no honest driver asks for is refused; else a kernel
    /// does, which is believed.
    pub guest_offloads: bool,
    /// The only sources that the port allows; empty: any.
    #[schema(value_type = Vec<String>)]
    pub macs: Vec<Mac>,
    /// The station's address.
    #[schema(value_type = String)]
    pub mac: Mac,
    /// Whether no station is known, and the address stands for one.
    pub stands_in: bool,
    /// Its IP address, when it was asked for by that.
    #[schema(value_type = Option<String>)]
    pub address: Option<IpAddr>,
    /// What the switch knows of the station; absent when it does not know it.
    pub station: Option<StationInfo>,
    /// Stations that are known behind the port.
    pub stations: u64,
}

/// What would become of a frame.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Foresight {
    /// Its length, Ethernet header included, FCS not.
    pub frame_bytes: u32,
    /// `forwarded`, `flooded` or `dropped`.
    pub verdict: Verdict,
    /// The ports that get it.
    pub ports: Vec<String>,
    /// Whether the port of the other end is among them.
    pub arrives: bool,
    /// Where it ends, when it does not arrive there: the port, the side, and why.
    pub refused: Option<Refused>,
    /// What the switch would learn of the source: `known`, `added`, `moved`, `damped`, `static`, `refused` or `nothing`.
    pub learned: String,
    /// Whether the kernel may repeat the verdict by itself.
    pub repeatable: bool,
}

/// Where a frame ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Refused {
    /// The port's name.
    pub port: String,
    /// Which side of it.
    pub side: Side,
    /// Why: the label of a drop reason.
    pub reason: String,
    /// Why, in a sentence.
    pub description: String,
}

/// What the kernel does with this pair of stations without asking.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Cached {
    /// `forwarded` or `dropped`.
    pub verdict: Verdict,
    /// The port that it forwards to.
    pub port: Option<String>,
    /// Why it drops.
    pub reason: Option<String>,
    /// The longest frame that the egress takes, Ethernet header included.
    pub frame_bytes_max: u32,
}

/// One direction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Path {
    /// The verdict that the kernel has, if it has one.
    pub cached: Option<Cached>,
    /// What would become of the next frame, a short one; absent when nobody knows by which port it would come in.
    pub next: Option<Foresight>,
    /// What would become of one that is as long as the sender's MTU allows.
    pub longest: Option<Foresight>,
}

impl Path {
    /// Whether a short frame arrives.
    pub fn arrives(&self) -> bool {
        self.next.as_ref().is_some_and(|next| next.arrives)
    }
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Explanation {
    /// Whether short frames arrive in both directions.
    pub reachable: bool,
    /// Who sends.
    pub from: End,
    /// Who is to receive.
    pub to: End,
    /// From who sends to who is to receive.
    pub there: Path,
    /// The way of an answer.
    pub back: Path,
    /// Their last conversations with one another, oldest first.
    pub conversations: Vec<Record>,
    /// What did not arrive at their ports since the counters began.
    pub drops: Vec<DropInfo>,
    /// What happened to them of late, DNS left out, oldest first.
    pub events: Vec<Event>,
    /// All of it in sentences.
    pub words: Vec<String>,
}

/// Answers a question. `cached` looks up what the kernel would do by itself.
///
/// # Errors
/// [`ControlError::NotFound`]: there is nobody of that name or address.
pub fn explain(
    question: &Question,
    facts: &Facts,
    cached: impl Fn(PairKey) -> Result<Option<PairVerdict>, ControlError>,
) -> Result<Explanation, ControlError> {
    let mut from = ends::find(&question.from, facts, &facts.of_sender)?;
    let to = ends::find(&question.to, facts, &facts.of_receiver)?;
    if let Some(source) = question.source {
        from.become_station(source, facts);
    }
    let there = path(&from, &to, facts, &cached)?;
    let back = path(&to, &from, facts, &cached)?;
    let met = facts.of_sender.iter().filter(|record| ends::is_between(record, &from, &to));
    let mut conversations: Vec<Record> = met.rev().take(CONVERSATIONS_MAX).map(|it| (**it).clone()).collect();
    conversations.reverse();
    let is_theirs = |drop: &&DropInfo| {
        [&from, &to].iter().any(|end| end.port.as_ref().is_some_and(|name| drop.port == name.as_str()))
    };
    let drops = facts.drops.iter().filter(is_theirs).cloned().collect();
    let met = facts.events.iter().filter(|event| event.kind.is_rare() && (from.is_in(event) || to.is_in(event)));
    let mut events: Vec<Event> = met.rev().take(EVENTS_MAX).map(|event| Event::clone(event)).collect();
    events.reverse();
    let reachable = there.arrives() && back.arrives();
    let mut explanation =
        Explanation { reachable, from, to, there, back, conversations, drops, events, words: Vec::new() };
    explanation.words = words::of(&explanation);
    Ok(explanation)
}

fn path(
    sender: &End,
    receiver: &End,
    facts: &Facts,
    cached: &impl Fn(PairKey) -> Result<Option<PairVerdict>, ControlError>,
) -> Result<Path, ControlError> {
    let Some(ingress) = sender.port.as_ref().and_then(|name| facts.id_of(name)) else {
        return Ok(Path { cached: None, next: None, longest: None });
    };
    let key = PairKey { destination: receiver.mac.0.0, source: sender.mac.0.0, ingress: ingress.get(), vlan: 0 };
    // Where user space forwards, the kernel accounts by the verdict and asks all the same.
    let repeated = cached(key)?.filter(|verdict| verdict.action & VERDICT_PUNT == 0);
    let cached = repeated.map(|verdict| facts.shown(&verdict));
    let foresee = |frame_bytes| foresee::foresee(facts, ingress, sender, receiver, frame_bytes);
    let longest = sender.mtu.map(|mtu| mtu.saturating_add(ETHERNET_BYTES)).filter(|bytes| *bytes > SHORT_BYTES);
    Ok(Path { cached, next: Some(foresee(SHORT_BYTES)), longest: longest.map(foresee) })
}

impl Facts {
    fn port(&self, name: &PortName) -> Option<&PortInfo> {
        self.ports.iter().find(|port| port.name == *name)
    }

    fn id_of(&self, name: &PortName) -> Option<switch_common::PortId> {
        switch_common::PortId::new(self.port(name)?.id)
    }

    fn name_of(&self, id: u16) -> Option<&PortName> {
        self.ports.iter().find(|port| port.id == id).map(|port| &port.name)
    }

    fn shown(&self, verdict: &PairVerdict) -> Cached {
        let drops = verdict.action & !VERDICT_ARMED == VERDICT_DROP;
        let reason = DropReason::from_number(verdict.reason).filter(|_| drops);
        Cached {
            verdict: if drops { Verdict::Dropped } else { Verdict::Forwarded },
            port: self.name_of(verdict.egress).filter(|_| !drops).map(ToString::to_string),
            reason: reason.map(|reason| reason.label().to_owned()),
            frame_bytes_max: verdict.frame_bytes_max,
        }
    }
}

/// The words of a filter that takes whatever concerns one end, for [`Facts::of_sender`].
pub(crate) fn filter_of(flag: &str, value: &str) -> Filter {
    let mut filter = Filter::default();
    let added = filter.add(flag, value, false, jiff::Timestamp::UNIX_EPOCH);
    debug_assert!(added.is_ok(), "{added:?}");
    filter
}
