//! One conversation with everything that is known of it: each field of its record, by the name that the record has for it.

use std::fmt::Write as _;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;

use super::app::Close;
use super::words::{fitted, harmless, lasting, short};
use crate::api::top::TopPace;
use crate::cli::flows;

/// Between two columns of fields.
const GAP: usize = 2;
/// Columns of fields are not narrower than this.
const NARROWEST: usize = 36;

/// What is shown, line by line.
pub(super) fn lines(close: &Close, width: usize, now: Timestamp) -> Vec<String> {
    let row = &close.shown;
    let record = &row.record;
    let state = if close.is_forgotten { "ended".to_owned() } else { flows::state(record) };
    let silent = lasting(Duration::try_from(now.duration_since(record.end)).unwrap_or_default());
    let mut lines = vec![
        format!("{} > {}", flows::source(record), flows::destination(record)),
        format!("{} {} {state}, last frame {silent} ago", flows::protocol(record), flows::verdict(record)),
        format!("forward  {}", pace(&row.forward)),
        format!("reverse  {}", pace(&row.reverse)),
    ];
    lines.extend(in_columns(&fields(record), width));
    lines.iter().map(|line| fitted(&harmless(line), width)).collect()
}

fn pace(pace: &TopPace) -> String {
    format!(
        "{} bit/s  {} frames/s  {} bytes  {} frames",
        short(pace.bytes_per_sec.saturating_mul(8)),
        short(pace.frames_per_sec),
        short(pace.bytes),
        short(pace.frames)
    )
}

/// Name and value of each field, in the order of their names.
fn fields(record: &crate::flow::Record) -> Vec<(String, String)> {
    let Ok(Value::Object(fields)) = serde_json::to_value(record) else { return Vec::new() };
    let said = |value: Value| match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => harmless(&text).into_owned(),
        Value::Array(list) => list
            .iter()
            .map(|word| word.as_str().map_or_else(|| word.to_string(), str::to_owned))
            .collect::<Vec<_>>()
            .join(" "),
        other => harmless(&other.to_string()).into_owned(),
    };
    let mut fields: Vec<_> = fields.into_iter().map(|(name, value)| (name, said(value))).collect();
    fields.sort();
    fields
}

/// Fields one below the other, in as many columns as there is room for. What is too long for its column has a line of its own, before the others.
fn in_columns(fields: &[(String, String)], width: usize) -> Vec<String> {
    let columns = ((width + GAP) / (NARROWEST + GAP)).max(1);
    let each = ((width + GAP) / columns).saturating_sub(GAP);
    let (long, short): (Vec<String>, Vec<String>) =
        fields.iter().map(|(name, value)| format!("{name} {value}")).partition(|text| text.chars().count() > each);
    let rows = short.len().div_ceil(columns).max(1);
    let mut lines = vec![String::new(); rows.min(short.len())];
    for column in short.chunks(rows) {
        for (line, text) in lines.iter_mut().zip(column) {
            if !line.is_empty() {
                line.push_str(&" ".repeat(GAP));
            }
            write!(line, "{text:<each$}").expect("a string takes everything");
        }
    }
    long.into_iter().chain(lines.into_iter().map(|line| line.trim_end().to_owned())).collect()
}
