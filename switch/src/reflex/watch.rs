//! Who looks on: sessions of captures, mirrors and the recorder, told to the kernel half all at once.
//!
//! A session has a bit, a place in every mask ([`switch_common::PortWatch`]). [`Reflex::set_sessions`] makes one program of all
//! filters, has the kernel verify it, and puts it in the place of the one before in one step; then the masks follow. A filter
//! that the kernel refuses changes nothing.
//!
//! **Invariant**: a bit is in a mask only while the program in place knows its filter. So the program comes before a session's
//! masks, and goes after them.
//!
//! Mirrors go on when the daemon dies. The next one finds their bits by [`Reflex::sessions_found`], and is to say what each of
//! them wants in one call; whatever else was watched then ends with this one's start.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use aya::Ebpf;
use aya::maps::{Array, Map, MapData, PerCpuArray, ProgramArray, RingBuf};
use switch_common::{
    CAPTURES_BYTES, Captured, DropCell, PORT_SLOTS, PORT_WATCHED, PortId, PortWatch, SESSION_CAPTURE, SESSION_MIRROR,
    SESSION_NONE, SESSION_RECORDER, SESSIONS_MAX, Session, SessionCounts, WATCHERS_FILTER, WATCHERS_SERVE,
};

use super::error::ReflexError;
use super::maps::with_fd;
use super::{Reflex, program, sys};
use crate::filter::{Program, Wanted, translate};

/// The program that serves sessions.
const SERVE: &str = "watch";

/// Whose frames a session wants.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Ports {
    /// Nobody's.
    #[default]
    None,
    /// Everybody's, those of ports that are yet to come among them.
    All,
    /// Some ports'.
    These(BTreeSet<PortId>),
}

impl Ports {
    fn has(&self, id: usize) -> bool {
        match self {
            Self::None => false,
            Self::All => id != 0,
            Self::These(ids) => ids.iter().any(|port| port.index() == id),
        }
    }
}

/// What becomes of a session's frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Copies go to a netdev.
    Mirror {
        /// Its interface index.
        target: u32,
    },
    /// Copies go into the ring of captures.
    Capture,
    /// Beginnings of frames are kept in the slices of memory.
    Recorder,
}

/// What a session wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wish {
    /// What becomes of its frames.
    pub kind: Kind,
    /// Which frames; `None`: all.
    pub filter: Option<Arc<Program>>,
    /// Ports whose frames are wanted when they come in, whatever becomes of them.
    pub ingress: Ports,
    /// Ports whose frames are wanted when they go out.
    pub egress: Ports,
    /// Ports whose drops are wanted, on either side, the kernel's among them. Not for mirrors.
    pub dropped: Ports,
    /// Of dropped frames: those whose [`switch_common::DropReason`] has its bit here.
    pub reasons: u32,
    /// Of frames that the kernel dropped: those whose reason's number has its bit here.
    pub kernel_reasons: [u64; 4],
    /// Bytes wanted of a frame; for a mirror 0: all.
    pub bytes_max: u32,
}

impl Wish {
    /// All frames of all ports, whole.
    pub fn all(kind: Kind) -> Self {
        Self {
            kind,
            filter: None,
            ingress: Ports::All,
            egress: Ports::All,
            dropped: Ports::None,
            reasons: u32::MAX,
            kernel_reasons: [u64::MAX; 4],
            bytes_max: if kind == Kind::Capture { u32::MAX } else { 0 },
        }
    }

    fn session(&self) -> Session {
        let (kind, target_ifindex) = match self.kind {
            Kind::Mirror { target } => (SESSION_MIRROR, target),
            Kind::Capture => (SESSION_CAPTURE, 0),
            Kind::Recorder => (SESSION_RECORDER, 0),
        };
        let Self { bytes_max, reasons, kernel_reasons, .. } = *self;
        Session { kind, target_ifindex, bytes_max, reasons, kernel_reasons }
    }

    fn is_mirror(&self) -> bool {
        matches!(self.kind, Kind::Mirror { .. })
    }
}

/// What became of a session's frames. `matched` = `delivered` + `lost` once nothing is under way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WatchCounts {
    /// What the kernel half counted.
    pub kernel: SessionCounts,
    /// Of a mirror's delivered frames: those that the kernel dropped at the target, whose ring was full.
    pub target_dropped: DropCell,
}

/// The kernel half of it, with its maps.
pub(super) struct Watchers {
    sessions: BTreeMap<u8, Wish>,
    found: u64,
    masks: Vec<PortWatch>,
    watch: Array<MapData, PortWatch>,
    table: Array<MapData, Session>,
    counts: PerCpuArray<MapData, SessionCounts>,
    target_drops: Array<MapData, DropCell>,
    /// Holds the programs, as its pin does.
    jump: ProgramArray<MapData>,
    jump_fd: OwnedFd,
    captures: Option<CaptureRing>,
}

impl Watchers {
    /// Takes the maps, ends what ended with its daemon, and lets the program of this daemon serve.
    pub(super) fn start(ebpf: &mut Ebpf) -> Result<Self, ReflexError> {
        let serve = program(ebpf, SERVE)?;
        serve.load().map_err(|source| ReflexError::Program { program: SERVE, source: Box::new(source) })?;
        let serve_fd = serve.fd().and_then(|fd| Ok(fd.try_clone()?)).map_err(ReflexError::map("WATCHERS"))?;
        let (watch, _) = with_fd::<Array<MapData, PortWatch>>(ebpf, "WATCH")?;
        let (table, _) = with_fd::<Array<MapData, Session>>(ebpf, "SESSIONS")?;
        let (counts, _) = with_fd(ebpf, "SESSION_COUNTS")?;
        let (target_drops, _) = with_fd(ebpf, "TARGET_DROPS")?;
        let take = |ebpf: &mut Ebpf, name: &'static str| {
            ebpf.take_map(name).ok_or_else(|| ReflexError::Foreign { what: format!("map {name}") })
        };
        let jump = take(ebpf, "WATCHERS")?;
        let Map::ProgramArray(data) = &jump else {
            return Err(ReflexError::Foreign { what: "program array WATCHERS".to_owned() });
        };
        let jump_fd = data.fd().as_fd().try_clone_to_owned().map_err(ReflexError::map("WATCHERS"))?;
        let jump = ProgramArray::try_from(jump).map_err(ReflexError::map("WATCHERS"))?;
        let ring = RingBuf::try_from(take(ebpf, "CAPTURES")?).map_err(ReflexError::map("CAPTURES"))?;
        let mut watchers = Self {
            sessions: BTreeMap::new(),
            found: 0,
            masks: vec![PortWatch::default(); PORT_SLOTS],
            watch,
            table,
            counts,
            target_drops,
            jump,
            jump_fd,
            captures: Some(CaptureRing { ring }),
        };
        watchers.keep_mirrors()?;
        watchers.jump.set(WATCHERS_SERVE, &serve_fd, 0).map_err(ReflexError::map("WATCHERS"))?;
        Ok(watchers)
    }

    /// Reads what an earlier daemon's sessions are, and takes all but mirrors out of the masks.
    fn keep_mirrors(&mut self) -> Result<(), ReflexError> {
        for bit in 0..SESSIONS_MAX {
            let session = self.table.get(&index(bit), 0).map_err(ReflexError::map("SESSIONS"))?;
            self.found |= u64::from(session.kind == SESSION_MIRROR) << bit;
        }
        for id in 0..PORT_SLOTS {
            let seen = self.watch.get(&index(id), 0).map_err(ReflexError::map("WATCH"))?;
            let kept = PortWatch {
                ingress: seen.ingress & self.found,
                egress: seen.egress & self.found,
                dropped: 0,
                punted: seen.punted & self.found,
                injected: seen.injected & self.found,
                reserved: [0; 3],
            };
            if kept != seen {
                self.watch.set(index(id), kept, 0).map_err(ReflexError::map("WATCH"))?;
            }
            if let Some(mask) = self.masks.get_mut(id) {
                *mask = kept;
            }
        }
        Ok(())
    }

    /// Whether any port's frames are to be looked at.
    pub(super) fn is_on(&self) -> bool {
        self.masks.iter().any(|mask| *mask != PortWatch::default())
    }

    /// Makes the program of these sessions' filters, and has the kernel verify it.
    fn load(&self, sessions: &BTreeMap<u8, Wish>) -> Result<OwnedFd, ReflexError> {
        let filters: Vec<Wanted<'_>> = sessions
            .iter()
            .filter_map(|(bit, wish)| Some(Wanted { bit: *bit, program: wish.filter.as_deref()? }))
            .collect();
        let code = translate(&filters, self.jump_fd.as_raw_fd())
            .map_err(|error| ReflexError::Filter { source: io::Error::other(error) })?;
        sys::load_classifier(&code).map_err(|source| ReflexError::Filter { source })
    }

    /// Puts a program in the place of the one before.
    fn swap(&self, program: &OwnedFd) -> Result<(), ReflexError> {
        let descriptor = program.as_raw_fd().cast_unsigned();
        sys::update(self.jump_fd.as_fd(), &WATCHERS_FILTER, &descriptor).map_err(ReflexError::map("WATCHERS"))
    }

    fn set_masks(&mut self, sessions: &BTreeMap<u8, Wish>) -> Result<(), ReflexError> {
        for (id, written) in self.masks.iter_mut().enumerate() {
            let mask = mask_of(sessions, id);
            if mask != *written {
                self.watch.set(index(id), mask, 0).map_err(ReflexError::map("WATCH"))?;
                *written = mask;
            }
        }
        Ok(())
    }

    fn reset(&mut self, bit: u8) -> Result<(), ReflexError> {
        let zero = vec![
            SessionCounts::default();
            aya::util::nr_cpus().map_err(|(_, source)| ReflexError::map("SESSION_COUNTS")(source))?
        ];
        let zero = zero.try_into().map_err(ReflexError::map("SESSION_COUNTS"))?;
        self.counts.set(bit.into(), zero, 0).map_err(ReflexError::map("SESSION_COUNTS"))?;
        self.target_drops.set(bit.into(), DropCell::default(), 0).map_err(ReflexError::map("TARGET_DROPS"))
    }

    fn counts(&self, bit: u8) -> Result<WatchCounts, ReflexError> {
        let mut sum = SessionCounts::default();
        let each = self.counts.get(&bit.into(), 0).map_err(ReflexError::map("SESSION_COUNTS"))?;
        for one in each.iter() {
            sum.matched.add(&one.matched);
            sum.delivered.add(&one.delivered);
            sum.lost.add(&one.lost);
        }
        let target_dropped = self.target_drops.get(&bit.into(), 0).map_err(ReflexError::map("TARGET_DROPS"))?;
        Ok(WatchCounts { kernel: sum, target_dropped })
    }
}

/// What is written for a port.
fn mask_of(sessions: &BTreeMap<u8, Wish>, id: usize) -> PortWatch {
    let mut mask = PortWatch::default();
    for (bit, wish) in sessions {
        let bit = 1u64 << bit;
        let ingress = if wish.ingress.has(id) { bit } else { 0 };
        let egress = if wish.egress.has(id) { bit } else { 0 };
        mask.ingress |= ingress;
        mask.egress |= egress;
        if wish.is_mirror() {
            mask.punted |= ingress;
            mask.injected |= egress;
        } else if wish.dropped.has(id) {
            mask.dropped |= bit;
        }
    }
    mask
}

/// Ports and sessions are few.
fn index(of: usize) -> u32 {
    u32::try_from(of).unwrap_or(u32::MAX)
}

impl Reflex {
    /// The mirrors that an earlier daemon left running, as a mask of bits. Their counters go on if the first call of
    /// [`Self::set_sessions`] has them.
    pub fn sessions_found(&self) -> u64 {
        self.watchers.found
    }

    /// What is watched now.
    pub fn sessions(&self) -> &BTreeMap<u8, Wish> {
        &self.watchers.sessions
    }

    /// A bit that no session has: the lowest for mirrors, the highest for others, so that they do not meet.
    pub fn free_session(&self, kind: Kind) -> Option<u8> {
        let is_free = |bit: &u8| !self.watchers.sessions.contains_key(bit) && self.watchers.found & (1 << bit) == 0;
        let mut bits = 0..SESSIONS_MAX as u8;
        if let Kind::Mirror { .. } = kind { bits.find(is_free) } else { bits.rfind(is_free) }
    }

    /// Replaces all sessions. The counters of those whose bit was free begin anew. Takes some milliseconds.
    ///
    /// # Errors
    /// [`ReflexError::Filter`]: nothing has changed. Else the kernel's, and what is watched is what was before or a part of it.
    pub fn set_sessions(&mut self, sessions: BTreeMap<u8, Wish>) -> Result<(), ReflexError> {
        let watchers = &mut self.watchers;
        let had = |bit: &u8| watchers.sessions.contains_key(bit) || watchers.found & (1 << bit) != 0;
        let fresh: Vec<u8> = sessions.keys().copied().filter(|bit| !had(bit)).collect();
        // What goes, or wants something else, goes out of the masks before the program that knows it does.
        let kept: BTreeMap<u8, Wish> = sessions
            .iter()
            .filter(|(bit, wish)| {
                let before = watchers.sessions.get(bit);
                watchers.found & (1 << **bit) != 0
                    || before.is_some_and(|before| before.filter == wish.filter && before.kind == wish.kind)
            })
            .map(|(bit, wish)| (*bit, wish.clone()))
            .collect();
        let program = watchers.load(&sessions)?;
        if kept.len() < watchers.sessions.len() || watchers.found != 0 {
            watchers.set_masks(&kept)?;
            Self::grace()?;
        }
        let watchers = &mut self.watchers;
        for bit in fresh {
            watchers.reset(bit)?;
        }
        for bit in 0..SESSIONS_MAX as u8 {
            let session =
                sessions.get(&bit).map_or(Session { kind: SESSION_NONE, ..Session::default() }, Wish::session);
            watchers.table.set(bit.into(), session, 0).map_err(ReflexError::map("SESSIONS"))?;
        }
        watchers.swap(&program)?;
        watchers.set_masks(&sessions)?;
        watchers.sessions = sessions;
        watchers.found = 0;
        self.flag_ports()
    }

    /// What became of a session's frames.
    ///
    /// # Errors
    /// The kernel's.
    pub fn session_counts(&self, bit: u8) -> Result<WatchCounts, ReflexError> {
        self.watchers.counts(bit)
    }

    /// The ring of captured frames; `None` when it has been taken before.
    pub fn captures(&mut self) -> Option<CaptureRing> {
        self.watchers.captures.take()
    }

    /// Tells every port that there is, whether somebody looks on.
    fn flag_ports(&mut self) -> Result<(), ReflexError> {
        for id in 1..PORT_SLOTS {
            let config = self.maps.ports.get(&index(id), 0).map_err(ReflexError::map("PORTS"))?;
            let flagged = self.flagged(config);
            if flagged != config && config.ifindex != 0 {
                self.maps.ports.set(index(id), flagged, 0).map_err(ReflexError::map("PORTS"))?;
            }
        }
        Ok(())
    }

    /// What a port is to be told, with what is known here.
    pub(super) fn flagged(&self, config: switch_common::PortConfig) -> switch_common::PortConfig {
        let watched = if self.watchers.is_on() { PORT_WATCHED } else { 0 };
        switch_common::PortConfig { flags: config.flags & !PORT_WATCHED | watched, ..config }
    }
}

/// One captured frame.
#[derive(Clone, Copy, Debug)]
pub struct Capture<'a> {
    /// When, where and why.
    pub about: Captured,
    /// Its bytes, as many as were wanted and are there; the tag in its place.
    pub bytes: &'a [u8],
}

/// The ring's reading end. Its descriptor becomes readable when the ring is an eighth full: who wants frames sooner looks
/// every few milliseconds, which is what makes a wake-up per frame unnecessary.
pub struct CaptureRing {
    ring: RingBuf<MapData>,
}

impl CaptureRing {
    /// Hands over everything that waits; never waits itself. How many frames there were.
    pub fn drain(&mut self, mut each: impl FnMut(Capture<'_>)) -> usize {
        let mut frames = 0;
        while let Some(item) = self.ring.next() {
            // The kernel half writes nothing else; what is not a record is none.
            if let Some(capture) = decode(&item) {
                each(capture);
                frames += 1;
            }
        }
        frames
    }

    /// Its size in bytes.
    pub const fn bytes(&self) -> usize {
        CAPTURES_BYTES
    }
}

impl AsFd for CaptureRing {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ring.as_fd()
    }
}

/// A record as it lies in the ring, or in the recorder's memory.
fn decode(record: &[u8]) -> Option<Capture<'_>> {
    let short = |at: usize| Some(u16::from_ne_bytes(*record.get(at..)?.first_chunk()?));
    let word = |at: usize| Some(u32::from_ne_bytes(*record.get(at..)?.first_chunk()?));
    let long = |at: usize| Some(u64::from_ne_bytes(*record.get(at..)?.first_chunk()?));
    let about = Captured {
        time_ns: long(0)?,
        sessions: long(8)?,
        length: word(16)?,
        captured: word(20)?,
        reason: word(24)?,
        ingress: short(28)?,
        egress: short(30)?,
        gso_size: short(32)?,
        outcome: *record.get(34)?,
        way: *record.get(35)?,
        reserved: 0,
    };
    let bytes = record.get(size_of::<Captured>()..)?.get(..about.captured as usize)?;
    Some(Capture { about, bytes })
}
