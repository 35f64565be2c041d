//! Events: those that happened, and those that happen from now on.

use std::sync::Arc;

use axum::Json;
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use tokio::sync::Semaphore;

use super::follow::take_seat;
use super::input::Refusal;
use super::{Control, ControlError, told};
use crate::events::{Event, EventFilter};
use crate::flow::filter;

/// Events in an answer, when nobody says how many.
pub const LAST: usize = 1000;
/// Events in an answer at most.
pub const LAST_MAX: usize = 10_000;

/// What is asked for.
#[derive(Debug)]
pub(super) struct Asked {
    filter: EventFilter,
    last: usize,
    /// Go on with what happens from now on.
    pub(super) follow: bool,
}

impl Asked {
    /// Reads a query.
    pub(super) fn read(words: &[(String, String)], now: Timestamp) -> Result<Self, ControlError> {
        let (mut since, mut until) = (None, None);
        let mut asked = Self { filter: EventFilter::default(), last: LAST, follow: false };
        let invalid = |word: &str, value: &str, expected: &str| {
            ControlError::Invalid(format!("{word}: '{}' is not {expected}", value.escape_default()))
        };
        for (word, value) in words {
            match word.as_str() {
                "last" => match value.parse() {
                    Ok(last @ 1..=LAST_MAX) => asked.last = last,
                    _ => return Err(invalid(word, value, &format!("a number from 1 to {LAST_MAX}"))),
                },
                "follow" => match value.parse() {
                    Ok(follow) => asked.follow = follow,
                    Err(_) => return Err(invalid(word, value, "true or false")),
                },
                "since" | "until" => {
                    let time = filter::time(value, now).ok_or_else(|| invalid(word, value, filter::A_TIME))?;
                    *(if word == "since" { &mut since } else { &mut until }) = Some(time);
                }
                word => asked.filter.add(word, value).map_err(|error| ControlError::Invalid(error.to_string()))?,
            }
        }
        if asked.follow && (since.is_some() || until.is_some()) {
            let message = "what is followed begins now; leave --since and --until out, or --follow";
            return Err(ControlError::Invalid(message.to_owned()));
        }
        asked.filter.between(since, until);
        Ok(asked)
    }
}

/// What happened, as one JSON document.
pub(super) async fn list<C: Control>(control: &C, asked: Asked) -> Result<Response, Refusal> {
    let events = control.recent_events(asked.filter, asked.last).await?;
    Ok(Json(events.iter().map(Arc::as_ref).collect::<Vec<&Event>>()).into_response())
}

/// What happens from now on, a line each. A reader that is too slow finds a line `{"lost": N}` in the place of what it missed.
pub(super) fn follow<C: Control>(control: C, followers: &Arc<Semaphore>, asked: Asked) -> Result<Response, Refusal> {
    let seat = take_seat(followers)?;
    let (events, filter) = (control.events(), asked.filter);
    let lagged = move |events| control.events_lagged(events);
    Ok(told::follow(seat, events, move |event| filter.matches(event), lagged))
}
