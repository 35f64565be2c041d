//! The thread: sleeps until something is there or a second has passed, and looks at everything then.

use std::sync::mpsc::{Receiver, TryRecvError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use switch_common::PortId;

use super::book::Book;
use super::{REST, Request, Seen, Setup};
use crate::dataplane::thread::now;
use crate::events::Event;
use crate::events::sighting::Sighting;
use crate::evidence::time_of_day;
use crate::fdb::Nanos;
use crate::names::{Port, PortSeen, Register};
use crate::observer::{Observer, PortNames};
use crate::port::spec::Origin;
use crate::reflex::HeardFrame;

/// How long the thread sleeps when nobody wakes it, and how often it looks at ports and clocks.
const NAP: Duration = Duration::from_secs(1);
/// Frames that are taken from the ring before others are served.
const BATCH: usize = 4096;

/// All that the thread owns.
pub(super) struct Worker {
    setup: Setup,
    observer: Observer,
    register: Register,
    book: Book,
    /// Something has changed that is not on disk.
    is_dirty: bool,
    next_look: Instant,
    seen: Arc<Mutex<Arc<Seen>>>,
}

/// One moment by both clocks.
struct Moment {
    at: Nanos,
    wall: Timestamp,
}

impl Moment {
    fn now() -> Self {
        Self { at: now(), wall: Timestamp::now() }
    }

    fn of(&self, time: Nanos) -> Timestamp {
        time_of_day(time, self.at, self.wall)
    }
}

impl Worker {
    pub(super) fn new(setup: Setup, observer: Observer, seen: Arc<Mutex<Arc<Seen>>>) -> Self {
        let book = Book::new(&setup.state_dir);
        let mut register = Register::new(setup.limits);
        if let Some(saved) = book.read() {
            register.restore(saved);
        }
        let next_look = Instant::now();
        Self { setup, observer, register, book, is_dirty: false, next_look, seen }
    }

    /// Works until told to stop, or until nobody is left who could.
    pub(super) fn run(mut self, requests: &Receiver<Request>) {
        loop {
            self.look();
            loop {
                match requests.try_recv() {
                    Ok(Request::Who { subject, at, answer }) => {
                        // Who asked may have gone.
                        answer.send(self.register.who(&subject, at)).ok();
                    }
                    Ok(Request::Stop { done }) => {
                        self.book.write(&self.register);
                        done.send(()).ok();
                        return;
                    }
                    Err(TryRecvError::Disconnected) => return,
                    Err(TryRecvError::Empty) => break,
                }
            }
            self.sleep();
        }
    }

    fn sleep(&mut self) {
        let left = self.next_look.saturating_duration_since(Instant::now());
        let nap = Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: left.subsec_nanos().into() };
        let mut fds = vec![PollFd::new(&self.setup.bell, PollFlags::IN)];
        fds.extend(self.setup.heard.as_ref().map(|ring| PollFd::new(ring, PollFlags::IN)));
        let woken = poll(&mut fds, Some(&nap));
        let has_heard = fds.get(1).is_some_and(|ring| !ring.revents().is_empty());
        drop(fds);
        match woken {
            // What comes meanwhile is taken with it.
            Ok(_) if has_heard => std::thread::sleep(REST),
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => {
                tracing::warn!(%error, "the clerk cannot sleep");
                std::thread::sleep(NAP);
            }
        }
        // Empties the bell; it says no more than "look".
        rustix::io::read(&self.setup.bell, &mut [0; 8]).ok();
    }

    fn look(&mut self) {
        let names = self.observer.names();
        let moment = Moment::now();
        while let Some(sighting) = self.setup.sightings.next() {
            self.see(&sighting, &names, &moment);
        }
        if let Some(mut ring) = self.setup.heard.take() {
            let heard = ring.drain(BATCH, |frame| self.hear(frame, &names, &moment));
            self.is_dirty |= heard > 0;
            self.setup.heard = Some(ring);
        }
        if self.next_look <= Instant::now() {
            self.next_look = Instant::now() + NAP;
            self.look_at_ports(&names, &moment);
        }
        if self.is_dirty && self.book.is_due() {
            self.is_dirty = !self.book.write(&self.register);
        }
    }

    fn tell(&self, event: Event, at: Nanos) {
        self.setup.events.tell(event, at);
    }

    fn see(&mut self, sighting: &Sighting, names: &PortNames, moment: &Moment) {
        let name = |id: PortId| names.get(id).map(|port| Port::from(port.name.as_str()));
        // A port that is no more has no name, and nobody to tell of.
        let Some(port) = name(sighting.port) else { return };
        let from = sighting.from.and_then(name);
        let event = self.register.see(sighting.mac, &port, from, moment.of(sighting.time));
        self.is_dirty = true;
        if let Some(event) = event {
            self.tell(event, sighting.time);
        }
    }

    fn hear(&mut self, frame: &HeardFrame, names: &PortNames, moment: &Moment) {
        let Some(port) = names.get(frame.port) else { return };
        let admits = |mac| port.macs.is_empty() || port.macs.iter().any(|admitted| admitted.0 == mac);
        let name = Port::from(port.name.as_str());
        let events = self.register.hear(&name, &frame.bytes, admits, (frame.time, moment.of(frame.time)));
        for event in events {
            self.tell(event, frame.time);
        }
    }

    /// What happens because nothing happens: ports fall silent, answers do not come.
    fn look_at_ports(&mut self, names: &PortNames, moment: &Moment) {
        let totals = self.observer.seen();
        let has_config = self.setup.has_config;
        let ports: Vec<PortSeen> = names
            .iter()
            .map(|(id, port)| PortSeen {
                name: Port::from(port.name.as_str()),
                last_useful: totals.totals.ports.get(&id.get()).and_then(|health| health.last_useful),
                is_unconfigured: has_config && port.origin == Origin::Command,
            })
            .collect();
        let fallen = self.register.look(&ports, moment.wall);
        self.is_dirty |= !fallen.is_empty();
        for event in fallen.into_iter().chain(self.register.give_up(moment.at)) {
            self.tell(event, moment.at);
        }
        let seen = Seen {
            dns: self.register.dns().clone(),
            dormant: self.register.dormant().map(|(port, is_dormant)| (port.clone(), is_dormant)).collect(),
            bindings: self.register.bindings() as u64,
            bindings_max: self.setup.limits.bindings_max as u64,
            evicted: self.register.evicted(),
        };
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(seen);
    }
}
