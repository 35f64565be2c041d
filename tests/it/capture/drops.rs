//! Captures of what did not arrive: as many frames per reason as are booked, each with its reason.

use std::collections::BTreeMap;

use rustix::process::{Pid, kill_process};
use switch_common::DropReason;
use weft_tests::Arena;
use weft_tests::frames::{MacAddr, Request};
use weft_tests::topology::{attach, offloading_station};

use super::*;

/// Frames that are sent for each reason.
const FRAMES: u64 = 5;

/// What is booked by reason, over all ports.
fn booked(daemon: &Daemon) -> Result<BTreeMap<String, u64>> {
    let rows: Vec<serde_json::Value> = daemon.cli().json("drops")?;
    let mut sums = BTreeMap::new();
    for row in rows {
        let reason = row["reason"].as_str().context("no reason")?.to_owned();
        *sums.entry(reason).or_insert(0) += row["frames"].as_u64().context("no frames")?;
    }
    Ok(sums)
}

/// The reason in a comment: what stands behind the last colon that a label follows.
fn reason_of(comment: &str) -> Option<String> {
    let (_, after) =
        comment.split_once("dropped: ").or_else(|| comment.split_once("dropped by the kernel: ")).or_else(|| {
            let (_, refused) = comment.split_once("refused for ")?;
            refused.split_once(": ")
        })?;
    Some(after.split([' ', ';']).next()?.to_owned())
}

/// Why a reason is not provoked here; nothing for those that are.
fn left_out(reason: DropReason) -> Option<&'static str> {
    match reason {
        DropReason::EgressGone => {
            Some("a port must go between decision and delivery, which is in the hand of a test in memory only")
        }
        DropReason::InjectFailed => {
            Some("the kernel must refuse a copy, which is in the hand of a test in memory only")
        }
        DropReason::BrainAbsent => Some("without a daemon there is no capture"),
        DropReason::Other => Some("it must never be"),
        DropReason::Malformed
        | DropReason::TooBig
        | DropReason::BadOffload
        | DropReason::GroupSource
        | DropReason::SpoofedSource
        | DropReason::ReservedAddress
        | DropReason::Hairpin
        | DropReason::NoEgress
        | DropReason::PortDown
        | DropReason::StationLimit
        | DropReason::FloodLimited
        | DropReason::PuntLimited => None,
    }
}

const FILE: &str = "/run/drops.toml";
/// A port that may flood little.
const CONFIG: &str = "[[port]]\nname = \"storm\"\nnetdev = \"storm\"\nflood_per_sec = 10\n";

fn from(number: u32, to: MacAddr) -> Builder {
    Builder::new(frames::station(number), to)
}

/// The ports beside a and b, each for a reason of its own.
struct Others {
    strict: Station,
    gso: Station,
    full: Station,
    small: Station,
    storm: Station,
    many: Station,
}

impl Others {
    const NAMES: [&str; 6] = ["strict", "gso", "full", "small", "storm", "many"];

    /// Attaches them; `storm` is of the file.
    fn new(arena: &Arena, daemon: &Daemon, storm: Station) -> Result<Self> {
        daemon.until_state("storm", "up", wait::SOON)?;
        let strict = Station::plain("strict")?;
        daemon.cli().run("port add strict --netdev strict --mac 02:00:00:00:00:09")?;
        let gso = offloading_station(daemon, "gso")?;
        let full = Station::plain("full")?;
        daemon.cli().run("port add full --netdev full --station-limit 1")?;
        daemon.until_state("full", "up", wait::SOON)?;
        let small = Station::plain("small")?;
        arena.ip("link set dev small mtu 600")?;
        attach(daemon, "small")?;
        let many = station(daemon, "many")?;
        daemon.cli().run(&format!("fdb add full {}", frames::station(5)))?;
        daemon.cli().run(&format!("fdb add many {}", frames::station(50)))?;
        Ok(Self { strict, gso, full, small, storm, many })
    }

    /// More frames from strangers than the brain takes, while it stands still; to their own port, so that nobody gets any.
    fn fall_behind(&self, daemon: &Daemon) -> Result<()> {
        let pid = Pid::from_raw(i32::try_from(daemon.pid()?)?).context("no pid")?;
        kill_process(pid, Signal::STOP)?;
        let outcome = wait::until_true("the daemon stands still", wait::SOON, || {
            Ok(fs::read_to_string(format!("/proc/{}/status", daemon.pid()?))?.contains("State:\tT"))
        })
        .and_then(|()| {
            (0..STRANGERS)
                .try_for_each(|number| Ok(self.many.send(&from(1000 + number, frames::station(50)).build())?))
        });
        kill_process(pid, Signal::CONT)?;
        outcome?;
        daemon.settle()
    }
}

/// More than may be on its way to the brain at once.
const STRANGERS: u32 = 9000;

/// Makes every drop that a test can bring about while a brain is there, each for [`FRAMES`] frames or more.
fn provoke(arena: &Arena, daemon: &Daemon, (a, b): (&Station, &Station), others: &Others) -> Result<()> {
    let of = frames::station;
    for (station, number) in [(a, 1), (b, 2), (&others.small, 6)] {
        station.send(&from(number, MacAddr::BROADCAST).build())?;
    }
    daemon.settle()?;
    for number in 0..FRAMES {
        others.strict.send(&from(8, of(1)).number(number).build())?;
        a.send(&from(1, frames::mac("01:80:c2:00:00:0e")?).number(number).build())?;
        a.send(&Builder::new(frames::mac("01:00:5e:00:00:01")?, of(2)).number(number).build())?;
        a.send(&from(1, of(1)).number(number).build())?;
        a.send(&from(1, of(6)).number(number).bytes(1000).build())?;
        a.send(&from(1, MacAddr::BROADCAST).number(number).bytes(1000).build())?;
        a.send(&from(1, of(2)).tag(0x88a8, 5).tag(0x8100, 6).bytes(0).build()[..20])?;
        others.full.send(&from(7, of(1)).number(number).build())?;
        others.gso.send_with(Request::tcp4(47), &frames::tcp_super_frame(of(4), of(1), 20_000)?)?;
    }
    for number in 0..100 {
        others.storm.send(&from(3, MacAddr::BROADCAST).number(number).build())?;
    }
    daemon.settle()?;
    others.fall_behind(daemon)?;
    // b does not read: its ring becomes full.
    for number in 0..1200 {
        a.send(&from(1, of(2)).number(number).build())?;
        if number % 100 == 0 {
            daemon.settle()?;
        }
    }
    daemon.settle()?;
    let set_down = |port: &str| {
        arena.ip(&format!("link set dev {port} down"))?;
        daemon.until_state(port, "down", wait::SOON).map(drop)
    };
    set_down("b")?;
    for number in 0..FRAMES {
        a.send(&from(1, of(2)).number(number).build())?;
    }
    daemon.settle()?;
    // Nobody is left who could be told.
    Others::NAMES.into_iter().try_for_each(set_down)?;
    for number in 0..FRAMES {
        a.send(&from(1, MacAddr::BROADCAST).number(number).build())?;
    }
    daemon.settle()
}

in_every_mode! {
    fn what_is_dropped_is_captured_for_every_reason_as_often_as_it_is_booked(arena, mode) {
        fs::write(FILE, CONFIG)?;
        let storm = Station::plain("storm")?;
        let daemon = Daemon::start_with(arena, "weft0", mode, &["-c", FILE])?;
        let (a, b) = (station(&daemon, "a")?, station(&daemon, "b")?);
        // They stay as long as there are captures: what is in a tap's ring when it goes is dropped, and is no part of this.
        let others = Others::new(arena, &daemon, storm)?;
        let all = Capture::start(&daemon, &["--dropped"], "/run/dropped.pcapng")?;
        let one = Capture::start(&daemon, &["--dropped", "spoofed_source"], "/run/spoofed.pcapng")?;
        let kernel = Capture::start(&daemon, &["--dropped", "ring_full", "--port", "b"], "/run/ring.pcapng")?;
        provoke(arena, &daemon, (&a, &b), &others)?;
        for capture in [all, one, kernel] {
            let said = capture.interrupt()?;
            ensure!(said.contains(" 0 lost"), "{said}");
        }
        let booked = booked(&daemon)?;
        drop(others);
        let mut captured: BTreeMap<String, u64> = BTreeMap::new();
        for comment in comments("/run/dropped.pcapng")? {
            let reason = reason_of(&comment).with_context(|| format!("no reason in '{comment}'"))?;
            *captured.entry(reason).or_insert(0) += 1;
        }
        for reason in DropReason::ALL {
            let (label, frames) = (reason.label(), booked.get(reason.label()).copied().unwrap_or(0));
            match left_out(*reason) {
                None => ensure!(frames >= FRAMES, "{label} was not provoked: {booked:?}"),
                Some(why) => ensure!(frames == 0, "{label} can be provoked, though {why}: {booked:?}"),
            }
        }
        ensure!(booked.get("ring_full").is_some_and(|frames| *frames >= FRAMES), "{booked:?}");
        ensure!(captured == booked, "captured {captured:?}, booked {booked:?}");
        let rows = tshark("/run/dropped.pcapng", &["frame.verdict.ebpf_tc", "frame.comment"])?;
        let refused = rows.iter().filter(|row| row[0] == "2").count();
        ensure!(refused > 0 && rows.iter().all(|row| row[0] == "2" || row[1].contains("flooded")), "{rows:?}");
        ensure!(frames_of("/run/spoofed.pcapng")?.len() as u64 == booked["spoofed_source"]);
        let ring = frames_of("/run/ring.pcapng")?;
        ensure!(ring.len() as u64 == booked["ring_full"], "{} of {booked:?}", ring.len());
        // What was full is what came last.
        let numbers: Vec<_> = ring.iter().filter_map(|frame| frames::number_of(frame)).collect();
        ensure!(numbers.last() == Some(&1199), "{numbers:?}");
        let shown = weft_tests::command::run("tshark -n -r /run/spoofed.pcapng -V -c 1")?;
        let shown: Vec<_> = shown.lines().take_while(|line| !line.starts_with("Data")).collect();
        eprintln!("{}", shown.join("\n"));
        ensure!(shown.iter().any(|line| line.contains("in strict; dropped: spoofed_source")), "{shown:?}");
        daemon.stop(arena)
    }
}
