//! Who looks on: sessions of captures and mirrors, told to the kernel half all at once.
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

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use aya::Ebpf;
use aya::maps::{Array, Map, MapData, PerCpuArray, ProgramArray};
use switch_common::{
    DropCell, PORT_SLOTS, PORT_WATCHED, PortWatch, SESSION_MIRROR, SESSION_NONE, SESSIONS_MAX, Session, SessionCounts,
    WATCHERS_FILTER, WATCHERS_SERVE,
};

use super::attach::{self, Netdev};
use super::captures::CaptureRing;
use super::error::ReflexError;
use super::maps::with_fd;
use super::wish::{Kind, Wish};
use super::{MIRROR_CUT, Reflex, program, sys};
use crate::filter::{Wanted, translate};
use crate::port::IfName;

/// The program that serves sessions.
const SERVE: &str = "watch";

/// Bits that there are.
#[expect(clippy::cast_possible_truncation, reason = "64")]
const BITS: u8 = SESSIONS_MAX as u8;

/// How the places are named where copies are cut.
const CUT_PLACE: &str = "mirror-";

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
    jump_fd: OwnedFd,
    /// The program that serves sessions.
    serve: OwnedFd,
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
        let mut jump = ProgramArray::try_from(jump).map_err(ReflexError::map("WATCHERS"))?;
        let ring = take(ebpf, "CAPTURES")?;
        let Map::RingBuf(data) = &ring else {
            return Err(ReflexError::Foreign { what: "ring buffer CAPTURES".to_owned() });
        };
        let ring = data.fd().as_fd().try_clone_to_owned().map_err(ReflexError::map("CAPTURES"))?;
        let mut watchers = Self {
            sessions: BTreeMap::new(),
            found: 0,
            masks: vec![PortWatch::default(); PORT_SLOTS],
            watch,
            table,
            counts,
            target_drops,
            jump_fd,
            serve: serve_fd.as_fd().try_clone_to_owned().map_err(ReflexError::map("WATCHERS"))?,
            captures: Some(CaptureRing::new(ring)),
        };
        watchers.keep_mirrors()?;
        jump.set(WATCHERS_SERVE, &serve_fd, 0).map_err(ReflexError::map("WATCHERS"))?;
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

    /// Makes the program of these sessions' filters, and has the kernel verify it. Without a filter it is the one that serves them: a jump
    /// that a frame is spared.
    fn load(&self, sessions: &BTreeMap<u8, Wish>) -> Result<OwnedFd, ReflexError> {
        let filters: Vec<Wanted<'_>> = sessions
            .iter()
            .filter_map(|(bit, wish)| Some(Wanted { bit: *bit, program: wish.filter.as_deref()? }))
            .collect();
        if filters.is_empty() {
            return self.serve.try_clone().map_err(|source| ReflexError::Filter { source });
        }
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
        let mut bits = 0..BITS;
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
        for bit in 0..BITS {
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

    /// Empties one of the two places that are jumped into, as if its program had never been there.
    #[cfg(test)]
    pub(super) fn empty_place(&self, place: u32) {
        sys::delete(self.watchers.jump_fd.as_fd(), &place).expect("it was there");
    }

    /// Puts the program that cuts copies on the targets of these mirrors, by bit, and takes it off all others.
    ///
    /// # Errors
    /// A target is gone, or the kernel refuses.
    pub fn cut_copies(&mut self, targets: &BTreeMap<u8, (IfName, u32)>) -> Result<(), ReflexError> {
        let place = |bit: u8| format!("{CUT_PLACE}{bit}");
        for old in self.dirs.places()?.iter().filter_map(|place| place.strip_prefix(CUT_PLACE)?.parse::<u8>().ok()) {
            if !targets.contains_key(&old) {
                attach::detach(&place(old), &self.dirs)?;
            }
        }
        for (bit, (ifname, ifindex)) in targets {
            let netdev = Netdev { ifname: ifname.as_str(), ifindex: *ifindex };
            let program = program(&mut self.ebpf, MIRROR_CUT)?;
            attach::attach_egress(program, netdev, &place(*bit), &self.dirs)?;
        }
        Ok(())
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
