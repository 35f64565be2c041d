//! Checks of the source files themselves.

use super::{Faults, Text};

/// The longest a source file may be; STYLE asks for far less.
const LINES_MAX: usize = 450;

/// Words that must not stay, in two halves so that this list does not find itself.
const LEFTOVERS: &[(&str, &str)] =
    &[("TO", "DO"), ("FIX", "ME"), ("XX", "X:"), ("db", "g!("), ("todo", "!("), ("unimplemented", "!(")];

fn rust(texts: &[Text]) -> impl Iterator<Item = &Text> {
    texts.iter().filter(|text| text.is("rs"))
}

/// Every file says first what it is for; only an attribute of a line may come before.
pub fn headers(texts: &[Text]) -> Faults {
    let headless = |text: &&Text| !text.text.lines().take(2).any(|line| line.starts_with("//! "));
    rust(texts).filter(headless).map(|text| text.fault(0, "does not open with `//! `")).collect()
}

/// No file grows into a giant.
pub fn lengths(texts: &[Text]) -> Faults {
    let lines = |text: &Text| text.text.lines().count();
    let long = |text: &&Text| lines(text) > LINES_MAX;
    rust(texts).filter(long).map(|text| text.fault(LINES_MAX, format!("{} lines", lines(text)))).collect()
}

/// A test that sleeps is slow on every machine and wrong on some. The one place that may is the harness's own wait,
/// whose file says that it is about a deadline.
pub fn sleeps(texts: &[Text]) -> Faults {
    let call = concat!("sle", "ep(");
    let mut faults = Vec::new();
    for text in rust(texts) {
        let is_wait = text.path.starts_with("tests/harness/") && text.text.contains("deadline");
        let tests_from =
            if text.path.starts_with("tests/") { Some(0) } else { text.text.find("#[cfg(test)]\nmod tests {") };
        let Some(from) = tests_from.filter(|_| !is_wait) else { continue };
        let first = text.text.get(..from).unwrap_or_default().lines().count();
        for (number, line) in text.text.lines().enumerate().skip(first) {
            if line.contains(call) {
                faults.push(text.fault(number, line.trim()));
            }
        }
    }
    faults
}

/// No notes to oneself, no debug prints, no references to a tracker that a reader does not have.
pub fn leftovers(texts: &[Text]) -> Faults {
    let mut faults = Vec::new();
    for text in texts.iter().filter(|text| ["rs", "md", "toml", "service"].iter().any(|end| text.is(end))) {
        for (number, line) in text.text.lines().enumerate() {
            for (head, tail) in LEFTOVERS {
                let word = format!("{head}{tail}");
                if line.contains(&word) {
                    faults.push(text.fault(number, format!("`{word}`")));
                }
            }
            if names_an_issue(line) {
                faults.push(text.fault(number, "names an issue by its number"));
            }
        }
    }
    faults
}

/// Whether the line says "issue" and a number.
fn names_an_issue(line: &str) -> bool {
    let lower = line.to_ascii_lowercase();
    lower.match_indices("issue").any(|(at, word)| {
        let rest = lower.get(at + word.len()..).unwrap_or_default();
        rest.trim_start_matches(['s', ' ', '#', '/']).starts_with(|c: char| c.is_ascii_digit())
    })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::indexing_slicing, reason = "a test may panic")]
    use super::*;

    fn text(path: &str, text: &str) -> Text {
        Text { path: path.to_owned(), text: text.to_owned() }
    }

    #[test]
    fn a_file_without_a_header_is_found_and_one_with_is_not() {
        let found = headers(&[text("a.rs", "fn main() {}\n"), text("b.rs", "//! Says what.\n"), text("c.md", "prose")]);
        assert_eq!(found.len(), 1);
        assert!(found[0].starts_with("a.rs:1:"));
    }

    #[test]
    fn a_sleep_is_found_in_tests_only() {
        let call = concat!("sle", "ep(ms);");
        let inside = format!("//! x\nfn f() {{}}\n#[cfg(test)]\nmod tests {{ {call} }}\n");
        let outside = format!("//! x\nfn f() {{ {call} }}\n");
        assert_eq!(sleeps(&[text("switch/a.rs", &inside)]).len(), 1);
        assert_eq!(sleeps(&[text("switch/a.rs", &outside)]).len(), 0);
        assert_eq!(sleeps(&[text("tests/it/a.rs", &outside)]).len(), 1);
    }

    #[test]
    fn an_issue_number_is_found_and_the_word_alone_is_not() {
        assert!(names_an_issue(concat!("see iss", "ue #12")));
        assert!(names_an_issue(concat!("see iss", "ues/7")));
        assert!(!names_an_issue("the issue is 12 frames late"));
    }
}
