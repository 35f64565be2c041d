//! Captures: the same frames as tcpdump sees on the taps, each once, with what became of them.

mod content;
mod drops;
mod ledger;
mod limits;
mod recorder;
mod tools;

use std::fs::{self, File};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use weft_tests::command::Running;
use weft_tests::frames::{self, Builder};
use weft_tests::topology::station;
use weft_tests::{Daemon, Station, wait};

/// `weft capture` that runs, and the file of what it says.
struct Capture {
    running: Running,
    said: String,
}

impl Capture {
    /// Starts it and waits until frames are captured.
    fn start(daemon: &Daemon, options: &[&str], file: &str) -> Result<Self> {
        let said = format!("{file}.err");
        let mut command = Command::new(daemon.cli().binary());
        command.args(["capture", "-w", file]).args(options).stdin(Stdio::null()).stdout(Stdio::null());
        let mut running = Running::start(command.stderr(File::create(&said)?))?;
        let begun = wait::until_true("the capture has begun", wait::SOON, || {
            let status = running.ended()?;
            let is_there = fs::metadata(file).is_ok_and(|found| found.len() > 0) || rotated(file, 1);
            ensure!(status.is_none() || is_there, "ended: {status:?}");
            Ok(is_there)
        });
        begun.with_context(|| fs::read_to_string(&said).unwrap_or_default())?;
        Ok(Self { running, said })
    }

    /// Ends it as Ctrl-C does; it must end well. What it said.
    fn interrupt(self) -> Result<String> {
        self.running.signal(Signal::INT)?;
        self.finish()
    }

    /// Waits for its end, which must be a good one. What it said.
    fn finish(mut self) -> Result<String> {
        let status = self.running.wait(wait::SOON)?;
        let said = fs::read_to_string(&self.said)?;
        ensure!(status.success(), "{status}: {said}");
        Ok(said)
    }
}

fn rotated(file: &str, number: u32) -> bool {
    fs::metadata(numbered(file, number)).is_ok_and(|found| found.len() > 0)
}

/// The name of a file of a rotated capture.
fn numbered(file: &str, number: u32) -> String {
    file.replace(".pcapng", &format!("_{number:05}.pcapng"))
}

/// tcpdump on one netdev, what comes in by it only.
struct Tcpdump {
    running: Running,
    file: String,
}

impl Tcpdump {
    fn start(netdev: &str) -> Result<Self> {
        let file = format!("/run/{netdev}.tcpdump");
        let said = format!("{file}.err");
        let mut command = Command::new("tcpdump");
        command.args(["-i", netdev, "-Q", "in", "-U", "-s", "0", "-Z", "root", "-w", &file]);
        let running = Running::start(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(&said)?))?;
        wait::until_true("tcpdump listens", wait::SOON, || Ok(fs::read_to_string(&said)?.contains("listening on")))?;
        Ok(Self { running, file })
    }

    /// Waits until so many frames are there, ends it, and gives them.
    fn frames(mut self, count: usize) -> Result<Vec<Vec<u8>>> {
        let seen = || Ok(weft_tests::pcap::read(&fs::read(&self.file)?).frames);
        wait::until_true(&format!("tcpdump has {count} frames"), wait::SOON, || Ok(seen()?.len() >= count))?;
        self.running.signal(Signal::INT)?;
        self.running.wait(wait::SOON)?;
        seen()
    }
}

/// The frames of a file.
fn frames_of(file: &str) -> Result<Vec<Vec<u8>>> {
    let read = weft_tests::pcap::read(&fs::read(file)?);
    ensure!(read.others == 0, "{file} is no capture");
    Ok(read.frames)
}

/// A column of each frame, as tshark reads it; tshark must have nothing to complain about.
fn tshark(file: &str, fields: &[&str]) -> Result<Vec<Vec<String>>> {
    let mut command = Command::new("tshark");
    command.args(["-n", "-r", file, "-T", "fields", "-E", "separator=/t"]);
    command.args(fields.iter().flat_map(|field| ["-e", field]));
    let output = command.stdin(Stdio::null()).env("HOME", "/run").output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    // That it runs as root is no warning about the file.
    let complaints: Vec<_> =
        said.lines().filter(|line| !line.contains("Running as user \"root\"") && !line.trim().is_empty()).collect();
    ensure!(output.status.success() && complaints.is_empty(), "tshark: {}: {complaints:?}", output.status);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(text.lines().map(|line| line.split('\t').map(str::to_owned).collect()).collect())
}

/// The comments of a file's frames.
fn comments(file: &str) -> Result<Vec<String>> {
    Ok(tshark(file, &["frame.comment"])?.into_iter().map(|row| row.concat()).collect())
}

/// How many packets capinfos counts, and editcap copies.
fn counts(file: &str) -> Result<(usize, usize)> {
    let shown = weft_tests::command::run(&format!("capinfos -c -M -T -r {file}"))?;
    let counted = shown.split_whitespace().last().context("capinfos says nothing")?.parse()?;
    let copy = format!("{file}.copy");
    weft_tests::command::run(&format!("editcap -F pcapng {file} {copy}"))?;
    Ok((counted, frames_of(&copy)?.len()))
}

/// The interface statistics of a file, by interface: the counters by their option's code.
fn statistics(file: &str) -> Result<Vec<std::collections::BTreeMap<u16, u64>>> {
    let bytes = fs::read(file)?;
    let (mut rest, mut found) = (bytes.as_slice(), Vec::new());
    while let Some(head) = rest.first_chunk::<8>() {
        let kind = u32::from_le_bytes([head[0], head[1], head[2], head[3]]);
        let length = u32::from_le_bytes([head[4], head[5], head[6], head[7]]) as usize;
        let block = rest.get(..length).context("a block is cut short")?;
        if kind == 5 {
            let (mut options, mut counts) = (&block[20..length - 4], std::collections::BTreeMap::new());
            while let [code_low, code_high, length_low, length_high, value @ ..] = options {
                let code = u16::from_le_bytes([*code_low, *code_high]);
                let bytes = usize::from(u16::from_le_bytes([*length_low, *length_high]));
                if let (4.., Some(count)) = (code, value.get(..bytes).and_then(|value| value.first_chunk::<8>())) {
                    counts.insert(code, u64::from_le_bytes(*count));
                }
                options = value.get(bytes.next_multiple_of(4)..).unwrap_or_default();
            }
            found.push(counts);
        }
        rest = &rest[length..];
    }
    Ok(found)
}

/// Option codes of an interface's statistics.
const RECEIVED: u16 = 4;
const DROPPED: u16 = 5;
const ACCEPTED: u16 = 6;
const DROPPED_BY_OS: u16 = 7;
const DELIVERED: u16 = 8;

/// The sum of one counter over all interfaces.
fn sum(file: &str, code: u16) -> Result<u64> {
    Ok(statistics(file)?.iter().filter_map(|counts| counts.get(&code)).sum())
}

/// Three stations, of which the first two know each other.
fn three(daemon: &Daemon) -> Result<(Station, Station, Station)> {
    let (a, b, c) = (station(daemon, "a")?, station(daemon, "b")?, station(daemon, "c")?);
    b.send(&Builder::new(frames::station(2), frames::station(1)).build())?;
    wait::until_true("b is known", wait::SOON, || Ok(daemon.cli().stations()?.iter().any(|it| it.port == "b")))?;
    daemon.settle()?;
    for station in [&a, &c] {
        station.drain()?;
    }
    Ok((a, b, c))
}
