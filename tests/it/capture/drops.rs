//! Captures of what did not arrive: as many frames per reason as are booked, each with its reason.

use std::collections::BTreeMap;

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

/// Makes every drop that a guest can bring about while a brain is there, each for [`FRAMES`] frames or more.
fn provoke(arena: &Arena, daemon: &Daemon, a: &Station, b: &Station) -> Result<(Vec<&'static str>, Vec<Station>)> {
    let strict = Station::plain("strict")?;
    daemon.cli().run("port add strict --netdev strict --mac 02:00:00:00:00:09")?;
    let gso = offloading_station(daemon, "gso")?;
    let full = Station::plain("full")?;
    daemon.cli().run("port add full --netdev full --station-limit 1")?;
    daemon.until_state("full", "up", wait::SOON)?;
    let small = Station::plain("small")?;
    arena.ip("link set dev small mtu 600")?;
    attach(daemon, "small")?;
    let from = |number: u32, to: MacAddr| Builder::new(frames::station(number), to);
    let of = frames::station;
    for (station, number) in [(a, 1), (b, 2), (&small, 6)] {
        station.send(&from(number, MacAddr::BROADCAST).build())?;
    }
    daemon.cli().run(&format!("fdb add full {}", of(5)))?;
    daemon.settle()?;
    for number in 0..FRAMES {
        strict.send(&from(8, of(1)).number(number).build())?;
        a.send(&from(1, frames::mac("01:80:c2:00:00:0e")?).number(number).build())?;
        a.send(&Builder::new(frames::mac("01:00:5e:00:00:01")?, of(2)).number(number).build())?;
        a.send(&from(1, of(1)).number(number).build())?;
        a.send(&from(1, of(6)).number(number).bytes(1000).build())?;
        a.send(&from(1, MacAddr::BROADCAST).number(number).bytes(1000).build())?;
        a.send(&from(1, of(2)).tag(0x88a8, 5).tag(0x8100, 6).bytes(0).build()[..20])?;
        full.send(&from(7, of(1)).number(number).build())?;
        gso.send_with(Request::tcp4(47), &frames::tcp_super_frame(of(4), of(1), 20_000)?)?;
    }
    daemon.settle()?;
    // b does not read: its ring becomes full.
    for number in 0..1200 {
        a.send(&from(1, of(2)).number(number).build())?;
        if number % 100 == 0 {
            daemon.settle()?;
        }
    }
    daemon.settle()?;
    arena.ip("link set dev b down")?;
    daemon.until_state("b", "down", wait::SOON)?;
    for number in 0..FRAMES {
        a.send(&from(1, of(2)).number(number).build())?;
    }
    daemon.settle()?;
    let wanted = vec![
        "spoofed_source",
        "reserved_address",
        "group_source",
        "hairpin",
        "too_big",
        "malformed",
        "station_limit",
        "bad_offload",
        "ring_full",
        "port_down",
    ];
    // They stay as long as there are captures: what is in a tap's ring when it goes is dropped, and is no part of this.
    Ok((wanted, vec![strict, full, small, gso]))
}

in_every_mode! {
    fn what_is_dropped_is_captured_for_every_reason_as_often_as_it_is_booked(arena, mode) {
        let daemon = Daemon::start(arena, mode)?;
        let (a, b) = (station(&daemon, "a")?, station(&daemon, "b")?);
        let all = Capture::start(&daemon, &["--dropped"], "/run/dropped.pcapng")?;
        let one = Capture::start(&daemon, &["--dropped", "spoofed_source"], "/run/spoofed.pcapng")?;
        let kernel = Capture::start(&daemon, &["--dropped", "ring_full", "--port", "b"], "/run/ring.pcapng")?;
        let (wanted, stations) = provoke(arena, &daemon, &a, &b)?;
        for capture in [all, one, kernel] {
            let said = capture.interrupt()?;
            ensure!(said.contains(" 0 lost"), "{said}");
        }
        let booked = booked(&daemon)?;
        drop(stations);
        let mut captured: BTreeMap<String, u64> = BTreeMap::new();
        for comment in comments("/run/dropped.pcapng")? {
            let reason = reason_of(&comment).with_context(|| format!("no reason in '{comment}'"))?;
            *captured.entry(reason).or_insert(0) += 1;
        }
        for reason in wanted {
            ensure!(booked.get(reason).is_some_and(|frames| *frames >= FRAMES), "{reason} was not provoked: {booked:?}");
        }
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
