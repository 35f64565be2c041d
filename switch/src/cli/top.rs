//! `weft top`: what happens now, on a terminal.
//!
//! ```text
//! keys ─▶ App ─▶ Question ─▶ daemon ─▶ Answer ─▶ Rates ─▶ App ─▶ draw ─▶ terminal
//! ```
//!
//! [`app`] is all state and what keys do to it; it knows neither terminal nor daemon. [`ask`] turns it into a question that is
//! answered in bounded size, [`rates`] makes rates of two answers and the daemon's own times, [`sheet`] says what columns there
//! are, [`draw`] puts it on a screen of any size, and [`screen`] gives the terminal back as it was, whatever happens. Here is the
//! loop that waits for the next key, answer, moment or signal.
//!
//! **What is seen is never torn**: an answer to what is not asked any more is thrown away. A daemon that is gone leaves its last
//! picture, with the time since when it is old, and is asked again every second.

pub mod screen;

mod app;
mod ask;
mod detail;
mod draw;
mod rates;
mod sheet;
#[cfg(test)]
mod tests;
mod words;

use std::time::Duration;

use anyhow::{Context, anyhow};
use clap::Args;
use crossterm::event::{Event, EventStream, KeyEventKind};
use futures_util::StreamExt;
use jiff::Timestamp;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout};

use super::Global;
use crate::api::client::{Client, ClientError};
use app::{App, Reaction, Start};
use ask::{Answer, Question};
use draw::Theme;
use screen::Screen;
use sheet::View;

/// How long an answer may take before the daemon is said to be silent.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often a daemon that is gone is asked again.
const AGAIN: Duration = Duration::from_secs(1);

/// Watch ports, conversations, drops, stations and events on a terminal
#[derive(Args, Debug)]
pub(super) struct Options {
    /// What to look at first
    #[arg(value_enum, default_value_t, hide_possible_values = true)]
    #[arg(help = "What to look at first: ports, conversations, drops, stations or events")]
    view: View,
    /// Only rows with these words
    #[arg(long, value_name = "WORDS", default_value = "", hide_default_value = true)]
    filter: String,
    /// Sort by this column, by its heading
    #[arg(long, value_name = "COLUMN")]
    sort: Option<String>,
    /// Sort the other way round
    #[arg(long)]
    reverse: bool,
    /// Look every so many seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=3600))]
    every: u64,
}

impl Options {
    fn start(self) -> Result<Start, String> {
        let headings = self.view.orders();
        let place = |sort: String| {
            let found = headings.iter().position(|(heading, _)| heading.eq_ignore_ascii_case(&sort));
            found.ok_or_else(|| {
                let known: Vec<_> = headings.iter().map(|(heading, _)| heading.to_lowercase()).collect();
                format!("--sort: there is no column '{}'; there are {}", sort.escape_debug(), known.join(", "))
            })
        };
        let order = self.sort.map(place).transpose()?;
        Ok(Start { view: self.view, order, reversed: self.reverse, text: self.filter })
    }
}

/// Shows what happens, until somebody has seen enough.
///
/// # Errors
/// There is no daemon at the start, it refuses, or the terminal fails.
pub(super) async fn run(global: &Global, options: Options) -> anyhow::Result<()> {
    Screen::is_possible()?;
    let (client, every, theme) = (&global.client(), Duration::from_secs(options.every), Theme::of_environment());
    let mut app = App::new(options.start().map_err(Usage)?);
    let question = app.question();
    let first = ask::ask(client.clone(), question.clone()).await?;
    app.answered(&question, Ok(first), Timestamp::now());
    let mut screen = Screen::enter()?;
    let mut keys = EventStream::new();
    let mut ends = Ends::new()?;
    let mut asking: Option<Asking> = None;
    let mut next = Instant::now() + every;
    loop {
        screen.draw(|frame| draw::draw(frame, &mut app, theme, Timestamp::now()))?;
        let is_waiting = asking.is_none() && !app.is_paused;
        tokio::select! {
            event = keys.next() => {
                let event = event.context("the terminal has gone")?.context("the terminal cannot be read")?;
                match heard(&mut app, &event) {
                    Reaction::Quit => return Ok(()),
                    Reaction::Ask => asking = Some(Asking::start(client, app.question())),
                    Reaction::Draw => {}
                }
            }
            () = sleep_until(next), if is_waiting => {
                next = Instant::now() + every;
                asking = Some(Asking::start(client, app.question()));
            }
            (question, answer) = Asking::end(&mut asking) => {
                asking = None;
                if answer.is_err() {
                    next = Instant::now() + AGAIN;
                }
                app.answered(&question, answer, Timestamp::now());
            }
            () = ends.any() => return Ok(()),
        }
    }
}

fn heard(app: &mut App, event: &Event) -> Reaction {
    match event {
        Event::Key(key) if key.kind != KeyEventKind::Release => app.key(*key),
        Event::Key(_)
        | Event::Resize(..)
        | Event::FocusGained
        | Event::FocusLost
        | Event::Mouse(_)
        | Event::Paste(_) => Reaction::Draw,
    }
}

/// Something that cannot be meant.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Usage(String);

/// A question that is on its way. It is given up when this is dropped.
struct Asking {
    question: Question,
    task: JoinHandle<Result<Answer, String>>,
}

impl Asking {
    fn start(client: &Client, question: Question) -> Self {
        let asked = ask::ask(client.clone(), question.clone());
        let task = tokio::spawn(async move {
            match timeout(PATIENCE, asked).await {
                Ok(answer) => answer.map_err(|error| blame(&error)),
                Err(_) => Err(format!("it has not answered for {} s", PATIENCE.as_secs())),
            }
        });
        Self { question, task }
    }

    /// Waits for the answer; for ever, when nothing is asked.
    async fn end(asking: &mut Option<Self>) -> (Question, Result<Answer, String>) {
        match asking {
            Some(Self { question, task }) => {
                let answer = task.await.unwrap_or_else(|error| Err(error.to_string()));
                (question.clone(), answer)
            }
            None => std::future::pending().await,
        }
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Why there is no answer, in the few words that a line has room for.
fn blame(error: &ClientError) -> String {
    match error {
        ClientError::Unreachable { source, .. } | ClientError::Forbidden { source, .. } => source.to_string(),
        ClientError::Gone { .. } | ClientError::Vanished { .. } => "it ended while it was answering".to_owned(),
        ClientError::Refused { .. } | ClientError::Garbled(_) => error.to_string(),
    }
}

/// The signals that end it as a key would: somebody's `kill`, a terminal that is closed.
struct Ends([Signal; 3]);

impl Ends {
    fn new() -> anyhow::Result<Self> {
        let on = |kind| signal(kind).map_err(|error| anyhow!("signals cannot be waited for: {error}"));
        Ok(Self([on(SignalKind::terminate())?, on(SignalKind::interrupt())?, on(SignalKind::hangup())?]))
    }

    async fn any(&mut self) {
        let [term, int, hup] = &mut self.0;
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
            _ = hup.recv() => {}
        }
    }
}
