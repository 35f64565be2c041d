//! The tracker: every entry of the kernel's that is known, and the conversation that it counts for.
//!
//! **Pairing.** A new entry belongs to the conversation that expects it. Each conversation is registered under two keys: its
//! own, and the one of the answer at the port where the answer is to come in (0 when that is unknown). So an entry is paired
//! by three look-ups at most, however many conversations share its addresses. A key belongs to the youngest that asked for it.
//! An entry whose first frame opened a TCP connection begins a new conversation where the direction has been counted before:
//! the tuple is used again. New entries are taken in the order in which they began.
//!
//! **Limit.** Who only ever received, or was cut off by a reset, may send on in the entry of before when the tuple is used
//! again within the idle time: the kernel judges each direction by itself. What it sends then belongs to the old conversation.
//!
//! **Entries** are told apart by key and by `first_ns`. One whose sums are smaller than before, or that began at another time,
//! has been deleted and made anew, so nothing is ever subtracted from something smaller. An entry that is missing from a
//! sweep is forgotten only once it is dead by rule: should it come again, it is known.
//!
//! **Dead by rule.** `switch_common` says when the programs do not touch an entry any more. It is named in [`Sweep::dead`]
//! when it has been so for [`Limits::grace`], in each sweep until [`Tracker::deleted`] is told.
//!
//! **Bounds.** There are never more conversations than entries, for a conversation that has none left has ended. The keys are
//! hashed with a random seed. A sweep is linear in entries and conversations.

mod glances;

use std::collections::{HashMap, HashSet};
use std::mem;

use switch_common::flow::{FlowValue, MARK_CLOSED, MARK_OPENED, Route, TCP_FIN, TCP_RST};

use super::conversation::{Conversation, EndReason, Live, Side};
use super::counters::Counters;
use super::half::Half;
use super::key::{FlowKey, RawKey};
use super::moment::{Limits, Moment};
use super::pace::Sweeps;
use super::totals::Totals;

/// One entry of the kernel's tables, as it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its key.
    pub key: RawKey,
    /// Its value.
    pub value: FlowValue,
}

/// What a sweep found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sweep {
    /// Entries that no program touches any more: read them again, delete them, and say so by [`Tracker::deleted`].
    pub dead: Vec<RawKey>,
    /// Conversations that ended since the last sweep, and those that the active timeout gives out.
    pub ended: Vec<Conversation>,
}

/// What is known of an entry.
#[derive(Clone, Copy, Debug)]
struct Known {
    slot: usize,
    side: Side,
    first_ns: u64,
    counted: Counters,
    last_jiffies: u32,
    /// FIN or RST was seen.
    closing: bool,
    /// When it was first seen to be marked closed.
    closed_jiffies: Option<u32>,
    /// The last sweep it was in.
    sweep: u64,
}

impl Known {
    fn is_dead(&self, limits: &Limits, now: &Moment) -> bool {
        let grace = now.jiffies_in(limits.grace).saturating_add(1);
        let limit = now.jiffies_in(if self.closing { limits.closed } else { limits.idle });
        let marked = self.closed_jiffies.is_some_and(|since| now.age(since) >= grace);
        marked || now.age(self.last_jiffies) >= limit.saturating_add(grace)
    }
}

/// Pairs entries into conversations. See the head of this file.
#[derive(Debug)]
pub struct Tracker {
    limits: Limits,
    known: HashMap<RawKey, Known>,
    expected: HashMap<RawKey, usize>,
    conversations: Vec<Option<Live>>,
    vacant: Vec<usize>,
    ended: Vec<Conversation>,
    totals: Totals,
    opened: u64,
    sweep: u64,
    now: Option<Moment>,
    sweeps: Sweeps,
    /// What is found now went on before the tracker began.
    resumes: bool,
}

impl Tracker {
    /// Knows nothing yet. What the first sweep finds went on before: it is given out whole, but is not in the totals.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            known: HashMap::new(),
            expected: HashMap::new(),
            conversations: Vec::new(),
            vacant: Vec::new(),
            ended: Vec::new(),
            totals: Totals::default(),
            opened: 0,
            sweep: 0,
            now: None,
            sweeps: Sweeps::default(),
            resumes: false,
        }
    }

    /// Takes all entries as they are now.
    pub fn sweep(&mut self, entries: &[Entry], now: Moment) -> Sweep {
        self.resumes = self.now.is_none();
        self.sweeps.next(&now);
        self.now = Some(now);
        self.sweep += 1;
        let mut new: Vec<&Entry> = Vec::new();
        let mut found = Found::default();
        for entry in entries {
            match self.observe(entry, &now, Unknown::Waits) {
                Seen::Unknown => new.push(entry),
                seen => found.note(seen, entry),
            }
        }
        // In the order in which they began: a tuple may have been used twice since the last sweep.
        new.sort_by_key(|entry| entry.value.first_ns);
        for entry in new {
            let seen = self.observe(entry, &now, Unknown::Begins);
            found.note(seen, entry);
        }
        let Found { dead, seen, rejected } = found;
        self.totals.rejected = rejected;
        if self.known.len() > seen {
            self.forget_vanished(&now);
        }
        self.give_out_due(&now);
        Sweep { dead, ended: mem::take(&mut self.ended) }
    }

    /// An entry was deleted; `last` is what it had counted. Its conversation ends when it was the last one.
    pub fn deleted(&mut self, key: &RawKey, last: &FlowValue) {
        let Some(now) = self.now else { return };
        self.resumes = false;
        self.observe(&Entry { key: *key, value: *last }, &now, Unknown::Begins);
        self.forget(key, &now);
    }

    /// Ports are gone: their conversations are given out, and their sums forgotten.
    pub fn ports_gone(&mut self, ports: &HashSet<u16>) {
        self.totals.forget(ports);
        let Some(now) = self.now else { return };
        let at_ports = self.conversations.iter_mut().flatten().filter(|live| live.is_at(ports));
        self.ended.extend(at_ports.map(|live| live.report(EndReason::PortGone, &now)));
    }

    /// Forgets ports' sums: for when their last entries are deleted, which may add to them.
    pub fn forget_ports(&mut self, ports: &HashSet<u16>) {
        self.totals.forget(ports);
    }

    /// Conversations that ended since the last sweep: by [`Self::deleted`] or [`Self::ports_gone`]. The next sweep would give them out.
    pub fn take_ended(&mut self) -> Vec<Conversation> {
        mem::take(&mut self.ended)
    }

    /// Gives out everything, because the observer stops.
    pub fn stop(&mut self) -> Vec<Conversation> {
        let mut last = mem::take(&mut self.ended);
        if let Some(now) = self.now {
            last.extend(self.conversations.iter_mut().flatten().map(|live| live.report(EndReason::Forced, &now)));
        }
        last
    }

    /// What goes on, as it would be given out now; in no order.
    pub fn live(&self) -> impl Iterator<Item = Conversation> {
        self.conversations.iter().flatten().map(Live::snapshot)
    }

    /// The sums since the tracker began.
    pub fn totals(&self) -> &Totals {
        &self.totals
    }

    /// Entries that are known.
    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// Keys under which conversations are registered.
    #[cfg(test)]
    pub(super) fn expectations(&self) -> usize {
        self.expected.len()
    }

    /// Conversations that there is room for.
    #[cfg(test)]
    pub(super) fn room(&self) -> usize {
        self.conversations.len()
    }

    /// Takes one entry.
    fn observe(&mut self, entry: &Entry, now: &Moment, unknown: Unknown) -> Seen {
        let Entry { key, value } = entry;
        let counted = Counters::of(value);
        let same = self.known.get(key).map(|known| known.first_ns == value.first_ns && counted.follows(&known.counted));
        if same != Some(true) && unknown == Unknown::Waits {
            return Seen::Unknown;
        }
        if same == Some(false) {
            self.forget(key, now);
        }
        if same != Some(true) && !self.meet(key, value, now) {
            return Seen::Rejected;
        }
        let Some(known) = self.known.get_mut(key) else { return Seen::Rejected };
        let delta = counted.since(&known.counted);
        let silent = same == Some(true) && delta.is_zero() && known.last_jiffies == value.last_jiffies;
        known.sweep = self.sweep;
        known.counted = counted;
        known.last_jiffies = value.last_jiffies;
        known.closing = value.marks & u32::from(TCP_FIN | TCP_RST) != 0;
        if value.marks & MARK_CLOSED != 0 {
            known.closed_jiffies.get_or_insert(now.jiffies);
        }
        let dead = known.is_dead(&self.limits, now);
        let (slot, side) = (known.slot, known.side);
        if !silent && let Some(live) = self.conversations.get_mut(slot).and_then(Option::as_mut) {
            let handshake = live.absorb(side, value, &delta, now);
            if !self.resumes {
                self.totals.count(key, value, &delta, now);
                self.totals.shaken(live.ports(), handshake);
            }
        }
        if dead { Seen::Dead } else { Seen::Alive }
    }

    /// Finds the conversation of a new entry, or begins one; false when its key is none.
    fn meet(&mut self, key: &RawKey, value: &FlowValue, now: &Moment) -> bool {
        if FlowKey::try_from(key).is_err() {
            return false;
        }
        let plain = key.plain();
        let (slot, side) = self.partner(&plain, value).unwrap_or_else(|| self.begin(plain, value, now));
        let Some(live) = self.conversations.get_mut(slot).and_then(Option::as_mut) else { return false };
        if side == Side::Second && live.second.is_none() {
            live.second = Some(Box::new(Half::new(plain.ingress(), value)));
            let awaited = mem::replace(&mut live.awaits, plain.ingress());
            let expected = plain.at(awaited);
            self.no_longer_expects(&expected, slot);
            self.expected.insert(plain, slot);
        }
        if let Some(half) =
            self.conversations.get_mut(slot).and_then(Option::as_mut).and_then(|live| live.half_mut(side))
        {
            half.entries += 1;
        }
        let known = Known {
            slot,
            side,
            first_ns: value.first_ns,
            counted: Counters::default(),
            last_jiffies: value.last_jiffies,
            closing: false,
            closed_jiffies: None,
            sweep: self.sweep,
        };
        self.known.insert(*key, known);
        true
    }

    /// The conversation that a new entry counts for.
    fn partner(&self, plain: &RawKey, value: &FlowValue) -> Option<(usize, Side)> {
        let egress = Route(value.route).egress();
        let opened = plain.is_tcp() && value.marks & MARK_OPENED != 0;
        let answered = (egress != 0).then(|| plain.reversed(egress));
        [Some(*plain), Some(plain.at(0)), answered].into_iter().flatten().find_map(|asked| {
            let slot = *self.expected.get(&asked)?;
            let live = self.conversations.get(slot)?.as_ref()?;
            Some((slot, live.takes(plain, egress, opened)?))
        })
    }

    fn begin(&mut self, plain: RawKey, value: &FlowValue, now: &Moment) -> (usize, Side) {
        self.opened += 1;
        self.totals.opened(plain.transport());
        let mut live = Live::new(self.opened, plain, value, now, self.resumes);
        live.awaits = Route(value.route).egress();
        let answer = plain.is_answerable().then(|| plain.reversed(live.awaits));
        let slot = self.vacant.pop().unwrap_or(self.conversations.len());
        match self.conversations.get_mut(slot) {
            Some(cell) => *cell = Some(live),
            None => self.conversations.push(Some(live)),
        }
        self.expected.extend([Some(plain), answer].into_iter().flatten().map(|key| (key, slot)));
        (slot, Side::First)
    }

    /// Forgets an entry; when its conversation has no other, that has ended.
    fn forget(&mut self, key: &RawKey, now: &Moment) {
        let Some(known) = self.known.remove(key) else { return };
        let Some(cell) = self.conversations.get_mut(known.slot) else { return };
        let Some(live) = cell else { return };
        if let Some(half) = live.half_mut(known.side) {
            half.entries -= 1;
        }
        if live.entries() > 0 {
            return;
        }
        let Some(live) = cell.take() else { return };
        self.vacant.push(known.slot);
        self.finish(live, known.slot, now);
    }

    fn finish(&mut self, mut live: Live, slot: usize, now: &Moment) {
        self.no_longer_expects(&live.key, slot);
        self.no_longer_expects(&live.key.reversed(live.awaits), slot);
        self.totals.closed(live.key.transport());
        if live.is_half_open() {
            self.totals.port(live.key.ingress()).half_open += 1;
        }
        if let Some(reason) = live.end_reason() {
            self.ended.push(live.report(reason, now));
        }
    }

    fn no_longer_expects(&mut self, key: &RawKey, slot: usize) {
        if self.expected.get(key) == Some(&slot) {
            self.expected.remove(key);
        }
    }

    /// Forgets the entries that were not in this sweep, once they are dead by rule.
    fn forget_vanished(&mut self, now: &Moment) {
        let gone = |known: &Known| known.sweep != self.sweep && known.is_dead(&self.limits, now);
        let keys: Vec<RawKey> = self.known.iter().filter(|(_, known)| gone(known)).map(|(key, _)| *key).collect();
        for key in keys {
            self.forget(&key, now);
        }
    }

    fn give_out_due(&mut self, now: &Moment) {
        let active_ns = u64::try_from(self.limits.active.as_nanos()).unwrap_or(u64::MAX);
        let due = self.conversations.iter_mut().flatten().filter(|live| live.is_due(now, active_ns));
        self.ended.extend(due.map(|live| live.report(EndReason::ActiveTimeout, now)));
    }
}

/// What is to become of an entry that is not known, or was made anew.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Unknown {
    /// It is to come again when all known ones have been seen.
    Waits,
    /// It finds its conversation, or begins one.
    Begins,
}

/// What became of an entry in a sweep.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Seen {
    Alive,
    Dead,
    Rejected,
    Unknown,
}

/// What a sweep has found so far.
#[derive(Default)]
struct Found {
    dead: Vec<RawKey>,
    seen: usize,
    rejected: u64,
}

impl Found {
    fn note(&mut self, seen: Seen, entry: &Entry) {
        match seen {
            Seen::Alive => self.seen += 1,
            Seen::Dead => {
                self.seen += 1;
                self.dead.push(entry.key);
            }
            Seen::Rejected => self.rejected += 1,
            Seen::Unknown => {}
        }
    }
}
