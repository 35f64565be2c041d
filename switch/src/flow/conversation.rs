//! Both directions of what two stations say to each other, and what of it was not given out yet.
//!
//! A conversation has one *half* or two. Each half is one direction at one ingress port; over its life it may be counted by
//! several entries of the kernel's, one after the other. What they add is *pending* until the conversation is given out: so
//! everything that is given out is a delta, and the sum of deltas is what the entries counted.
//!
//! **Time.** Entries know `CLOCK_MONOTONIC` and jiffies; people want the time of day. The distance between the two is taken
//! once, when a conversation is first seen, so a clock that jumps neither turns a record round nor stretches it. The time of
//! the last frame is as fine as a jiffy.

use std::collections::HashSet;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use switch_common::flow::{FlowValue, MARK_OPENED, MARK_SYN_AGAIN, TCP_FIN, TCP_RST};
use switch_common::{DropReason, PortId};
use utoipa::ToSchema;

use super::counters::Counters;
use super::half::Half;
use super::key::{FlowKey, Network, Ports, RawKey};
use super::moment::Moment;
use super::pace::{Glance, Pace, Sweeps};
use super::tcp::{Handshake, Health, TcpFlags, only_knocked};

/// Why a conversation was given out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum EndReason {
    /// TCP: closed in order.
    Fin,
    /// TCP: reset.
    Reset,
    /// Nothing more was sent.
    Idle,
    /// It goes on; this is what was added since the last time.
    ActiveTimeout,
    /// One of its ports went away.
    PortGone,
    /// The observer stops.
    Forced,
}

/// What the switch did with a direction's frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Sent to one port.
    Forwarded,
    /// Sent to every port, or decided frame by frame.
    Flooded,
    /// Refused, all of them.
    Dropped,
}

/// A conversation as it is given out: who, when, and what was added since it was last given out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conversation {
    /// Its number; with `started` it is unique.
    pub number: u64,
    /// The direction of who began; never with the life bit.
    pub key: FlowKey,
    /// The port it goes out by, if it is one port.
    pub egress: Option<PortId>,
    /// When it began.
    pub started: Timestamp,
    /// Where the time begins that the counters are about: `started`, or the end of what was last given out.
    pub since: Timestamp,
    /// When the last frame came.
    pub ended: Timestamp,
    /// Why it was given out; nothing while it lives.
    pub end_reason: Option<EndReason>,
    /// It went on already when the tracker began: an earlier daemon may have given out part of this.
    pub resumed: bool,
    /// What became of the frames of who began.
    pub verdict: Verdict,
    /// Why frames were dropped, if some were.
    pub drop_reason: Option<DropReason>,
    /// What was sent by who began.
    pub forward: Counters,
    /// What was sent back.
    pub reverse: Counters,
    /// What TCP says, if it is TCP.
    pub tcp: Option<Health>,
}

/// Which half: the one that was seen first, or the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    First,
    Second,
}

/// A conversation that goes on.
#[derive(Clone, Debug)]
pub(super) struct Live {
    number: u64,
    /// Of the first half, without its life bit.
    pub(super) key: RawKey,
    /// The ingress port at which the other half is expected; 0: any.
    pub(super) awaits: u16,
    pub(super) first: Half,
    pub(super) second: Option<Box<Half>>,
    handshake: Option<Handshake>,
    /// Time of day − `CLOCK_MONOTONIC`.
    offset_ns: i64,
    since_ns: u64,
    reported_ns: u64,
    /// Who began, once that was said to anybody.
    source: Option<Side>,
    resumed: bool,
    /// The last thing that was said is that a port is gone.
    told_gone: bool,
}

impl Live {
    pub(super) fn new(number: u64, key: RawKey, value: &FlowValue, now: &Moment, resumed: bool) -> Self {
        Self {
            number,
            key,
            awaits: 0,
            first: Half::new(key.ingress(), value),
            second: None,
            handshake: None,
            offset_ns: now.offset_ns(),
            since_ns: value.first_ns,
            reported_ns: value.first_ns,
            source: None,
            resumed,
            told_gone: false,
        }
    }

    /// Whether a new entry counts one of its halves, and which. `egress` is where the entry's frames go, 0 if that is
    /// unknown; `opened` that its first frame opened a TCP connection.
    pub(super) fn takes(&self, key: &RawKey, egress: u16, opened: bool) -> Option<Side> {
        if *key == self.key {
            return (!opened).then_some(Side::First);
        }
        if *key != self.key.reversed(key.ingress()) {
            return None;
        }
        let agree = |expected: u16, found: u16| expected == 0 || expected == found;
        let takes = match &self.second {
            Some(second) => second.ingress == key.ingress() && !opened,
            None => agree(self.first.egress, key.ingress()) && agree(egress, self.first.ingress),
        };
        takes.then_some(Side::Second)
    }

    pub(super) fn half_mut(&mut self, side: Side) -> Option<&mut Half> {
        match side {
            Side::First => Some(&mut self.first),
            Side::Second => self.second.as_deref_mut(),
        }
    }

    fn halves(&self) -> impl Iterator<Item = &Half> {
        std::iter::once(&self.first).chain(self.second.as_deref())
    }

    /// Takes what an entry added; answers with the handshake when this completed it.
    pub(super) fn absorb(
        &mut self,
        side: Side,
        value: &FlowValue,
        delta: &Counters,
        now: &Moment,
    ) -> Option<Handshake> {
        self.told_gone &= delta.is_zero();
        self.half_mut(side)?.absorb(value, delta, now);
        if self.handshake.is_some() {
            return None;
        }
        self.handshake = self.shaken();
        self.handshake
    }

    fn shaken(&self) -> Option<Handshake> {
        let (source, destination) = self.ends();
        let destination = destination?;
        let once = |half: &Half| half.was(MARK_OPENED) && !half.was(MARK_SYN_AGAIN);
        let whole = once(source) && once(destination) && source.ack_ns != 0;
        whole.then(|| Handshake::between(source.first_ns, destination.first_ns, source.ack_ns))?
    }

    /// Ports of who began and of who answered.
    pub(super) fn ports(&self) -> (u16, u16) {
        let (source, destination) = self.ends();
        (source.ingress, destination.map_or(source.egress, |half| half.ingress))
    }

    /// Entries that count it now.
    pub(super) fn entries(&self) -> u32 {
        self.halves().map(|half| u32::from(half.entries)).sum()
    }

    /// Whether one of the ports is one of its own.
    pub(super) fn is_at(&self, ports: &HashSet<u16>) -> bool {
        self.halves().any(|half| ports.contains(&half.ingress) || ports.contains(&half.egress))
    }

    /// A SYN that nobody answered.
    pub(super) fn is_half_open(&self) -> bool {
        self.key.is_tcp() && self.second.is_none() && self.first.was(MARK_OPENED) && only_knocked(self.first.flags())
    }

    /// Whether it has gone on for the active timeout, and has something to tell.
    pub(super) fn is_due(&self, now: &Moment, active_ns: u64) -> bool {
        now.ktime_ns.saturating_sub(self.reported_ns) >= active_ns && self.has_pending()
    }

    fn has_pending(&self) -> bool {
        self.halves().any(|half| !half.pending.is_zero())
    }

    /// Why it ended, now that it has; nothing when that was said and nothing came since.
    pub(super) fn end_reason(&self) -> Option<EndReason> {
        if self.told_gone {
            return None;
        }
        let all = self.key.is_tcp() && self.halves().all(|half| half.flags().any(TCP_FIN));
        let any = |flag| self.key.is_tcp() && self.halves().any(|half| half.flags().any(flag));
        Some(match (any(TCP_RST), any(TCP_FIN)) {
            _ if all => EndReason::Fin,
            (true, _) => EndReason::Reset,
            (false, true) => EndReason::Fin,
            (false, false) => EndReason::Idle,
        })
    }

    /// Gives out what is pending.
    pub(super) fn report(&mut self, reason: EndReason, now: &Moment) -> Conversation {
        let (source, _) = self.sides();
        self.source = Some(source);
        let told = Conversation { end_reason: Some(reason), ..self.snapshot() };
        self.since_ns = self.last_ns();
        self.reported_ns = now.ktime_ns;
        self.told_gone = reason == EndReason::PortGone;
        self.first.pending = Counters::default();
        if let Some(second) = &mut self.second {
            second.pending = Counters::default();
        }
        told
    }

    /// What would be given out now.
    pub(super) fn snapshot(&self) -> Conversation {
        let (side, _) = self.sides();
        let (source, destination) = self.ends();
        let key = match side {
            Side::First => self.key,
            Side::Second => self.key.reversed(source.ingress),
        };
        let flags = self.halves().fold(0, |all, half| all | half.flags().0);
        let health = Health { flags: TcpFlags(flags), half_open: self.is_half_open(), handshake: self.handshake };
        Conversation {
            number: self.number,
            key: FlowKey::try_from(&key).expect("both halves' keys were read when they were first seen"),
            egress: PortId::new(self.ports().1),
            started: self.wall(self.first_ns()),
            since: self.wall(self.since_ns),
            ended: self.wall(self.last_ns()),
            end_reason: None,
            resumed: self.resumed,
            verdict: source.verdict(),
            drop_reason: source.reason().or_else(|| destination.and_then(Half::reason)),
            forward: source.pending,
            reverse: destination.map_or_else(Counters::default, |half| half.pending),
            tcp: self.key.is_tcp().then_some(health),
        }
    }

    /// What can be said without making a conversation of it.
    pub(super) fn glance(&self, place: usize, sweeps: Sweeps) -> Option<Glance> {
        let (side, _) = self.sides();
        let (source, destination) = self.ends();
        let key = match side {
            Side::First => self.key,
            Side::Second => self.key.reversed(source.ingress),
        };
        let again = |half: &Half| half.pending.retransmitted_segments;
        let us = |handshake: Handshake| u64::try_from(handshake.whole().as_micros()).unwrap_or(u64::MAX);
        Some(Glance {
            place,
            number: self.number,
            key: FlowKey::try_from(&key).ok()?,
            egress: PortId::new(self.ports().1),
            began_ns: self.first_ns(),
            last_ns: self.last_ns(),
            forward: Pace::of(source, sweeps),
            reverse: destination.map(|half| Pace::of(half, sweeps)).unwrap_or_default(),
            rtt_us: self.handshake.map(us),
            retransmits: again(source) + destination.map_or(0, again),
        })
    }

    /// Who began, and who answered.
    fn ends(&self) -> (&Half, Option<&Half>) {
        match (self.sides(), self.second.as_deref()) {
            ((Side::Second, _), Some(second)) => (second, Some(&self.first)),
            (_, second) => (&self.first, second),
        }
    }

    /// Who began: as was said before; the sender of the SYN; who was seen first; who sends to the lower port.
    fn sides(&self) -> (Side, Side) {
        let first_began = match (self.source, self.second.as_deref()) {
            (Some(side), _) => side == Side::First,
            (None, None) => true,
            (None, Some(second)) => {
                let (ours, theirs) = (&self.first, second);
                match (ours.was(MARK_OPENED), theirs.was(MARK_OPENED)) {
                    (true, false) => true,
                    (false, true) => false,
                    _ if ours.first_ns != theirs.first_ns => ours.first_ns < theirs.first_ns,
                    _ => self.first_sends_to_lower_port(),
                }
            }
        };
        if first_began { (Side::First, Side::Second) } else { (Side::Second, Side::First) }
    }

    fn first_sends_to_lower_port(&self) -> bool {
        match FlowKey::try_from(&self.key).map(|key| key.network) {
            Ok(Network::Ip { ports: Ports::L4 { source, destination }, .. }) => destination <= source,
            _ => true,
        }
    }

    fn first_ns(&self) -> u64 {
        self.halves().map(|half| half.first_ns).min().unwrap_or_default()
    }

    fn last_ns(&self) -> u64 {
        self.halves().map(|half| half.last_ns).max().unwrap_or_default()
    }

    fn wall(&self, ktime_ns: u64) -> Timestamp {
        let micros = (i128::from(self.offset_ns) + i128::from(ktime_ns)) / 1000;
        i64::try_from(micros).ok().and_then(|micros| Timestamp::from_microsecond(micros).ok()).unwrap_or(Timestamp::MAX)
    }
}
