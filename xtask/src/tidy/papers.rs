//! Checks of what the documents claim.

use std::collections::BTreeSet;

use super::{Faults, Text};

/// Promises: each row of a table in SPECIFICATION.md ends in a cell that names tests and benches in backticks, or
/// begins with "pending" and says why.
pub fn promises(texts: &[Text]) -> Faults {
    let Some(specification) = texts.iter().find(|text| text.path == "SPECIFICATION.md") else {
        return vec!["SPECIFICATION.md is missing".to_owned()];
    };
    let names = enforcers(texts);
    let mut faults = Vec::new();
    let rows = specification.text.lines().enumerate().filter(|(_, line)| line.starts_with("| "));
    for (number, line) in rows {
        let Some(cell) = line.trim_end().trim_end_matches('|').rsplit('|').next().map(str::trim) else { continue };
        if cell == "held by" || cell.starts_with("---") {
            continue;
        }
        let mut held = false;
        for name in quoted(cell) {
            held = true;
            if !names.contains(name) {
                faults.push(specification.fault(number, format!("there is no test or bench `{name}`")));
            }
        }
        let reasoned = cell.strip_prefix("pending").is_some_and(|why| why.trim_matches([':', ' ']).len() > 3);
        if !held && !reasoned {
            faults.push(specification.fault(number, "names neither a test nor a reason to be pending"));
        }
    }
    faults
}

/// Names of functions in Rust files that hold tests, of scenarios, of fuzz targets, and of rows of the bench.
fn enforcers(texts: &[Text]) -> BTreeSet<&str> {
    let mut names = BTreeSet::new();
    for text in texts {
        if text.is("rs") && ["#[test]", "#[tokio::test", "in_every_mode! {"].iter().any(|mark| text.text.contains(mark))
        {
            let after_fn = text.text.split("fn ").skip(1);
            names.extend(after_fn.filter_map(|rest| rest.split(|c: char| !is_word(c)).next()));
        }
        if text.path.starts_with("xtask/src/bench/") {
            names.extend(text.text.split('"').filter(|name| name.starts_with("bench:")));
        }
        if let Some(name) = text.path.strip_prefix("tests/scenarios/").and_then(|name| name.strip_suffix(".toml")) {
            names.insert(name);
        }
        if let Some(name) = text.path.strip_prefix("fuzz/fuzz_targets/").and_then(|name| name.strip_suffix(".rs")) {
            names.insert(name);
        }
    }
    names
}

/// Metrics: whatever looks like one in a document must be written down in the source.
pub fn metrics(texts: &[Text]) -> Faults {
    let source: String = texts.iter().filter(|t| t.path.starts_with("switch/src/")).map(|t| t.text.as_str()).collect();
    let mut faults = Vec::new();
    for text in texts.iter().filter(|text| text.is("md")) {
        for (number, line) in text.text.lines().enumerate() {
            for word in line.split(|c: char| !is_word(c)).filter(|word| is_metric(word)) {
                if !source.contains(word) {
                    faults.push(text.fault(number, format!("there is no metric `{word}`")));
                }
            }
        }
    }
    faults
}

/// Whether a word is of the form of our metrics; crates of ours begin alike.
fn is_metric(word: &str) -> bool {
    let ends = ["_total", "_bytes", "_frames", "_seconds", "_info", "_active", "_up"];
    word.starts_with("weft_") && ends.iter().any(|end| word.ends_with(end))
}

/// Drop reasons: the table in docs/drops.md and the enum name the same ones.
pub fn reasons(texts: &[Text]) -> Faults {
    let find = |path: &str| texts.iter().find(|text| text.path == path);
    let (Some(list), Some(table)) = (find("switch-common/src/reason.rs"), find("docs/drops.md")) else {
        return vec!["switch-common/src/reason.rs or docs/drops.md is missing".to_owned()];
    };
    let labels: BTreeSet<&str> = list.text.lines().filter_map(reason_label).collect();
    let rows = table.text.lines().filter(|line| line.starts_with("| `"));
    let listed: BTreeSet<&str> = rows.filter_map(|line| quoted(line).next()).collect();
    let missing = labels.difference(&listed).map(|label| format!("docs/drops.md does not say what `{label}` means"));
    let invented = listed.difference(&labels).map(|label| format!("docs/drops.md: there is no reason `{label}`"));
    missing.chain(invented).collect()
}

/// The label in a line such as `Malformed = 1, "malformed";`.
fn reason_label(line: &str) -> Option<&str> {
    let (head, label) = line.trim().strip_suffix("\";")?.split_once(", \"")?;
    head.contains(" = ").then_some(label)
}

/// Links: a relative target must be a file or a folder of the repository.
pub fn links(texts: &[Text]) -> Faults {
    let mut faults = Vec::new();
    for text in texts.iter().filter(|text| text.is("md")) {
        let folder = text.path.rsplit_once('/').map_or("", |(folder, _)| folder);
        for (number, line) in text.text.lines().enumerate() {
            for target in line.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
                let file = target.split('#').next().unwrap_or_default();
                if file.is_empty() || file.contains("://") {
                    continue;
                }
                let path = resolve(folder, file);
                let inside = format!("{}/", path.trim_end_matches('/'));
                if !texts.iter().any(|text| text.path == path || text.path.starts_with(&inside)) {
                    faults.push(text.fault(number, format!("{target} leads nowhere")));
                }
            }
        }
    }
    faults
}

/// A relative link, from the repository's root.
fn resolve(folder: &str, target: &str) -> String {
    let mut parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            name => parts.push(name),
        }
    }
    parts.join("/")
}

/// The changelog is written with the change.
pub fn changelog(texts: &[Text]) -> Faults {
    match texts.iter().find(|text| text.path == "CHANGELOG.md") {
        Some(log) if log.text.contains("## Unreleased") => Vec::new(),
        Some(log) => vec![log.fault(0, "has no `## Unreleased`")],
        None => vec!["CHANGELOG.md is missing".to_owned()],
    }
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

/// What stands in backticks.
fn quoted(line: &str) -> impl Iterator<Item = &str> {
    line.split('`').skip(1).step_by(2)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(path: &str, text: &str) -> Text {
        Text { path: path.to_owned(), text: text.to_owned() }
    }

    #[test]
    fn a_promise_without_its_test_is_found_and_a_kept_or_pending_one_is_not() {
        let table = "| promise | held by |\n|---|---|\n| a | `kept` |\n| b | pending: no VLANs yet |\n";
        let source = text("tests/it/a.rs", "//! x\n#[test]\nfn kept() {}\n");
        assert!(promises(&[text("SPECIFICATION.md", table), source]).is_empty());
        assert_eq!(promises(&[text("SPECIFICATION.md", table)]).len(), 1);
        assert_eq!(promises(&[text("SPECIFICATION.md", "| c | pending |\n")]).len(), 1);
        assert_eq!(promises(&[text("SPECIFICATION.md", "| c | trust us |\n")]).len(), 1);
    }

    #[test]
    fn links_are_followed_from_the_folder_of_their_document() {
        let from = text("docs/a/b.md", "[up](../c.md) [out](https://example.org) [here](#part) [lost](d.md)");
        let found = links(&[from, text("docs/c.md", "")]);
        assert_eq!(found.len(), 1, "{found:?}");
    }

    #[test]
    fn the_enum_and_the_table_of_reasons_are_compared_both_ways() {
        let list =
            text("switch-common/src/reason.rs", "    Malformed = 1, \"malformed\";\n    TooBig = 2, \"too_big\";\n");
        let table = text("docs/drops.md", "| `malformed` | cut |\n| `invented` | no |\n");
        assert_eq!(reasons(&[list, table]).len(), 2);
    }
}
