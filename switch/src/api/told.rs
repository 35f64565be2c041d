//! What is told to many at once, followed by one: a line of JSON for each that is asked for.

use std::convert::Infallible;
use std::fmt::Write as _;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde::Serialize;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};

/// Lines are sent once so much is gathered, or there is no more.
const CHUNK_BYTES: usize = 64 * 1024;

/// A line for each that `is_asked_for`. A reader that is too slow finds a line `{"lost": N}` in the place of what it missed, and `lagged`
/// is told how many those were.
pub(super) fn follow<T: Serialize + Send + Sync + 'static>(
    seat: OwnedSemaphorePermit,
    told: Receiver<Arc<T>>,
    is_asked_for: impl Fn(&T) -> bool + Send + 'static,
    lagged: impl Fn(u64) + Send + 'static,
) -> Response {
    let follower = Follower { told, is_asked_for, lagged, _seat: seat };
    let lines = stream::unfold(follower, |mut follower| async move {
        loop {
            let lines = follower.next().await?;
            if !lines.is_empty() {
                return Some((Ok::<_, Infallible>(Bytes::from(lines)), follower));
            }
        }
    });
    ([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(lines)).into_response()
}

struct Follower<T, A, L> {
    told: Receiver<Arc<T>>,
    is_asked_for: A,
    lagged: L,
    _seat: OwnedSemaphorePermit,
}

impl<T: Serialize, A: Fn(&T) -> bool, L: Fn(u64)> Follower<T, A, L> {
    /// Waits for one and takes what else is there; nothing when no more can come.
    async fn next(&mut self) -> Option<String> {
        let mut lines = String::new();
        match self.told.recv().await {
            Ok(one) => self.write(&one, &mut lines),
            Err(RecvError::Lagged(missed)) => self.lose(missed, &mut lines),
            Err(RecvError::Closed) => return None,
        }
        while lines.len() < CHUNK_BYTES {
            match self.told.try_recv() {
                Ok(one) => self.write(&one, &mut lines),
                Err(TryRecvError::Lagged(missed)) => self.lose(missed, &mut lines),
                Err(TryRecvError::Empty | TryRecvError::Closed) => break,
            }
        }
        Some(lines)
    }

    fn write(&self, one: &T, lines: &mut String) {
        if (self.is_asked_for)(one) {
            lines.push_str(&serde_json::to_string(one).expect("strings and numbers are JSON"));
            lines.push('\n');
        }
    }

    fn lose(&self, missed: u64, lines: &mut String) {
        (self.lagged)(missed);
        writeln!(lines, "{{\"lost\":{missed}}}").expect("a string takes everything");
    }
}
