//! Numbers and names as they are shown: short, and harmless.

use std::borrow::Cow;
use std::time::Duration;

/// A number in three digits and a unit.
pub(super) fn short(number: u64) -> String {
    if number < 1000 {
        return number.to_string();
    }
    let mut unit = 1000;
    for sign in ["k", "M", "G", "T", "P"] {
        let hundredths = u128::from(number) * 100 / unit;
        let (whole, part) = (hundredths / 100, hundredths % 100);
        match whole {
            0..10 => return format!("{whole}.{part:02}{sign}"),
            10..100 => return format!("{whole}.{}{sign}", part / 10),
            100..1000 => return format!("{whole}{sign}"),
            _ => unit *= 1000,
        }
    }
    format!("{}E", number / 1_000_000_000_000_000_000)
}

/// The same of what may be unknown yet.
pub(super) fn short_or_dash(number: Option<u64>) -> String {
    number.map_or_else(|| "-".to_owned(), short)
}

/// A length of time in two units at most.
pub(super) fn lasting(time: Duration) -> String {
    let secs = time.as_secs();
    match secs {
        0..60 => format!("{secs}s"),
        60..3600 => format!("{}m{:02}s", secs / 60, secs % 60),
        3600..86_400 => format!("{}h{:02}m", secs / 3600, secs % 3600 / 60),
        _ => format!("{}d{:02}h", secs / 86_400, secs % 86_400 / 3600),
    }
}

/// Microseconds.
pub(super) fn micros(us: u64) -> String {
    match us {
        0..1000 => format!("{us}us"),
        1000..1_000_000 => format!("{}.{}ms", us / 1000, us % 1000 / 100),
        _ => format!("{}.{}s", us / 1_000_000, us % 1_000_000 / 100_000),
    }
}

/// Words of somebody else's: what could steer a terminal, or turn a line round, is escaped.
pub(super) fn harmless(text: &str) -> Cow<'_, str> {
    if text.chars().all(|c| c == '\'' || c == '"' || c.escape_debug().len() == 1) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(text.escape_debug().to_string())
}

/// What fits, with a mark where something is cut off. One column for each character: names and addresses are ASCII, and the rest
/// is escaped or cut by the screen.
pub(super) fn fitted(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let kept: String = text.chars().take(width.saturating_sub(1)).collect();
    kept + "~"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_three_digits_and_are_never_more_than_there_was() {
        for (number, text) in [
            (0, "0"),
            (999, "999"),
            (1000, "1.00k"),
            (1999, "1.99k"),
            (12_345, "12.3k"),
            (999_999, "999k"),
            (1_000_000, "1.00M"),
            (u64::MAX, "18E"),
        ] {
            assert_eq!(short(number), text);
        }
    }

    #[test]
    fn times_are_read_at_a_glance() {
        let lengths = [(59, "59s"), (61, "1m01s"), (7_260, "2h01m"), (90_000, "1d01h")];
        for (secs, text) in lengths {
            assert_eq!(lasting(Duration::from_secs(secs)), text);
        }
        for (us, text) in [(999, "999us"), (1_250, "1.2ms"), (2_500_000, "2.5s")] {
            assert_eq!(micros(us), text);
        }
    }

    #[test]
    fn what_could_steer_a_terminal_is_escaped_and_what_is_harmless_is_not() {
        assert_eq!(harmless("web-1/198.18.0.1:80"), "web-1/198.18.0.1:80");
        assert_eq!(harmless("{\"app\":\"web\"}"), "{\"app\":\"web\"}");
        assert_eq!(harmless("a\u{1b}[31mb\u{202e}"), "a\\u{1b}[31mb\\u{202e}");
    }

    #[test]
    fn what_does_not_fit_is_cut_with_a_mark() {
        assert_eq!(fitted("abcdef", 6), "abcdef");
        assert_eq!(fitted("abcdefg", 6), "abcde~");
        assert_eq!(fitted("abc", 0), "~");
    }
}
