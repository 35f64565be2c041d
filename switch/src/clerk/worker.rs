//! The thread: sleeps until the bell rings or a second has passed, and looks at everything then.

use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::Duration;

use jiff::Timestamp;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use switch_common::PortId;

use super::{Request, Setup};
use crate::dataplane::thread::now;
use crate::events::sighting::Sighting;
use crate::events::{Event, EventKind};
use crate::evidence::time_of_day;
use crate::flow::Names as _;
use crate::observer::{Observer, PortNames};
use crate::port::spec::Mac;

/// How long the thread sleeps when nobody wakes it.
const NAP: Duration = Duration::from_secs(1);

/// All that the thread owns.
pub(super) struct Worker {
    setup: Setup,
    observer: Observer,
}

impl Worker {
    pub(super) fn new(setup: Setup, observer: Observer) -> Self {
        Self { setup, observer }
    }

    /// Works until told to stop, or until nobody is left who could.
    pub(super) fn run(mut self, requests: &Receiver<Request>) {
        loop {
            match requests.try_recv() {
                Ok(Request::Stop { done }) => {
                    // Who asked may have gone.
                    done.send(()).ok();
                    return;
                }
                Err(TryRecvError::Disconnected) => return,
                Err(TryRecvError::Empty) => {}
            }
            self.look();
            self.sleep();
        }
    }

    fn sleep(&mut self) {
        let mut fds = [PollFd::new(&self.setup.bell, PollFlags::IN)];
        let nap = Timespec { tv_sec: NAP.as_secs().cast_signed(), tv_nsec: 0 };
        if let Err(error) = poll(&mut fds, Some(&nap))
            && error != rustix::io::Errno::INTR
        {
            tracing::warn!(%error, "the clerk cannot sleep");
            std::thread::sleep(NAP);
        }
        // Empties the bell; it says no more than "look".
        rustix::io::read(&self.setup.bell, &mut [0; 8]).ok();
    }

    fn look(&mut self) {
        let names = self.observer.names();
        while let Some(sighting) = self.setup.sightings.next() {
            self.see(&sighting, &names);
        }
    }

    fn see(&mut self, sighting: &Sighting, names: &PortNames) {
        let name = |id: PortId| names.port(id).map(|port| port.name.to_owned());
        let kind = if sighting.from.is_some() { EventKind::StationMoved } else { EventKind::NewStation };
        let time = time_of_day(sighting.time, now(), Timestamp::now());
        let event = Event {
            mac: Some(Mac(sighting.mac)),
            other_port: sighting.from.and_then(name),
            ..Event::new(time, kind, name(sighting.port))
        };
        self.setup.events.tell(event, sighting.time);
    }
}
