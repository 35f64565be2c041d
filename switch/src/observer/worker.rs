//! The thread: sweeps, and answers between two sweeps.

use std::collections::{HashMap, HashSet};
use std::mem;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use switch_common::PortId;
use switch_common::flow::FlowValue;

use super::busiest;
use super::recent::Recent;
use super::{Losses, Outlet, Request, Seen, Shared, Source, hold};
use crate::flow::{Conversation, Entry, Limits, RawKey, Record, Tracker};
use crate::reflex::ReflexError;

/// How often entries are read.
const EVERY: Duration = Duration::from_secs(1);

/// All that the thread owns.
pub(super) struct Worker<S> {
    source: S,
    switch: String,
    shared: Arc<Shared>,
    outlets: Vec<Box<dyn Outlet>>,
    tracker: Tracker,
    recent: Recent,
    /// What the last sweep read.
    entries: Vec<Entry>,
    /// What was dead in the last sweep: it is deleted if the next one finds it unchanged.
    dying: HashMap<RawKey, FlowValue>,
    has_swept: bool,
    failed_sweeps: u64,
}

impl<S: Source> Worker<S> {
    pub(super) fn new(
        source: S,
        switch: String,
        limits: Limits,
        shared: Arc<Shared>,
        outlets: Vec<Box<dyn Outlet>>,
    ) -> Self {
        Self {
            source,
            switch,
            shared,
            outlets,
            tracker: Tracker::new(limits),
            recent: Recent::default(),
            entries: Vec::new(),
            dying: HashMap::new(),
            has_swept: false,
            failed_sweeps: 0,
        }
    }

    /// Sweeps and answers until told to stop, or until there is nobody left to ask.
    pub(super) fn run(mut self, requests: &Receiver<Request>) {
        loop {
            let began = Instant::now();
            self.sweep();
            // However long a sweep takes, as much time is left to others.
            let next = Instant::now() + EVERY.saturating_sub(began.elapsed()).max(began.elapsed().min(EVERY));
            // Who asks without a pause does not put off the next sweep.
            while Instant::now() < next {
                match requests.recv_timeout(next.saturating_duration_since(Instant::now())) {
                    Ok(Request::Stop { tell, done }) => {
                        self.stop(tell);
                        // The outlets have written what they were given before who asked goes on.
                        drop(self);
                        return answer(done, ());
                    }
                    Ok(request) => self.serve(request),
                    Err(RecvTimeoutError::Timeout) => break,
                    Err(RecvTimeoutError::Disconnected) => return,
                }
            }
        }
    }

    fn serve(&mut self, request: Request) {
        match request {
            Request::Records { filter, last, answer: asker } => {
                let names = self.shared.names();
                let live = self.tracker.live();
                answer(asker, self.recent.choose(live, names.as_ref(), &self.switch, &filter, last));
            }
            Request::Busiest { wanted, answer: asker } => {
                let names = self.shared.names();
                answer(asker, busiest::choose(&self.tracker, &self.recent, &names, &self.switch, &wanted));
            }
            Request::PortsGone { ids, done } => {
                self.ports_gone(&ids);
                answer(done, ());
            }
            Request::Sweep { done } => {
                self.sweep();
                answer(done, ());
            }
            Request::Nothing { done } | Request::Stop { done, .. } => answer(done, ()),
        }
    }

    /// Reads all entries, tells what ended, and deletes what was dead before and is unchanged.
    pub(super) fn sweep(&mut self) {
        if self.has_swept && self.tracker.is_empty() && self.source.is_empty() {
            // What was told before may be lost yet.
            if self.losses() != hold(&self.shared.seen).losses {
                self.leave_seen(Duration::ZERO);
            }
            return;
        }
        let began = Instant::now();
        match self.look().and_then(|dead| self.bury(dead)) {
            Ok(()) => self.has_swept = true,
            Err(error) => {
                self.failed_sweeps += 1;
                tracing::warn!(%error, "the flows could not be read; this is tried again");
            }
        }
        self.leave_seen(began.elapsed());
    }

    /// Reads all entries and tells what ended; what is dead.
    fn look(&mut self) -> Result<Vec<RawKey>, ReflexError> {
        if !self.dying.is_empty() {
            self.source.grace()?;
        }
        self.entries.clear();
        self.entries.shrink_to(2 * self.tracker.len());
        self.source.read(&mut self.entries)?;
        let now = self.source.now()?;
        let swept = self.tracker.sweep(&self.entries, now);
        self.tell(&swept.ended);
        Ok(swept.dead)
    }

    /// Deletes what was dying and is unchanged; notes what is dying now.
    fn bury(&mut self, dead: Vec<RawKey>) -> Result<(), ReflexError> {
        let before = mem::take(&mut self.dying);
        if dead.is_empty() {
            return Ok(());
        }
        let mut dying: HashMap<RawKey, FlowValue> = dead.into_iter().map(|key| (key, FlowValue::default())).collect();
        let mut unchanged = Vec::new();
        for entry in &self.entries {
            let Some(value) = dying.get_mut(&entry.key) else { continue };
            *value = entry.value;
            if before.get(&entry.key).map(counted) == Some(counted(&entry.value)) {
                unchanged.push(*entry);
            }
        }
        for entry in &unchanged {
            dying.remove(&entry.key);
        }
        self.dying = dying;
        self.delete(&unchanged)
    }

    /// Deletes entries that no program touches any more, and tells what ended thereby.
    fn delete(&mut self, entries: &[Entry]) -> Result<(), ReflexError> {
        self.source.free(entries)?;
        for entry in entries {
            self.tracker.deleted(&entry.key, &entry.value);
        }
        let ended = self.tracker.take_ended();
        self.tell(&ended);
        Ok(())
    }

    /// Ends the conversations of ports, however many, in one reading of the entries.
    fn ports_gone(&mut self, ids: &[PortId]) {
        let began = Instant::now();
        let numbers: HashSet<u16> = ids.iter().map(|id| id.get()).collect();
        let is_idle = self.tracker.is_empty() && self.source.is_empty();
        if !is_idle && let Err(error) = self.end_those_of(&numbers) {
            self.failed_sweeps += 1;
            tracing::warn!(?ids, %error, "the flows of ports that are gone could not all be deleted");
        }
        self.tracker.forget_ports(&numbers);
        let mut names = hold(&self.shared.names);
        let known = Arc::make_mut(&mut names);
        for id in ids {
            known.remove(*id);
        }
        drop(names);
        if !is_idle {
            self.leave_seen(began.elapsed());
        }
    }

    fn end_those_of(&mut self, ports: &HashSet<u16>) -> Result<(), ReflexError> {
        self.look()?;
        self.tracker.ports_gone(ports);
        let theirs: Vec<Entry> =
            self.entries.iter().filter(|entry| ports.contains(&entry.key.ingress())).copied().collect();
        self.delete(&theirs)
    }

    /// The last sweep, and with `tell` all that goes on.
    fn stop(&mut self, tell: bool) {
        self.sweep();
        if tell {
            let last = self.tracker.stop();
            self.tell(&last);
            self.leave_seen(Duration::ZERO);
        }
    }

    fn tell(&mut self, ended: &[Conversation]) {
        if ended.is_empty() {
            return;
        }
        let names = self.shared.names();
        for told in ended {
            let record = Arc::new(Record::new(told, &self.switch, names.as_ref()));
            for outlet in &mut self.outlets {
                outlet.offer(&record);
            }
            // That nobody follows is no loss.
            self.shared.followers.send(Arc::clone(&record)).ok();
            self.recent.push(record);
        }
    }

    fn losses(&self) -> Losses {
        Losses {
            records_log: self.outlets.iter().map(|outlet| outlet.lost()).sum(),
            records_follow: self.shared.follow_lost.load(Ordering::Relaxed),
            sweeps: self.failed_sweeps,
        }
    }

    fn leave_seen(&self, took: Duration) {
        let losses = self.losses();
        let mut seen = hold(&self.shared.seen);
        let flows_max = seen.flows_max;
        *seen = Arc::new(Seen {
            totals: self.tracker.totals().clone(),
            flows: self.tracker.len() as u64,
            flows_max,
            sweep_took: took,
            losses,
            swept_at: Timestamp::now(),
        });
    }
}

/// The value without its copy of a verdict: that is not counted, and comes and goes with the pair's.
fn counted(value: &FlowValue) -> FlowValue {
    FlowValue { route: 0, guard: 0, ..*value }
}

/// Who asked may have gone.
fn answer<T>(asker: tokio::sync::oneshot::Sender<T>, answer: T) {
    drop(asker.send(answer));
}
