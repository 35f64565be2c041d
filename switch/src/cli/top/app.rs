//! What is shown, and what keys do to it. No terminal, no daemon, no clock.

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use jiff::Timestamp;

use super::ask::{Answer, Question, Rows};
use super::rates::{Before, DropRow, PortRow};
use super::sheet::{By, CONVERSATIONS, Column, DROPS, EVENTS, PORTS, STATIONS, View};
use crate::api::schema::{StationInfo, Status};
use crate::api::top::{LIMIT_MAX, MATCH_BYTES_MAX, TopConversation, words};
use crate::events::Event;

/// What it begins with.
#[derive(Clone, Debug, Default)]
pub(super) struct Start {
    pub(super) view: View,
    /// The column's place, and whether it is turned round.
    pub(super) order: Option<usize>,
    pub(super) reversed: bool,
    pub(super) text: String,
}

/// What is to be done after a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reaction {
    /// Draw.
    Draw,
    /// Ask at once, something else is wanted.
    Ask,
    /// End.
    Quit,
}

/// In which order a view is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Order {
    /// The column's place.
    pub(super) column: usize,
    /// The other way than the column's own.
    pub(super) reversed: bool,
}

/// The rows of the last answer, in order.
#[derive(Debug)]
pub(super) enum Picture {
    Ports(Vec<PortRow>),
    Conversations(Vec<TopConversation>),
    Drops(Vec<DropRow>),
    Stations(Vec<StationInfo>),
    Events(Vec<Event>),
}

impl Picture {
    /// Nothing yet.
    pub(super) fn empty(view: View) -> Self {
        match view {
            View::Ports => Self::Ports(Vec::new()),
            View::Conversations => Self::Conversations(Vec::new()),
            View::Drops => Self::Drops(Vec::new()),
            View::Stations => Self::Stations(Vec::new()),
            View::Events => Self::Events(Vec::new()),
        }
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Self::Ports(rows) => rows.len(),
            Self::Conversations(rows) => rows.len(),
            Self::Drops(rows) => rows.len(),
            Self::Stations(rows) => rows.len(),
            Self::Events(rows) => rows.len(),
        }
    }
}

/// One conversation, looked at closely.
#[derive(Debug)]
pub(super) struct Close {
    pub(super) shown: TopConversation,
    /// The daemon has forgotten it.
    pub(super) is_forgotten: bool,
    /// Lines that are scrolled by.
    pub(super) scroll: usize,
}

/// Why the picture is old, and since when.
#[derive(Debug)]
pub(super) struct Silence {
    pub(super) since: Timestamp,
    pub(super) why: String,
}

/// Everything.
#[derive(Debug)]
pub(super) struct App {
    pub(super) view: View,
    orders: [Order; View::ALL.len()],
    /// Which rows are wanted.
    pub(super) text: String,
    /// What is being typed behind `/`.
    pub(super) typing: Option<String>,
    pub(super) is_paused: bool,
    pub(super) is_helping: bool,
    pub(super) close: Option<Close>,
    pub(super) selected: usize,
    /// The first row on the screen.
    pub(super) scroll: usize,
    /// Rows that the screen has room for, as it was drawn last.
    pub(super) page: usize,
    pub(super) status: Option<Status>,
    pub(super) taken: Timestamp,
    pub(super) picture: Picture,
    /// All, and those that were asked for.
    pub(super) counts: (u64, u64),
    pub(super) silence: Option<Silence>,
    before: Before,
}

impl App {
    pub(super) fn new(start: Start) -> Self {
        let first = View::ALL.map(|view| Order { column: view.first_order(), reversed: false });
        let mut app = Self {
            view: start.view,
            orders: first,
            text: start.text,
            typing: None,
            is_paused: false,
            is_helping: false,
            close: None,
            selected: 0,
            scroll: 0,
            page: 50,
            status: None,
            taken: Timestamp::UNIX_EPOCH,
            picture: Picture::Ports(Vec::new()),
            counts: (0, 0),
            silence: None,
            before: Before::default(),
        };
        let order = app.order_mut();
        *order = Order { column: start.order.unwrap_or(order.column), reversed: start.reversed };
        app
    }

    pub(super) fn order(&self) -> Order {
        self.orders.get(self.view.place()).copied().unwrap_or(Order { column: 0, reversed: false })
    }

    fn order_mut(&mut self) -> &mut Order {
        let place = self.view.place();
        self.orders.get_mut(place).expect("there is an order for each view")
    }

    /// What is to be asked now.
    pub(super) fn question(&self) -> Question {
        let Order { column, reversed } = self.order();
        let by = match self.view {
            View::Conversations => there(CONVERSATIONS, column),
            View::Stations => there(STATIONS, column),
            View::Events => there(EVENTS, column),
            View::Ports | View::Drops => None,
        };
        let descending = self.view.orders().get(column).is_some_and(|(_, descending)| *descending) != reversed;
        Question {
            view: self.view,
            by,
            descending,
            // The page that is seen, and one more for who scrolls on.
            limit: (self.scroll + 2 * self.page).clamp(1, LIMIT_MAX),
            text: self.text.clone(),
            id: self.close.as_ref().map(|close| close.shown.record.id.clone()),
        }
    }

    /// Takes an answer, if it is one to what is asked now.
    pub(super) fn answered(&mut self, question: &Question, answer: Result<Answer, String>, now: Timestamp) {
        if !question.is_like(&self.question()) {
            return;
        }
        let Answer { status, rows } = match answer {
            Ok(answer) => answer,
            Err(why) => {
                let since = self.silence.as_ref().map_or(now, |silence| silence.since);
                self.silence = Some(Silence { since, why });
                return;
            }
        };
        self.silence = None;
        self.status = Some(status);
        self.taken = now;
        match rows {
            Rows::Ports(top) => {
                self.picture = Picture::Ports(self.before.ports(top));
                self.choose();
            }
            Rows::Drops(top) => {
                self.picture = Picture::Drops(self.before.drops(top));
                self.choose();
            }
            Rows::Conversations(top) => {
                self.counts = (top.total, top.matched);
                self.picture = Picture::Conversations(top.rows);
            }
            Rows::Stations(top) => {
                self.counts = (top.total, top.matched);
                self.picture = Picture::Stations(top.rows);
            }
            Rows::Events(top) => {
                self.counts = (top.total, top.matched);
                self.picture = Picture::Events(top.rows);
            }
            Rows::One(found) => {
                if let Some(close) = &mut self.close {
                    close.is_forgotten = found.is_none();
                    close.shown = found.map_or_else(|| close.shown.clone(), |found| *found);
                }
            }
        }
        self.keep_in_sight();
    }

    /// Chooses and sorts what is all here.
    fn choose(&mut self) {
        let words = words(&self.text);
        let Order { column, .. } = self.order();
        let descending = self.question().descending;
        let has = |text: String| {
            let text = text.to_lowercase();
            words.iter().all(|word| text.contains(word.as_str()))
        };
        match &mut self.picture {
            Picture::Ports(rows) => {
                let total = rows.len() as u64;
                rows.retain(|row| {
                    words.is_empty()
                        || has(format!("{} {} {}", row.port.name, row.port.netdev, super::sheet::state(row.port.state)))
                });
                self.counts = (total, rows.len() as u64);
                sort(rows, PORTS, column, descending, |row| &row.port.name);
            }
            Picture::Drops(rows) => {
                let total = rows.len() as u64;
                rows.retain(|row| {
                    words.is_empty() || has(format!("{} {} {}", row.drop.port, row.drop.side.label(), row.drop.reason))
                });
                self.counts = (total, rows.len() as u64);
                sort(rows, DROPS, column, descending, |row| &row.drop.port);
            }
            Picture::Conversations(_) | Picture::Stations(_) | Picture::Events(_) => {}
        }
    }

    /// What a key does.
    pub(super) fn key(&mut self, key: KeyEvent) -> Reaction {
        let is_control = key.modifiers.contains(KeyModifiers::CONTROL);
        if is_control && matches!(key.code, KeyCode::Char('c' | 'C')) {
            return Reaction::Quit;
        }
        if is_control || key.modifiers.contains(KeyModifiers::ALT) {
            return Reaction::Draw;
        }
        if let Some(typed) = self.typing.take() {
            return self.type_on(typed, key.code);
        }
        if std::mem::take(&mut self.is_helping) {
            return if key.code == KeyCode::Char('q') { Reaction::Quit } else { Reaction::Draw };
        }
        match key.code {
            KeyCode::Char('q') => return Reaction::Quit,
            KeyCode::Char('?' | 'h') | KeyCode::F(1) => self.is_helping = true,
            KeyCode::Char(' ' | 'p') => {
                self.is_paused = !self.is_paused;
                return if self.is_paused { Reaction::Draw } else { Reaction::Ask };
            }
            KeyCode::Char('/') => self.typing = Some(self.text.clone()),
            KeyCode::Char(digit @ '1'..='5') => {
                let place = digit.to_digit(10).unwrap_or(1) as usize - 1;
                return self.look_at(place);
            }
            KeyCode::Tab => return self.look_at((self.view.place() + 1) % View::ALL.len()),
            KeyCode::BackTab => return self.look_at((self.view.place() + View::ALL.len() - 1) % View::ALL.len()),
            KeyCode::Esc | KeyCode::Backspace => return self.back(),
            _ if self.close.is_some() => return self.scroll_close(key.code),
            KeyCode::Left | KeyCode::Char('<') => return self.sort_by(-1),
            KeyCode::Right | KeyCode::Char('>') => return self.sort_by(1),
            KeyCode::Char('r') => {
                let order = self.order_mut();
                order.reversed = !order.reversed;
                return self.reordered();
            }
            KeyCode::Enter => return self.enter(),
            code => return self.walk(code),
        }
        Reaction::Draw
    }

    fn type_on(&mut self, mut typed: String, code: KeyCode) -> Reaction {
        match code {
            KeyCode::Enter => {
                self.text = typed;
                return self.reordered();
            }
            KeyCode::Esc => return Reaction::Draw,
            KeyCode::Backspace => {
                typed.pop();
            }
            KeyCode::Char(letter) if typed.len() + letter.len_utf8() <= MATCH_BYTES_MAX => typed.push(letter),
            _ => {}
        }
        self.typing = Some(typed);
        Reaction::Draw
    }

    fn look_at(&mut self, place: usize) -> Reaction {
        let Some(view) = View::ALL.get(place).copied() else { return Reaction::Draw };
        self.close = None;
        if view == self.view {
            return Reaction::Draw;
        }
        self.view = view;
        self.before = Before::default();
        self.counts = (0, 0);
        self.picture = Picture::empty(view);
        (self.selected, self.scroll) = (0, 0);
        Reaction::Ask
    }

    /// Out of a conversation, or of a filter.
    fn back(&mut self) -> Reaction {
        if self.close.take().is_some() {
            return Reaction::Ask;
        }
        if self.text.is_empty() {
            return Reaction::Draw;
        }
        self.text.clear();
        self.reordered()
    }

    fn sort_by(&mut self, step: isize) -> Reaction {
        let columns = self.view.orders().len();
        let order = self.order_mut();
        let column = order.column.saturating_add_signed(step).min(columns.saturating_sub(1));
        *order = Order { column, reversed: false };
        self.reordered()
    }

    /// Another order or other rows: what is here is shown so at once, and asked for where the daemon chooses.
    fn reordered(&mut self) -> Reaction {
        (self.selected, self.scroll) = (0, 0);
        Reaction::Ask
    }

    /// Looks closer: at a conversation, or at those of a port or a station.
    fn enter(&mut self) -> Reaction {
        let at = self.selected;
        let text = match &self.picture {
            Picture::Conversations(rows) => {
                let Some(shown) = rows.get(at).cloned() else { return Reaction::Draw };
                self.close = Some(Close { shown, is_forgotten: false, scroll: 0 });
                return Reaction::Ask;
            }
            Picture::Ports(rows) => rows.get(at).map(|row| row.port.name.clone()),
            Picture::Drops(rows) => rows.get(at).map(|row| row.drop.port.clone()),
            Picture::Stations(rows) => rows.get(at).map(|row| row.mac.to_string()),
            Picture::Events(rows) => rows.get(at).and_then(of_event),
        };
        let Some(text) = text else { return Reaction::Draw };
        self.text = text;
        self.look_at(View::Conversations.place())
    }

    fn walk(&mut self, code: KeyCode) -> Reaction {
        let page = self.page.max(1);
        self.selected = match code {
            KeyCode::Up | KeyCode::Char('k') => self.selected.saturating_sub(1),
            KeyCode::Down | KeyCode::Char('j') => self.selected + 1,
            KeyCode::PageUp => self.selected.saturating_sub(page),
            KeyCode::PageDown => self.selected + page,
            KeyCode::Home | KeyCode::Char('g') => 0,
            KeyCode::End | KeyCode::Char('G') => usize::MAX,
            _ => return Reaction::Draw,
        };
        let before = self.question().limit;
        self.keep_in_sight();
        // Who scrolls on is given more.
        if self.question().limit > before && !self.is_paused { Reaction::Ask } else { Reaction::Draw }
    }

    fn scroll_close(&mut self, code: KeyCode) -> Reaction {
        let Some(close) = &mut self.close else { return Reaction::Draw };
        close.scroll = match code {
            KeyCode::Up | KeyCode::Char('k') => close.scroll.saturating_sub(1),
            KeyCode::Down | KeyCode::Char('j') => close.scroll + 1,
            KeyCode::PageUp => close.scroll.saturating_sub(self.page),
            KeyCode::PageDown => close.scroll + self.page,
            KeyCode::Home | KeyCode::Char('g') => 0,
            KeyCode::End | KeyCode::Char('G') => usize::MAX,
            _ => return Reaction::Draw,
        };
        Reaction::Draw
    }

    /// The selected row is one that there is, and on the screen.
    pub(super) fn keep_in_sight(&mut self) {
        self.selected = self.selected.min(self.picture.len().saturating_sub(1));
        let page = self.page.max(1);
        self.scroll = self.scroll.clamp((self.selected + 1).saturating_sub(page), self.selected);
        self.scroll = self.scroll.min(self.picture.len().saturating_sub(page));
    }
}

/// What the conversations of an event are found by: its station, or its port.
fn of_event(event: &Event) -> Option<String> {
    event.mac.map(|mac| mac.to_string()).or_else(|| event.port.clone())
}

/// The daemon's name for a column's order.
fn there<R>(columns: &[Column<R>], place: usize) -> Option<&'static str> {
    match columns.get(place)?.by {
        By::There(name) => Some(name),
        By::Here(_) => None,
    }
}

/// Equals stay in the order of their names.
fn sort<R>(rows: &mut [R], columns: &[Column<R>], place: usize, descending: bool, name: fn(&R) -> &String) {
    let Some(Column { by: By::Here(order), .. }) = columns.get(place) else { return };
    rows.sort_by(|a, b| {
        let order = if descending { order(b, a) } else { order(a, b) };
        order.then_with(|| name(a).cmp(name(b)))
    });
}
