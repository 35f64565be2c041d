//! One HTTP connection within limits: who connects gets so much time for a head, for a body, and for taking the answer.
//!
//! A peer that opens a connection and says nothing, says half, says too much or never reads is shown out by a timer, so
//! the limited number of connections is always free again soon.

use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use http_body_util::LengthLimitError;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, Sleep, sleep, timeout};

use super::input::Refusal;

/// How long to wait after a connection could not be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What a connection may cost.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at a time; the next ones wait in the listener's backlog. There can be a capture on 64 of them.
    pub connections: usize,
    /// Of these, how many may follow.
    pub followers: usize,
    /// Largest body of a request.
    pub body_bytes: usize,
    /// Longest time for each of: a request's head (also between two requests), its body, one write of the answer.
    pub patience: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { connections: 160, followers: 32, body_bytes: 1 << 20, patience: Duration::from_secs(10) }
    }
}

/// The router with the limit on request bodies around it.
pub(super) fn bounded(router: Router, limits: Limits) -> Router {
    router.layer(middleware::from_fn_with_state(limits, read_body))
}

/// Reads the whole body before anything else is done with the request.
async fn read_body(State(limits): State<Limits>, request: Request, next: Next) -> Response {
    let (head, body) = request.into_parts();
    let bytes = match timeout(limits.patience, to_bytes(body, limits.body_bytes)).await {
        Ok(Ok(bytes)) => bytes,
        Ok(Err(e)) if is_too_long(&e) => {
            let message = format!("the request's body is longer than {} bytes; send less at once", limits.body_bytes);
            return Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, message).into_response();
        }
        Ok(Err(e)) => return Refusal::new(StatusCode::BAD_REQUEST, format!("no readable body: {e}")).into_response(),
        Err(_) => {
            let message = "the request's body did not arrive in time; send it with its head".to_owned();
            return Refusal::new(StatusCode::REQUEST_TIMEOUT, message).into_response();
        }
    };
    next.run(Request::from_parts(head, Body::from(bytes))).await
}

fn is_too_long(error: &axum::Error) -> bool {
    std::error::Error::source(error).is_some_and(<dyn std::error::Error>::is::<LengthLimitError>)
}

/// Serves what `accept` brings, each with the router that `route` gives it, until `stop`; then connections are cut, so
/// that a follower does not hold up the daemon's end.
pub(super) async fn serve_all<S>(
    mut accept: impl FnMut(&mut Context<'_>) -> Poll<io::Result<S>> + Send,
    route: impl Fn(&S) -> Router + Send,
    limits: Limits,
    stop: impl Future<Output = ()> + Send,
) where
    S: AsyncRead + AsyncWrite + Send + 'static,
{
    let free = Arc::new(Semaphore::new(limits.connections));
    let mut connections = JoinSet::new();
    let accept_all = async {
        loop {
            let seat = Arc::clone(&free).acquire_owned().await.expect("nobody closes this semaphore");
            match poll_fn(&mut accept).await {
                Ok(stream) => {
                    let router = route(&stream);
                    connections.spawn(async move {
                        serve_connection(stream, router, limits).await;
                        drop(seat);
                    });
                }
                Err(e) => {
                    tracing::warn!(error = %e, "cannot accept a connection");
                    // Out of descriptors or memory: others need time to give some back.
                    sleep(ACCEPT_PAUSE).await;
                }
            }
            while connections.try_join_next().is_some() {}
        }
    };
    tokio::select! {
        () = accept_all => {}
        () = stop => {}
    }
}

/// Serves one connection to its end. What goes wrong on it is its peer's affair.
async fn serve_connection<S>(stream: S, router: Router, limits: Limits)
where
    S: AsyncRead + AsyncWrite + Send + 'static,
{
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(limits.patience).max_buf_size(64 * 1024);
    let io = TokioIo::new(Impatient::new(Box::pin(stream), limits.patience));
    let connection = builder.serve_connection(io, TowerToHyperService::new(router));
    if let Err(e) = pin!(connection).await {
        tracing::debug!(error = %e, "an API connection ended early");
    }
}

/// A stream whose writes fail when the peer takes nothing for too long.
struct Impatient<S> {
    stream: Pin<Box<S>>,
    patience: Duration,
    /// Runs while a write waits.
    deadline: Pin<Box<Sleep>>,
    is_waiting: bool,
}

impl<S> Impatient<S> {
    fn new(stream: Pin<Box<S>>, patience: Duration) -> Self {
        Self { stream, patience, deadline: Box::pin(sleep(patience)), is_waiting: false }
    }

    /// Passes a write's outcome on, and turns one that waits too long into an error.
    fn judge<T>(&mut self, cx: &mut Context<'_>, outcome: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if outcome.is_ready() {
            self.is_waiting = false;
            return outcome;
        }
        if !self.is_waiting {
            self.is_waiting = true;
            self.deadline.as_mut().reset(Instant::now() + self.patience);
        }
        match self.deadline.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<S: AsyncRead> AsyncRead for Impatient<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.stream.as_mut().poll_read(cx, buf)
    }
}

impl<S: AsyncWrite> AsyncWrite for Impatient<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let outcome = self.stream.as_mut().poll_write(cx, bytes);
        self.judge(cx, outcome)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = self.stream.as_mut().poll_flush(cx);
        self.judge(cx, outcome)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = self.stream.as_mut().poll_shutdown(cx);
        self.judge(cx, outcome)
    }
}
