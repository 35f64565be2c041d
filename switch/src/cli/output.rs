//! Printing: tables for people, JSON for programs. No colour at all, so `NO_COLOR` is honoured by nature.

use std::io::{self, Write};

use clap::ValueEnum;
use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use serde::Serialize;

/// How results are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// The columns that matter most
    Table,
    /// Every column
    Wide,
    /// One JSON document
    Json,
    /// One JSON object per line
    Jsonl,
    /// Conversations as `hubble observe --input-file -` reads them
    Hubble,
}

/// A column: its heading, whether it holds numbers, whether only `wide` shows it, and its cell for a row.
pub(super) struct Column<T> {
    heading: &'static str,
    is_number: bool,
    is_wide: bool,
    cell: fn(&T) -> String,
}

impl<T> Column<T> {
    /// Words.
    pub(super) const fn text(heading: &'static str, cell: fn(&T) -> String) -> Self {
        Self { heading, is_number: false, is_wide: false, cell }
    }

    /// Numbers, set to the right.
    pub(super) const fn number(heading: &'static str, cell: fn(&T) -> String) -> Self {
        Self { heading, is_number: true, is_wide: false, cell }
    }

    /// The same, for `wide` only.
    pub(super) const fn wide(self) -> Self {
        Self { is_wide: true, ..self }
    }
}

/// A list in the format asked for.
pub(super) fn render<T: Serialize>(format: Format, rows: &[T], columns: &[Column<T>]) -> anyhow::Result<String> {
    Ok(match format {
        Format::Json => serde_json::to_string_pretty(rows)? + "\n",
        Format::Jsonl | Format::Hubble => {
            let mut lines = String::new();
            for row in rows {
                lines.push_str(&serde_json::to_string(row)?);
                lines.push('\n');
            }
            lines
        }
        Format::Table | Format::Wide => table(rows, columns, format == Format::Wide),
    })
}

/// One thing in the format asked for; `table` makes it readable.
pub(super) fn render_one<T: Serialize>(
    format: Format,
    thing: &T,
    table: impl Fn(&T) -> String,
) -> anyhow::Result<String> {
    Ok(match format {
        Format::Json => serde_json::to_string_pretty(thing)? + "\n",
        Format::Jsonl | Format::Hubble => serde_json::to_string(thing)? + "\n",
        Format::Table | Format::Wide => table(thing),
    })
}

fn table<T>(rows: &[T], columns: &[Column<T>], is_wide: bool) -> String {
    let shown: Vec<_> = columns.iter().filter(|column| is_wide || !column.is_wide).collect();
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(shown.iter().map(|column| column.heading));
    for row in rows {
        table.add_row(shown.iter().map(|column| (column.cell)(row)));
    }
    for (made, column) in table.column_iter_mut().zip(&shown) {
        made.set_padding((0, 2));
        if column.is_number {
            made.set_cell_alignment(CellAlignment::Right);
        }
    }
    lines(&table.to_string())
}

/// A thing's properties, one per line.
pub(super) fn properties(pairs: &[(&str, String)]) -> String {
    let width = pairs.iter().map(|(key, _)| key.len()).max().unwrap_or(0);
    let mut text = String::new();
    for (key, value) in pairs.iter().filter(|(_, value)| !value.is_empty()) {
        let gap = " ".repeat(width + 2 - key.len());
        text.extend([*key, gap.as_str(), value.as_str(), "\n"]);
    }
    text
}

/// The same text without blanks at the ends of lines.
fn lines(text: &str) -> String {
    text.lines().flat_map(|line| [line.trim_end(), "\n"]).collect()
}

/// Prints a result.
pub(super) fn print(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()
}

/// Prints an error.
pub(super) fn complain(message: &str) {
    say("error", message);
}

/// Prints what is worth knowing.
pub(super) fn remark(message: &str) {
    say("note", message);
}

/// Prints help where an error belongs.
pub(super) fn explain(text: &str) {
    // With stderr gone there is nobody left to tell.
    io::stderr().write_all(text.as_bytes()).ok();
}

fn say(kind: &str, message: &str) {
    explain(&format!("weft: {kind}: {message}\n"));
}

/// Whether a line of an answer without an end stands in the place of what we were too slow for; that is said, then.
pub(super) fn is_about_losses(line: &str, what: &str) -> bool {
    #[derive(serde::Deserialize)]
    struct Lost {
        lost: u64,
    }
    let Ok(Lost { lost }) = serde_json::from_str(line) else { return false };
    remark(&format!("{lost} {what} were lost, because they were read too slowly"));
    true
}
