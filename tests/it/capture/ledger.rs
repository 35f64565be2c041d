//! The ledger of who captures: under load, with losses, and at rest.

use std::thread;

use serde_json::Value;

use super::limits::begin;
use super::*;

const FILE: &str = "/run/ledger.toml";
const CONFIG: &str = "[capture.recorder]\nenabled = true\n";
/// Captures that want nothing. Each has its share of the bytes that may wait for all readers together.
const IDLE: u64 = 16;
/// Frames of the load, and how many of them are on their way at once.
const FRAMES: usize = 6000;
const AT_ONCE: usize = 200;

/// The L6 law of one who looks on.
fn law(daemon: &Daemon, who: &str) -> Result<Value> {
    let ledger = daemon.cli().ledger()?;
    let laws = ledger["laws"].as_array().context("no laws")?;
    let is_its = |law: &&Value| {
        let what = law["what"].as_str().unwrap_or_default();
        law["law"] == "L6" && what.starts_with(&format!("{who}: frames matched"))
    };
    laws.iter().find(is_its).cloned().with_context(|| format!("no law of {who} in {ledger:#}"))
}

/// Sends the load, as fast as it arrives.
fn load(a: &Station, b: &Station) -> Result<()> {
    let large = Builder::new(frames::station(1), frames::station(2)).bytes(1514).build();
    let mut arrived = 0;
    for sent in 1..=FRAMES {
        a.send(&large)?;
        if sent % AT_ONCE == 0 {
            wait::until_true("they arrive", wait::SOON, || {
                arrived += b.drain()?.len();
                Ok(arrived == sent)
            })?;
        }
    }
    Ok(())
}

in_every_mode! {
    fn the_ledger_holds_while_captures_lose_frames_and_settles_when_they_are_read(arena, mode) {
        fs::write(FILE, CONFIG)?;
        let daemon = Daemon::start_with(arena, "weft0", mode, &["-c", FILE])?;
        let (a, b, _c) = three(&daemon)?;
        let idle = (0..IDLE).map(|_| begin(&daemon, r#"{"filter":"ether proto 0x1234"}"#)).collect::<Result<Vec<_>>>()?;
        let (slow, quick) = (format!("capture {}", IDLE + 1), format!("capture {}", IDLE + 2));
        let standing = Capture::start(&daemon, &["--full"], "/run/slow.pcapng")?;
        let reading = Capture::start(&daemon, &[], "/run/quick.pcapng")?;
        standing.running.signal(Signal::STOP)?;
        thread::scope(|scope| {
            let sender = scope.spawn(|| load(&a, &b));
            while !sender.is_finished() {
                let output = daemon.cli().output("ledger")?;
                ensure!(output.status.success(), "under load:\n{}", String::from_utf8_lossy(&output.stdout));
            }
            sender.join().expect("a load does not panic")
        })?;
        // What waits for a reader is neither delivered nor lost, and no rest.
        let restless = daemon.cli().output("ledger --settle=1")?;
        let said = String::from_utf8_lossy(&restless.stdout).into_owned();
        ensure!(restless.status.code() == Some(1) && said.contains(&format!("frames wait for {slow}")), "{said}");
        let waits = law(&daemon, &slow)?;
        ensure!(waits["holds"] == true && waits["note"].as_str().is_some_and(|note| note.contains("under way")), "{waits}");
        standing.running.signal(Signal::CONT)?;
        daemon.settle()?;
        let count = FRAMES as u64;
        let lossy = law(&daemon, &slow)?;
        ensure!(lossy["left"] == count && lossy["right"] == count, "{lossy}");
        let note = lossy["note"].as_str().context("nothing was lost")?.to_owned();
        let lost: u64 = note.strip_suffix(" lost").with_context(|| note.clone())?.parse()?;
        let whole = law(&daemon, &quick)?;
        ensure!(whole["left"] == count && whole["right"] == count && whole["note"].is_null(), "{whole}");
        let recorder = law(&daemon, "recorder")?;
        ensure!(recorder["left"].as_u64() >= Some(count) && recorder["left"] == recorder["right"], "{recorder}");
        for who in ["recorder", &slow, &quick, "capture 1"] {
            let kernel = law(&daemon, &format!("{who}, in the kernel"))?;
            ensure!(kernel["holds"] == true && kernel["left"] == kernel["right"], "{kernel}");
        }
        ensure!(law(&daemon, "capture 1")?["left"] == 0);
        // The file says the same.
        let told = standing.interrupt()?;
        ensure!(told.contains(&format!("{} frames captured, {count} matched, {lost} lost", count - lost)), "{lost}: {told}");
        ensure!(reading.interrupt()?.contains(&format!("{count} frames captured, {count} matched, 0 lost")));
        // Whose capture has ended has no law any more.
        ensure!(law(&daemon, &slow).is_err());
        drop(idle);
        daemon.stop(arena)
    }

    /// What comes after the last frame that was asked for is not matched, and what a filter refuses late is not either.
    fn what_a_capture_matched_is_what_it_has_and_what_it_lost(arena, mode) {
        fs::write(FILE, CONFIG)?;
        let daemon = Daemon::start_with(arena, "weft0", mode, &["-c", FILE])?;
        let (a, b, c) = three(&daemon)?;
        let few = Capture::start(&daemon, &["-c", "3"], "/run/few.pcapng")?;
        for number in 0..100 {
            a.send(&Builder::new(frames::station(1), frames::station(2)).number(number).build())?;
        }
        ensure!(few.finish()?.contains("3 frames captured, 3 matched, 0 lost"));
        daemon.settle()?;
        c.send(&Builder::new(frames::station(3), frames::station(1)).number(100).build())?;
        daemon.settle()?;
        let recall = ["capture", "--recall", "5m", "-w", "/run/recalled.pcapng", "ether", "src", "02:00:00:00:00:03"];
        let recalled = daemon.cli().output_of(&recall)?;
        let said = String::from_utf8_lossy(&recalled.stderr).into_owned();
        ensure!(recalled.status.success() && said.contains("1 frames captured, 1 matched, 0 lost"), "{said}");
        b.drain()?;
        daemon.stop(arena)
    }
}
