//! Who waits until what is in the punt tap's ring has been read.
//!
//! The ring gives back frames in the order in which they were put in, and holds [`PUNT_RING`] at most. So what was in it when
//! somebody asked has been read when it is found empty, or when that many frames were received since, whichever comes first:
//! traffic that never pauses delays the answer, and does not deny it.

use super::commands::{Reply, answer};
use crate::port::punt_tap::PUNT_RING;

/// Those who wait, and what each of them waits for.
#[derive(Debug, Default)]
pub(super) struct Drain(Vec<Waiting>);

#[derive(Debug)]
struct Waiting {
    /// Frames that may still have been in the ring when it was asked.
    ahead: usize,
    done: Reply<()>,
}

impl Drain {
    /// Somebody waits, from now on.
    pub(super) fn wait(&mut self, done: Reply<()>) {
        self.0.push(Waiting { ahead: PUNT_RING as usize, done });
    }

    /// The ring was found empty, and all that came out of it is settled.
    pub(super) fn found_empty(&mut self) {
        self.0.drain(..).for_each(|waiting| answer(waiting.done, ()));
    }

    /// So many frames more came out of the ring, and are settled.
    pub(super) fn received(&mut self, frames: usize) {
        for waiting in &mut self.0 {
            waiting.ahead = waiting.ahead.saturating_sub(frames);
        }
        for waiting in self.0.extract_if(.., |waiting| waiting.ahead == 0) {
            answer(waiting.done, ());
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    #[test]
    fn who_waits_is_answered_when_the_ring_is_empty() {
        let mut drain = Drain::default();
        let (done, mut answered) = oneshot::channel();
        drain.found_empty();
        drain.wait(done);
        drain.received(PUNT_RING as usize - 1);
        assert!(answered.try_recv().is_err(), "one frame may still be there");
        drain.found_empty();
        assert!(answered.try_recv().is_ok());
    }

    #[test]
    fn who_waits_under_unbroken_traffic_is_answered_after_a_ring_of_frames() {
        let mut drain = Drain::default();
        let (first, mut first_answered) = oneshot::channel();
        let (second, mut second_answered) = oneshot::channel();
        drain.wait(first);
        drain.received(64);
        drain.wait(second);
        drain.received(PUNT_RING as usize - 64);
        assert!(first_answered.try_recv().is_ok());
        assert!(second_answered.try_recv().is_err(), "it asked later");
        drain.received(64);
        assert!(second_answered.try_recv().is_ok());
    }
}
