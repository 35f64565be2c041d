//! One task for each capture: it waits for whatever ends it first, and ends it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, oneshot};
use tokio::time::sleep;

use super::captures::Begun;
use super::{Control, ControlError, Handle};
use crate::capture::audit::Peer;
use crate::capture::session::Feed;
use crate::capture::stream::EndReason;
use crate::capture::{Request, Running};
use crate::filter::Program;

/// How long a reader may take for the last records when the daemon stops.
const LAST_PATIENCE: Duration = Duration::from_secs(2);

impl Handle {
    /// Begins a capture, with a task that attends to it.
    pub(super) async fn capture(&self, request: Request, peer: Peer) -> Result<Feed, ControlError> {
        let filter = compile(request.filter.clone()).await?;
        let control = Arc::clone(&self.control);
        if request.recall_ms.is_some() {
            return control.lock().await.recall(&request, filter.as_deref(), Ok(peer)).await;
        }
        let task = tokio::spawn(async move {
            let begun = control.lock().await.begin_capture(request, filter, peer).await?;
            let Begun { session, mut feed, duration, finished, stop, attended } = begun;
            let gone = feed.gone();
            tokio::spawn(async move {
                attend(&control, session, duration, gone, finished, stop).await;
                drop(attended);
            });
            Ok(feed)
        });
        super::handle::finish(task).await
    }

    /// Asks who attends to a capture to end it.
    pub(super) async fn end_capture(&self, session: u64) -> Result<(), ControlError> {
        let mut control = self.control.lock().await;
        let known = control.captures.sessions.get_mut(&session);
        let known =
            known.ok_or_else(|| ControlError::NotFound(format!("there is no capture {session}; it may have ended")))?;
        if let Some(stop) = known.stop.take() {
            stop.send(EndReason::Stopped).ok();
        }
        Ok(())
    }

    /// The captures that go on.
    pub(super) async fn captures(&self) -> Vec<Running> {
        let control = self.control.lock().await;
        control.captures.sessions.values().map(|session| session.running.clone()).collect()
    }

    /// What the recorder has kept, for a recording that it makes by itself.
    pub(super) async fn recall_for(&self, trigger: &str) -> Result<Feed, ControlError> {
        let request = Request { recall_ms: Some(u64::MAX / 1_000_000), ..Request::default() };
        self.control.lock().await.recall(&request, None, Err(trigger)).await
    }

    /// Lets the recorder keep what comes from now on, if it is on.
    pub async fn start_recorder(&self) -> Result<(), ControlError> {
        self.control.lock().await.start_recorder().await
    }

    /// Ends all captures, and gives their readers a moment to take the end.
    pub async fn end_captures(&self) {
        let attended = {
            let mut control = self.control.lock().await;
            for session in control.captures.sessions.values_mut() {
                if let Some(stop) = session.stop.take() {
                    stop.send(EndReason::DaemonStopped).ok();
                }
            }
            Arc::clone(&control.captures.attended)
        };
        let end = tokio::time::Instant::now() + LAST_PATIENCE;
        // One is control's own, one this function's.
        while Arc::strong_count(&attended) > 2 && tokio::time::Instant::now() < end {
            sleep(Duration::from_millis(5)).await;
        }
    }
}

/// Compiles a filter, on a thread that may wait for the names of hosts.
async fn compile(expression: Option<String>) -> Result<Option<Arc<Program>>, ControlError> {
    let Some(expression) = expression.filter(|text| !text.trim().is_empty()) else { return Ok(None) };
    let compiled = tokio::task::spawn_blocking(move || Program::compile(&expression)).await;
    let compiled = compiled.map_err(|error| ControlError::Failed(format!("the filter was not compiled: {error}")))?;
    compiled.map(|program| Some(Arc::new(program))).map_err(|error| ControlError::Invalid(format!("filter: {error}")))
}

/// Ends a session for whatever comes first, and waits until its reader has taken the rest.
async fn attend(
    control: &Mutex<Control>,
    session: u64,
    duration: Option<Duration>,
    mut gone: oneshot::Receiver<()>,
    finished: oneshot::Receiver<EndReason>,
    stop: oneshot::Receiver<EndReason>,
) {
    let over = async {
        match duration {
            Some(duration) => sleep(duration).await,
            None => std::future::pending().await,
        }
    };
    let reason = tokio::select! {
        _ = &mut gone => EndReason::ClientGone,
        Ok(reason) = finished => reason,
        Ok(reason) = stop => reason,
        () = over => EndReason::Duration,
    };
    control.lock().await.finish_capture(session, reason).await;
    if reason != EndReason::ClientGone {
        gone.await.ok();
    }
}
