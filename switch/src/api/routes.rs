//! Where things are: every path of the API, what it takes and what it answers.

use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use axum::{Json, Router};
use jiff::Timestamp;
use utoipa::OpenApi;

use super::events;
use super::flows::{self, Asked};
use super::follow::{Followers, follow_drops};
use super::input::{Input, Options, Refusal};
use super::schema::{
    AddPort, Applied, Apply, DropInfo, Flush, Flushed, Follow, Intent, LedgerReport, MirrorInfo, NewStation, PortInfo,
    Problem, RemovePort, Settle, StationInfo, Status, Who,
};
use super::{Control, ControlError, captures, top};
use crate::config::{PortTable, StationMac};
use crate::events::{Event, EventKind};
use crate::explain::{Explanation, Question};
use crate::flow::{Record, filter};
use crate::mirror::MirrorSpec;
use crate::names::{Holder, NoSubject, Subject};
use crate::port::spec::{Origin, PortName, PortSpec};

/// Longest time a ledger may wait for quiet.
const SETTLE_SECS_MAX: u64 = 600;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Weft",
        description = "An intra-host virtual network switch: its ports, stations, flows, drops, captures and ledger."
    ),
    paths(
        status,
        list_ports,
        show_port,
        add_port,
        remove_port,
        apply,
        list_mirrors,
        add_mirror,
        remove_mirror,
        config,
        list_stations,
        add_station,
        remove_station,
        flush,
        ledger,
        drops,
        explain,
        list_flows,
        list_events,
        who,
        top::ports,
        top::conversations,
        top::drops,
        top::stations,
        top::events,
        captures::list,
        captures::begin,
        captures::end
    ),
    components(schemas(PortSpec, Problem))
)]
struct Document;

/// The `OpenAPI` document, as JSON.
pub fn openapi() -> String {
    Document::openapi().to_pretty_json().expect("a document made of derived schemas is JSON")
}

/// What a handler knows.
#[derive(Clone)]
pub(super) struct Room<C> {
    pub(super) control: C,
    pub(super) followers: Followers,
}

type Answer<T> = Result<Json<T>, Refusal>;

/// Every route.
pub(super) fn router<C: Control>(control: C, followers: Followers) -> Router {
    Router::new()
        .route("/openapi.json", get(document))
        .route("/v1/status", get(status::<C>))
        .route("/v1/ports", get(list_ports::<C>).post(add_port::<C>))
        .route("/v1/ports/{name}", get(show_port::<C>).delete(remove_port::<C>))
        .route("/v1/apply", post(apply::<C>))
        .route("/v1/mirrors", get(list_mirrors::<C>).post(add_mirror::<C>))
        .route("/v1/mirrors/{name}", delete(remove_mirror::<C>))
        .route("/v1/config", get(config::<C>))
        .route("/v1/stations", get(list_stations::<C>).post(add_station::<C>).delete(flush::<C>))
        .route("/v1/stations/{mac}", delete(remove_station::<C>))
        .route("/v1/ledger", get(ledger::<C>))
        .route("/v1/drops", get(drops::<C>))
        .route("/v1/explain", get(explain::<C>))
        .route("/v1/flows", get(list_flows::<C>))
        .route("/v1/events", get(list_events::<C>))
        .route("/v1/who/{subject}", get(who::<C>))
        .route("/v1/top/ports", get(top::ports::<C>))
        .route("/v1/top/conversations", get(top::conversations::<C>))
        .route("/v1/top/drops", get(top::drops::<C>))
        .route("/v1/top/stations", get(top::stations::<C>))
        .route("/v1/top/events", get(top::events::<C>))
        .route("/v1/captures", get(captures::list::<C>).post(captures::begin::<C>))
        .route("/v1/captures/{session}", delete(captures::end::<C>))
        .fallback(async || Refusal::new(StatusCode::NOT_FOUND, "no such path; see /openapi.json".to_owned()))
        .method_not_allowed_fallback(async || {
            Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "no such method here; see /openapi.json".to_owned())
        })
        .with_state(Room { control, followers })
}

async fn document() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], openapi()).into_response()
}

/// The daemon itself.
#[utoipa::path(get, path = "/v1/status", responses((status = 200, body = Status)))]
async fn status<C: Control>(State(room): State<Room<C>>) -> Json<Status> {
    Json(room.control.status().await)
}

/// Every port.
#[utoipa::path(get, path = "/v1/ports", responses((status = 200, body = Vec<PortInfo>)))]
async fn list_ports<C: Control>(State(room): State<Room<C>>) -> Json<Vec<PortInfo>> {
    Json(room.control.ports().await)
}

/// One port.
#[utoipa::path(get, path = "/v1/ports/{name}", params(("name" = String, Path, description = "The port")),
    responses((status = 200, body = PortInfo), (status = 404, body = Problem)))]
async fn show_port<C: Control>(State(room): State<Room<C>>, Path(name): Path<String>) -> Answer<PortInfo> {
    Ok(Json(room.control.port(&port_name(&name)?).await?))
}

/// Adds and attaches a port; its origin is `command`, whatever the body says.
#[utoipa::path(post, path = "/v1/ports", params(AddPort), request_body = PortSpec,
    responses((status = 200, body = PortInfo), (status = 409, body = Problem), (status = 422, body = Problem)))]
async fn add_port<C: Control>(
    State(room): State<Room<C>>,
    Options(options): Options<AddPort>,
    Input(spec): Input<PortSpec>,
) -> Answer<PortInfo> {
    let spec = checked(&spec, Origin::Command)?;
    Ok(Json(room.control.add_port(spec, options.may_exist, options.wait).await?))
}

/// Detaches and removes a port.
#[utoipa::path(delete, path = "/v1/ports/{name}", params(("name" = String, Path, description = "The port"), RemovePort),
    responses((status = 204), (status = 404, body = Problem)))]
async fn remove_port<C: Control>(
    State(room): State<Room<C>>,
    Path(name): Path<String>,
    Options(options): Options<RemovePort>,
) -> Result<StatusCode, Refusal> {
    room.control.remove_port(&port_name(&name)?, options.if_exists).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Makes the ports and mirrors of origin `file` be these, all or nothing; says what that changes.
#[utoipa::path(post, path = "/v1/apply", params(Apply), request_body = Intent,
    responses((status = 200, body = Applied), (status = 404, body = Problem), (status = 409, body = Problem),
        (status = 422, body = Problem)))]
async fn apply<C: Control>(
    State(room): State<Room<C>>,
    Options(options): Options<Apply>,
    Input(Intent { ports, mirrors }): Input<Intent>,
) -> Answer<Applied> {
    let ports = ports.iter().map(|spec| checked(spec, Origin::File)).collect::<Result<Vec<_>, _>>()?;
    let mirrors: Vec<_> = mirrors.into_iter().map(|spec| MirrorSpec { origin: Origin::File, ..spec }).collect();
    refuse_twice("ports", ports.iter().map(|spec| &spec.name))?;
    refuse_twice("mirrors", mirrors.iter().map(|spec| &spec.name))?;
    Ok(Json(room.control.apply(Intent { ports, mirrors }, options.dry_run, options.prune).await?))
}

fn refuse_twice<'a>(what: &str, names: impl Iterator<Item = &'a PortName>) -> Result<(), ControlError> {
    let mut names: Vec<_> = names.collect();
    names.sort();
    match names.array_windows::<2>().find(|[a, b]| a == b) {
        Some([name, _]) => Err(ControlError::Invalid(format!("two {what} are named '{name}'; give one another name"))),
        None => Ok(()),
    }
}

/// Every mirror.
#[utoipa::path(get, path = "/v1/mirrors", responses((status = 200, body = Vec<MirrorInfo>)))]
async fn list_mirrors<C: Control>(State(room): State<Room<C>>) -> Json<Vec<MirrorInfo>> {
    Json(room.control.mirrors().await)
}

/// Starts a mirror; its origin is `command`, whatever the body says.
#[utoipa::path(post, path = "/v1/mirrors", request_body = MirrorSpec,
    responses((status = 200, body = MirrorInfo), (status = 404, body = Problem), (status = 409, body = Problem),
        (status = 422, body = Problem)))]
async fn add_mirror<C: Control>(State(room): State<Room<C>>, Input(spec): Input<MirrorSpec>) -> Answer<MirrorInfo> {
    Ok(Json(room.control.add_mirror(MirrorSpec { origin: Origin::Command, ..spec }).await?))
}

/// Ends a mirror.
#[utoipa::path(delete, path = "/v1/mirrors/{name}", params(("name" = String, Path, description = "The mirror")),
    responses((status = 204), (status = 404, body = Problem)))]
async fn remove_mirror<C: Control>(
    State(room): State<Room<C>>,
    Path(name): Path<String>,
) -> Result<StatusCode, Refusal> {
    room.control.remove_mirror(&port_name(&name)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// What runs, in the configuration file's format.
#[utoipa::path(get, path = "/v1/config", responses((status = 200, body = String, content_type = "application/toml")))]
async fn config<C: Control>(State(room): State<Room<C>>) -> Result<Response, Refusal> {
    let text =
        room.control.export().await.to_toml().map_err(|e| ControlError::Failed(format!("no TOML for this: {e}")))?;
    Ok(([(header::CONTENT_TYPE, "application/toml")], text).into_response())
}

/// Every station.
#[utoipa::path(get, path = "/v1/stations", responses((status = 200, body = Vec<StationInfo>)))]
async fn list_stations<C: Control>(State(room): State<Room<C>>) -> Json<Vec<StationInfo>> {
    Json(room.control.stations().await)
}

/// Pins a station to a port.
#[utoipa::path(post, path = "/v1/stations", request_body = NewStation,
    responses((status = 204), (status = 404, body = Problem), (status = 409, body = Problem)))]
async fn add_station<C: Control>(
    State(room): State<Room<C>>,
    Input(station): Input<NewStation>,
) -> Result<StatusCode, Refusal> {
    let mac = StationMac::try_from(station.mac).map_err(ControlError::Invalid)?.mac();
    room.control.add_station(station.port, mac).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Forgets a station, learnt or static.
#[utoipa::path(delete, path = "/v1/stations/{mac}", params(("mac" = String, Path, description = "The station")),
    responses((status = 204), (status = 404, body = Problem)))]
async fn remove_station<C: Control>(
    State(room): State<Room<C>>,
    Path(mac): Path<String>,
) -> Result<StatusCode, Refusal> {
    let mac = mac.parse::<StationMac>().map_err(ControlError::Invalid)?.mac();
    room.control.remove_station(mac).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Forgets what was learnt, of one port or of all.
#[utoipa::path(delete, path = "/v1/stations", params(Flush),
    responses((status = 200, body = Flushed), (status = 404, body = Problem)))]
async fn flush<C: Control>(State(room): State<Room<C>>, Options(options): Options<Flush>) -> Answer<Flushed> {
    Ok(Json(Flushed { stations: room.control.flush(options.port).await? }))
}

/// The laws of the ledger.
#[utoipa::path(get, path = "/v1/ledger", params(Settle), responses((status = 200, body = LedgerReport)))]
async fn ledger<C: Control>(State(room): State<Room<C>>, Options(options): Options<Settle>) -> Json<LedgerReport> {
    let settle = options.settle_secs.map(|secs| Duration::from_secs(secs.min(SETTLE_SECS_MAX)));
    Json(room.control.ledger(settle).await)
}

/// What did not arrive; with `since` or `until` what did not in that time. With `follow`: as `application/x-ndjson`, what is dropped from now on.
#[utoipa::path(get, path = "/v1/drops", params(Follow),
    responses((status = 200, body = Vec<DropInfo>), (status = 422, body = Problem), (status = 503, body = Problem)))]
async fn drops<C: Control>(
    State(room): State<Room<C>>,
    Options(options): Options<Follow>,
) -> Result<Response, Refusal> {
    let time = |flag: &str, asked: Option<&String>| {
        let read = |text: &String| {
            filter::time(text, Timestamp::now()).ok_or_else(|| {
                let text = text.escape_default();
                ControlError::Invalid(format!("--{flag}: '{text}' is not {}", filter::A_TIME))
            })
        };
        asked.map(read).transpose()
    };
    let (since, until) = (time("since", options.since.as_ref())?, time("until", options.until.as_ref())?);
    if options.follow && (since.is_some() || until.is_some()) {
        let message = "what is followed begins now; leave --since and --until out, or --follow";
        return Err(ControlError::Invalid(message.to_owned()).into());
    }
    if since.is_some() || until.is_some() {
        Ok(Json(room.control.drops_between(since, until).await?).into_response())
    } else if options.follow {
        follow_drops(room.control, &room.followers).await
    } else {
        Ok(Json(room.control.drops().await).into_response())
    }
}

/// Why one can, or cannot, reach the other: who they are, what the kernel does with their frames by itself, and what would become
/// of the next one.
#[utoipa::path(get, path = "/v1/explain", params(Question),
    responses((status = 200, body = Explanation), (status = 404, body = Problem)))]
async fn explain<C: Control>(State(room): State<Room<C>>, Options(question): Options<Question>) -> Answer<Explanation> {
    Ok(Json(room.control.explain(question).await?))
}

/// Conversations that go on and that ended not long ago, by the time of their last frame; with `since` or `until` also those that the
/// history has and memory has no longer. A filter's word repeated is OR,
/// different ones are AND, and each may be negated as `not-port`, `not-ip`, …. With `follow`: as `application/x-ndjson`, those
/// that end from now on; a reader that is too slow finds a line `{"lost": N}` in the place of what it missed.
#[utoipa::path(get, path = "/v1/flows",
    params(
        ("port" = Option<Vec<String>>, Query, description = "Either port, by name"),
        ("from-port" = Option<Vec<String>>, Query, description = "The port of who began"),
        ("to-port" = Option<Vec<String>>, Query, description = "The port of who answered"),
        ("mac" = Option<Vec<String>>, Query, description = "Either station"),
        ("ip" = Option<Vec<String>>, Query, description = "Either address, or a network: `198.18.0.0/15`"),
        ("vlan" = Option<Vec<u16>>, Query, description = "Either tag's VLAN"),
        ("protocol" = Option<Vec<String>>, Query, description = "`tcp`, `icmp`, `arp`, `ipv6`, …, or a number"),
        ("l4-port" = Option<Vec<u16>>, Query, description = "Either TCP or UDP port"),
        ("verdict" = Option<Vec<String>>, Query, description = "`forwarded`, `flooded` or `dropped`"),
        ("drop-reason" = Option<Vec<String>>, Query, description = "A drop reason's label"),
        ("since" = Option<String>, Query, description = "A time (RFC 3339) or how long ago (`90s`, `5m`, `2h`, `1d`)"),
        ("until" = Option<String>, Query, description = "Only what has its last frame before: a time or how long ago"),
        ("last" = Option<u32>, Query, description = "So many at most: 1 to 200000, 1000 by default"),
        ("follow" = Option<bool>, Query, description = "Go on, with what ends from now on"),
    ),
    responses((status = 200, body = Vec<Record>), (status = 422, body = Problem), (status = 503, body = Problem)))]
async fn list_flows<C: Control>(
    State(room): State<Room<C>>,
    Options(words): Options<Vec<(String, String)>>,
) -> Result<Response, Refusal> {
    let asked = Asked::read(&words, Timestamp::now())?;
    if asked.follow {
        flows::follow(room.control, &room.followers, asked)
    } else {
        flows::list(&room.control, asked).await
    }
}

/// What happened not long ago, oldest first: the last 1000 of each kind are in memory; with `since` or `until` also what the history has
/// and memory has no longer. A word repeated is OR, different ones are AND. With
/// `follow`: as `application/x-ndjson`, what happens from now on; a reader that is too slow finds a line `{"lost": N}` in the place of
/// what it missed.
#[utoipa::path(get, path = "/v1/events",
    params(
        ("kind" = Option<Vec<EventKind>>, Query, description = "What happened"),
        ("port" = Option<Vec<String>>, Query, description = "The port it happened at, or the other one"),
        ("since" = Option<String>, Query, description = "A time (RFC 3339) or how long ago (`90s`, `5m`, `2h`, `1d`)"),
        ("until" = Option<String>, Query, description = "Only what happened before: a time or how long ago"),
        ("last" = Option<u32>, Query, description = "So many at most: 1 to 10000, 1000 by default"),
        ("follow" = Option<bool>, Query, description = "Go on, with what happens from now on"),
    ),
    responses((status = 200, body = Vec<Event>), (status = 422, body = Problem), (status = 503, body = Problem)))]
async fn list_events<C: Control>(
    State(room): State<Room<C>>,
    Options(words): Options<Vec<(String, String)>>,
) -> Result<Response, Refusal> {
    let asked = events::Asked::read(&words, Timestamp::now())?;
    if asked.follow {
        events::follow(room.control, &room.followers, asked)
    } else {
        events::list(&room.control, asked).await
    }
}

/// Who had an IP address, what a station had, what was behind a port, the latest first: as seen in ARP, neighbour discovery, DHCP.
#[utoipa::path(get, path = "/v1/who/{subject}",
    params(("subject" = String, Path, description = "An IP address, a MAC address or a port's name"), Who),
    responses((status = 200, body = Vec<Holder>), (status = 422, body = Problem)))]
async fn who<C: Control>(
    State(room): State<Room<C>>,
    Path(subject): Path<String>,
    Options(options): Options<Who>,
) -> Answer<Vec<Holder>> {
    let subject: Subject = subject.parse().map_err(|error: NoSubject| ControlError::Invalid(error.to_string()))?;
    let at = options.at.map(|at| filter::parse_time(&at, Timestamp::now())).transpose();
    let at = at.map_err(|wrong| ControlError::Invalid(format!("at: {wrong}")))?;
    Ok(Json(room.control.who(subject, at).await))
}

fn port_name(text: &str) -> Result<PortName, ControlError> {
    text.parse().map_err(|e| ControlError::Invalid(format!("no port has such a name: {e}")))
}

/// The same checks as for a port of the file.
fn checked(spec: &PortSpec, origin: Origin) -> Result<PortSpec, ControlError> {
    PortTable::try_from(spec)
        .and_then(|table| table.spec(origin).map_err(|fault| fault.message))
        .map_err(|message| ControlError::Invalid(format!("port '{}': {message}", spec.name)))
}
