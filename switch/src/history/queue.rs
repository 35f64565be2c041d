//! The queue before the thread: bounded, and no larger than what waits in it. The standard library's bounded queue makes all its places
//! at once, megabytes that a switch at rest would hold for nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender, TrySendError};
use std::time::Duration;

/// A queue in which so many may wait.
pub(super) fn queue<T>(places: usize) -> (Inlet<T>, Outflow<T>) {
    let (sender, receiver) = mpsc::channel();
    let waiting = Arc::new(AtomicUsize::new(0));
    (Inlet { sender, waiting: Arc::clone(&waiting), places }, Outflow { receiver, waiting })
}

/// Where things go in. Cheap to clone.
pub(super) struct Inlet<T> {
    sender: Sender<T>,
    waiting: Arc<AtomicUsize>,
    places: usize,
}

impl<T> Clone for Inlet<T> {
    fn clone(&self) -> Self {
        Self { sender: self.sender.clone(), waiting: Arc::clone(&self.waiting), places: self.places }
    }
}

impl<T> Inlet<T> {
    /// Puts one in, if there is a place. Never waits.
    ///
    /// # Errors
    /// Every place is taken, or nobody takes out any more.
    pub(super) fn try_send(&self, one: T) -> Result<(), TrySendError<T>> {
        if self.waiting.fetch_add(1, Ordering::AcqRel) >= self.places {
            self.waiting.fetch_sub(1, Ordering::AcqRel);
            return Err(TrySendError::Full(one));
        }
        self.sender.send(one).map_err(|refused| TrySendError::Disconnected(refused.0))
    }
}

/// Where they come out.
pub(super) struct Outflow<T> {
    receiver: Receiver<T>,
    waiting: Arc<AtomicUsize>,
}

impl<T> Outflow<T> {
    /// Waits for the next one.
    ///
    /// # Errors
    /// None came in time, or none will.
    pub(super) fn recv_timeout(&self, patience: Duration) -> Result<T, RecvTimeoutError> {
        let one = self.receiver.recv_timeout(patience)?;
        self.waiting.fetch_sub(1, Ordering::AcqRel);
        Ok(one)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{RecvTimeoutError, TrySendError};
    use std::time::Duration;

    use super::queue;

    #[test]
    fn a_queue_holds_as_many_as_it_has_places_and_again_once_one_is_out() {
        let (inlet, outflow) = queue(2);
        assert_eq!((inlet.try_send(1), inlet.try_send(2)), (Ok(()), Ok(())));
        assert_eq!(inlet.try_send(3), Err(TrySendError::Full(3)));
        assert_eq!(outflow.recv_timeout(Duration::ZERO), Ok(1));
        assert_eq!(inlet.clone().try_send(4), Ok(()));
        assert_eq!(inlet.try_send(5), Err(TrySendError::Full(5)), "a clone has no places of its own");
    }

    #[test]
    fn either_end_notices_that_the_other_is_gone() {
        let (inlet, outflow) = queue(1);
        drop(outflow);
        assert_eq!(inlet.try_send(1), Err(TrySendError::Disconnected(1)));
        let (inlet, outflow) = queue::<u8>(1);
        drop(inlet);
        assert_eq!(outflow.recv_timeout(Duration::ZERO), Err(RecvTimeoutError::Disconnected));
    }
}
