//! `weft capture`: frames, with what became of them, as pcapng.

use std::io::IsTerminal;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

use super::Global;
use super::output::remark;
use crate::capture::client::{CaptureError, Summary, capture};
use crate::capture::output::{Enough, Files, Output};
use crate::capture::request::{Request, SNAPLEN_FULL};
use crate::port::spec::PortName;

/// Capture frames with where they entered, where they left and why they did not, as pcapng
#[derive(Args, Debug)]
#[command(after_help = "Sizes: 100000, 64K, 10M, 2G. Times: 500ms, 30s, 5m, 2h. See docs/capture.md.")]
pub(super) struct Options {
    /// Frames that come in by this port or are sent to it; repeat for more, leave out for all
    #[arg(long, value_name = "PORT")]
    port: Vec<PortName>,
    /// Where to write: a file, or - for the standard output
    #[arg(short, long, value_name = "FILE|-")]
    write: PathBuf,
    /// Bytes kept of a frame [default: its headers, to the end of TCP's or UDP's]
    #[arg(short, long, value_name = "BYTES", value_parser = clap::value_parser!(u32).range(1..=i64::from(SNAPLEN_FULL)))]
    snaplen: Option<u32>,
    /// Keep whole frames
    #[arg(long, conflicts_with = "snaplen")]
    full: bool,
    /// End after so many frames
    #[arg(short, long, value_name = "FRAMES", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// End after this time
    #[arg(long, value_name = "TIME", value_parser = time)]
    duration: Option<Duration>,
    /// Begin another, numbered file before one becomes larger
    #[arg(short = 'C', long, value_name = "SIZE", value_parser = size)]
    rotate: Option<u64>,
    /// Keep so many of these files: the oldest goes
    #[arg(short = 'W', long, value_name = "FILES", requires = "rotate", value_parser = clap::value_parser!(u32).range(1..))]
    files: Option<u32>,
    /// Only what was refused or lost, for any reason or for this one
    #[arg(long, value_name = "REASON", num_args = 0..=1, default_missing_value = "", value_parser = reason)]
    dropped: Option<String>,
    /// Not what comes, but what the recorder has kept of this time
    #[arg(long, value_name = "TIME", value_parser = time, conflicts_with = "duration")]
    recall: Option<Duration>,
    /// End before all files together become larger
    #[arg(long, value_name = "SIZE", default_value = "1G", value_parser = size)]
    max_bytes: u64,
    /// End before less than this is free on the file system
    #[arg(long, value_name = "SIZE", default_value = "64M", value_parser = size)]
    keep_free: u64,
    /// Which frames, as tcpdump has it
    #[arg(value_name = "EXPRESSION")]
    expression: Vec<String>,
}

pub(super) async fn run(global: &Global, options: Options) -> anyhow::Result<()> {
    let client = global.client();
    let mut signals =
        [signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?, signal(SignalKind::hangup())?];
    let stop = async {
        let [interrupt, terminate, hangup] = &mut signals;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    };
    let (request, output) = (options.request(), options.output()?);
    let summary = match capture(&client, &request, output, stop).await {
        Ok(summary) => summary,
        // As it is told about every other command.
        Err(CaptureError::Client(error)) => return Err(error.into()),
        Err(error) => return Err(error.into()),
    };
    if summary.is_broken_pipe {
        return Ok(());
    }
    remark(&told(&summary));
    match summary.enough {
        Some(Enough::Quota) => remark("the files are as large as --max-bytes allows; the capture ended there"),
        Some(Enough::Free) => anyhow::bail!(
            "the file system of {} has less than --keep-free left; the capture ended there, and can be read",
            options.write.display()
        ),
        None if summary.is_broken_off => return Err(client.vanished().into()),
        None => {}
    }
    Ok(())
}

/// What there was, in a line.
fn told(summary: &Summary) -> String {
    let Summary { frames, matched, lost, .. } = *summary;
    let mut line = format!("{frames} frames captured, {matched} matched, {lost} lost");
    if lost > 0 {
        line.push_str("; a filter, a smaller --snaplen or a faster disk loses less");
    }
    line
}

impl Options {
    fn request(&self) -> Request {
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let filter = self.expression.join(" ");
        Request {
            ports: self.port.clone(),
            filter: (!filter.trim().is_empty()).then_some(filter),
            snaplen: if self.full { Some(SNAPLEN_FULL) } else { self.snaplen },
            dropped: self.dropped.is_some(),
            reason: self.dropped.clone().filter(|reason| !reason.is_empty()),
            frames: self.count,
            duration_ms: self.duration.map(millis),
            bytes: None,
            recall_ms: self.recall.map(millis),
        }
    }

    fn output(&self) -> anyhow::Result<Output> {
        if self.write != Path::new("-") {
            return Ok(Output::Files(Files {
                path: self.write.clone(),
                rotate_bytes: self.rotate,
                files_max: self.files,
                bytes_max: self.max_bytes,
                free_min: self.keep_free,
            }));
        }
        let stdout = std::io::stdout();
        if stdout.is_terminal() {
            anyhow::bail!(
                "a terminal cannot show pcapng; write to a file, or into a pipe: weft capture -w - | tshark -r -"
            );
        }
        if self.rotate.is_some() {
            anyhow::bail!("the standard output has one file only; name a file to rotate with -w");
        }
        // Not through the buffer of lines that the standard output has.
        let stdout = std::fs::File::from(stdout.as_fd().try_clone_to_owned()?);
        Ok(Output::Stream(Box::new(stdout)))
    }
}

/// A number and its unit.
fn split(text: &str) -> Option<(u64, &str)> {
    let unit = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at_checked(unit)?;
    Some((number.parse().ok()?, unit))
}

fn time(text: &str) -> Result<Duration, String> {
    let time = split(text).and_then(|(number, unit)| match unit {
        "ms" => Some(Duration::from_millis(number)),
        "" | "s" => Some(Duration::from_secs(number)),
        "m" => Some(Duration::from_secs(number.checked_mul(60)?)),
        "h" => Some(Duration::from_secs(number.checked_mul(3600)?)),
        _ => None,
    });
    let time = time.filter(|time| !time.is_zero());
    time.ok_or_else(|| format!("'{}' is no time; write it as 500ms, 30s, 5m or 2h", text.escape_default()))
}

fn size(text: &str) -> Result<u64, String> {
    let size = split(text).and_then(|(number, unit)| match unit {
        "" => Some(number),
        "K" | "k" => number.checked_mul(1 << 10),
        "M" | "m" => number.checked_mul(1 << 20),
        "G" | "g" => number.checked_mul(1 << 30),
        _ => None,
    });
    size.ok_or_else(|| format!("'{}' is no size; write it as 100000, 64K, 10M or 2G", text.escape_default()))
}

/// A reason's label; what it means, the daemon knows.
fn reason(text: &str) -> Result<String, String> {
    if text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_') {
        return Ok(text.to_owned());
    }
    let shown = text.escape_default();
    Err(format!("'{shown}' is no drop reason; if it is the expression, put -- before it"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_sizes_are_numbers_with_a_unit() {
        for (text, millis) in [("500ms", 500), ("30s", 30_000), ("30", 30_000), ("5m", 300_000), ("2h", 7_200_000)] {
            assert_eq!(time(text), Ok(Duration::from_millis(millis)));
        }
        for (text, bytes) in [("100", 100), ("64K", 65_536), ("10M", 10 << 20), ("2G", 2 << 30)] {
            assert_eq!(size(text), Ok(bytes));
        }
        for wrong in ["", "s", "-1s", "1 s", "1d", "0s", "99999999999999999999s", "9999999999999999999h", "\u{1b}[31m"]
        {
            assert!(time(wrong).is_err_and(|said| !said.contains('\u{1b}')), "{wrong}");
        }
        assert!(size("1T").is_err() && size("99999999999999999999").is_err() && size("99999999999999G").is_err());
        assert!(reason("tcp port 80").is_err() && reason("spoofed_source").is_ok());
    }
}
