//! Punted frames that never reach the brain.
//!
//! The kernel frees some frames between the reflex and the reader of the punt tap, and does not tell us which: a guest's
//! super-frame whose request contradicts its headers (`validate_xmit_skb` in net/core/dev.c; the punt tap's `tx_dropped`
//! counts it), or a frame that the tap's header cannot describe. Left alone they would count as in flight for ever: the
//! port's verdicts would stay armed, and a guest that goes on would use up what all ports together may have in flight.
//! So they are booked as `unobserved`.
//!
//! **How we know** that a frame is lost and not merely waiting, while others come and go: by epochs, the even and the odd.
//! Every punted frame is counted in one of them and carries it in its tag, and is settled in the same. Closing an epoch:
//!
//! ```text
//! turn: the settings name the other epoch     from now on programs stamp frames with that one
//!   ─▶ grace                                  those that have not seen it have ended: what they stamped is in the ring,
//!   │                                         has been read, or was freed (a program and the redirect that it asks for
//!   │                                         run in one RCU section, and the punt tap has no queue before its ring)
//!   ─▶ Drained                                what was in the ring is settled
//!   ─▶ book: lost = punted − settled − unobserved, of the closed epoch alone
//! ```
//!
//! Nothing adds to the numbers of an epoch that was closed, so the difference is exact however busy the other one is. The
//! waiting is done without the lock on control. Who turns the epoch meanwhile makes the earlier turn void: what it would have
//! booked stays in its epoch's numbers and is booked when that is closed again.
//!
//! **Limit.** A guest that does nothing else has [`switch_common::PUNT_IN_FLIGHT_PORT_MAX`] frames lost between two looks, and
//! its own other frames are `punt_limited` until then. Four such guests together use up what all ports may have in flight, for
//! as long.

use std::mem;
use std::time::Duration;

use switch_common::SETTING_EPOCH;
use tokio::sync::Mutex;

use super::{Control, ControlError};
use crate::dataplane::commands::Command;
use crate::dataplane::thread::Commands;
use crate::reflex::Reflex;

/// How often [`super::Handle::look_for_lost`] is to be called.
pub const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What is remembered from one look to the next.
#[derive(Debug, Default)]
pub(super) struct Watch {
    /// Turns of the epoch since start.
    turns: u64,
    /// Something was in flight at the last look.
    was_in_flight: bool,
}

/// An epoch that is being closed.
#[derive(Debug)]
struct Closing {
    odd: bool,
    /// The turn that closes it.
    turn: u64,
}

/// Books what is lost when something was in flight at this look and at the one before. Cheap when nothing is.
pub(super) async fn look(control: &Mutex<Control>) {
    let doubtful = {
        let mut control = control.lock().await;
        let is_in_flight = control.is_in_flight();
        mem::replace(&mut control.watch.was_in_flight, is_in_flight) && is_in_flight
    };
    if doubtful {
        book(control).await;
    }
}

/// Closes the epoch and books what was lost in it, now.
pub(super) async fn book(control: &Mutex<Control>) {
    let closed = async {
        let (closing, commands) = {
            let mut control = control.lock().await;
            (control.turn_epoch()?, control.commands.clone())
        };
        until_final(&commands).await?;
        control.lock().await.book_closed(&closing)
    };
    complain(closed.await);
}

/// Waits until every frame of an epoch that was turned away from is settled or lost.
async fn until_final(commands: &Commands) -> Result<(), ControlError> {
    // It takes the kernel some milliseconds, in which the thread of control serves others.
    let grace = tokio::task::spawn_blocking(Reflex::grace).await;
    grace.map_err(|error| ControlError::Failed(error.to_string()))??;
    Ok(commands.ask(|done| Command::Drained { done }).await?)
}

fn complain(closed: Result<(), ControlError>) {
    if let Err(error) = closed {
        tracing::warn!(%error, "frames lost on their way to the brain could not be booked; this is tried again");
    }
}

impl Control {
    /// The same as [`book`] for who holds the lock, and keeps it.
    pub(super) async fn book_lost(&mut self) {
        let closed = async {
            let closing = self.turn_epoch()?;
            until_final(&self.commands).await?;
            self.book_closed(&closing)
        };
        complain(closed.await);
    }

    fn is_in_flight(&self) -> bool {
        let sums = self.brain.port(0);
        self.reflex.punts().is_ok_and(|punted| punted > sums.settled.get() + sums.unobserved.get())
    }

    /// Names the other epoch: the one until now is being closed.
    fn turn_epoch(&mut self) -> Result<Closing, ControlError> {
        let mut settings = self.reflex.settings()?;
        let odd = settings.flags & SETTING_EPOCH != 0;
        settings.flags ^= SETTING_EPOCH;
        self.reflex.set_settings(settings)?;
        self.watch.turns += 1;
        Ok(Closing { odd, turn: self.watch.turns })
    }

    /// Books what was lost in an epoch, if it is closed still.
    fn book_closed(&self, closing: &Closing) -> Result<(), ControlError> {
        if closing.turn != self.watch.turns {
            return Ok(());
        }
        let frames = self.reflex.book_epoch(closing.odd)?;
        if frames > 0 {
            tracing::debug!(frames, "punted frames that the kernel freed were booked as unobserved");
        }
        Ok(())
    }
}
