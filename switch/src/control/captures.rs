//! Captures: from a request to masks in the kernel, a rule in the loop and a queue in the hub, and back.
//!
//! ```text
//! begin   filter ─ audit ─▶ hub (a queue that takes what comes) ─▶ loop ─▶ reflex: from here on frames come
//! end     reflex ─ grace ─▶ loop: from here on none come ─▶ hub (takes what waits, says the end) ─▶ audit
//! ```
//!
//! **Invariant.** A bit is given to another session only when nothing is on its way any more that bears it: a session's frames are its
//! own. Whoever ends a session (its reader, a limit, the clock, the daemon) does so through one task that attends to it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use switch_common::{DropReason, PortId};
use tokio::sync::oneshot;

use super::{Control, ControlError, errors};
use crate::capture::account::Account;
use crate::capture::audit::{Audit, Peer};
use crate::capture::hub::Hub;
use crate::capture::reel::Reeling;
use crate::capture::session::{Closing, Feed, Keep, Opening};
use crate::capture::sieve::{PortSet, Rule, Sieve, Wanted};
use crate::capture::stream::{self, Begin, EndReason};
use crate::capture::{Request, Running, clock};
use crate::dataplane::commands::Command;
use crate::fdb::Nanos;
use crate::filter::Program;
use crate::port::PortSpec;
use crate::port::attach::Attached;
use crate::port::spec::Mac;
use crate::reflex::{Kind, Ports, ReflexError, Wish};

/// Numbers that the kernel's reasons have at most.
const KERNEL_REASONS: u32 = 256;

/// A session as control knows it.
pub(super) struct Session {
    pub(super) running: Running,
    pub(super) bit: u8,
    rule: Rule,
    ports: Vec<PortId>,
    /// What became of what was found for it.
    pub(super) account: Arc<Account>,
    /// Frames that its ports had received when it began.
    received: BTreeMap<PortId, u64>,
    /// Tells who attends to it that it is to end.
    pub(super) stop: Option<oneshot::Sender<EndReason>>,
}

/// The recorder as control knows it.
pub(super) struct Recorder {
    rule: Rule,
    /// What became of what was found for it.
    pub(super) account: Arc<Account>,
}

impl Recorder {
    pub(super) fn bit(&self) -> u8 {
        self.rule.bit
    }
}

/// What control keeps of captures.
pub(super) struct Captures {
    pub(super) hub: Hub,
    audit: Audit,
    pub(super) sessions: BTreeMap<u64, Session>,
    last: u64,
    /// The recorder, when it is on.
    pub(super) recorder: Option<Recorder>,
    /// Held by those who attend to sessions.
    pub(super) attended: Arc<()>,
}

/// What was begun, for who attends to it.
pub(super) struct Begun {
    pub(super) session: u64,
    pub(super) feed: Feed,
    pub(super) duration: Option<Duration>,
    pub(super) finished: oneshot::Receiver<EndReason>,
    pub(super) stop: oneshot::Receiver<EndReason>,
    pub(super) attended: Arc<()>,
}

impl Captures {
    /// None yet.
    pub(super) fn new(hub: Hub, audit: Audit) -> Self {
        Self { hub, audit, sessions: BTreeMap::new(), last: 0, recorder: None, attended: Arc::new(()) }
    }
}

impl Control {
    /// Says what a port is called in captures.
    pub(super) fn name_for_captures(&self, id: PortId, spec: &PortSpec, attached: Option<&Attached>) {
        let netdev = attached.map(|attached| &attached.ifname).or_else(|| super::attachment::wanted_netdev(spec));
        let own = || {
            let text = std::fs::read_to_string(format!("/sys/class/net/{}/address", attached?.ifname)).ok()?;
            text.trim().parse().ok()
        };
        let peer = attached.and_then(|attached| attached.peer_mac).map(Mac);
        let labels = spec.labels.iter().map(|(key, value)| format!("{key}={value}").escape_debug().to_string());
        let words: Vec<_> = netdev.map(|netdev| format!("netdev {netdev}")).into_iter().chain(labels).collect();
        self.captures.hub.name(stream::Port {
            id: id.get(),
            name: spec.name.to_string(),
            description: words.join(", "),
            mac: spec.macs.first().copied().or(peer).or_else(own),
        });
    }

    /// Begins a session.
    pub(super) async fn begin_capture(
        &mut self,
        request: Request,
        filter: Option<Arc<Program>>,
        peer: Peer,
    ) -> Result<Begun, ControlError> {
        let ports = self.ids_of(&request)?;
        let wish = self.capture_wish(&request, &ports, filter.clone())?;
        let Some(bit) = self.reflex.free_session(Kind::Capture) else {
            let message =
                "64 captures, mirrors and recorders run already, which is the most there can be; end one of them";
            return Err(ControlError::Busy(message.to_owned()));
        };
        let session = self.captures.last + 1;
        self.captures.audit.start(session, peer, &request).map_err(ControlError::Failed)?;
        self.captures.last = session;
        let (finish, finished) = oneshot::channel();
        let (stop, stopped) = oneshot::channel();
        let opening = self.opening(session, bit, &request, &ports, filter.as_deref());
        let feed =
            self.captures.hub.open(opening, finish).await.map_err(|ended| ControlError::Failed(ended.to_string()))?;
        let wanted = if request.dropped { Wanted::Dropped(request.reason.clone()) } else { Wanted::All };
        let set = port_set(&ports);
        let rule =
            Rule { bit, ports: set, wanted, filter: filter.as_deref().cloned(), bytes_max: request.keep().bytes_max() };
        let began = Timestamp::now();
        let duration = request.duration();
        let running = Running { session, began, uid: peer.uid, pid: peer.pid, request };
        // What the loop counted for a bit before is nobody's.
        self.captures.hub.reset_loop_counts(bit);
        let account = feed.account();
        let received = self.received(&ports);
        self.captures
            .sessions
            .insert(session, Session { running, bit, rule, ports, account, received, stop: Some(stop) });
        let shown = match self.show_rules().await {
            Ok(()) => self.watch(bit, Some(wish)),
            Err(error) => Err(error),
        };
        if let Err(error) = shown {
            self.finish_capture(session, EndReason::Failed).await;
            return Err(error);
        }
        let attended = Arc::clone(&self.captures.attended);
        Ok(Begun { session, feed, duration, finished, stop: stopped, attended })
    }

    /// Lets the recorder keep what comes from now on.
    pub(super) async fn start_recorder(&mut self) -> Result<(), ControlError> {
        let set = self.runtime.recorder;
        if !set.enabled {
            return Ok(());
        }
        let Some(bit) = self.reflex.free_session(Kind::Capture) else {
            return Err(ControlError::Busy("64 mirrors run already; there is no room for the recorder".to_owned()));
        };
        let reeling =
            Reeling { bit, bytes_per_port: set.bytes_per_port, age_max: set.age_max, keep: Keep::Bytes(set.snaplen) };
        let recorded = self.captures.hub.record(reeling).await;
        let account = recorded.map_err(|ended| ControlError::Failed(ended.to_string()))?;
        self.captures.hub.reset_loop_counts(bit);
        let rule = Rule { bit, ports: None, wanted: Wanted::All, filter: None, bytes_max: set.snaplen };
        self.captures.recorder = Some(Recorder { rule, account });
        self.show_rules().await?;
        let bytes_max = u32::try_from(set.snaplen).unwrap_or(u32::MAX);
        self.watch(bit, Some(Wish { dropped: Ports::All, bytes_max, ..Wish::all(Kind::Capture) }))
    }

    /// What the recorder has kept, as a session that has ended.
    pub(super) async fn recall(
        &mut self,
        request: &Request,
        filter: Option<&Program>,
        by: Result<Peer, &str>,
    ) -> Result<Feed, ControlError> {
        if self.captures.recorder.is_none() {
            let message =
                "the recorder is off; say enabled = true in [capture.recorder] of the configuration, and restart";
            return Err(ControlError::Invalid(message.to_owned()));
        }
        let ports = self.ids_of(request)?;
        if let Some(reason) = &request.reason {
            self.reasons_called(reason)?;
        }
        let session = self.captures.last + 1;
        let audit = &mut self.captures.audit;
        let audited = match by {
            Ok(peer) => audit.start(session, peer, request),
            Err(trigger) => audit.recording(session, trigger),
        };
        audited.map_err(ControlError::Failed)?;
        self.captures.last = session;
        let back = request.recall_ms.unwrap_or(u64::MAX).saturating_mul(1_000_000);
        let since = Nanos(clock::monotonic().0.saturating_sub(back));
        let opening = self.opening(session, 0, request, &ports, filter);
        let wanted = if request.dropped { Wanted::Dropped(request.reason.clone()) } else { Wanted::All };
        let recalled = self.captures.hub.recall(since, opening, wanted).await;
        let (feed, given) = recalled.map_err(|ended| ControlError::Failed(ended.to_string()))?;
        self.captures.audit.end(session, EndReason::Recalled, given);
        Ok(feed)
    }

    fn ids_of(&self, request: &Request) -> Result<Vec<PortId>, ControlError> {
        let id = |name| self.ports.get(name).map(|port| port.id).ok_or_else(|| errors::no_such_port(name));
        request.ports.iter().map(id).collect()
    }

    /// Ends a session and says what it was.
    pub(super) async fn finish_capture(&mut self, number: u64, reason: EndReason) {
        let Some(session) = self.captures.sessions.remove(&number) else { return };
        let bit = session.bit;
        if let Err(error) = self.watch(bit, None) {
            tracing::error!(capture = number, %error, "the kernel half could not be told of a capture's end");
        }
        if let Err(error) = self.show_rules().await {
            tracing::error!(capture = number, %error, "the loop could not be told of a capture's end");
        }
        let kernel = self.reflex.session_counts(bit).unwrap_or_default().kernel;
        let (matched, lost) = self.captures.hub.loop_counts(bit);
        let now = self.received(&session.ports);
        let since = |id: &PortId, frames: &u64| frames.saturating_sub(session.received.get(id).copied().unwrap_or(0));
        let closing = Closing {
            reason,
            ended_ns: clock::time_of_day_ns(),
            matched: kernel.matched.frames + matched,
            lost_early: kernel.lost.frames + lost,
            received: now.iter().map(|(id, frames)| (id.get(), since(id, frames))).collect(),
        };
        match self.captures.hub.close(bit, closing).await {
            Ok(given) => self.captures.audit.end(number, reason, given),
            Err(error) => tracing::error!(capture = number, %error, "a capture ended badly"),
        }
    }

    /// Tells the kernel half what a bit wants from now on.
    fn watch(&mut self, bit: u8, wish: Option<Wish>) -> Result<(), ControlError> {
        let mut sessions = self.reflex.sessions().clone();
        match wish {
            Some(wish) => sessions.insert(bit, wish),
            None => sessions.remove(&bit),
        };
        self.reflex.set_sessions(sessions).map_err(|error| match error {
            ReflexError::Filter { .. } => {
                ControlError::Invalid(format!("{}; use a simpler filter", errors::chain(&error)))
            }
            error => ControlError::Failed(errors::chain(&error)),
        })
    }

    /// Tells the loop what it is to show from now on, and waits until it does.
    async fn show_rules(&self) -> Result<(), ControlError> {
        let sessions = self.captures.sessions.values().map(|session| &session.rule);
        let rules: Vec<Rule> =
            sessions.chain(self.captures.recorder.as_ref().map(|recorder| &recorder.rule)).cloned().collect();
        let spout = self.captures.hub.spout();
        let sieve = (!rules.is_empty()).then(|| Box::new(Sieve::new(rules, spout)));
        Ok(self.commands.ask(|done| Command::Sieve { sieve, done }).await?)
    }

    fn capture_wish(
        &self,
        request: &Request,
        ports: &[PortId],
        filter: Option<Arc<Program>>,
    ) -> Result<Wish, ControlError> {
        let these = || if ports.is_empty() { Ports::All } else { Ports::These(ports.iter().copied().collect()) };
        let bytes_max = u32::try_from(request.keep().bytes_max()).unwrap_or(u32::MAX);
        let (reasons, kernel_reasons) = match (&request.reason, request.dropped) {
            (Some(label), _) => self.reasons_called(label)?,
            (None, true) => (u32::MAX, [u64::MAX; 4]),
            // A frame that was forwarded is there already; what the kernel did later is what `--dropped` is for.
            (None, false) => (u32::MAX, [0; 4]),
        };
        let on = || if request.dropped { Ports::None } else { these() };
        Ok(Wish {
            kind: Kind::Capture,
            filter,
            ingress: on(),
            egress: on(),
            dropped: these(),
            reasons,
            kernel_reasons,
            bytes_max,
        })
    }

    /// The numbers of a reason's label: ours, and the kernel's.
    fn reasons_called(&self, label: &str) -> Result<(u32, [u64; 4]), ControlError> {
        let ours =
            DropReason::ALL.iter().filter(|reason| reason.label() == label).fold(0, |all, it| all | 1 << *it as u8);
        let names = self.reflex.kernel_reasons();
        let mut theirs = [0_u64; 4];
        for number in (0..KERNEL_REASONS).filter(|number| names.label(*number) == label) {
            if let Some(word) = theirs.get_mut(number as usize / 64) {
                *word |= 1 << (number % 64);
            }
        }
        if ours == 0 && theirs == [0; 4] {
            let known: Vec<_> = DropReason::ALL.iter().map(|reason| reason.label()).collect();
            return Err(ControlError::Invalid(format!(
                "there is no drop reason '{}'; there are {}, ring_full, and the kernel's as `weft drops` shows them",
                label.escape_default(),
                known.join(", ")
            )));
        }
        Ok((ours, theirs))
    }

    fn opening(&self, session: u64, bit: u8, request: &Request, ports: &[PortId], filter: Option<&Program>) -> Opening {
        let uname = rustix::system::uname();
        let host = [uname.sysname(), uname.release()].map(|text| text.to_string_lossy().into_owned()).join(" ");
        let begin = Begin {
            session,
            switch: self.runtime.name.to_string(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            host,
            began_ns: clock::time_of_day_ns(),
            filter: request.filter.clone().unwrap_or_default(),
            snaplen: request.snaplen.unwrap_or(0),
            what: request.describe(),
        };
        Opening {
            bit,
            begin,
            ports: port_set(ports),
            keep: request.keep(),
            filter: filter.cloned(),
            frames_max: request.frames,
            bytes_max: request.bytes,
            distance_ns: clock::distance_ns(),
        }
    }

    /// Frames that ports have received; of all, if none is named.
    fn received(&self, ports: &[PortId]) -> BTreeMap<PortId, u64> {
        let ids: Vec<PortId> =
            if ports.is_empty() { self.ports.values().map(|port| port.id).collect() } else { ports.to_vec() };
        ids.into_iter().filter_map(|id| Some((id, self.reflex.counters(id).ok()?.ingress.frames))).collect()
    }
}

fn port_set(ports: &[PortId]) -> Option<PortSet> {
    (!ports.is_empty()).then(|| PortSet::new(ports.iter().map(|port| port.get())))
}
