//! The loop's end: which sessions want a frame that the brain decided, with the exact verdict and every egress port.
//!
//! The reflex has seen these frames too, and left them to the loop: it does not know their fate. So each frame is captured by
//! one of the two. The loop never waits: a queue that is full, in frames or in bytes, loses what comes and counts it.
//!
//! **Cost** with sessions: a filter's interpreter per session, and one allocation for a frame that somebody wants.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

use switch_common::{DropReason, PORT_SLOTS, PortId};

use super::clock;
use super::stream::{BY_BRAIN, FateHead, Outcome};
use crate::fdb::Nanos;
use crate::filter::Program;

/// Sessions at most: each has a bit.
pub const SESSIONS_MAX: usize = 64;
/// Frames of the loop's that may wait.
const QUEUE_FRAMES_MAX: usize = 16_384;
/// Bytes of the loop's that may wait.
const QUEUE_BYTES_MAX: usize = 16 << 20;

/// A set of ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortSet(Box<[u64]>);

impl PortSet {
    /// These ports.
    pub fn new(ports: impl IntoIterator<Item = u16>) -> Self {
        let mut set = Self(vec![0; PORT_SLOTS / 64].into_boxed_slice());
        for port in ports {
            set.insert(port);
        }
        set
    }

    /// Adds a port.
    pub fn insert(&mut self, port: u16) {
        if let Some(word) = self.0.get_mut(usize::from(port) / 64) {
            *word |= 1 << (port % 64);
        }
    }

    /// Takes a port out.
    pub fn remove(&mut self, port: u16) {
        if let Some(word) = self.0.get_mut(usize::from(port) / 64) {
            *word &= !(1 << (port % 64));
        }
    }

    /// Whether a port is one of them.
    pub fn contains(&self, port: u16) -> bool {
        self.0.get(usize::from(port) / 64).is_some_and(|word| word >> (port % 64) & 1 == 1)
    }
}

/// Which frames are asked for by their fate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// All.
    All,
    /// Those that were refused or lost, for this reason or for any.
    Dropped(Option<String>),
}

/// What one session wants of the loop.
#[derive(Clone, Debug)]
pub struct Rule {
    /// The session's bit.
    pub bit: u8,
    /// The ports, as ingress or egress; nothing: all.
    pub ports: Option<PortSet>,
    /// By their fate.
    pub wanted: Wanted,
    /// By their bytes.
    pub filter: Option<Program>,
    /// Bytes to be kept of a frame.
    pub bytes_max: usize,
}

/// What the brain did with a frame.
#[derive(Clone, Copy, Debug)]
pub struct Sight<'a> {
    /// The port it came in by.
    pub ingress: PortId,
    /// What became of it.
    pub outcome: Outcome,
    /// Why it was dropped.
    pub reason: Option<DropReason>,
    /// Where copies went, those that were refused too.
    pub egress: &'a [PortId],
    /// Which of these were refused, and why.
    pub refused: &'a [(PortId, DropReason)],
    /// Of a super-frame: payload bytes of a segment, and segments.
    pub segments: Option<(u16, u16)>,
}

impl Sight<'_> {
    fn is_refused(&self, reason: Option<&str>) -> bool {
        let fits = |label: &str| reason.is_none_or(|wanted| wanted == label);
        self.reason.is_some_and(|reason| fits(reason.label()))
            || self.refused.iter().any(|(_, reason)| fits(reason.label()))
    }
}

/// A frame on its way from the loop.
#[derive(Debug)]
pub struct Caught {
    /// When it was decided, by the monotonic clock.
    pub time: Nanos,
    /// The sessions that want it.
    pub sessions: u64,
    /// Its length.
    pub length: u32,
    /// Bytes of its fate; what is kept of it follows them.
    pub fate_bytes: usize,
    /// Fate and frame.
    pub bytes: Vec<u8>,
}

/// What the loop counts, by bit.
#[derive(Debug)]
pub struct Cells {
    matched: [AtomicU64; SESSIONS_MAX],
    lost: [AtomicU64; SESSIONS_MAX],
    queued_bytes: AtomicUsize,
    is_rung: AtomicBool,
}

impl Cells {
    /// What one bit has counted: frames that matched, and those of them that were lost.
    pub fn counted(&self, bit: u8) -> (u64, u64) {
        let counted = |cells: &[AtomicU64; SESSIONS_MAX]| {
            cells.get(usize::from(bit)).map_or(0, |cell| cell.load(Ordering::Acquire))
        };
        (counted(&self.matched), counted(&self.lost))
    }

    /// Begins anew for a bit that no rule has.
    pub fn reset(&self, bit: u8) {
        for cells in [&self.matched, &self.lost] {
            if let Some(cell) = cells.get(usize::from(bit)) {
                cell.store(0, Ordering::Release);
            }
        }
    }

    fn count(cells: &[AtomicU64; SESSIONS_MAX], mut sessions: u64) {
        while sessions != 0 {
            if let Some(cell) = cells.get(sessions.trailing_zeros() as usize) {
                cell.fetch_add(1, Ordering::Relaxed);
            }
            sessions &= sessions - 1;
        }
    }
}

/// The loop's end of the queue.
#[derive(Clone, Debug)]
pub struct Spout {
    queue: SyncSender<Caught>,
    cells: Arc<Cells>,
    bell: Arc<OwnedFd>,
}

/// The other end.
#[derive(Debug)]
pub struct Basin {
    queue: Receiver<Caught>,
    cells: Arc<Cells>,
}

/// A queue whose reader is woken by `bell`, an eventfd.
pub fn queue(bell: Arc<OwnedFd>) -> (Spout, Basin) {
    let (sender, receiver) = sync_channel(QUEUE_FRAMES_MAX);
    let cells = Arc::new(Cells {
        matched: [const { AtomicU64::new(0) }; SESSIONS_MAX],
        lost: [const { AtomicU64::new(0) }; SESSIONS_MAX],
        queued_bytes: AtomicUsize::new(0),
        is_rung: AtomicBool::new(false),
    });
    (Spout { queue: sender, cells: Arc::clone(&cells), bell }, Basin { queue: receiver, cells })
}

impl Basin {
    /// What the loop counts.
    pub fn cells(&self) -> Arc<Cells> {
        Arc::clone(&self.cells)
    }

    /// Says that the bell was heard: the loop rings it again for what comes now.
    pub fn heard(&self) {
        self.cells.is_rung.store(false, Ordering::SeqCst);
    }

    /// The next frame, if one is there.
    pub fn next(&self) -> Option<Caught> {
        let captured = self.queue.try_recv().ok()?;
        self.cells.queued_bytes.fetch_sub(captured.bytes.len(), Ordering::AcqRel);
        Some(captured)
    }
}

/// What the loop asks about each frame that it decides, while there are sessions.
#[derive(Clone, Debug)]
pub struct Sieve {
    rules: Vec<Rule>,
    spout: Spout,
}

impl Sieve {
    /// For these sessions.
    pub fn new(rules: Vec<Rule>, spout: Spout) -> Self {
        Self { rules, spout }
    }

    /// Keeps a frame for the sessions that want it.
    pub fn see(&self, frame: &[u8], sight: &Sight<'_>) {
        let (mut sessions, mut kept) = (0_u64, 0);
        for rule in &self.rules {
            if wants(rule, frame, sight) {
                sessions |= 1_u64.checked_shl(rule.bit.into()).unwrap_or(0);
                kept = kept.max(rule.bytes_max);
            }
        }
        if sessions != 0 {
            self.keep(sessions, frame, kept, sight);
        }
    }

    fn keep(&self, sessions: u64, frame: &[u8], kept: usize, sight: &Sight<'_>) {
        let cells = &self.spout.cells;
        Cells::count(&cells.matched, sessions);
        let kept = frame.get(..kept).unwrap_or(frame);
        if cells.queued_bytes.load(Ordering::Acquire) > QUEUE_BYTES_MAX {
            return Cells::count(&cells.lost, sessions);
        }
        let (segment_bytes, segments) = sight.segments.unwrap_or((0, 0));
        let head = FateHead {
            ingress: sight.ingress.get(),
            outcome: sight.outcome,
            flags: BY_BRAIN,
            segment_bytes,
            segments,
            reason: sight.reason.map_or("", DropReason::label),
        };
        let mut bytes = Vec::with_capacity(64 + kept.len());
        let refused =
            |port: &PortId| sight.refused.iter().find(|(at, _)| at == port).map_or("", |(_, why)| why.label());
        head.encode(sight.egress.iter().map(|port| (port.get(), refused(port))), &mut bytes);
        let fate_bytes = bytes.len();
        bytes.extend_from_slice(kept);
        let length = u32::try_from(frame.len()).unwrap_or(u32::MAX);
        cells.queued_bytes.fetch_add(bytes.len(), Ordering::AcqRel);
        match self.spout.queue.try_send(Caught { time: clock::monotonic(), sessions, length, fate_bytes, bytes }) {
            Ok(()) => self.ring(),
            Err(TrySendError::Full(back) | TrySendError::Disconnected(back)) => {
                cells.queued_bytes.fetch_sub(back.bytes.len(), Ordering::AcqRel);
                Cells::count(&cells.lost, sessions);
            }
        }
    }

    /// Wakes the reader, once until it has heard.
    fn ring(&self) {
        if !self.spout.cells.is_rung.swap(true, Ordering::SeqCst) {
            // A reader that is gone hears nothing, and misses nothing.
            rustix::io::write(&self.spout.bell, &1_u64.to_ne_bytes()).ok();
        }
    }
}

fn wants(rule: &Rule, frame: &[u8], sight: &Sight<'_>) -> bool {
    let by_fate = match &rule.wanted {
        Wanted::All => true,
        Wanted::Dropped(reason) => sight.is_refused(reason.as_deref()),
    };
    let by_port = |ports: &PortSet| {
        ports.contains(sight.ingress.get()) || sight.egress.iter().any(|port| ports.contains(port.get()))
    };
    by_fate
        && rule.ports.as_ref().is_none_or(by_port)
        && rule.filter.as_ref().is_none_or(|filter| filter.matches(frame))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use rustix::event::{EventfdFlags, eventfd};

    use super::super::stream::Fate;
    use super::*;

    const A: PortId = PortId::new(1).expect("a port");
    const B: PortId = PortId::new(2).expect("a port");
    const C: PortId = PortId::new(3).expect("a port");
    const FORWARDED: Sight<'_> =
        Sight { ingress: A, outcome: Outcome::Forwarded, reason: None, egress: &[B], refused: &[], segments: None };

    fn rule(bit: u8) -> Rule {
        Rule { bit, ports: None, wanted: Wanted::All, filter: None, bytes_max: 100 }
    }

    fn sieve(rules: Vec<Rule>) -> (Sieve, Basin) {
        let bell = eventfd(0, EventfdFlags::NONBLOCK).unwrap();
        let (spout, basin) = queue(Arc::new(bell));
        (Sieve::new(rules, spout), basin)
    }

    fn seen(basin: &Basin) -> Vec<u64> {
        std::iter::from_fn(|| basin.next()).map(|captured| captured.sessions).collect()
    }

    #[test]
    fn a_session_gets_the_frames_of_its_ports_both_ways_and_no_others() {
        let only = |port: PortId| Some(PortSet::new([port.get()]));
        let (sieve, basin) = sieve(vec![
            Rule { ports: only(A), ..rule(0) },
            Rule { ports: only(B), ..rule(1) },
            Rule { ports: only(C), ..rule(2) },
            rule(63),
        ]);
        sieve.see(&[0; 60], &FORWARDED);
        sieve.see(&[0; 60], &Sight { outcome: Outcome::Flooded, egress: &[B, C], ..FORWARDED });
        sieve.see(&[0; 60], &Sight { ingress: C, egress: &[], ..FORWARDED });
        assert_eq!(seen(&basin), [1 << 63 | 0b011, 1 << 63 | 0b111, 1 << 63 | 0b100]);
        let cells = basin.cells();
        assert_eq!((cells.counted(0), cells.counted(2), cells.counted(0)), ((2, 0), (2, 0), (2, 0)));
        cells.reset(0);
        assert_eq!((cells.counted(0), cells.counted(2)), ((0, 0), (2, 0)));
    }

    #[test]
    fn who_wants_drops_gets_refused_copies_too_by_their_reason() {
        let dropped = |reason: Option<&str>| Wanted::Dropped(reason.map(str::to_owned));
        let (sieve, basin) = sieve(vec![
            Rule { wanted: dropped(None), ..rule(0) },
            Rule { wanted: dropped(Some("hairpin")), ..rule(1) },
            Rule { wanted: dropped(Some("too_big")), ..rule(2) },
        ]);
        sieve.see(&[0; 60], &FORWARDED);
        let refused = Sight { outcome: Outcome::Dropped, reason: Some(DropReason::Hairpin), egress: &[], ..FORWARDED };
        sieve.see(&[0; 60], &refused);
        let flood =
            Sight { outcome: Outcome::Flooded, egress: &[B, C], refused: &[(C, DropReason::TooBig)], ..FORWARDED };
        sieve.see(&[0; 1600], &flood);
        let first = basin.next().unwrap();
        let second = basin.next().unwrap();
        assert!(basin.next().is_none());
        assert_eq!((first.sessions, second.sessions), (0b011, 0b101));
        let fate = Fate::decode(second.bytes.get(..second.fate_bytes).unwrap()).unwrap();
        assert_eq!(fate.egress().collect::<Vec<_>>(), [(2, ""), (3, "too_big")]);
        assert_eq!((second.length, second.bytes.len() - second.fate_bytes), (1600, 100));
    }

    #[test]
    fn what_finds_the_queue_full_is_lost_and_counted_for_every_session() {
        let (few, few_basin) = sieve(vec![rule(0), Rule { ports: Some(PortSet::new([9])), ..rule(1) }, rule(5)]);
        let frames = QUEUE_FRAMES_MAX + 10;
        for _ in 0..frames {
            few.see(&[0; 60], &FORWARDED);
        }
        assert_eq!(seen(&few_basin).len(), QUEUE_FRAMES_MAX);
        let cells = few_basin.cells();
        let all = (frames as u64, 10);
        assert_eq!((cells.counted(0), cells.counted(1), cells.counted(5)), (all, (0, 0), all));
        let (large, basin) = sieve(vec![Rule { bytes_max: 1 << 20, ..rule(0) }]);
        for _ in 0..1000 {
            large.see(&vec![0; 65_000], &FORWARDED);
        }
        let (matched, lost) = basin.cells().counted(0);
        let kept = seen(&basin).len();
        assert_eq!((matched, kept as u64 + lost), (1000, 1000));
        assert!(kept * 65_000 < QUEUE_BYTES_MAX + 200_000, "{kept}");
        // There is room again.
        large.see(&vec![0; 65_000], &FORWARDED);
        assert_eq!(seen(&basin).len(), 1);
    }
}
