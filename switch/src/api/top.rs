//! What `weft top` asks for: answers of bounded size, put in order, searched and cut before any JSON is made of them.
//!
//! `weft top` asks once a second. So it is not given everything there is, as scripts are: of conversations, stations and events the first
//! so many in an order, of ports and drops the numbers alone. Counters are totals; rates are the difference between two answers
//! over that of their `at_ns`. Conversations come with their rates, because they are put in the order of these here.

use axum::Json;
use axum::extract::State;
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::input::{Options, Refusal};
use super::routes::Room;
use super::schema::{DropInfo, PortInfo, Side, StationInfo, Traffic};
use super::{Control, ControlError};
use crate::events::{Event, EventFilter};
use crate::flow::{Carried, Pace, Record};
use crate::observer::{Busiest, BusiestBy, Busy, WORDS_MAX, Wanted};
use crate::port::spec::PortState;

/// Rows in an answer, when nobody says how many.
pub const LIMIT: usize = 100;
/// Rows in an answer at most.
pub const LIMIT_MAX: usize = 1000;
/// Bytes of text to look for at most.
pub const MATCH_BYTES_MAX: usize = 256;

/// An answer: some rows of all.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Top<T> {
    /// When the numbers were read, in ns of the host's `CLOCK_MONOTONIC`.
    pub at_ns: u64,
    /// All that there are.
    pub total: u64,
    /// Of these, how many have what is looked for.
    pub matched: u64,
    /// The first of them.
    pub rows: Vec<T>,
}

/// A port's numbers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TopPort {
    /// Its name.
    pub name: String,
    /// The interface on the host.
    pub netdev: String,
    /// What the interface is doing.
    pub state: PortState,
    /// Wire frames that came in.
    pub in_frames: u64,
    /// Wire bytes that came in.
    pub in_bytes: u64,
    /// Wire frames that went out.
    pub out_frames: u64,
    /// Wire bytes that went out.
    pub out_bytes: u64,
    /// Frames that did not arrive.
    pub drops: u64,
}

impl From<PortInfo> for TopPort {
    fn from(port: PortInfo) -> Self {
        let Traffic { wire_frames: in_frames, wire_bytes: in_bytes, .. } = port.ingress;
        let Traffic { wire_frames: out_frames, wire_bytes: out_bytes, .. } = port.egress;
        Self {
            name: port.name.to_string(),
            netdev: port.netdev,
            state: port.state,
            in_frames,
            in_bytes,
            out_frames,
            out_bytes,
            drops: port.drops.values().sum(),
        }
    }
}

/// Frames that did not arrive: of one port, for one reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TopDrop {
    /// The port's name; empty for frames that belong to no port.
    pub port: String,
    /// Which side refused.
    pub side: Side,
    /// Why: the label of a drop reason.
    pub reason: String,
    /// Frames; a super-frame counts once.
    pub frames: u64,
    /// Bytes.
    pub bytes: u64,
}

impl From<DropInfo> for TopDrop {
    fn from(DropInfo { port, side, reason, frames, bytes, .. }: DropInfo) -> Self {
        Self { port, side, reason, frames, bytes }
    }
}

/// Wire frames and wire bytes, in all and a second by the daemon's last sweep.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TopPace {
    /// Wire frames since the conversation began, or was first seen by this daemon.
    pub frames: u64,
    /// The same in wire bytes.
    pub bytes: u64,
    /// Wire frames a second.
    pub frames_per_sec: u64,
    /// Wire bytes a second.
    pub bytes_per_sec: u64,
}

impl From<Pace> for TopPace {
    fn from(Pace { total, rate }: Pace) -> Self {
        let Carried { frames, bytes } = total;
        Self { frames, bytes, frames_per_sec: rate.frames, bytes_per_sec: rate.bytes }
    }
}

/// A conversation that goes on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TopConversation {
    /// What would be told of it if it ended now.
    pub record: Record,
    /// What who began has sent.
    pub forward: TopPace,
    /// What was sent back.
    pub reverse: TopPace,
}

impl From<Busy> for TopConversation {
    fn from(Busy { record, forward, reverse }: Busy) -> Self {
        Self { record, forward: forward.into(), reverse: reverse.into() }
    }
}

/// What stations are put in the order of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum StationsBy {
    /// Their address.
    Mac,
    /// Their port.
    Port,
    /// Pinned or learnt.
    Kind,
    /// How long they were not seen.
    #[default]
    Age,
    /// How often they changed ports.
    Moves,
}

/// What events are put in the order of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum EventsBy {
    /// When they happened.
    #[default]
    Time,
    /// What happened, by its label.
    Kind,
    /// Where.
    Port,
}

/// Which rows, and in which order.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, bound(deserialize = "By: Default + Deserialize<'de>"))]
pub struct TopQuery<By> {
    /// What the order goes by.
    pub by: By,
    /// The largest first, or last in the alphabet.
    pub descending: bool,
    /// So many rows at most: 1 to 1000, 100 by default.
    pub limit: usize,
    /// Words, each of which is to be found in a row, whatever its case.
    pub r#match: String,
    /// Of conversations: only this one, by the `id` of its records; also if it ended not long ago.
    pub id: Option<String>,
}

impl<By: Default> Default for TopQuery<By> {
    fn default() -> Self {
        Self { by: By::default(), descending: false, limit: LIMIT, r#match: String::new(), id: None }
    }
}

impl<By> TopQuery<By> {
    fn checked(self) -> Result<(Self, Vec<String>), ControlError> {
        if !(1..=LIMIT_MAX).contains(&self.limit) {
            return Err(ControlError::Invalid(format!("limit: take a number from 1 to {LIMIT_MAX}")));
        }
        let words = words(&self.r#match);
        if self.r#match.len() > MATCH_BYTES_MAX || words.len() > WORDS_MAX {
            let message = format!("match: take {MATCH_BYTES_MAX} bytes and {WORDS_MAX} words at most");
            return Err(ControlError::Invalid(message));
        }
        Ok((self, words))
    }
}

/// What somebody looks for, word by word.
pub fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_lowercase).collect()
}

type Answer<T> = Result<Json<Top<T>>, Refusal>;

fn now_ns() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    time.tv_sec.saturating_mul(1_000_000_000).saturating_add(time.tv_nsec).cast_unsigned()
}

/// Every port's numbers.
#[utoipa::path(get, path = "/v1/top/ports", responses((status = 200, body = Top<TopPort>)))]
pub(super) async fn ports<C: Control>(State(room): State<Room<C>>) -> Json<Top<TopPort>> {
    all(room.control.ports().await)
}

/// Everything that did not arrive, in numbers.
#[utoipa::path(get, path = "/v1/top/drops", responses((status = 200, body = Top<TopDrop>)))]
pub(super) async fn drops<C: Control>(State(room): State<Room<C>>) -> Json<Top<TopDrop>> {
    all(room.control.drops().await)
}

fn all<T, R: From<T>>(things: Vec<T>) -> Json<Top<R>> {
    let (at_ns, total) = (now_ns(), things.len() as u64);
    Json(Top { at_ns, total, matched: total, rows: things.into_iter().map(R::from).collect() })
}

/// The first stations in an order.
#[utoipa::path(get, path = "/v1/top/stations",
    params(
        ("by" = Option<StationsBy>, Query, description = "What the order goes by; `age` by default"),
        ("descending" = Option<bool>, Query, description = "The largest first, or last in the alphabet"),
        ("limit" = Option<u32>, Query, description = "So many rows at most: 1 to 1000, 100 by default"),
        ("match" = Option<String>, Query, description = "Words, each of which is to be found in a row"),
    ),
    responses((status = 200, body = Top<StationInfo>), (status = 422, body = super::schema::Problem)))]
pub(super) async fn stations<C: Control>(
    State(room): State<Room<C>>,
    Options(query): Options<TopQuery<StationsBy>>,
) -> Answer<StationInfo> {
    let (query, words) = query.checked()?;
    let mut rows = room.control.stations().await;
    let (at_ns, total) = (now_ns(), rows.len() as u64);
    if !words.is_empty() {
        rows.retain(|station| {
            let text = format!("{} {}", station.mac, station.port).to_lowercase();
            words.iter().all(|word| text.contains(word.as_str()))
        });
    }
    let matched = rows.len() as u64;
    rows.sort_by(|a, b| {
        let order = match query.by {
            StationsBy::Mac => a.mac.cmp(&b.mac),
            StationsBy::Port => a.port.cmp(&b.port),
            StationsBy::Kind => a.is_static.cmp(&b.is_static),
            StationsBy::Age => a.age_secs.cmp(&b.age_secs),
            StationsBy::Moves => a.moves.cmp(&b.moves),
        };
        if query.descending { order.reverse() } else { order }
    });
    rows.truncate(query.limit);
    Ok(Json(Top { at_ns, total, matched, rows }))
}

/// The first of the conversations that go on, in an order.
#[utoipa::path(get, path = "/v1/top/conversations",
    params(
        ("by" = Option<BusiestBy>, Query, description = "What the order goes by; `rate` by default"),
        ("descending" = Option<bool>, Query, description = "The largest first, or last in the alphabet"),
        ("limit" = Option<u32>, Query, description = "So many rows at most: 1 to 1000, 100 by default"),
        ("match" = Option<String>, Query, description = "Words, each of which is to be found in a row"),
        ("id" = Option<String>, Query, description = "Only this one, by the `id` of its records"),
    ),
    responses((status = 200, body = Top<TopConversation>), (status = 422, body = super::schema::Problem)))]
pub(super) async fn conversations<C: Control>(
    State(room): State<Room<C>>,
    Options(query): Options<TopQuery<BusiestBy>>,
) -> Answer<TopConversation> {
    let (TopQuery { by, descending, limit, id, .. }, words) = query.checked()?;
    let Busiest { total, matched, rows, swept_at: _ } =
        room.control.busiest(Wanted { by, descending, limit, words, id }).await;
    Ok(Json(Top { at_ns: now_ns(), total, matched, rows: rows.into_iter().map(TopConversation::from).collect() }))
}

/// The first in an order of the events that happened not long ago.
#[utoipa::path(get, path = "/v1/top/events",
    params(
        ("by" = Option<EventsBy>, Query, description = "What the order goes by; `time` by default"),
        ("descending" = Option<bool>, Query, description = "The latest first, or last in the alphabet"),
        ("limit" = Option<u32>, Query, description = "So many rows at most: 1 to 1000, 100 by default"),
        ("match" = Option<String>, Query, description = "Words, each of which is to be found in a row"),
    ),
    responses((status = 200, body = Top<Event>), (status = 422, body = super::schema::Problem)))]
pub(super) async fn events<C: Control>(
    State(room): State<Room<C>>,
    Options(query): Options<TopQuery<EventsBy>>,
) -> Answer<Event> {
    let (query, words) = query.checked()?;
    // Memory alone: no time is named.
    let mut rows = room.control.recent_events(EventFilter::default(), usize::MAX).await?;
    let (at_ns, total) = (now_ns(), rows.len() as u64);
    if !words.is_empty() {
        rows.retain(|event| {
            let port = event.port.as_deref().unwrap_or_default();
            let text = format!("{} {port} {}", event.kind, event.sentence()).to_lowercase();
            words.iter().all(|word| text.contains(word.as_str()))
        });
    }
    let matched = rows.len() as u64;
    // They come in the order of time, which equals stay in, the latest first.
    rows.reverse();
    rows.sort_by(|a, b| {
        let order = match query.by {
            EventsBy::Time => a.time.cmp(&b.time),
            EventsBy::Kind => a.kind.label().cmp(b.kind.label()),
            EventsBy::Port => a.port.cmp(&b.port),
        };
        if query.descending { order.reverse() } else { order }
    });
    rows.truncate(query.limit);
    Ok(Json(Top { at_ns, total, matched, rows: rows.iter().map(|event| Event::clone(event)).collect() }))
}
