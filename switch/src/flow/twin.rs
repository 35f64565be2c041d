//! A kernel that keeps the rules of `switch_common`, a naive twin that remembers every frame it accounted, and random steps
//! after which the tracker must have told the same, direction by direction, to the last frame.

#![expect(clippy::unwrap_used, reason = "a test that fails here has failed")]

use std::collections::{BTreeMap, HashMap};

use jiff::Timestamp;
use proptest::collection::vec;
use proptest::prelude::*;
use switch_common::Tally;
use switch_common::flow::{
    FLOW_ALTERNATE, FlowKey4, FlowPair, FlowTail, FlowValue, KIND_IPV4, MARK_CLOSED, MARK_OPENED, Route, TCP_ACK,
    TCP_FIN, TCP_RST, TCP_SYN,
};

use super::*;

pub(super) const HZ: u32 = 250;
const NANOS_PER_JIFFY: u64 = 1_000_000_000 / HZ as u64;

/// The kernel's table, and what it ever accounted since the tracker was made.
#[derive(Clone)]
pub(super) struct Kernel {
    pub(super) entries: HashMap<RawKey, FlowValue>,
    /// By direction and ingress port: the key without its life bit.
    pub(super) accounted: BTreeMap<String, Tally>,
    /// In 64 bits; the tracker sees the low half.
    jiffies: u64,
    /// No two frames come at the same nanosecond.
    frames: u64,
    wall_offset_secs: i64,
}

/// One frame, or super-frame.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sent {
    pub(super) key: FlowKey4,
    pub(super) egress: u16,
    pub(super) flags: u8,
    pub(super) bytes: u64,
    pub(super) extra: u64,
}

impl Kernel {
    /// Begins close to where the low half of jiffies wraps, as Linux does.
    pub(super) fn new() -> Self {
        Self {
            entries: HashMap::new(),
            accounted: BTreeMap::new(),
            jiffies: (1 << 32) - u64::from(HZ) * 100,
            frames: 0,
            wall_offset_secs: 1_800_000_000,
        }
    }

    pub(super) fn wait(&mut self, jiffies: u64) {
        self.jiffies += jiffies;
    }

    pub(super) fn jump(&mut self, secs: i64) {
        self.wall_offset_secs += secs;
    }

    fn ktime_ns(&self) -> u64 {
        self.jiffies * NANOS_PER_JIFFY + self.frames
    }

    #[expect(clippy::cast_possible_truncation, reason = "the low half is what the kernel keeps")]
    fn low(&self) -> u32 {
        self.jiffies as u32
    }

    pub(super) fn now(&self) -> Moment {
        let wall = Timestamp::from_second(self.wall_offset_secs + (self.ktime_ns() / 1_000_000_000).cast_signed());
        Moment { wall: wall.unwrap(), ktime_ns: self.ktime_ns(), jiffies: self.low(), hz: HZ }
    }

    fn is_dead(&self, value: &FlowValue) -> bool {
        let secs = if value.marks & u32::from(TCP_FIN | TCP_RST) != 0 { 10 } else { 60 };
        value.marks & MARK_CLOSED != 0 || self.low().wrapping_sub(value.last_jiffies) > secs * HZ
    }

    /// Accounts a frame as the reflex does; false when both entries are dead.
    pub(super) fn send(&mut self, sent: Sent) -> bool {
        let Sent { mut key, egress, flags, bytes, extra } = sent;
        self.frames += 1;
        let opens = key.tail.protocol == 6 && flags & TCP_SYN != 0;
        for alternate in [0, FLOW_ALTERNATE] {
            key.pair.ingress = key.pair.ingress & !FLOW_ALTERNATE | alternate;
            let (jiffies, first_ns) = (self.low(), self.ktime_ns());
            if let Some(value) = self.entries.get_mut(&RawKey::V4(key))
                && opens
                && value.marks & u32::from(TCP_FIN | TCP_RST) != 0
            {
                value.marks |= MARK_CLOSED;
            }
            let entry = self.entries.get(&RawKey::V4(key));
            if entry.is_some_and(|value| self.is_dead(value)) {
                continue;
            }
            let mut value = entry.copied().unwrap_or(FlowValue {
                first_ns,
                marks: if opens { MARK_OPENED } else { 0 },
                ..FlowValue::default()
            });
            value.last_jiffies = jiffies;
            value.frames += 1;
            value.bytes += bytes;
            value.extra_frames += extra;
            value.extra_bytes += extra * 54;
            value.route = Route::new(7, egress, u8::from(egress != 0), 0).0;
            value.marks |= u32::from(flags);
            self.entries.insert(RawKey::V4(key), value);
            let told = Tally { frames: 1, bytes, extra_frames: extra, extra_bytes: extra * 54 };
            self.accounted.entry(direction(&RawKey::V4(key))).or_default().add(&told);
            return true;
        }
        false
    }

    pub(super) fn read(&self) -> Vec<Entry> {
        self.entries.iter().map(|(key, value)| Entry { key: *key, value: *value }).collect()
    }

    /// Deletes what the tracker called dead, as the observer does; all of it is dead by the kernel's own rule.
    pub(super) fn delete(&mut self, dead: &[RawKey], tracker: &mut Tracker) {
        for key in dead {
            let value = self.entries.remove(key).expect("what is dead was there");
            assert!(self.is_dead(&value), "{value:?} is not dead");
            tracker.deleted(key, &value);
        }
    }

    /// A new tracker finds what there is.
    pub(super) fn restart(&mut self) {
        self.accounted.clear();
        for (key, value) in &self.entries {
            let &FlowValue { frames, bytes, extra_frames, extra_bytes, .. } = value;
            let tally = Tally { frames, bytes, extra_frames, extra_bytes };
            self.accounted.entry(direction(key)).or_default().add(&tally);
        }
    }
}

/// A direction at an ingress port, as text.
fn direction(key: &RawKey) -> String {
    text(&FlowKey::try_from(key).unwrap())
}

fn text(key: &FlowKey) -> String {
    let Network::Ip { source, destination, protocol, ports: Ports::L4 { source: near, destination: far } } =
        key.network
    else {
        panic!("the steps are all TCP and UDP");
    };
    format!("{} {} {source}:{near} > {destination}:{far} {protocol} at {}", key.source, key.destination, key.ingress)
}

/// The other direction of a conversation, which came in where the first goes out.
fn answer(conversation: &Conversation) -> Option<String> {
    let mut key = conversation.key;
    std::mem::swap(&mut key.source, &mut key.destination);
    if let Network::Ip { source, destination, ports: Ports::L4 { source: near, destination: far }, .. } =
        &mut key.network
    {
        std::mem::swap(source, destination);
        std::mem::swap(near, far);
    }
    key.ingress = conversation.egress?;
    Some(text(&key))
}

/// What conversations say, by direction.
pub(super) fn tell(told: &mut BTreeMap<String, Tally>, conversation: &Conversation) {
    assert!(conversation.started <= conversation.since, "{conversation:?}");
    assert!(conversation.since <= conversation.ended, "{conversation:?}");
    told.entry(text(&conversation.key)).or_default().add(&conversation.forward.tally);
    if conversation.reverse.tally != Tally::default() {
        let answer = answer(conversation).expect("what came back came in somewhere");
        told.entry(answer).or_default().add(&conversation.reverse.tally);
    }
}

/// A key between two hosts of few, so that tuples are shared and used again.
pub(super) fn key(from: u8, to: u8, near: u16, far: u16, protocol: u8, ingress: u16) -> FlowKey4 {
    FlowKey4 {
        pair: FlowPair { destination: [2, 0, 0, 0, 0, to], source: [2, 0, 0, 0, 0, from], ingress, outer: 0 },
        source_address: [198, 18, 0, from],
        destination_address: [198, 18, 0, to],
        tail: FlowTail { source_port: near, destination_port: far, protocol, kind: KIND_IPV4, inner: 0 },
    }
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Send(Sent),
    Wait(u64),
    Jump(i64),
    Sweep { delete: bool },
    Vanish,
    Restart,
    PortGone(u16),
    Stop,
}

fn sent() -> impl Strategy<Value = Sent> {
    let who = (1..4u8, 1..4u8, 1..3u16, 1..3u16);
    let how = (prop_oneof![Just(6u8), Just(17)], prop_oneof![8 => Just(0u16), 1 => Just(1)], 0..4u16);
    let flags = prop_oneof![
        4 => Just(TCP_ACK),
        2 => Just(TCP_SYN),
        1 => Just(TCP_SYN | TCP_ACK),
        1 => Just(TCP_FIN | TCP_ACK),
        1 => Just(TCP_RST),
    ];
    (who, how, flags, 60..9000u64, 0..3u64).prop_map(|(who, how, flags, bytes, extra)| {
        let ((from, to, near, far), (protocol, moved, egress)) = (who, how);
        let key = key(from, to, near, far, protocol, u16::from(from) + moved);
        Sent { key, egress: if egress == 3 { 0 } else { u16::from(to) + egress / 2 }, flags, bytes, extra }
    })
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        20 => sent().prop_map(Step::Send),
        3 => (1..90 * u64::from(HZ)).prop_map(Step::Wait),
        1 => (-100_000..100_000i64).prop_map(Step::Jump),
        6 => any::<bool>().prop_map(|delete| Step::Sweep { delete }),
        1 => Just(Step::Vanish),
        1 => Just(Step::Restart),
        1 => (1..5u16).prop_map(Step::PortGone),
        1 => Just(Step::Stop),
    ]
}

/// What was accounted equals what was told and what would be told now.
pub(super) fn check(kernel: &Kernel, tracker: &Tracker, told: &BTreeMap<String, Tally>) {
    let mut all = told.clone();
    tracker.live().for_each(|conversation| tell(&mut all, &conversation));
    all.retain(|_, tally| *tally != Tally::default());
    for (direction, tally) in &kernel.accounted {
        assert_eq!(all.remove(direction), Some(*tally), "{direction}");
    }
    assert_eq!(all, BTreeMap::new());
    let totals = tracker.totals();
    assert_eq!(totals.active.sum(), tracker.live().count() as u64);
    assert_eq!(totals.active.sum(), totals.opened.sum() - totals.closed.sum());
    assert!(tracker.live().count() <= tracker.len(), "a conversation without an entry");
    assert_eq!(totals.rejected, 0);
}

fn pairs(tracker: &Tracker) -> Tally {
    let mut sum = tracker.totals().pairs_folded;
    tracker.totals().pairs.values().for_each(|pair| sum.add(pair));
    sum
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(150) })]

    #[test]
    fn whatever_happens_every_frame_is_told_once(steps in vec(step(), 1..200)) {
        let limits = Limits { active: std::time::Duration::from_secs(100), ..Limits::default() };
        let (mut kernel, mut tracker, mut told) = (Kernel::new(), Tracker::new(limits), BTreeMap::new());
        tracker.sweep(&[], kernel.now());
        let mut since_start = Some(Tally::default());
        for step in steps {
            match step {
                Step::Send(sent) => {
                    let counted = kernel.send(sent);
                    if let (true, Some(sum)) = (counted, &mut since_start) {
                        sum.add(&Tally {
                            frames: 1,
                            bytes: sent.bytes,
                            extra_frames: sent.extra,
                            extra_bytes: sent.extra * 54,
                        });
                    }
                }
                Step::Wait(jiffies) => kernel.wait(jiffies),
                Step::Jump(secs) => kernel.jump(secs),
                Step::Sweep { delete } => {
                    let sweep = tracker.sweep(&kernel.read(), kernel.now());
                    sweep.ended.iter().for_each(|conversation| tell(&mut told, conversation));
                    check(&kernel, &tracker, &told);
                    if let Some(sum) = since_start {
                        prop_assert_eq!(pairs(&tracker), sum);
                    }
                    if delete {
                        kernel.delete(&sweep.dead, &mut tracker);
                    }
                }
                // Somebody else empties the table, all of which was read.
                Step::Vanish => {
                    let sweep = tracker.sweep(&kernel.read(), kernel.now());
                    sweep.ended.iter().for_each(|conversation| tell(&mut told, conversation));
                    kernel.entries.clear();
                }
                Step::Restart => {
                    (tracker, told) = (Tracker::new(limits), BTreeMap::new());
                    kernel.restart();
                    since_start = Some(Tally::default());
                    let sweep = tracker.sweep(&kernel.read(), kernel.now());
                    sweep.ended.iter().for_each(|conversation| tell(&mut told, conversation));
                    check(&kernel, &tracker, &told);
                }
                Step::PortGone(id) => {
                    tracker.ports_gone(&[id].into());
                    since_start = None;
                }
                Step::Stop => tracker.stop().iter().for_each(|conversation| tell(&mut told, conversation)),
            }
        }
        let sweep = tracker.sweep(&kernel.read(), kernel.now());
        sweep.ended.iter().for_each(|conversation| tell(&mut told, conversation));
        check(&kernel, &tracker, &told);
        // Everybody falls silent: all of it ends, and nothing is left behind.
        for _ in 0..2 {
            kernel.wait(63 * u64::from(HZ));
            let sweep = tracker.sweep(&kernel.read(), kernel.now());
            sweep.ended.iter().for_each(|conversation| tell(&mut told, conversation));
            kernel.delete(&sweep.dead, &mut tracker);
        }
        let sweep = tracker.sweep(&kernel.read(), kernel.now());
        sweep.ended.iter().for_each(|conversation| tell(&mut told, conversation));
        check(&kernel, &tracker, &told);
        prop_assert!(tracker.is_empty() && kernel.entries.is_empty());
        prop_assert_eq!(tracker.totals().active.sum(), 0);
        prop_assert_eq!(tracker.expectations(), 0);
    }
}
