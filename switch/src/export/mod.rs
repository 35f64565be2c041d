//! Records of conversations leave the switch: as lines of JSON in a file that is rotated ([`FlowLog`]), and in the shape that
//! `hubble observe --input-file -` reads ([`hubble()`]). What a record looks like is published ([`flow_record_schema`]).
//!
//! The log is a bystander. Whoever has a record offers it and goes on at once; a thread of its own writes. What it cannot
//! take or write is counted by cause, so that `offered = written + lost` holds once nothing is on its way.

mod hubble;
mod log;
mod rotation;
mod schema;

pub use self::log::{FlowLog, LogCounts, OpenError};
pub(crate) use self::log::{Said, Telling};
pub use hubble::hubble;
pub(crate) use rotation::RotatingFile;
pub use schema::{PAGE_FILE, SCHEMA_FILE, flow_record_page, flow_record_schema};

use crate::flow::Record;

/// A record as one line of JSON, with its newline. Whatever bytes an operator put into a label, the line is one line, valid,
/// and says nothing to the terminal of who reads it.
pub fn line(record: &Record) -> String {
    plain(serde_json::to_string(record).expect("a record is made of what JSON knows"))
}

/// A record as one line for Hubble, with its newline; `node` is the host's name.
pub fn hubble_line(record: &Record, node: &str) -> String {
    plain(hubble(record, node).to_string())
}

/// A line of JSON without what a terminal would act on.
pub(crate) fn plain(mut line: String) -> String {
    // JSON escapes the control characters of ASCII itself. These others can only be inside of strings, where an escape says
    // the same.
    if line.contains(is_unsafe) {
        line = line.chars().map(|c| if is_unsafe(c) { format!("\\u{:04x}", u32::from(c)) } else { c.into() }).collect();
    }
    line.push('\n');
    line
}

/// What a terminal or an editor takes for more than a letter, though JSON does not mind: DEL, the C1 controls, and Unicode's
/// own line ends.
fn is_unsafe(c: char) -> bool {
    matches!(c, '\u{7f}'..='\u{9f}' | '\u{2028}' | '\u{2029}')
}

#[cfg(test)]
mod tests;
