//! What one boot had to say, in a few lines: what the verifier went through, and how each test binary ended.

use std::fmt;

use anyhow::{Result, ensure};

/// Begins a line about the end of a test binary: its name and exit code follow.
pub const ENDED: &str = "weft-kernels: ";
/// Begins the line with which a test binary counts its tests.
const COUNTED: &str = "test result: ";
/// In each line about what the verifier had to do for a program.
const VERIFIED: &str = " instructions verified of ";

/// A test binary that has ended.
struct Part {
    name: String,
    code: String,
    counted: String,
}

/// What is known of a boot so far.
#[derive(Default)]
pub struct Results {
    counted: String,
    parts: Vec<Part>,
    verified: Vec<String>,
}

impl Results {
    /// Takes a line of the console; whether it is one for people.
    pub fn take(&mut self, line: &str) -> bool {
        if let Some((name, code)) = line.strip_prefix(ENDED).and_then(|end| end.split_once(' ')) {
            let counted = std::mem::take(&mut self.counted);
            self.parts.push(Part { name: name.to_owned(), code: code.to_owned(), counted });
            return false;
        }
        if let Some(counted) = line.strip_prefix(COUNTED) {
            counted.clone_into(&mut self.counted);
        }
        if line.contains(VERIFIED) {
            self.verified.push(line.to_owned());
        }
        true
    }

    /// Whether all that was started came to a good end; `verifier`: and whether the verifier's work was seen.
    pub fn judge(&self, last: &str, verifier: bool) -> Result<()> {
        ensure!(self.parts.iter().any(|part| part.name == last), "the guest went down before the tests were over");
        let failed: Vec<&str> =
            self.parts.iter().filter(|part| part.code != "0").map(|part| part.name.as_str()).collect();
        ensure!(failed.is_empty(), "failed: {}", failed.join(", "));
        ensure!(!verifier || !self.verified.is_empty(), "nothing was said of the verifier");
        Ok(())
    }
}

impl fmt::Display for Results {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for program in &self.verified {
            writeln!(f, "    {program}")?;
        }
        for part in &self.parts {
            let counted = part.counted.split_once(". ").map_or("nothing counted", |(_, counts)| counts);
            writeln!(f, "    {:<10} {counted}", part.name)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::Results;

    const CONSOLE: [&str; 5] = [
        "ingress: 4000 instructions verified of 250000 allowed, 3000 bytes as machine code",
        "test result: ok. 1 passed; 0 failed; 0 ignored",
        "weft-kernels: verifier 0",
        "test result: FAILED. 7 passed; 1 failed; 0 ignored",
        "weft-kernels: it 101",
    ];

    fn of(console: &[&str]) -> Results {
        let mut results = Results::default();
        for line in console {
            assert_eq!(results.take(line), !line.starts_with("weft-kernels"), "{line}");
        }
        results
    }

    #[test]
    fn a_failed_binary_fails_the_boot_and_all_is_summed_up() {
        let results = of(&CONSOLE);
        assert!(results.judge("it", true).is_err_and(|error| error.to_string() == "failed: it"));
        let text = results.to_string();
        assert!(text.contains("4000 instructions") && text.contains("7 passed; 1 failed"), "{text}");
    }

    #[test]
    fn a_boot_that_ended_early_or_was_silent_about_the_verifier_is_no_success() {
        let early = of(&CONSOLE[..3]);
        assert!(early.judge("it", true).is_err());
        early.judge("verifier", true).expect("this much went well");
        assert!(of(&CONSOLE[1..3]).judge("verifier", true).is_err());
        of(&CONSOLE[1..3]).judge("verifier", false).expect("nobody asked for the verifier");
    }
}
