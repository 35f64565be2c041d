//! The history as an operator meets it: what ended before the daemon was killed, a disk that fills up, a file that is broken.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use weft_tests::frames::{self, Builder};
use weft_tests::scrape::Scrape;
use weft_tests::topology::{attach, station, talk};
use weft_tests::{Arena, Daemon, Mode, Need, Station, http, wait};

use crate::flow_log::Disk;

const FILE: &str = "/run/test.toml";
const HISTORY: &str = "/run/log/history.sqlite";
const LOST: &str = "weft_observation_lost_total{stage=\"history\"}";

/// A daemon with records every second, and two stations.
fn keeping(arena: &Arena, mode: Mode, history: &str) -> Result<(Daemon, Station, Station)> {
    fs::write(FILE, format!("[flows]\nactive_secs = 1\nidle_secs = 1\n[history]\n{history}\n"))?;
    let daemon = Daemon::start_with(arena, "weft0", mode, &["-c", FILE])?;
    let (a, b) = (station(&daemon, "a")?, station(&daemon, "b")?);
    Ok((daemon, a, b))
}

/// Has `b` heard, so that what is sent to its station has a port that it goes to.
fn greet(a: &Station, b: &Station) -> Result<()> {
    b.send(&Builder::new(frames::station(2), frames::MacAddr::BROADCAST).number(7).build())?;
    a.receive_until(wait::SOON, |frame| frames::number_of(frame) == Some(7)).map(drop)
}

fn flows(daemon: &Daemon, filters: &str) -> Result<Vec<Value>> {
    daemon.cli().json(&format!("flows --last 100000 {filters}"))
}

/// Frames of the conversation of [`talk`] in what is shown.
fn frames_in(records: &[Value]) -> u64 {
    let ours = |record: &&Value| record["source.mac"] == frames::station(1).to_string();
    records.iter().filter(ours).filter_map(|record| record["forward.frames"].as_u64()).sum()
}

/// Whether the conversation of [`talk`] has ended, and the kernel forgot it: what goes on, the next daemon tells as a whole, though parts
/// of it were told before.
fn is_over(records: &[Value]) -> bool {
    records.iter().all(|record| !record["end_reason"].is_null())
        && records
            .iter()
            .any(|record| record["source.mac"] == frames::station(1).to_string() && record["end_reason"] == "idle")
}

/// What `/v1/status` says of the history.
fn status(daemon: &Daemon) -> Result<Value> {
    let reply = http::request(&daemon.socket(), "GET", "/v1/status", b"")?;
    let status: Value = serde_json::from_str(&reply.body)?;
    Ok(status["history"].clone())
}

in_every_mode! {
    fn what_was_sent_before_a_stop_and_before_a_kill_is_found_once_and_by_every_filter(arena, mode) {
        let (mut daemon, a, b) = keeping(arena, mode, "")?;
        greet(&a, &b)?;
        talk(&a, &b, 0..100)?;
        // Memory alone, then memory and file: the same, for memory has all of it.
        wait::until_true("it is over", wait::SOON, || {
            let records = flows(&daemon, "")?;
            Ok(frames_in(&records) == 100 && is_over(&records))
        })?;
        ensure!(frames_in(&flows(&daemon, "--since 1h")?) == 100);
        // It was given out, so a second later it is in the file, whatever happens.
        let before = flows(&daemon, "--since 1h")?;
        daemon.terminate()?;
        daemon.launch()?;
        ensure!(frames_in(&flows(&daemon, "")?) == 0, "memory knows what an earlier daemon gave out");
        let after = flows(&daemon, "--since 1h")?;
        ensure!(frames_in(&after) == 100 && before.iter().all(|record| after.contains(record)), "{before:#?}\n{after:#?}");
        // An orderly stop gave the netdevs back.
        attach(&daemon, "a")?;
        attach(&daemon, "b")?;
        greet(&a, &b)?;
        talk(&a, &b, 100..150)?;
        wait::until_true("it is over again", wait::SOON, || {
            let records = flows(&daemon, "")?;
            Ok(frames_in(&records) == 50 && is_over(&records))
        })?;
        // A question has what was given out before it written.
        ensure!(frames_in(&flows(&daemon, "--since 1h")?) == 150);
        daemon.kill()?;
        daemon.launch()?;
        for (filters, frames) in [
            ("--since 1h", 150),
            ("--since 1h --from-port a", 150),
            ("--since 1h --to-port b --verdict forwarded --verdict flooded", 150),
            ("--since 1h --mac 02:00:00:00:00:01 --protocol 0x88b5", 150),
            ("--since 1h --not --port a", 0),
            ("--since 1h --from-port b", 0),
            ("--since 1h --until 30m", 0),
            ("--until 1970-01-02T00:00:00Z", 0),
        ] {
            let found = frames_in(&flows(&daemon, filters)?);
            ensure!(found == frames, "{filters}: {found} frames instead of {frames}");
        }
        // The last of them only, and the remark that there are more.
        let last: Vec<Value> = daemon.cli().json("flows --since 1h --last 1")?;
        let all = flows(&daemon, "--since 1h")?;
        ensure!(last.len() == 1 && last.first() == all.last(), "{last:#?}\n{all:#?}");
        ensure!(Scrape::now()?.value(LOST)? < 1.0);
        daemon.stop(arena)
    }

    fn what_was_dropped_is_found_by_time_also_of_a_port_that_is_gone(arena, mode) {
        let (mut daemon, a, _b) = keeping(arena, mode, "")?;
        let reserved = Builder::new(frames::station(1), frames::mac("01:80:c2:00:00:0e")?).bytes(77).build();
        let dropped = |daemon: &Daemon, span: &str| -> Result<u64> {
            let rows: Vec<Value> = daemon.cli().json(&format!("drops {span}"))?;
            let ours = rows.iter().filter(|row| row["port"] == "a" && row["reason"] == "reserved_address");
            Ok(ours.filter_map(|row| row["frames"].as_u64()).sum())
        };
        (0..10).try_for_each(|_| a.send(&reserved))?;
        wait::until_true("ten are dropped", wait::SOON, || Ok(daemon.cli().drops("a", "reserved_address")? == 10))?;
        ensure!(dropped(&daemon, "--since 1h")? == 10, "{:?}", daemon.cli().run("drops --since 1h")?);
        // What is dropped while no daemon lives is found by the next one, where the kernel half drops it.
        daemon.kill()?;
        (0..5).try_for_each(|_| a.send(&reserved))?;
        daemon.launch()?;
        daemon.until_state("a", "up", wait::SOON)?;
        let now = daemon.cli().drops("a", "reserved_address")?;
        ensure!(mode == Mode::Userspace || now == 15, "{now}");
        ensure!(dropped(&daemon, "--since 1h")? == now);
        ensure!(dropped(&daemon, "--until 30m")? == 0 && dropped(&daemon, "--since 2099-01-01T00:00:00Z")? == 0);
        daemon.cli().run("port del a")?;
        ensure!(daemon.cli().drops("a", "reserved_address").is_err(), "the port is there");
        ensure!(dropped(&daemon, "--since 1h")? == now);
        let described = daemon.cli().run("-o wide drops --since 1h")?;
        ensure!(described.lines().any(|line| line.contains("reserved_address") && line.contains(' ')), "{described}");
        daemon.stop(arena)
    }
}

#[test]
fn a_full_disk_costs_what_was_to_be_kept_and_neither_traffic_nor_metrics() {
    Arena::run(&[Need::Bpf], |arena| {
        let disk = Disk::new(c"size=8m")?;
        let (daemon, a, b) = keeping(arena, Mode::Kernel, &format!("path = \"{HISTORY}\""))?;
        talk(&a, &b, 0..10)?;
        wait::until_true("it is kept", wait::SOON, || Ok(fs::metadata(format!("{HISTORY}-wal")).is_ok()))?;
        ensure!(Scrape::now()?.value(LOST)? < 1.0);
        // Known from now on, so that nothing need be flooded.
        b.send(&Builder::new(frames::station(2), frames::station(1)).build())?;
        Disk::fill()?;
        // More than what is left of the log's last pages could hold, and less than an empty disk takes.
        let others: Vec<u32> = (1000..3000).collect();
        for some in others.chunks(200) {
            for number in some {
                a.send(&Builder::new(frames::station(*number), frames::station(2)).number(1).build())?;
            }
            b.drain()?;
        }
        wait::until_true("the loss is counted", wait::SOON, || Ok(Scrape::now()?.value(LOST)? > 0.0))?;
        ensure!(daemon.log().contains("the history cannot be written"), "{}", daemon.log());
        let told = status(&daemon)?;
        ensure!(told["problem"].is_string() && told["lost"].as_u64() > Some(0), "{told}");
        daemon.settle()?;
        b.drain()?;
        talk(&a, &b, 20..30)?;
        daemon.settle()?;
        Disk::empty()?;
        wait::until_true("it goes on", wait::SOON, || {
            talk(&a, &b, 30..40)?;
            // Who asks waits until all that was offered before is written or lost.
            Ok(flows(&daemon, "--since 1h").is_ok() && status(&daemon)?["problem"].is_null())
        })?;
        let lost = Scrape::now()?.value(LOST)?;
        talk(&a, &b, 50..60)?;
        wait::until_true("there are later records", wait::SOON, || Ok(frames_in(&flows(&daemon, "--since 1h")?) > 0))?;
        ensure!(Scrape::now()?.value(LOST)? <= lost + 1.0, "it loses on");
        daemon.stop(arena)?;
        drop((a, b, disk));
        Ok(())
    });
}

#[test]
fn a_broken_file_is_moved_aside_said_and_begun_anew() {
    Arena::run(&[Need::Bpf], |arena| {
        let disk = Disk::new(c"size=8m")?;
        fs::write(HISTORY, "this is no database".repeat(1000))?;
        let (mut daemon, a, b) = keeping(arena, Mode::Kernel, &format!("path = \"{HISTORY}\""))?;
        talk(&a, &b, 0..10)?;
        wait::until_true("it is kept", wait::SOON, || Ok(frames_in(&flows(&daemon, "--since 1h")?) == 10))?;
        ensure!(daemon.log().contains("it was moved aside, and a new one is begun"), "{}", daemon.log());
        let aside = status(&daemon)?["set_aside"].as_str().context("not said")?.to_owned();
        ensure!(aside.starts_with(&format!("{HISTORY}.corrupt-")) && fs::read(&aside)?.starts_with(b"this is no"));
        // The control: what was begun anew is no file to be moved aside.
        daemon.terminate()?;
        daemon.launch()?;
        ensure!(frames_in(&flows(&daemon, "--since 1h")?) == 10);
        ensure!(status(&daemon)?["set_aside"].is_null());
        daemon.stop(arena)?;
        drop((a, b, disk));
        Ok(())
    });
}

#[test]
fn without_a_history_there_is_memory_and_drops_say_that_none_is_kept() {
    Arena::run(&[Need::Bpf], |arena| {
        let (daemon, a, b) = keeping(arena, Mode::Kernel, "enabled = false")?;
        talk(&a, &b, 0..10)?;
        wait::until_true("it is seen", wait::SOON, || Ok(frames_in(&flows(&daemon, "--since 1h")?) == 10))?;
        let refusal = daemon.cli().refused("drops --since 1h")?;
        ensure!(refusal.code == 1 && refusal.message.contains("enabled = true in [history]"), "{refusal:?}");
        ensure!(status(&daemon)?.is_null() && !daemon.state().join("history.sqlite").exists());
        daemon.stop(arena)
    });
}

/// How long the daemon may take to end, whatever its disk does: the bound of the history, that of the flow log, and a little.
const END_WITHIN: Duration = Duration::from_secs(12);

#[test]
fn a_kill_in_the_middle_of_writing_loses_what_was_not_committed_and_no_more() {
    Arena::run(&[Need::Bpf], |arena| {
        let (mut daemon, a, b) = keeping(arena, Mode::Kernel, "")?;
        let mut known = 0;
        for round in 0..4_u32 {
            let first = round * 500;
            for number in first..first + 500 {
                a.send(
                    &Builder::new(frames::station(10_000 + number), frames::station(2)).number(number.into()).build(),
                )?;
            }
            // Killed while records are on their way; at some other moment each time.
            let asked = Instant::now();
            wait::until_true("some time passes", wait::SOON, || {
                Ok(asked.elapsed() > Duration::from_millis(1500 + 400 * u64::from(round)))
            })?;
            let shown = flows(&daemon, "--since 1h")?.iter().filter(|it| !it["end_reason"].is_null()).count();
            daemon.kill()?;
            daemon.launch()?;
            let kept = flows(&daemon, "--since 1h")?.iter().filter(|it| !it["end_reason"].is_null()).count();
            // What was shown from memory alone may have been in the batch that was not committed: one round's at most.
            ensure!(kept + 500 >= shown, "{shown} records were shown from the file and memory, and {kept} are left");
            ensure!(kept >= known, "{known} were kept, and {kept} are left");
            known = kept;
            ensure!(!daemon.log().contains("moved aside"), "{}", daemon.log());
        }
        ensure!(known > 0, "nothing was kept, so nothing is shown by this");
        b.drain()?;
        let asked = Instant::now();
        daemon.terminate()?;
        ensure!(asked.elapsed() < END_WITHIN, "{:?}", asked.elapsed());
        drop((a, b));
        daemon.assert_gone(arena)
    });
}
