//! The loop: receive a batch, decide, deliver, and teach the reflex.
//!
//! ```text
//! wait ─▶ commands ─▶ receive a batch ─▶ decide ─▶ deliver ─▶ settle ─▶ teach ─▶ tick
//! ```
//!
//! One thread owns the stations, the ports' policy and the verdicts the kernel remembers; nothing else touches them, so
//! there is no lock. Everybody else sends [`commands`], which are carried out between two batches.
//!
//! **Order.** A frame must not overtake an earlier one of its pair that is still on its way through the brain. A verdict
//! is therefore installed *armed*: the reflex follows it only when nothing of that ingress port is in flight (what it
//! punted equals what the brain settled), and disarms it then. A frame is settled after its last copy was handed out. A
//! port that never falls quiet would keep its verdicts armed for ever; after [`verdicts::BACKLOG_MAX`] of unbroken
//! backlog the verdict is installed unarmed, and counted as forced.
//!
//! **Cost** of one frame: two system calls (receive, and one transmit per copy), two hash look-ups (source,
//! destination), no allocation. The first frame of a pair pays a third call, to install the verdict.

pub mod commands;
mod drain;
pub mod thread;
pub mod verdicts;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use switch_common::{
    DropReason, MacAddr, PORT_SLOTS, PairKey, PairVerdict, PortId, VERDICT_DROP, VERDICT_FORWARD, VERDICT_FORWARD_PEER,
    VlanId, Way,
};

use crate::capture::sieve::{Sieve, Sight};
use crate::capture::stream::Outcome;
use crate::events::sighting::{Reporter, Sighting};
use crate::evidence::Witness;
use crate::fdb::{Learned, Nanos, Station};
use crate::forwarding::{self, Decision, Tables, Verdict};
use crate::frame::{Frame, Trust};
use crate::notes::Notepad;
use crate::port::{FrameBuffer, FrameOrigin, Medium, TransmitError};
use crate::reflex::BrainPage;
use drain::Drain;
use verdicts::VerdictCache;

/// Frames handled before commands are looked at again.
const BATCH: usize = 64;

/// Where a port's copies go in the kernel: what a verdict needs beyond the port's id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// Interface index of the netdev.
    pub ifindex: u32,
    /// The container interface's own address, when frames to it may enter the container directly.
    pub peer_mac: Option<MacAddr>,
}

/// Whether the loop should wait or go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing waits any more.
    Idle,
    /// There may be more.
    More,
}

/// The switch in user space: where frames come from, what is known, and who is taught.
pub struct Loop<M, C> {
    medium: M,
    verdicts: C,
    tables: Tables,
    links: Vec<Option<Link>>,
    brain: Arc<BrainPage>,
    witness: Option<Witness>,
    reporter: Option<Reporter>,
    notes: Option<Notepad>,
    sieve: Option<Box<Sieve>>,
    buffer: FrameBuffer,
    drain: Drain,
    egress: Vec<PortId>,
    refused: Vec<(PortId, DropReason)>,
    idle: Vec<Station>,
    next_sweep: Option<Nanos>,
    sweep_every: Duration,
    tells_origins: bool,
}

impl<M: Medium, C: VerdictCache> Loop<M, C> {
    /// A loop without ports. Stations that are silent for `aging` are forgotten.
    pub fn new(medium: M, verdicts: C, tables: Tables, brain: Arc<BrainPage>, aging: Duration) -> Self {
        Self {
            medium,
            verdicts,
            tables,
            links: vec![None; PORT_SLOTS],
            brain,
            witness: None,
            reporter: None,
            notes: None,
            sieve: None,
            buffer: FrameBuffer::new(),
            drain: Drain::default(),
            egress: Vec::with_capacity(PORT_SLOTS),
            refused: Vec::new(),
            idle: Vec::new(),
            next_sweep: None,
            sweep_every: (aging / 8).clamp(Duration::from_millis(100), Duration::from_mins(1)),
            tells_origins: false,
        }
    }

    /// The same, with evidence kept of what it drops.
    #[must_use]
    pub fn witnessed_by(self, witness: Witness) -> Self {
        Self { witness: Some(witness), ..self }
    }

    /// The same, with a report of stations that are new or come from another port.
    #[must_use]
    pub fn reported_by(self, reporter: Reporter) -> Self {
        Self { reporter: Some(reporter), ..self }
    }

    /// The same, with notes made of the flows whose frames it does not let in.
    #[must_use]
    pub fn noted_by(self, notes: Notepad) -> Self {
        Self { notes: Some(notes), ..self }
    }

    /// The medium, for who feeds it by hand.
    pub fn medium(&mut self) -> &mut M {
        &mut self.medium
    }

    /// What the switch knows.
    pub fn tables(&mut self) -> &mut Tables {
        &mut self.tables
    }

    /// Receives and switches up to a batch of frames.
    ///
    /// # Errors
    /// Only when the medium itself has ended.
    pub fn step(&mut self, now: Nanos) -> io::Result<Step> {
        for _ in 0..BATCH {
            let Some(ingress) = self.medium.receive(&mut self.buffer)? else {
                self.verdicts.backlog_ended();
                self.drain.found_empty();
                return Ok(Step::Idle);
            };
            self.switch(ingress, now);
        }
        self.drain.received(BATCH);
        Ok(Step::More)
    }

    /// Decides about the frame in the buffer, delivers its copies, settles it, and teaches the reflex.
    fn switch(&mut self, ingress: PortId, now: Nanos) {
        let first = self.tells_origins.then_some(FrameOrigin { ingress, again: false });
        self.buffer.origin.set(first);
        let trust = self.tables.port(ingress).map_or(Trust::Guest, |port| port.trust);
        let account = self.brain.port(ingress.index());
        if self.buffer.is_full() {
            account.drop_frame(Way::Ingress, DropReason::TooBig, self.buffer.frame().len() as u64);
            see(&mut self.witness, &self.buffer, (ingress, Way::Ingress, DropReason::TooBig), now);
            note(self.notes.as_ref(), &self.buffer, ingress, DropReason::TooBig);
            self.show(ingress, Outcome::Dropped, Some(DropReason::TooBig), None);
            return self.settle(ingress);
        }
        let frame = match Frame::check(self.buffer.frame(), self.buffer.offload, trust) {
            Ok(frame) => frame,
            Err(reason) => {
                account.drop_frame(Way::Ingress, reason, self.buffer.frame().len() as u64);
                see(&mut self.witness, &self.buffer, (ingress, Way::Ingress, reason), now);
                note(self.notes.as_ref(), &self.buffer, ingress, reason);
                self.show(ingress, Outcome::Dropped, Some(reason), None);
                return self.settle(ingress);
            }
        };
        let decision = forwarding::decide(&mut self.tables, ingress, &frame, now);
        report(self.reporter.as_ref(), decision.learned, ingress, frame.source(), now);
        if let Learned::Moved { .. } = decision.learned {
            self.verdicts.forget_station(VlanId::default(), frame.source());
        }
        if let Learned::Added { evicted: Some(gone) } | Learned::Moved { evicted: Some(gone), .. } = decision.learned {
            self.verdicts.forget_station(gone.vlan, gone.mac);
        }
        self.egress.clear();
        self.refused.clear();
        let (outcome, reason) = match decision.verdict {
            Verdict::Forward(egress) => {
                account.forwarded.add(1);
                self.egress.push(egress);
                (Outcome::Forwarded, None)
            }
            Verdict::Flood => {
                self.egress.extend(self.tables.flood_ports(ingress).map(|port| port.id));
                account.flooded.add(1);
                account.flood_eligible.add(self.egress.len() as u64);
                self.brain.port(0).flood_eligible.add(self.egress.len() as u64);
                self.brain.port(0).flood_copies.add(self.egress.len() as u64);
                for egress in &self.egress {
                    self.brain.port(egress.index()).flood_copies.add(1);
                }
                (Outcome::Flooded, None)
            }
            Verdict::Drop(reason) => {
                account.drop_frame(Way::Ingress, reason, frame.len_bytes());
                see(&mut self.witness, &self.buffer, (ingress, Way::Ingress, reason), now);
                note(self.notes.as_ref(), &self.buffer, ingress, reason);
                (Outcome::Dropped, Some(reason))
            }
        };
        if self.is_copied_at_once(ingress, &frame, outcome, first) {
            let (medium, brain) = (&mut self.medium, &self.brain);
            if let Err(reason) = copy_to_all(medium, brain, &self.buffer, ingress, &self.egress) {
                for egress in &self.egress {
                    see(&mut self.witness, &self.buffer, (*egress, Way::Egress, reason), now);
                    self.refused.push((*egress, reason));
                }
            }
        } else {
            for egress in &self.egress {
                match deliver(&mut self.medium, &self.tables, &self.brain, &self.buffer, &frame, *egress) {
                    Ok(()) => self.buffer.origin.set(first.map(|first| FrameOrigin { again: true, ..first })),
                    Err(reason) => {
                        see(&mut self.witness, &self.buffer, (*egress, Way::Egress, reason), now);
                        self.refused.push((*egress, reason));
                    }
                }
            }
        }
        // The one copy that was refused was all there was of the frame.
        let outcome =
            if outcome == Outcome::Forwarded && !self.refused.is_empty() { Outcome::Dropped } else { outcome };
        let wire_frames = u16::try_from(frame.wire_frames()).unwrap_or(u16::MAX);
        let lesson = self.lesson(ingress, &frame, &decision);
        self.show(ingress, outcome, reason, Some(wire_frames));
        self.settle(ingress);
        if let Some((key, verdict)) = lesson {
            self.verdicts.teach(key, verdict, now, account_forced(&self.brain, ingress));
        }
        self.arm_sweep(now);
    }

    /// Whether the kernel half is to make the copies: of a flood that every port takes, when no mirror wants to know where they come from.
    fn is_copied_at_once(
        &self,
        ingress: PortId,
        frame: &Frame<'_>,
        outcome: Outcome,
        origin: Option<FrameOrigin>,
    ) -> bool {
        let all_fit = || self.tables.flood_ports(ingress).all(|port| forwarding::fits(port, frame));
        outcome == Outcome::Flooded && origin.is_none() && self.medium.floods() && all_fit()
    }

    /// Shows the frame in the buffer to who captures, with its fate; `segments` when it is whole and was weighed.
    fn show(&self, ingress: PortId, outcome: Outcome, reason: Option<DropReason>, segments: Option<u16>) {
        let Some(sieve) = &self.sieve else { return };
        let is_decided = segments.is_some();
        let segments = segments
            .filter(|_| self.buffer.offload.is_segmented())
            .map(|segments| (self.buffer.offload.gso_size(), segments));
        let (egress, refused) = if is_decided { (&*self.egress, &*self.refused) } else { (&[][..], &[][..]) };
        sieve.see(self.buffer.frame(), &Sight { ingress, outcome, reason, egress, refused, segments });
    }

    /// Books the frame as done: the reflex may forward what follows by itself.
    fn settle(&self, ingress: PortId) {
        self.brain.port(0).settle(self.buffer.odd);
        self.brain.port(ingress.index()).settle(self.buffer.odd);
    }

    /// What the reflex may repeat for the frames that follow, if anything.
    fn lesson(&self, ingress: PortId, frame: &Frame<'_>, decision: &Decision) -> Option<(PairKey, PairVerdict)> {
        if !decision.cacheable {
            return None;
        }
        let key = PairKey {
            destination: frame.destination().0,
            source: frame.source().0,
            ingress: ingress.get(),
            vlan: VlanId::default().0,
        };
        let verdict = match decision.verdict {
            Verdict::Forward(egress) => {
                let link = self.link(egress)?;
                let peer = link.peer_mac == Some(frame.destination());
                PairVerdict {
                    ifindex: link.ifindex,
                    frame_bytes_max: self.tables.port(egress)?.frame_bytes_max,
                    egress: egress.get(),
                    action: if peer { VERDICT_FORWARD_PEER } else { VERDICT_FORWARD },
                    ..PairVerdict::default()
                }
            }
            Verdict::Drop(reason) => {
                PairVerdict { action: VERDICT_DROP, reason: reason as u8, ..PairVerdict::default() }
            }
            Verdict::Flood => return None,
        };
        Some((key, verdict))
    }

    fn link(&self, port: PortId) -> Option<Link> {
        self.links.get(port.index()).copied().flatten()
    }

    /// Sees to it that a sweep will come once there is a station that could age.
    fn arm_sweep(&mut self, now: Nanos) {
        if self.next_sweep.is_none() && !self.tables.fdb.is_empty() {
            self.next_sweep = Some(now + self.sweep_every);
        }
    }

    /// When [`Self::tick`] is due, if ever.
    pub fn next_tick(&self) -> Option<Nanos> {
        self.next_sweep
    }

    /// Ages stations. One that the reflex forwarded for since the last sweep is alive, though the brain saw nothing.
    pub fn tick(&mut self, now: Nanos) {
        if self.next_sweep.is_none_or(|due| due > now) {
            return;
        }
        let tables = &mut self.tables;
        self.verdicts.seen_since_last(&mut |key| {
            if let Some(port) = PortId::new(key.ingress) {
                tables.fdb.touch(VlanId(key.vlan), MacAddr(key.source), port, now);
            }
        });
        self.idle.clear();
        tables.fdb.idle(now, &mut self.idle);
        for station in &self.idle {
            tables.fdb.expire(station.vlan, station.mac);
            self.verdicts.forget_station(station.vlan, station.mac);
        }
        self.next_sweep = if tables.fdb.is_empty() { None } else { Some(now + self.sweep_every) };
    }
}

/// Tells of a station that is where it was not before, where somebody wants to know.
fn report(reporter: Option<&Reporter>, learned: Learned, port: PortId, mac: MacAddr, time: Nanos) {
    let from = match learned {
        Learned::Added { .. } => None,
        Learned::Moved { from, .. } => Some(from),
        Learned::Known | Learned::Damped | Learned::Static | Learned::Refused | Learned::NotLearned => return,
    };
    if let Some(reporter) = reporter {
        reporter.report(Sighting { time, port, mac, from });
    }
}

fn account_forced(brain: &BrainPage, ingress: PortId) -> &crate::reflex::Cell {
    &brain.port(ingress.index()).forced_installs
}

/// Keeps evidence of a drop, where it is wanted.
fn see(
    witness: &mut Option<Witness>,
    buffer: &FrameBuffer,
    (port, way, reason): (PortId, Way, DropReason),
    now: Nanos,
) {
    if let Some(witness) = witness {
        witness.see(port, way, reason, buffer.frame(), now);
    }
}

/// Notes by its flow that a frame is not let in, where that is wanted.
fn note(notes: Option<&Notepad>, buffer: &FrameBuffer, ingress: PortId, reason: DropReason) {
    if let Some(notes) = notes {
        notes.note(ingress, buffer, reason);
    }
}

/// Has the kernel half make the copies of a flooded frame. They are booked before they are made, as in [`deliver`]: what a killed brain has
/// booked and not written is found by the next one.
///
/// # Errors
/// There are none of them, and each is booked as dropped.
fn copy_to_all<M: Medium>(
    medium: &mut M,
    brain: &BrainPage,
    buffer: &FrameBuffer,
    ingress: PortId,
    egress: &[PortId],
) -> Result<(), DropReason> {
    for port in egress {
        brain.port(port.index()).copies.add(1);
    }
    medium.flood(buffer, ingress).map_err(|_refused| {
        for port in egress {
            let bytes = buffer.frame().len() as u64;
            brain.port(port.index()).drop_frame(Way::Egress, DropReason::InjectFailed, bytes);
        }
        DropReason::InjectFailed
    })
}

/// Hands one copy to a port, or books why not.
fn deliver<M: Medium>(
    medium: &mut M,
    tables: &Tables,
    brain: &BrainPage,
    buffer: &FrameBuffer,
    frame: &Frame<'_>,
    egress: PortId,
) -> Result<(), DropReason> {
    let account = brain.port(egress.index());
    account.copies.add(1);
    let outcome = match tables.port(egress) {
        None => Err(DropReason::EgressGone),
        Some(port) if !forwarding::fits(port, frame) => Err(DropReason::TooBig),
        Some(_) => medium.transmit(buffer, egress).map_err(|error| match error {
            TransmitError::Gone => DropReason::EgressGone,
            TransmitError::Refused(_) => DropReason::InjectFailed,
        }),
    };
    if let Err(reason) = outcome {
        account.drop_frame(Way::Egress, reason, frame.len_bytes());
    }
    outcome
}
