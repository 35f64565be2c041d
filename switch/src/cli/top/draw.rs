//! The picture, for a screen of any size: columns are left out where it is narrow, added where it is wide.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::Paragraph;

use super::app::{App, Order, Picture, Silence};
use super::detail;
use super::sheet::{CONVERSATIONS, Column, DROPS, EVENTS, PORTS, STATIONS, View};
use super::words::{fitted, harmless, lasting};
use jiff::Timestamp;
use std::time::Duration;

/// The smallest screen that anything can be read on.
const SMALLEST: (u16, u16) = (40, 8);
/// Between two columns.
const GAP: usize = 1;

/// Colours, or none.
#[derive(Clone, Copy, Debug)]
pub(super) struct Theme {
    is_plain: bool,
}

impl Theme {
    /// As the environment says: <https://no-color.org>.
    pub(super) fn of_environment() -> Self {
        Self { is_plain: std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty()) }
    }

    fn colour(self, colour: Color) -> Style {
        if self.is_plain { Style::new() } else { Style::new().fg(colour) }
    }

    fn alarm(self) -> Style {
        self.colour(Color::Red).add_modifier(Modifier::BOLD)
    }

    fn remark(self) -> Style {
        self.colour(Color::Yellow).add_modifier(Modifier::BOLD)
    }

    fn heading(self) -> Style {
        self.colour(Color::Cyan).add_modifier(Modifier::BOLD)
    }
}

const CHOSEN: Style = Style::new().add_modifier(Modifier::REVERSED);

/// Draws everything.
pub(super) fn draw(frame: &mut Frame<'_>, app: &mut App, theme: Theme, now: Timestamp) {
    let area = frame.area();
    if area.width < SMALLEST.0 || area.height < SMALLEST.1 {
        let (width, height) = SMALLEST;
        let text =
            format!("too small: {width} x {height} are needed, this is {} x {}; q ends", area.width, area.height);
        frame.render_widget(Paragraph::new(text).wrap(ratatui::widgets::Wrap { trim: true }), area);
        return;
    }
    let [head, tabs, body, foot] =
        Layout::vertical([Constraint::Length(1), Constraint::Length(1), Constraint::Min(1), Constraint::Length(1)])
            .areas(area);
    frame.render_widget(header(app, area.width), head);
    frame.render_widget(self::tabs(app, theme), tabs);
    if app.is_helping {
        frame.render_widget(Paragraph::new(HELP.trim_start()), body);
    } else if let Some(close) = &mut app.close {
        let lines = detail::lines(close, usize::from(body.width), now);
        app.page = usize::from(body.height);
        close.scroll = close.scroll.min(lines.len().saturating_sub(app.page));
        app.counts = (lines.len() as u64, (close.scroll + app.page).min(lines.len()) as u64);
        let seen = lines.into_iter().skip(close.scroll).take(app.page).map(Line::from);
        frame.render_widget(Paragraph::new(seen.collect::<Vec<_>>()), body);
    } else {
        app.page = usize::from(body.height).saturating_sub(1).max(1);
        app.keep_in_sight();
        frame.render_widget(Paragraph::new(table(app, usize::from(body.width), theme)), body);
    }
    frame.render_widget(footer(app, theme, now, area), foot);
}

/// The switch, how much there is, and when this was.
fn header(app: &App, width: u16) -> Line<'static> {
    let Some(status) = &app.status else { return Line::default() };
    let left = format!(
        "weft {}  {}  {} ports  {} stations  up {}",
        harmless(&status.name),
        harmless(&status.datapath),
        status.ports,
        status.stations,
        lasting(Duration::from_secs(status.uptime_secs)),
    );
    let right = app.taken.strftime("%H:%M:%S UTC").to_string();
    let width = usize::from(width);
    let left = fitted(&left, width.saturating_sub(right.len() + 1));
    let gap = " ".repeat(width.saturating_sub(left.chars().count() + right.len()));
    Line::from(format!("{left}{gap}{right}")).style(Style::new().add_modifier(Modifier::BOLD))
}

/// The views, and what is out of the ordinary about this one.
fn tabs(app: &App, theme: Theme) -> Line<'static> {
    let mut spans = Vec::new();
    for (number, view) in (1..).zip(View::ALL) {
        let text = format!(" {number} {} ", view.name());
        spans.push(if view == app.view { Span::styled(text, CHOSEN) } else { Span::raw(text) });
    }
    if app.is_paused {
        spans.push(Span::styled("  PAUSED", theme.remark()));
    }
    if !app.text.is_empty() {
        spans.push(Span::styled(format!("  /{}", harmless(&app.text)), theme.remark()));
    }
    Line::from(spans)
}

/// What is typed, what is wrong, or what keys there are: in this order.
fn footer(app: &App, theme: Theme, now: Timestamp, area: Rect) -> Line<'static> {
    let width = usize::from(area.width);
    if let Some(typed) = &app.typing {
        return Line::from(fitted(&format!("rows with: {}_   (Enter: look, Esc: as it was)", harmless(typed)), width));
    }
    if let Some(Silence { since, why }) = &app.silence {
        let text = format!(
            "NO DAEMON since {} ({}): {}",
            since.strftime("%H:%M:%S"),
            lasting(Duration::try_from(now.duration_since(*since)).unwrap_or_default()),
            harmless(why),
        );
        return Line::from(fitted(&text, width)).style(theme.alarm());
    }
    let keys = if app.close.is_some() {
        "q quit  Esc back  up/down scroll  space pause  ? help"
    } else {
        "q quit  1-5 view  </> sort  r turn  / find  space pause  Enter open  ? help"
    };
    let (total, matched) = app.counts;
    let shown = app.picture.len() as u64;
    let counts = match (app.close.is_some(), matched < total, shown < matched) {
        (true, true, _) => format!("line {matched} of {total}"),
        (true, false, _) => String::new(),
        (false, _, true) => format!("first {shown} of {matched}"),
        (false, true, false) => format!("{matched} of {total}"),
        (false, false, false) => total.to_string(),
    };
    let keys = fitted(keys, width.saturating_sub(counts.len() + 1));
    let gap = " ".repeat(width.saturating_sub(keys.chars().count() + counts.len()));
    Line::from(format!("{keys}{gap}{counts}"))
}

const HELP: &str = "
1 2 3 4 5, Tab   ports, conversations, drops, stations, events
< >, left right  sort by the column to the left, to the right
r                the other way round
/                only rows with these words; Esc: all again
up down, j k, PgUp PgDn, Home End   walk
Enter            a conversation with everything that is known of it;
                 of a port, a drop, a station, an event: its conversations
space, p         pause: the picture stands still; what you change is
                 asked for once
q, Ctrl-C        end

Rates are of wire frames and wire bytes, as a network would carry them.
IN is what the guest sends, OUT what it is given to receive. UTC.
";

/// The headings and the rows that are seen.
fn table(app: &App, width: usize, theme: Theme) -> Vec<Line<'static>> {
    let (order, seen) = (app.order(), (app.scroll, app.page, app.selected));
    match &app.picture {
        Picture::Ports(rows) => sheet(PORTS, rows, order, seen, width, theme),
        Picture::Conversations(rows) => sheet(CONVERSATIONS, rows, order, seen, width, theme),
        Picture::Drops(rows) => sheet(DROPS, rows, order, seen, width, theme),
        Picture::Stations(rows) => sheet(STATIONS, rows, order, seen, width, theme),
        Picture::Events(rows) => sheet(EVENTS, rows, order, seen, width, theme),
    }
}

fn sheet<R>(
    columns: &[Column<R>],
    rows: &[R],
    order: Order,
    (scroll, page, selected): (usize, usize, usize),
    width: usize,
    theme: Theme,
) -> Vec<Line<'static>> {
    let shown = widths(columns, order.column, width);
    let mut headings = Vec::new();
    for (place, column, width) in &shown {
        let is_order = *place == order.column;
        let heading = padded(column.heading, *width, column.is_number);
        headings.push(Span::styled(
            heading,
            if is_order { theme.heading().add_modifier(Modifier::REVERSED) } else { theme.heading() },
        ));
        headings.push(Span::raw(" ".repeat(GAP)));
    }
    let mut lines = vec![Line::from(headings)];
    if rows.is_empty() {
        lines.push(Line::from("nothing to show"));
    }
    for (at, row) in rows.iter().enumerate().skip(scroll).take(page) {
        let cells: Vec<String> = shown
            .iter()
            .map(|(_, column, width)| padded(&harmless(&(column.cell)(row)), *width, column.is_number))
            .collect();
        let line = Line::from(cells.join(&" ".repeat(GAP)));
        lines.push(if at == selected { line.style(CHOSEN) } else { line });
    }
    lines
}

fn padded(text: &str, width: usize, to_the_right: bool) -> String {
    let text = fitted(text, width);
    if to_the_right { format!("{text:>width$}") } else { format!("{text:<width$}") }
}

/// The columns that there is room for, and how wide each is. The one that rows are in the order of is always there.
fn widths<R>(columns: &[Column<R>], order: usize, width: usize) -> Vec<(usize, &Column<R>, usize)> {
    let needs = |column: &Column<R>| column.width + GAP;
    // The last column needs no gap behind it.
    let mut room = width + GAP;
    let mut chosen: Vec<usize> = Vec::new();
    let numbered = || columns.iter().enumerate();
    let by_need = numbered()
        .filter(|(place, _)| *place == 0 || *place == order)
        .chain(numbered().filter(|(place, column)| *place != 0 && *place != order && !column.is_extra))
        .chain(numbered().filter(|(place, column)| *place != 0 && *place != order && column.is_extra));
    for (place, column) in by_need {
        if needs(column) <= room {
            room -= needs(column);
            chosen.push(place);
        }
    }
    chosen.sort_unstable();
    let mut shown: Vec<_> = numbered()
        .filter(|(place, _)| chosen.contains(place))
        .map(|(place, column)| (place, column, column.width))
        .collect();
    // What is left goes to those that can use it, evenly.
    while room > 0 {
        let mut grown = false;
        for (_, column, width) in &mut shown {
            if room > 0 && *width < column.grows_to {
                *width += 1;
                room -= 1;
                grown = true;
            }
        }
        if !grown {
            break;
        }
    }
    shown
}
