//! The flows of a port add up to what others counted of the same traffic, to the byte and the wire frame, in both datapaths.
//!
//! Ground truth is never our own: what a generator wrote and its tap's statistics say; what nftables at the egress hook inside a
//! container, the netdev's statistics and TCP's own counters there say, and tshark of what tcpdump took down there.

mod containers;
mod generator;
mod health;
mod storm;

use std::fmt;
use std::sync::Mutex;

use anyhow::{Result, ensure};
use serde_json::Value;
use weft_tests::{Arena, Daemon, Mode, Need};

/// Frames and their weight.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Weight {
    frames: u64,
    wire_frames: u64,
    bytes: u64,
    wire_bytes: u64,
}

impl Weight {
    fn minus(self, before: Self) -> Self {
        Self {
            frames: self.frames - before.frames,
            wire_frames: self.wire_frames - before.wire_frames,
            bytes: self.bytes - before.bytes,
            wire_bytes: self.wire_bytes - before.wire_bytes,
        }
    }
}

/// What one witness says of what a port sent; what it cannot know is nothing.
struct Witness {
    name: &'static str,
    frames: Option<u64>,
    wire_frames: Option<u64>,
    bytes: Option<u64>,
}

impl Witness {
    fn differs_from(&self, flows: Weight) -> bool {
        let differs = |said: Option<u64>, counted: u64| said.is_some_and(|said| said != counted);
        differs(self.frames, flows.frames)
            || differs(self.wire_frames, flows.wire_frames)
            || differs(self.bytes, flows.bytes)
    }
}

impl fmt::Display for Witness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = [(self.frames, "frames"), (self.wire_frames, "wire frames"), (self.bytes, "bytes")];
        let known: Vec<&str> = known.into_iter().filter(|(said, _)| said.is_some()).map(|(_, what)| what).collect();
        write!(f, "{} ({})", self.name, known.join(", "))
    }
}

/// All conversations.
struct Flows(Vec<Value>);

impl Flows {
    fn now(daemon: &Daemon) -> Result<Self> {
        Ok(Self(daemon.cli().json("flows --last 100000")?))
    }

    /// What a port's flows add up to, whoever began them; those of which `counts` holds, by the record and the sending station.
    fn sum(&self, port: &str, counts: impl Fn(&Value, &str) -> bool) -> Weight {
        let mut sum = Weight::default();
        for record in &self.0 {
            for (side, way) in [("source", "forward"), ("destination", "reverse")] {
                let station = record[format!("{side}.mac")].as_str().unwrap_or_default();
                if record[format!("{side}.port_name")].as_str() != Some(port) || !counts(record, station) {
                    continue;
                }
                let count = |what: &str| record[format!("{way}.{what}")].as_u64().unwrap_or(0);
                sum.frames += count("frames");
                sum.wire_frames += count("wire_frames");
                sum.bytes += count("bytes");
                sum.wire_bytes += count("wire_bytes");
            }
        }
        sum
    }

    /// All of a port.
    fn of(&self, port: &str) -> Weight {
        self.sum(port, |_, _| true)
    }

    /// A port's TCP.
    fn tcp_of(&self, port: &str) -> Weight {
        self.sum(port, |record, _| record["network.transport"] == "tcp")
    }
}

/// The rows of a table: case, what its flows add up to, witnesses, difference.
#[derive(Default)]
struct Rows(Mutex<Vec<String>>);

impl Rows {
    /// Notes what the witnesses of a case say, which must be what the flows say.
    fn compare(&self, case: &str, mode: Mode, flows: Weight, witnesses: &[Witness]) -> Result<()> {
        for witness in witnesses {
            let Witness { frames, wire_frames, bytes, .. } = *witness;
            ensure!(
                !witness.differs_from(flows),
                "{case}, {mode:?}: {witness}: {frames:?}, {wire_frames:?}, {bytes:?}, but {flows:?}"
            );
        }
        let names: Vec<String> = witnesses.iter().map(ToString::to_string).collect();
        let Weight { frames, wire_frames, bytes, .. } = flows;
        let row = format!("| {case} | {frames} | {wire_frames} | {bytes} | {} | 0 |", names.join("; "));
        self.0.lock().expect("nobody panics with it").push(row);
        Ok(())
    }

    fn print(&self, mode: Mode) {
        let rows = self.0.lock().expect("nobody panics with it").join("\n");
        eprintln!(
            "{mode:?}\n| case | frames | wire frames | bytes | witnesses | difference |\n|---|---|---|---|---|---|\n{rows}"
        );
    }
}

/// Prints the table of `docs/exactness.md`: run with `--nocapture`.
fn run(mode: Mode) {
    let rows = Rows::default();
    Arena::run(&[Need::Bpf], |arena| generator::run(arena, mode, &rows));
    Arena::run(&[Need::Bpf, Need::Nft, Need::Tshark], |arena| containers::run(arena, mode, &rows));
    rows.print(mode);
}

#[test]
fn the_flows_of_a_port_add_up_to_what_others_counted_with_cached_verdicts() {
    run(Mode::Kernel);
}

#[test]
fn the_flows_of_a_port_add_up_to_what_others_counted_without_cached_verdicts() {
    run(Mode::Userspace);
}
