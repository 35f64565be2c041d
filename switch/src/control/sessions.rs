//! What the ledger is to know of who looks on: mirrors, captures and the recorder, as long as they are there.

use std::sync::Arc;

use switch_common::SessionCounts;

use super::Control;
use crate::capture::account::{Account, Booked};
use crate::ledger::{ReaderNumbers, SessionNumbers};

impl Control {
    /// What the reflex counted of each session: a mirror's copies, and what it laid into the ring for a capture.
    pub(super) fn session_numbers(&self) -> Vec<SessionNumbers> {
        let mirrors = self.mirrors.values().map(|mirror| (mirror.bit, format!("mirror {}", mirror.spec.name)));
        let captures = self.readers().map(|(bit, name, _)| (bit, format!("{name}, in the kernel")));
        let numbers = |(bit, name): (u8, String)| {
            let SessionCounts { matched, delivered, lost } = self.reflex.session_counts(bit).ok()?.kernel;
            Some(SessionNumbers { name, matched, delivered, lost })
        };
        mirrors.chain(captures).filter_map(numbers).collect()
    }

    /// What both halves found for each capture and for the recorder, and what became of it on the way to them.
    pub(super) fn reader_numbers(&self) -> Vec<ReaderNumbers> {
        let numbers = |(bit, name, account): (u8, String, &Arc<Account>)| {
            // What is booked last is read first: it is never more than what is read after it.
            let Booked { delivered, lost, passed_over } = account.booked();
            let (by_loop, lost_by_loop) = self.captures.hub.loop_counts(bit);
            let kernel = self.reflex.session_counts(bit).ok()?.kernel;
            Some(ReaderNumbers {
                name,
                matched: kernel.matched.frames + by_loop,
                delivered,
                lost: lost + kernel.lost.frames + lost_by_loop,
                passed_over,
            })
        };
        self.readers().filter_map(numbers).collect()
    }

    /// Bit, name and books of each.
    fn readers(&self) -> impl Iterator<Item = (u8, String, &Arc<Account>)> {
        let captures = &self.captures;
        let recorder = captures.recorder.iter().map(|it| (it.bit(), "recorder".to_owned(), &it.account));
        let sessions = captures.sessions.iter();
        sessions.map(|(number, it)| (it.bit, format!("capture {number}"), &it.account)).chain(recorder)
    }
}
