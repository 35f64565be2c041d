//! Conversations: those that there are, and those that end from now on.
//!
//! A query is made of the words of a [`Filter`]: `port=web1&port=web2&not-protocol=arp`. As on the command line, the same word
//! repeated is OR, different ones are AND, and `not-` negates.

use std::sync::Arc;

use axum::http::header;
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use tokio::sync::Semaphore;

use super::follow::take_seat;
use super::input::Refusal;
use super::{Control, ControlError, told};
use crate::flow::{Filter, Record};

/// Records in an answer, when nobody says how many.
pub const LAST: usize = 1000;
/// Records in an answer at most.
pub const LAST_MAX: usize = 200_000;

/// What is asked for.
#[derive(Debug)]
pub(super) struct Asked {
    filter: Filter,
    last: usize,
    /// Go on with what ends from now on.
    pub(super) follow: bool,
}

impl Asked {
    /// Reads a query.
    pub(super) fn read(words: &[(String, String)], now: Timestamp) -> Result<Self, ControlError> {
        let mut asked = Self { filter: Filter::default(), last: LAST, follow: false };
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
                word => {
                    let (flag, negated) = word.strip_prefix("not-").map_or((word, false), |flag| (flag, true));
                    let added = asked.filter.add(flag, value, negated, now);
                    added.map_err(|error| ControlError::Invalid(error.to_string()))?;
                }
            }
        }
        Ok(asked)
    }
}

fn invalid(word: &str, value: &str, expected: &str) -> ControlError {
    ControlError::Invalid(format!("{word}: '{}' is not {expected}", value.escape_default()))
}

/// What there is, as one JSON document.
pub(super) async fn list<C: Control>(control: &C, asked: Asked) -> Result<Response, Refusal> {
    let records = control.flows(asked.filter, asked.last).await?;
    // It may be much, and the thread of control serves others meanwhile.
    let text = tokio::task::spawn_blocking(move || {
        let records: Vec<&Record> = records.iter().map(Arc::as_ref).collect();
        serde_json::to_vec(&records)
    });
    let text = text.await.map_err(|error| ControlError::Failed(error.to_string()))?;
    let text = text.map_err(|error| ControlError::Failed(format!("no JSON for this: {error}")))?;
    Ok(([(header::CONTENT_TYPE, "application/json")], text).into_response())
}

/// What ends from now on, a line each. A reader that is too slow finds a line `{"lost": N}` in the place of what it missed.
pub(super) fn follow<C: Control>(control: C, followers: &Arc<Semaphore>, asked: Asked) -> Result<Response, Refusal> {
    let seat = take_seat(followers)?;
    let (ended, filter) = (control.follow_flows(), asked.filter);
    let lagged = move |records| control.follower_lagged(records);
    Ok(told::follow(seat, ended, move |record| filter.matches(record), lagged))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn read(query: &str) -> Result<Asked, String> {
        let words: Vec<(String, String)> = query
            .split('&')
            .filter_map(|word| word.split_once('='))
            .map(|(word, value)| (word.to_owned(), value.to_owned()))
            .collect();
        Asked::read(&words, Timestamp::UNIX_EPOCH).map_err(|error| error.to_string())
    }

    #[test]
    fn a_query_is_made_of_the_words_of_the_command_line() {
        let asked = read("port=web1&not-protocol=arp&since=5m&last=7&follow=true").unwrap();
        assert_eq!((asked.last, asked.follow), (7, true));
        let words: Vec<_> = asked.filter.words().collect();
        let expected = [("port", "web1", false), ("protocol", "arp", true), ("since", "1969-12-31T23:55:00Z", false)];
        assert_eq!(words, expected.map(|(flag, value, not)| (flag, value.to_owned(), not)));
        let asked = read("").unwrap();
        assert_eq!((asked.last, asked.follow, asked.filter.is_empty()), (LAST, false, true));
    }

    #[test]
    fn what_is_wrong_with_a_query_is_said() {
        for (query, complaint) in [
            ("ip=198.18.0", "--ip: '198.18.0' is not an IP address"),
            ("last=0", "last: '0' is not a number from 1"),
            ("last=1000000", "is not a number from 1 to 200000"),
            ("follow=maybe", "follow: 'maybe' is not true or false"),
            ("colour=\u{1b}[31m", "there is no filter 'colour'"),
            ("not-mac=\u{1b}[31m", "'\\u{1b}[31m' is not a MAC address"),
        ] {
            let error = read(query).unwrap_err();
            assert!(error.contains(complaint), "{query}: {error}");
        }
    }
}
