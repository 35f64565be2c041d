//! The TCP listener that monitoring looks at: metrics, a landing page and the daemon's health. It tells nobody anything that needs
//! a permission, and by default it listens on the host's loopback alone.

use std::task::Context;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use tokio::net::{TcpListener, TcpStream};

use super::Control;
use super::limits::{Limits, bounded, serve_all};
use crate::metrics::{Scraper, TEXT_FORMAT};

/// What a connection may cost here: who asks for metrics asks at once, and reads what it is told.
pub const LIMITS: Limits =
    Limits { connections: 128, followers: 0, body_bytes: 64 * 1024, patience: Duration::from_secs(5) };

/// Answers until `stop`.
pub async fn serve<C: Control>(
    listener: TcpListener,
    control: C,
    limits: Limits,
    stop: impl Future<Output = ()> + Send,
) {
    let router = bounded(router(control), limits);
    let accept = |cx: &mut Context<'_>| listener.poll_accept(cx).map_ok(|(stream, _)| stream);
    serve_all(accept, |_: &TcpStream| router.clone(), limits, stop).await;
}

fn router<C: Control>(control: C) -> Router {
    Router::new()
        .route("/", get(landing::<C>))
        .route("/-/healthy", get(async || "healthy\n"))
        .route("/-/ready", get(ready::<C>))
        .with_state(control.clone())
        .merge(Router::new().route("/metrics", get(metrics::<C>)).with_state(Scraper::new(control)))
}

async fn metrics<C: Control>(State(scraper): State<Scraper<C>>) -> Response {
    match scraper.scrape().await {
        Ok(text) => ([(CONTENT_TYPE, TEXT_FORMAT)], text).into_response(),
        Err(error) => {
            tracing::error!(%error, "no metrics");
            (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response()
        }
    }
}

async fn ready<C: Control>(State(control): State<C>) -> (StatusCode, &'static str) {
    match (control.is_ready(), control.is_observing()) {
        (true, true) => (StatusCode::OK, "ready\n"),
        (true, false) => (StatusCode::OK, "ready, but flows are not observed; see the log for why\n"),
        (false, _) => (StatusCode::SERVICE_UNAVAILABLE, "not ready\n"),
    }
}

/// The instance's name is an interface name: letters, digits, `.`, `_`, `:`, `@` and `-`, so it needs no escaping.
async fn landing<C: Control>(State(control): State<C>) -> Html<String> {
    let status = control.status().await;
    let (name, version) = (status.name, status.version);
    Html(format!(
        "<!doctype html>\n<html lang=\"en\">\n<head><title>Weft {name}</title></head>\n<body>\n<h1>Weft {name}</h1>\n\
         <p>Version {version}</p>\n<ul>\n\
         <li><a href=\"/metrics\">/metrics</a> for Prometheus</li>\n<li><a href=\"/-/healthy\">/-/healthy</a> the process answers</li>\n\
         <li><a href=\"/-/ready\">/-/ready</a> the switch forwards</li>\n</ul>\n</body>\n</html>\n"
    ))
}
