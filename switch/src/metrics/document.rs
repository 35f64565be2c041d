//! The table of metrics for people: `docs/metrics.md` holds it between two marks, and a test compares.

use std::fmt::Write as _;

use super::declared::{ALL, About};

/// Where the table begins in the document.
pub const BEGIN: &str = "<!-- metrics: begin (made by `weft generate metrics`) -->";
/// Where it ends.
pub const END: &str = "<!-- metrics: end -->";

/// The table, a metric per row, in the order of the declarations.
pub fn table() -> String {
    let mut text = "| metric | kind | labels | what it says |\n|---|---|---|---|\n".to_owned();
    for About { name, kind, labels, help } in ALL {
        let labels: Vec<String> = labels.iter().map(|label| format!("`{label}`")).collect();
        let help = help.trim().replace('|', "\\|");
        // Writing to a string does not fail.
        writeln!(text, "| `{name}` | {} | {} | {help} |", kind.name(), labels.join(", ")).expect("memory is there");
    }
    text
}
