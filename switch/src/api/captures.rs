//! Captures: begun, told as they go on, ended.

use std::convert::Infallible;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use futures_util::stream;

use super::input::{Input, Refusal};
use super::routes::Room;
use super::schema::Problem;
use super::{Control, ControlError};
use crate::capture::audit::Peer;
use crate::capture::{Request, Running};

/// What a stream of records is.
const MEDIA_TYPE: &str = "application/vnd.weft.capture";

/// The captures that go on.
#[utoipa::path(get, path = "/v1/captures", responses((status = 200, body = Vec<Running>)))]
pub(super) async fn list<C: Control>(State(room): State<Room<C>>) -> Json<Vec<Running>> {
    Json(room.control.captures().await)
}

/// Begins a capture; the answer is its records, as `docs/capture.md` describes them, until it ends.
#[utoipa::path(post, path = "/v1/captures", request_body = Request,
    responses((status = 200, body = Vec<u8>, content_type = "application/vnd.weft.capture"), (status = 404, body = Problem),
        (status = 422, body = Problem), (status = 503, body = Problem)))]
pub(super) async fn begin<C: Control>(
    State(room): State<Room<C>>,
    Extension(peer): Extension<Peer>,
    Input(request): Input<Request>,
) -> Result<Response, Refusal> {
    request.check().map_err(ControlError::Invalid)?;
    let feed = room.control.capture(request, peer).await?;
    let records = stream::unfold(feed, async |mut feed| {
        let records = feed.next().await?;
        Some((Ok::<_, Infallible>(records), feed))
    });
    Ok(([(header::CONTENT_TYPE, MEDIA_TYPE)], Body::from_stream(records)).into_response())
}

/// Ends a capture in an orderly way: what was captured until then is still told, and the end.
#[utoipa::path(delete, path = "/v1/captures/{session}", params(("session" = u64, Path, description = "Its number")),
    responses((status = 204), (status = 404, body = Problem)))]
pub(super) async fn end<C: Control>(
    State(room): State<Room<C>>,
    Path(session): Path<String>,
) -> Result<StatusCode, Refusal> {
    let number = session.parse().map_err(|_not| {
        ControlError::Invalid(format!(
            "'{}' is not the number of a capture; see /v1/captures",
            session.escape_default()
        ))
    })?;
    room.control.end_capture(number).await?;
    Ok(StatusCode::NO_CONTENT)
}
