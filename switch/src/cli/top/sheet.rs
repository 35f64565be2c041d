//! The sheets: what each view shows of a row, in which columns, and what it can be put in the order of.
//!
//! Ports and drops are all here, and are put in order here. Of conversations, stations and events the daemon gives the first so many in
//! an order: the column's name for it stands beside the column.

use std::cmp::Ordering;
use std::time::Duration;

use clap::ValueEnum;
use jiff::Timestamp;

use super::rates::{DropRow, PortRates, PortRow};
use super::words::{lasting, micros, short, short_or_dash};
use crate::api::schema::StationInfo;
use crate::api::top::TopConversation;
use crate::cli::flows;
use crate::events::Event;
use crate::port::spec::PortState;

/// What is looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum View {
    /// Ports and what they carry
    #[default]
    Ports,
    /// Who talks to whom
    Conversations,
    /// What does not arrive, and why
    Drops,
    /// Who lives where
    Stations,
    /// What happened not long ago
    Events,
}

impl View {
    pub(super) const ALL: [Self; 5] = [Self::Ports, Self::Conversations, Self::Drops, Self::Stations, Self::Events];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Ports => "Ports",
            Self::Conversations => "Conversations",
            Self::Drops => "Drops",
            Self::Stations => "Stations",
            Self::Events => "Events",
        }
    }

    /// Its place among all, from 0.
    pub(super) const fn place(self) -> usize {
        self as usize
    }

    /// The headings, and which way each goes at first.
    pub(super) fn orders(self) -> Vec<(&'static str, bool)> {
        fn of<R>(columns: &[Column<R>]) -> Vec<(&'static str, bool)> {
            columns.iter().map(|column| (column.heading, column.descending)).collect()
        }
        match self {
            Self::Ports => of(PORTS),
            Self::Conversations => of(CONVERSATIONS),
            Self::Drops => of(DROPS),
            Self::Stations => of(STATIONS),
            Self::Events => of(EVENTS),
        }
    }

    /// The column that a view is put in the order of when nobody says another.
    pub(super) const fn first_order(self) -> usize {
        match self {
            Self::Ports | Self::Conversations => 2,
            Self::Drops | Self::Stations => 3,
            Self::Events => 0,
        }
    }
}

/// How rows are put in the order of a column.
pub(super) enum By<R> {
    /// By us.
    Here(fn(&R, &R) -> Ordering),
    /// By the daemon, under this name.
    There(&'static str),
}

/// A column.
pub(super) struct Column<R> {
    pub(super) heading: &'static str,
    /// Characters that it has at least.
    pub(super) width: usize,
    /// Characters that it may grow to.
    pub(super) grows_to: usize,
    /// Numbers are set to the right.
    pub(super) is_number: bool,
    /// Shown only where the screen is wide.
    pub(super) is_extra: bool,
    /// The largest, or the last in the alphabet, comes first.
    pub(super) descending: bool,
    pub(super) cell: fn(&R) -> String,
    pub(super) by: By<R>,
}

impl<R> Column<R> {
    const fn words(heading: &'static str, width: usize, grows_to: usize, cell: fn(&R) -> String, by: By<R>) -> Self {
        Self { heading, width, grows_to, is_number: false, is_extra: false, descending: false, cell, by }
    }

    const fn number(heading: &'static str, width: usize, cell: fn(&R) -> String, by: By<R>) -> Self {
        Self { heading, width, grows_to: width, is_number: true, is_extra: false, descending: true, cell, by }
    }

    const fn extra(self) -> Self {
        Self { is_extra: true, ..self }
    }

    const fn descending(self) -> Self {
        Self { descending: true, ..self }
    }

    const fn ascending(self) -> Self {
        Self { descending: false, ..self }
    }
}

/// `weft top ports`.
pub(super) const PORTS: &[Column<PortRow>] = &[
    Column::words(
        "NAME",
        14,
        63,
        |row: &PortRow| row.port.name.clone(),
        By::Here(|a: &PortRow, b| a.port.name.cmp(&b.port.name)),
    ),
    Column::words("STATE", 10, 10, |row: &PortRow| state(row.port.state).to_owned(), By::Here(by_state)),
    Column::number(
        "IN-BIT/S",
        8,
        |row: &PortRow| a_second(row, |rates| rates.in_bits),
        By::Here(|a: &PortRow, b| by_rate(a, b, |r| r.in_bits)),
    ),
    Column::number(
        "IN-FR/S",
        7,
        |row: &PortRow| a_second(row, |rates| rates.in_frames),
        By::Here(|a: &PortRow, b| by_rate(a, b, |r| r.in_frames)),
    ),
    Column::number(
        "OUT-BIT/S",
        9,
        |row: &PortRow| a_second(row, |rates| rates.out_bits),
        By::Here(|a: &PortRow, b| by_rate(a, b, |r| r.out_bits)),
    ),
    Column::number(
        "OUT-FR/S",
        8,
        |row: &PortRow| a_second(row, |rates| rates.out_frames),
        By::Here(|a: &PortRow, b| by_rate(a, b, |r| r.out_frames)),
    ),
    Column::number(
        "DROP/S",
        6,
        |row: &PortRow| a_second(row, |rates| rates.drops),
        By::Here(|a: &PortRow, b| by_rate(a, b, |r| r.drops)),
    ),
    Column::number(
        "DROPS",
        6,
        |row: &PortRow| short(row.port.drops),
        By::Here(|a: &PortRow, b| a.port.drops.cmp(&b.port.drops)),
    ),
    Column::number(
        "BOTH-BIT/S",
        10,
        |row: &PortRow| a_second(row, PortRates::bits),
        By::Here(|a: &PortRow, b| by_rate(a, b, PortRates::bits)),
    )
    .extra(),
    Column::number(
        "IN-BYTES",
        8,
        |row: &PortRow| short(row.port.in_bytes),
        By::Here(|a: &PortRow, b| a.port.in_bytes.cmp(&b.port.in_bytes)),
    )
    .extra(),
    Column::number(
        "OUT-BYTES",
        9,
        |row: &PortRow| short(row.port.out_bytes),
        By::Here(|a: &PortRow, b| a.port.out_bytes.cmp(&b.port.out_bytes)),
    )
    .extra(),
    Column::words(
        "NETDEV",
        15,
        15,
        |row: &PortRow| row.port.netdev.clone(),
        By::Here(|a: &PortRow, b| a.port.netdev.cmp(&b.port.netdev)),
    )
    .extra(),
];

/// `weft top conversations`.
pub(super) const CONVERSATIONS: &[Column<TopConversation>] = &[
    Column::words("SOURCE", 21, 60, |row: &TopConversation| flows::source(&row.record), By::There("source")),
    Column::words(
        "DESTINATION",
        21,
        60,
        |row: &TopConversation| flows::destination(&row.record),
        By::There("destination"),
    ),
    Column::number(
        "BIT/S",
        6,
        |row: &TopConversation| short(both(row, |pace| pace.bytes_per_sec).saturating_mul(8)),
        By::There("rate"),
    ),
    Column::number(
        "FR/S",
        6,
        |row: &TopConversation| short(both(row, |pace| pace.frames_per_sec)),
        By::There("frame_rate"),
    ),
    Column::number("BYTES", 6, |row: &TopConversation| short(both(row, |pace| pace.bytes)), By::There("bytes")),
    Column::words("PROTO", 6, 9, |row: &TopConversation| flows::protocol(&row.record), By::There("protocol")),
    Column::number("IDLE", 6, |row: &TopConversation| ago(row.record.end), By::There("idle")).ascending(),
    Column::number("FRAMES", 6, |row: &TopConversation| short(both(row, |pace| pace.frames)), By::There("frames"))
        .extra(),
    Column::number("RTT", 6, rtt, By::There("rtt")).extra(),
    Column::number("RETR", 5, retransmits, By::There("retransmits")).extra(),
    Column::number("AGE", 6, |row: &TopConversation| ago(row.record.began), By::There("age")).extra(),
];

/// `weft top drops`.
pub(super) const DROPS: &[Column<DropRow>] = &[
    Column::words("PORT", 18, 63, port, By::Here(|a: &DropRow, b| a.drop.port.cmp(&b.drop.port))),
    Column::words(
        "SIDE",
        8,
        8,
        |row: &DropRow| row.drop.side.label().to_owned(),
        By::Here(|a: &DropRow, b| a.drop.side.cmp(&b.drop.side)),
    ),
    Column::words(
        "REASON",
        22,
        40,
        |row: &DropRow| row.drop.reason.clone(),
        By::Here(|a: &DropRow, b| a.drop.reason.cmp(&b.drop.reason)),
    ),
    Column::number(
        "DROP/S",
        7,
        |row: &DropRow| short_or_dash(row.frames_per_sec),
        By::Here(|a: &DropRow, b| a.frames_per_sec.cmp(&b.frames_per_sec)),
    ),
    Column::number(
        "FRAMES",
        8,
        |row: &DropRow| short(row.drop.frames),
        By::Here(|a: &DropRow, b| a.drop.frames.cmp(&b.drop.frames)),
    ),
    Column::number(
        "BYTES",
        8,
        |row: &DropRow| short(row.drop.bytes),
        By::Here(|a: &DropRow, b| a.drop.bytes.cmp(&b.drop.bytes)),
    ),
];

/// `weft top stations`.
pub(super) const STATIONS: &[Column<StationInfo>] = &[
    Column::words("MAC", 17, 17, |row: &StationInfo| row.mac.to_string(), By::There("mac")),
    Column::words("PORT", 20, 63, |row: &StationInfo| row.port.to_string(), By::There("port")),
    Column::words(
        "KIND",
        6,
        6,
        |row: &StationInfo| if row.is_static { "static" } else { "learnt" }.to_owned(),
        By::There("kind"),
    ),
    Column::number("AGE", 7, |row: &StationInfo| lasting(Duration::from_secs(row.age_secs)), By::There("age"))
        .ascending(),
    Column::number("MOVES", 6, |row: &StationInfo| row.moves.to_string(), By::There("moves")),
];

/// `weft top events`: times as they were told, so that they can be looked for with `weft events --since`.
pub(super) const EVENTS: &[Column<Event>] = &[
    Column::words("TIME", 8, 8, |event: &Event| event.time.strftime("%H:%M:%S").to_string(), By::There("time"))
        .descending(),
    Column::words("KIND", 17, 17, |event: &Event| event.kind.to_string(), By::There("kind")),
    Column::words(
        "PORT",
        10,
        10,
        |event: &Event| event.port.clone().unwrap_or_else(|| "-".to_owned()),
        By::There("port"),
    )
    .extra(),
    Column::words("WHAT", 20, 200, Event::sentence, By::There("time")).descending(),
];

fn a_second(row: &PortRow, rate: fn(&PortRates) -> u64) -> String {
    short_or_dash(row.rates.as_ref().map(rate))
}

fn by_rate(a: &PortRow, b: &PortRow, rate: fn(&PortRates) -> u64) -> Ordering {
    a.rates.as_ref().map(rate).cmp(&b.rates.as_ref().map(rate))
}

fn by_state(a: &PortRow, b: &PortRow) -> Ordering {
    state(a.port.state).cmp(state(b.port.state))
}

pub(super) fn state(state: PortState) -> &'static str {
    match state {
        PortState::Up => "up",
        PortState::NoCarrier => "no_carrier",
        PortState::Down => "down",
        PortState::Absent => "absent",
        PortState::Failed => "failed",
    }
}

fn port(row: &DropRow) -> String {
    if row.drop.port.is_empty() { "-".to_owned() } else { row.drop.port.clone() }
}

fn both(row: &TopConversation, number: fn(&crate::api::top::TopPace) -> u64) -> u64 {
    number(&row.forward).saturating_add(number(&row.reverse))
}

fn ago(time: Timestamp) -> String {
    lasting(Duration::try_from(Timestamp::now().duration_since(time)).unwrap_or_default())
}

fn rtt(row: &TopConversation) -> String {
    row.record.tcp.as_ref().and_then(|tcp| tcp.handshake_rtt_us).map_or_else(|| "-".to_owned(), micros)
}

fn retransmits(row: &TopConversation) -> String {
    row.record.tcp.as_ref().map_or_else(|| "-".to_owned(), |tcp| short(tcp.retransmits))
}
