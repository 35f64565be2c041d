//! Punted frames that never reach the brain.
//!
//! The kernel frees some frames between the reflex and the reader of the punt tap, and does not tell us which: a guest's
//! super-frame whose request contradicts its headers (`validate_xmit_skb` in net/core/dev.c; the punt tap's `tx_dropped`
//! counts it), or a frame that the tap's header cannot describe. Left alone they would count as in flight for ever: the
//! port's verdicts would stay armed, and a guest that goes on would use up what all ports together may have in flight.
//! So they are booked as `unobserved`.
//!
//! **How we know** that a frame is lost and not merely waiting: the loop answers, a pause passes, the loop answers again,
//! and meanwhile not one frame was punted or settled. Had the ring held a frame, the loop would have settled it.

use std::time::Duration;

use switch_common::PORT_SLOTS;

use super::Control;
use crate::dataplane::commands::{Census, Command};

/// How often to look, by whoever calls [`Control::book_lost`].
pub const LOOK_EVERY: Duration = Duration::from_secs(1);
/// The pause between two answers of the loop; a frame needs microseconds from the reflex to the ring.
const PAUSE: Duration = Duration::from_millis(50);

/// Frames handed to the brain, and those it answered for, by port id; slot 0 holds the sums.
#[derive(PartialEq, Eq)]
struct Look {
    punted: Vec<u64>,
    answered: Vec<u64>,
}

impl Control {
    /// Books what is lost, if anything is; cheap when nothing is in flight.
    pub(super) async fn book_lost(&self) {
        if !self.is_in_flight() {
            return;
        }
        let Some(before) = self.look() else { return };
        let alive = self.commands.ask(Command::Census).await;
        tokio::time::sleep(PAUSE).await;
        let still_alive: Result<Census, _> = self.commands.ask(Command::Census).await;
        if alive.is_err() || still_alive.is_err() || self.look().as_ref() != Some(&before) {
            return;
        }
        for (id, (punted, answered)) in before.punted.iter().zip(&before.answered).enumerate() {
            self.brain.port(id).unobserved.add(punted.saturating_sub(*answered));
        }
        tracing::debug!("punted frames that the kernel refused were booked as unobserved");
    }

    fn is_in_flight(&self) -> bool {
        let sums = self.brain.port(0);
        self.reflex.punts().is_ok_and(|punted| punted > sums.settled.get() + sums.unobserved.get())
    }

    /// Both halves' numbers; what was punted is read last, so that nothing seems settled before it was punted.
    fn look(&self) -> Option<Look> {
        let answered = (0..PORT_SLOTS).map(|id| self.brain.port(id)).map(|it| it.settled.get() + it.unobserved.get());
        let answered = answered.collect();
        let mut punted: Vec<u64> = self.reflex.all_buckets().ok()?.iter().map(|buckets| buckets.punted).collect();
        *punted.first_mut()? = self.reflex.punts().ok()?;
        Some(Look { punted, answered })
    }
}
