//! What is asked of the daemon, and its answer: always of a size that does not grow with the switch's traffic.

use std::fmt::Write as _;

use super::sheet::View;
use crate::api::client::{Client, ClientError};
use crate::api::schema::{StationInfo, Status};
use crate::api::top::{Top, TopConversation, TopDrop, TopPort};
use crate::cli::filters::Quoted;
use crate::events::Event;

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Question {
    pub(super) view: View,
    /// The daemon's name for the order, where it is the daemon that makes it.
    pub(super) by: Option<&'static str>,
    pub(super) descending: bool,
    /// Rows that are wanted, where the daemon chooses them.
    pub(super) limit: usize,
    pub(super) text: String,
    /// One conversation, by its id.
    pub(super) id: Option<String>,
}

impl Question {
    /// Whether an answer to this is one to the other, too: who scrolls asks for more of the same.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        *self == Self { limit: self.limit, ..other.clone() }
    }

    fn query(&self) -> String {
        let mut query = format!("descending={}&limit={}", self.descending, self.limit);
        let words = [
            ("by", self.by),
            ("match", Some(self.text.as_str()).filter(|text| !text.is_empty())),
            ("id", self.id.as_deref()),
        ];
        for (word, value) in words {
            if let Some(value) = value {
                write!(query, "&{word}={}", Quoted(value)).expect("a string takes everything");
            }
        }
        query
    }
}

/// What was answered.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub(super) status: Status,
    pub(super) rows: Rows,
}

/// Rows of the view that was asked for.
#[derive(Clone, Debug)]
pub(super) enum Rows {
    Ports(Top<TopPort>),
    Conversations(Top<TopConversation>),
    Drops(Top<TopDrop>),
    Stations(Top<StationInfo>),
    Events(Top<Event>),
    /// Of one conversation.
    One(Option<Box<TopConversation>>),
}

/// Asks.
pub(super) async fn ask(client: Client, question: Question) -> Result<Answer, ClientError> {
    let status = client.get("/v1/status").await?;
    let query = question.query();
    let rows = match (question.view, &question.id) {
        (View::Ports, _) => Rows::Ports(client.get("/v1/top/ports").await?),
        (View::Drops, _) => Rows::Drops(client.get("/v1/top/drops").await?),
        (View::Stations, _) => Rows::Stations(client.get(&format!("/v1/top/stations?{query}")).await?),
        (View::Events, _) => Rows::Events(client.get(&format!("/v1/top/events?{query}")).await?),
        (View::Conversations, None) => {
            Rows::Conversations(client.get(&format!("/v1/top/conversations?{query}")).await?)
        }
        (View::Conversations, Some(_)) => {
            let found: Top<TopConversation> = client.get(&format!("/v1/top/conversations?{query}")).await?;
            Rows::One(found.rows.into_iter().next().map(Box::new))
        }
    };
    Ok(Answer { status, rows })
}
