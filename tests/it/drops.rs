//! What the kernel drops behind both halves' backs is booked on the port it was for, and shown as it happens.

use std::fs::{self, File};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use weft_tests::command::Running;
use weft_tests::frames::{self, Builder};
use weft_tests::topology::station;
use weft_tests::{Arena, Daemon, Mode, Need, Station, wait};

/// More than the ring of a tap holds.
const FRAMES: u64 = 1300;
/// Frames that are on their way at once: less than the brain takes.
const AT_ONCE: u64 = 50;

/// Two stations that know each other.
fn acquainted(daemon: &Daemon) -> Result<(Station, Station)> {
    let (a, b) = (station(daemon, "a")?, station(daemon, "b")?);
    b.send(&Builder::new(frames::station(2), frames::station(1)).build())?;
    wait::until_true("b is known", wait::SOON, || Ok(daemon.cli().stations()?.iter().any(|it| it.port == "b")))?;
    daemon.settle()?;
    a.drain()?;
    Ok((a, b))
}

fn frame() -> Vec<u8> {
    Builder::new(frames::station(1), frames::station(2)).bytes(200).build()
}

/// Sends to b, which does not read, no faster than the brain decides.
fn pour(daemon: &Daemon, a: &Station, frames: u64) -> Result<()> {
    let before = daemon.cli().port("b")?.egress.frames;
    for sent in 1..=frames {
        a.send(&frame())?;
        if sent % AT_ONCE == 0 {
            wait::until_true("they are through", wait::SOON, || {
                Ok(daemon.cli().port("b")?.egress.frames == before + sent)
            })?;
        }
    }
    Ok(())
}

fn is_exact(arena: &Arena, daemon: &Daemon) -> Result<u64> {
    let lost = arena.statistic("b", "tx_dropped")?;
    let booked = daemon.cli().drops("b", "ring_full")?;
    ensure!(booked == lost, "ring_full {booked}, the netdev's own {lost}");
    Ok(lost)
}

in_every_mode! {
    fn a_full_ring_is_booked_on_its_port_and_once_across_a_kill(arena, mode) {
        let mut daemon = Daemon::start(arena, mode)?;
        let (a, b) = acquainted(&daemon)?;
        pour(&daemon, &a, FRAMES)?;
        let lost = is_exact(arena, &daemon)?;
        ensure!(lost > 0, "the ring took all of {FRAMES}");
        let listed: Vec<Value> = daemon.cli().json("drops")?;
        let row = listed.iter().find(|row| row["reason"] == "ring_full").context("not listed")?;
        ensure!(row["port"] == "b" && row["side"] == "egress" && row["bytes"] == lost * 200, "{row}");
        ensure!(daemon.cli().drops("a", "ring_full")? == 0);
        daemon.settle()?;
        daemon.kill()?;
        // With a verdict they go on without a daemon, and are counted.
        let meanwhile = 100;
        for _ in 0..meanwhile {
            a.send(&frame())?;
        }
        daemon.launch()?;
        daemon.until_state("b", "up", wait::SOON)?;
        let after = is_exact(arena, &daemon)?;
        ensure!(mode == Mode::Userspace || after == lost + meanwhile, "{after} after {lost}");
        pour(&daemon, &a, AT_ONCE)?;
        ensure!(is_exact(arena, &daemon)? == after + AT_ONCE);
        b.drain()?;
        daemon.settle()?;
        daemon.stop(arena)
    }
}

/// `weft … drops -f`, into a file.
fn follow(daemon: &Daemon, format: &str, into: &str) -> Result<Running> {
    let mut command = Command::new(daemon.cli().binary());
    command.args(["-o", format, "drops", "-f"]).stdin(Stdio::null());
    Running::start(command.stdout(File::create(into)?).stderr(File::create(format!("{into}.err"))?))
}

#[test]
fn drops_are_shown_as_they_happen_with_a_frame_each_until_the_daemon_dies() {
    Arena::run(&[Need::Bpf], |arena| {
        let mut daemon = Daemon::start(arena, Mode::Kernel)?;
        let (a, b) = acquainted(&daemon)?;
        let mut followers = [follow(&daemon, "table", "/run/table")?, follow(&daemon, "jsonl", "/run/jsonl")?];
        // By the reflex, by the brain, by the kernel: to itself, to a reserved address, to a full ring.
        let reserved = Builder::new(frames::station(1), frames::mac("01:80:c2:00:00:0e")?).bytes(77).build();
        let wanted = ["a ingress reserved_address", "b egress ring_full"];
        wait::until_true("both are shown", wait::SOON, || {
            a.send(&reserved)?;
            pour(&daemon, &a, AT_ONCE)?;
            let (table, lines) = (fs::read_to_string("/run/table")?, fs::read_to_string("/run/jsonl")?);
            let shown = |label: &str| {
                let mut of_label = table.lines().filter(|line| line.contains(label));
                of_label.any(|line| line.contains(" > ")) && lines.matches("\"bytes\":\"").count() > 1
            };
            Ok(wanted.iter().all(|label| shown(label)))
        })?;
        let table = fs::read_to_string("/run/table")?;
        let line = table.lines().find(|line| line.contains("ring_full") && line.contains(" > ")).context("no line")?;
        let said = "02:00:00:00:00:01 > 02:00:00:00:00:02 type 0x88b5 200 bytes";
        ensure!(line.starts_with("20") && line.ends_with(said), "{line}");
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().concat();
        let lines = fs::read_to_string("/run/jsonl")?;
        for (reason, sent) in [("ring_full", frame()), ("reserved_address", reserved)] {
            let rows = lines.lines().map(serde_json::from_str).collect::<Result<Vec<Value>, _>>()?;
            let mut samples =
                rows.iter().filter(|row| row["reason"] == reason).filter_map(|row| row["evidence"].get(0));
            let sample = samples.next_back().with_context(|| format!("no evidence of {reason}"))?;
            ensure!(sample["length"] == sent.len(), "{sample}");
            ensure!(sample["bytes"] == hex(sent.get(..128).unwrap_or(&sent)), "{sample}");
        }
        daemon.kill()?;
        for (follower, into) in followers.iter_mut().zip(["/run/table", "/run/jsonl"]) {
            let status = follower.wait(wait::SOON)?;
            let said = fs::read_to_string(format!("{into}.err"))?;
            ensure!(status.code() == Some(3) && said.contains("not reachable"), "{status}: {said}");
        }
        daemon.launch()?;
        b.drain()?;
        daemon.settle()?;
        daemon.stop(arena)
    });
}
