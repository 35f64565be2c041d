//! The log: to stderr, for people or for programs.
//!
//! What a guest or a client sends may end up in a message. Control characters are escaped whatever the format, so nobody
//! can forge a line or speak to the terminal of who reads it.

use std::io::{self, Write};

use tracing::level_filters::LevelFilter;

use crate::config::{LogFormat, LogLevel};

/// Starts the log; once per process.
pub(super) fn init(level: LogLevel, format: LogFormat) {
    let builder = tracing_subscriber::fmt()
        .with_max_level(match level {
            LogLevel::Error => LevelFilter::ERROR,
            LogLevel::Warn => LevelFilter::WARN,
            LogLevel::Info => LevelFilter::INFO,
            LogLevel::Debug => LevelFilter::DEBUG,
            LogLevel::Trace => LevelFilter::TRACE,
        })
        .with_ansi(false)
        .with_writer(|| Escaped(io::stderr()));
    match format {
        LogFormat::Text => builder.init(),
        LogFormat::Json => builder.json().flatten_event(true).init(),
    }
}

/// Passes lines on, with their control characters escaped. The subscriber writes one whole line at a time.
struct Escaped<W>(W);

impl<W: Write> Write for Escaped<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.write_all(escape(line).as_bytes())?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

fn escape(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    let (message, end) = text.strip_suffix('\n').map_or((text.as_ref(), ""), |message| (message, "\n"));
    let mut escaped = String::with_capacity(text.len());
    for c in message.chars() {
        if c.is_control() {
            escaped.extend(c.escape_default());
        } else {
            escaped.push(c);
        }
    }
    escaped + end
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_cannot_forge_a_line_or_speak_to_a_terminal() {
        assert_eq!(escape(b"port web1\n"), "port web1\n");
        assert_eq!(escape(b"a\nERROR forged\x1b[2J\n"), "a\\nERROR forged\\u{1b}[2J\n");
        assert_eq!(escape(b"\xff\x00"), "\u{fffd}\\u{0}");
    }
}
