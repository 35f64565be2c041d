//! Answers without an end: one JSON object per line (NDJSON), until the reader goes or the daemon stops.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use tokio::sync::broadcast::{Receiver, error::TryRecvError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::input::Refusal;
use super::schema::{DropInfo, Sample, Side};
use super::{Control, Witnessed};

/// How often counters are looked at.
const INTERVAL: Duration = Duration::from_secs(1);

/// Who may follow: so many, that there are always connections left for commands.
pub(super) type Followers = Arc<Semaphore>;

/// What lines are told apart by.
type Key = (String, Side, String);

/// The totals of the look before.
type Totals = HashMap<Key, (u64, u64)>;

/// A seat among those who follow, if there is one.
pub(super) fn take_seat(followers: &Followers) -> Result<OwnedSemaphorePermit, Refusal> {
    Arc::clone(followers).try_acquire_owned().map_err(|_none| {
        let message = "too many are following already; end one of them".to_owned();
        Refusal::new(StatusCode::SERVICE_UNAVAILABLE, message)
    })
}

/// What is dropped from now on. When the head of this answer is out, `now` has been noted.
pub(super) async fn follow_drops<C: Control>(control: C, followers: &Followers) -> Result<Response, Refusal> {
    let seat = take_seat(followers)?;
    let evidence = control.evidence();
    let mut watch = Watch { control, totals: Totals::new(), evidence, _seat: seat };
    watch.look().await;
    let lines = stream::unfold(watch, |mut watch| async move {
        loop {
            tokio::time::sleep(INTERVAL).await;
            let lines = watch.look().await;
            if !lines.is_empty() {
                return Some((Ok::<_, Infallible>(Bytes::from(lines)), watch));
            }
        }
    });
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(lines)).into_response())
}

struct Watch<C> {
    control: C,
    totals: Totals,
    evidence: Receiver<Arc<Witnessed>>,
    _seat: OwnedSemaphorePermit,
}

impl<C: Control> Watch<C> {
    /// What was dropped since the look before, a line each.
    async fn look(&mut self) -> String {
        let mut lines = String::new();
        let mut totals = Totals::new();
        // First, because a frame is counted before it is kept: what is kept is in the numbers that follow.
        let mut samples = self.samples();
        for now in self.control.drops().await {
            let key = (now.port.clone(), now.side, now.reason.clone());
            let (frames, bytes) = self.totals.get(&key).copied().unwrap_or_default();
            totals.insert(key, (now.frames, now.bytes));
            // Less than before: the port was removed and made again, and counts from 0.
            let (frames, bytes) = if now.frames < frames { (0, 0) } else { (frames, bytes) };
            let evidence = samples.remove(&(now.port.clone(), now.side, now.reason.clone())).unwrap_or_default();
            if now.frames > frames || !evidence.is_empty() {
                let bytes = now.bytes.saturating_sub(bytes);
                let fresh = DropInfo { frames: now.frames - frames, bytes, evidence, ..now };
                lines.push_str(&serde_json::to_string(&fresh).expect("strings and numbers are JSON"));
                lines.push('\n');
            }
        }
        self.totals = totals;
        lines
    }

    /// The evidence since the look before. What a slow reader has missed is missing; the numbers are not.
    fn samples(&mut self) -> HashMap<Key, Vec<Sample>> {
        let mut samples: HashMap<Key, Vec<Sample>> = HashMap::new();
        loop {
            match self.evidence.try_recv() {
                Ok(seen) => {
                    let key = (seen.port.clone(), seen.side, seen.reason.clone());
                    samples.entry(key).or_default().push(seen.sample.clone());
                }
                Err(TryRecvError::Lagged(_)) => {}
                Err(TryRecvError::Empty | TryRecvError::Closed) => return samples,
            }
        }
    }
}
