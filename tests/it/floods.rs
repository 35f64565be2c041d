//! One port that misbehaves at full speed while two others talk.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Instant;

use anyhow::{Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use weft_tests::frames::{self, Builder, MacAddr};
use weft_tests::stream::Stream;
use weft_tests::{Arena, Daemon, Mode, Need, Station, topology, wait};

/// Frames of the attack, and how many of them per second.
const FRAMES: u32 = 40_000;
const FILE: &str = "/run/floods.toml";
const PER_SECOND: u32 = 10_000;

fn acquainted(daemon: &Daemon) -> Result<(Station, Station)> {
    let (a, b) = (topology::station(daemon, "a")?, topology::station(daemon, "b")?);
    for (from, to, number) in [(&a, &b, 1), (&b, &a, 2)] {
        from.send(&Builder::new(frames::station(number), MacAddr::BROADCAST).number(number.into()).build())?;
        to.receive_until(wait::SOON, |frame| frames::number_of(frame) == Some(number.into()))?;
    }
    Ok((a, b))
}

in_every_mode! {
    /// What the flood buckets refuse is said of the flow itself, not only of its port.
    fn a_storm_is_dropped_in_the_record_of_its_flow_too(arena, mode) {
        const STORM: u64 = 400;
        fs::write(FILE, "[flows]\nidle_secs = 60\n[[port]]\nname = \"a\"\nnetdev = \"a\"\nflood_per_sec = 10\n")?;
        let a = Station::plain("a")?;
        let daemon = Daemon::start_with(arena, "weft0", mode, &["-c", FILE])?;
        daemon.until_state("a", "up", wait::SOON)?;
        let b = topology::station(&daemon, "b")?;
        for (nobody, number) in [(MacAddr::BROADCAST, 1), (frames::station(99), 2)] {
            for _ in 0..STORM {
                a.send(&Builder::new(frames::station(number), nobody).build())?;
            }
            daemon.settle()?;
        }
        let refused = daemon.cli().drops("a", "flood_limited")?;
        ensure!(refused > STORM, "{refused} refused: this was no storm");
        let told = |records: &[serde_json::Value]| -> u64 {
            records.iter().filter_map(|record| record["forward.dropped_frames"].as_u64()).sum()
        };
        let filter = "flows --from-port a --drop-reason flood_limited";
        wait::until_true("the records say it", wait::SOON, || {
            let records: Vec<serde_json::Value> = daemon.cli().json(filter)?;
            Ok(records.len() == 2 && told(&records) == refused)
        })?;
        // What was within the limit was flooded, so that is the verdict; what a third flow of this port does is not touched by it.
        let records: Vec<serde_json::Value> = daemon.cli().json(filter)?;
        ensure!(records.iter().all(|record| record["verdict"] == "flooded" && record["forward.frames"] == STORM), "{records:#?}");
        b.send(&Builder::new(frames::station(3), frames::station(1)).build())?;
        wait::until_true("b's flow is there", wait::SOON, || {
            let records: Vec<serde_json::Value> = daemon.cli().json("flows --from-port b")?;
            Ok(records.len() == 1 && records.iter().all(|record| record["forward.dropped_frames"] == 0 && record["drop_reason"].is_null()))
        })?;
        b.drain()?;
        daemon.settle()?;
        daemon.stop(arena)
    }

    /// Ten thousand new source addresses a second: nobody's frames are flooded, nobody's entries evicted, memory is flat.
    fn a_source_flood_harms_nobody_else(arena, mode) {
        // Every forged source is a flow: a table that the first wave fills.
        fs::write(FILE, "[flows]\nper_port = 2000\n")?;
        let daemon = Daemon::start_with(arena, "weft0", mode, &["-c", FILE])?;
        let (a, b) = acquainted(&daemon)?;
        let attacker = topology::station(&daemon, "attacker")?;
        // A first wave fills what may be filled; from then on memory must not grow.
        let wave = |first: u32| -> Result<()> {
            let begin = Instant::now();
            for number in 0..FRAMES {
                while f64::from(number) > begin.elapsed().as_secs_f64() * f64::from(PER_SECOND) {
                    thread::yield_now();
                }
                attacker.send(&Builder::new(frames::station(first + number), frames::station(2)).build())?;
            }
            Ok(())
        };
        let stop = AtomicBool::new(false);
        let memory = thread::scope(|scope| {
            // Known unicast of the bystanders in one direction only: the attacker's frames go to the other end, b.
            let talk = scope.spawn(|| {
                let mut stream = Stream::new(&b, &a, Builder::new(frames::station(2), frames::station(1)));
                stream.pump_until(&stop)
            });
            let sink = scope.spawn(|| -> Result<()> {
                while !stop.load(Ordering::Relaxed) {
                    weft_tests::station::until_readable(&[&b], std::time::Duration::from_millis(100))?;
                    b.drain()?;
                }
                Ok(())
            });
            let attack = wave(100_000).and_then(|()| {
                let before = daemon.resident_kib()?;
                wave(10_000_000)?;
                Ok((before, daemon.resident_kib()?))
            });
            stop.store(true, Ordering::Relaxed);
            ensure!(talk.join().expect("a stream does not panic")? > 0);
            sink.join().expect("a sink does not panic")?;
            attack
        })?;
        ensure!(memory.1 < memory.0 + 4096, "{} KiB became {} KiB", memory.0, memory.1);
        daemon.settle()?;
        let seen: Vec<_> = attacker.drain()?.into_iter().filter(|frame| frames::number_of(frame).is_some()).collect();
        ensure!(seen.is_empty(), "{} frames of the bystanders reached the attacker", seen.len());
        let stations = daemon.cli().stations()?;
        for (number, port) in [(1, "a"), (2, "b")] {
            let mac = frames::station(number).to_string();
            ensure!(stations.iter().any(|s| s.mac == mac && s.port == port), "{mac} was evicted");
        }
        ensure!(stations.iter().filter(|station| station.port == "attacker").count() <= 1024);
        ensure!(daemon.cli().port("attacker")?.ingress.frames == u64::from(2 * FRAMES));
        daemon.stop(arena)
    }

    fn a_broadcast_storm_is_limited_and_the_bystanders_unicast_is_not(arena, mode) {
        let config = "[[port]]\nname = \"attacker\"\nnetdev = \"attacker\"\nflood_per_sec = 100\n";
        fs::write("/run/storm.toml", config)?;
        let attacker = Station::plain("attacker")?;
        let daemon = Daemon::start_with(arena, "weft0", mode, &["-c", "/run/storm.toml"])?;
        daemon.until_state("attacker", "up", wait::SOON)?;
        let (a, b) = acquainted(&daemon)?;
        for _ in 0..5000 {
            attacker.send(&Builder::new(frames::station(3), MacAddr::BROADCAST).build())?;
        }
        let limited = || daemon.cli().drops("attacker", "flood_limited");
        wait::until_true("the storm is limited", wait::SOON, || Ok(limited()? > 1000))?;
        daemon.settle()?;
        a.drain()?;
        b.drain()?;
        Stream::new(&a, &b, Builder::new(frames::station(1), frames::station(2))).pump(1000)?;
        ensure!(daemon.cli().drops("a", "flood_limited")? == 0);
        daemon.stop(arena)
    }
}

#[test]
fn a_brain_that_falls_behind_limits_punts_and_counts_them() {
    Arena::run(&[Need::Bpf], |arena| {
        let daemon = Daemon::start(arena, Mode::Kernel)?;
        let (a, b) = acquainted(&daemon)?;
        Stream::new(&a, &b, Builder::new(frames::station(1), frames::station(2))).pump(499)?;
        // The verdict is followed from the first frame on that finds nothing of its port in flight: this one.
        daemon.settle()?;
        Stream::new(&a, &b, Builder::new(frames::station(1), frames::station(2))).pump(1)?;
        let pid = Pid::from_raw(i32::try_from(daemon.pid()?)?).expect("a pid is not 0");
        kill_process(pid, Signal::STOP)?;
        wait::until_true("the daemon stands still", wait::SOON, || {
            Ok(fs::read_to_string(format!("/proc/{}/status", daemon.pid()?))?.contains("State:\tT"))
        })?;
        let stalled = (|| {
            for number in 0..20_000 {
                a.send(&Builder::new(frames::station(1000 + number), frames::station(2)).build())?;
            }
            // Established traffic takes no notice of a brain that stands still.
            Stream::new(&a, &b, Builder::new(frames::station(1), frames::station(2))).pump(2000)
        })();
        kill_process(pid, Signal::CONT)?;
        stalled?;
        wait::until_true("the backlog is done", wait::SOON, || {
            b.drain()?;
            Ok(daemon.cli().output("ledger --settle=1")?.status.success())
        })?;
        ensure!(daemon.cli().drops("a", "punt_limited")? > 0, "{:?}", daemon.cli().port("a")?);
        daemon.stop(arena)
    });
}

#[test]
fn an_honest_multicast_sender_below_the_defaults_loses_nothing() {
    Arena::run(&[Need::Bpf], |arena| {
        let daemon = Daemon::start(arena, Mode::Kernel)?;
        let (a, b) = acquainted(&daemon)?;
        let group = frames::mac("01:00:5e:01:02:03")?;
        let begin = Instant::now();
        let mut stream = Stream::new(&a, &b, Builder::new(frames::station(1), group));
        for number in 0..3000_u32 {
            // 1,500 per second, three quarters of what a port may have flooded.
            while f64::from(number) > begin.elapsed().as_secs_f64() * 1500.0 {
                thread::yield_now();
            }
            stream.pump(1)?;
        }
        ensure!(daemon.cli().port("a")?.drops.is_empty(), "{:?}", daemon.cli().port("a")?);
        daemon.stop(arena)
    });
}
