//! Answers without an end: one JSON object per line (NDJSON), until the reader goes or the daemon stops.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::Control;
use super::input::Refusal;
use super::schema::{DropInfo, Side};

/// How often counters are looked at.
const INTERVAL: Duration = Duration::from_secs(1);

/// Who may follow: so many, that there are always connections left for commands.
pub(super) type Followers = Arc<Semaphore>;

/// The totals of the look before.
type Totals = HashMap<(String, Side, String), (u64, u64)>;

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
    let mut watch = Watch { control, totals: Totals::new(), _seat: seat };
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
    _seat: OwnedSemaphorePermit,
}

impl<C: Control> Watch<C> {
    /// What was dropped since the look before, a line each.
    async fn look(&mut self) -> String {
        let mut lines = String::new();
        let mut totals = Totals::new();
        for now in self.control.drops().await {
            let key = (now.port.clone(), now.side, now.reason.clone());
            let (frames, bytes) = self.totals.get(&key).copied().unwrap_or_default();
            totals.insert(key, (now.frames, now.bytes));
            // Less than before: the port was removed and made again, and counts from 0.
            let (frames, bytes) = if now.frames < frames { (0, 0) } else { (frames, bytes) };
            if now.frames > frames {
                let fresh = DropInfo { frames: now.frames - frames, bytes: now.bytes.saturating_sub(bytes), ..now };
                lines.push_str(&serde_json::to_string(&fresh).expect("strings and numbers are JSON"));
                lines.push('\n');
            }
        }
        self.totals = totals;
        lines
    }
}
