//! Captures as they are used: into pipes, into files that rotate, ended in every way there is.

use std::io::{BufRead as _, BufReader};
use std::os::unix::process::ExitStatusExt as _;

use serde_json::Value;
use weft_tests::{Arena, Mode, Need};

use super::*;

fn frame(number: u64) -> Vec<u8> {
    Builder::new(frames::station(1), frames::station(2)).number(number).bytes(100).build()
}

/// The lines of the audit log.
fn audited(daemon: &Daemon) -> Result<Vec<Value>> {
    let text = fs::read_to_string(daemon.state().join("audit.jsonl")).unwrap_or_default();
    Ok(text.lines().map(serde_json::from_str).collect::<Result<_, _>>()?)
}

#[test]
fn a_pipe_to_tshark_shows_frames_as_they_come_and_ends_with_it() {
    Arena::run(&[Need::Bpf], |arena| {
        let daemon = Daemon::start(arena, Mode::Kernel)?;
        let (a, b, _c) = three(&daemon)?;
        let mut weft = Command::new(daemon.cli().binary());
        weft.args(["capture", "-w", "-"]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(File::create("/run/err")?);
        let mut weft = Running::start(&mut weft)?;
        let pipe = weft.child().stdout.take().context("no pipe")?;
        let mut tshark = {
            // Gone at the end of this block, and its end of the pipe with it.
            let mut command = Command::new("tshark");
            command
                .args(["-n", "-l", "-r", "-", "-T", "fields", "-e", "frame.comment"])
                .stdin(pipe)
                .env("HOME", "/run");
            Running::start(command.stdout(Stdio::piped()).stderr(File::create("/run/tshark.err")?))?
        };
        let shown = tshark.child().stdout.take().context("no output")?;
        let (lines, read) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(shown).lines().map_while(Result::ok) {
                if lines.send(line).is_err() {
                    return;
                }
            }
        });
        for number in 0..3 {
            // Each is shown before the next one is sent: nothing waits in a buffer.
            let line = wait::until("a frame is shown", wait::SOON, || {
                a.send(&frame(number))?;
                b.drain()?;
                Ok(read.recv_timeout(std::time::Duration::from_millis(200)).ok())
            })?;
            ensure!(line.starts_with("in a; out b; forwarded"), "{line}");
        }
        // Its reader goes: it ends well, and so does its session.
        tshark.signal(Signal::KILL)?;
        tshark.wait(wait::SOON)?;
        let status = wait::until("it notices", wait::SOON, || {
            a.send(&frame(9))?;
            b.drain()?;
            weft.ended()
        })?;
        ensure!(status.success(), "{status}: {}", fs::read_to_string("/run/err")?);
        wait::until_true("the session has ended", wait::SOON, || {
            Ok(audited(&daemon)?
                .last()
                .is_some_and(|line| line["event"] == "capture_end" && line["reason"] == "client_gone"))
        })?;
        b.drain()?;
        daemon.stop(arena)
    });
}

in_every_mode! {
    fn a_capture_ends_after_its_frames_its_time_or_a_signal_and_is_audited(arena, mode) {
        let daemon = Daemon::start(arena, mode)?;
        let (a, b, _c) = three(&daemon)?;
        let counted = Capture::start(&daemon, &["-c", "7", "--snaplen", "40"], "/run/counted.pcapng")?;
        let timed = Capture::start(&daemon, &["--duration", "200ms"], "/run/timed.pcapng")?;
        let ended = Capture::start(&daemon, &["ether", "proto", "0x88b5"], "/run/ended.pcapng")?;
        for number in 0..20 {
            a.send(&frame(number))?;
        }
        daemon.settle()?;
        b.drain()?;
        ensure!(counted.finish()?.contains("7 frames captured"));
        timed.finish()?;
        let pid = ended.running.pid();
        ended.running.signal(Signal::TERM)?;
        ensure!(ended.finish()?.contains("20 frames captured, 20 matched, 0 lost"));
        let first: Vec<_> = (0..7).map(|number| frame(number)[..40].to_vec()).collect();
        ensure!(frames_of("/run/counted.pcapng")? == first);
        for (file, frames) in [("/run/counted.pcapng", 7), ("/run/ended.pcapng", 20)] {
            ensure!(counts(file)? == (frames, frames), "{file}");
            ensure!(tshark(file, &["frame.len"])?.iter().all(|row| row[0] == "100"), "{file}");
            ensure!(sum(file, DELIVERED)? == frames as u64, "{file}");
        }
        let lines = audited(&daemon)?;
        let of = |event: &str, field: &str, value: Value| {
            lines.iter().find(|line| line["event"] == event && line[field] == value).context(format!("{event} {field} {value}"))
        };
        let start = of("capture_start", "filter", "ether proto 0x88b5".into())?;
        ensure!(start["uid"] == 0 && start["gid"] == 0 && start["pid"] == pid, "{start}");
        ensure!(of("capture_start", "frames", 7.into())?["snaplen"] == 40);
        ensure!(of("capture_start", "duration_ms", 200.into())?["ports"] == serde_json::json!([]));
        ensure!(of("capture_end", "reason", "frames".into())?["frames"] == 7);
        let end = of("capture_end", "reason", "stopped".into())?;
        ensure!(end["capture"] == start["capture"] && end["frames"] == 20 && end["bytes"] == 2000, "{end}");
        of("capture_end", "reason", "duration".into())?;
        daemon.stop(arena)
    }
}

#[test]
fn files_rotate_by_size_and_the_oldest_go() {
    Arena::run(&[Need::Bpf], |arena| {
        let daemon = Daemon::start(arena, Mode::Kernel)?;
        let (a, b, _c) = three(&daemon)?;
        let capture = Capture::start(&daemon, &["--full", "-C", "8K", "-W", "3"], "/run/turn.pcapng")?;
        let sent: Vec<_> = (0..200).map(frame).collect();
        for one in &sent {
            a.send(one)?;
        }
        daemon.settle()?;
        b.drain()?;
        ensure!(capture.interrupt()?.contains("200 frames captured"));
        let kept: Vec<u32> = (1..100).filter(|number| rotated("/run/turn.pcapng", *number)).collect();
        ensure!(kept.len() == 3 && kept[0] > 1, "{kept:?}");
        let mut frames = Vec::new();
        for number in &kept {
            let file = numbered("/run/turn.pcapng", *number);
            let size = fs::metadata(&file)?.len();
            ensure!(size < 12 << 10, "{file}: {size}");
            let read = frames_of(&file)?;
            ensure!(counts(&file)? == (read.len(), read.len()));
            ensure!(comments(&file)?.iter().all(|comment| comment.starts_with("in a; out b")));
            ensure!(sum(&file, DELIVERED)? == read.len() as u64);
            frames.extend(read);
        }
        ensure!(sent.ends_with(&frames) && frames.len() > 20, "{}", frames.len());
        daemon.stop(arena)
    });
}

#[test]
fn a_daemon_that_ends_leaves_a_valid_file_and_one_that_dies_too() {
    Arena::run(&[Need::Bpf], |arena| {
        let mut daemon = Daemon::start(arena, Mode::Kernel)?;
        let (a, b, _c) = three(&daemon)?;
        for (file, is_killed) in [("/run/killed.pcapng", true), ("/run/ended.pcapng", false)] {
            let mut capture = Capture::start(&daemon, &[], file)?;
            for number in 0..10 {
                a.send(&frame(number))?;
            }
            daemon.settle()?;
            wait::until_true("all are written", wait::SOON, || Ok(frames_of(file)?.len() == 10))?;
            b.drain()?;
            if is_killed {
                daemon.kill()?;
            } else {
                daemon.terminate()?;
            }
            let status = capture.running.wait(wait::SOON)?;
            let said = fs::read_to_string(&capture.said)?;
            ensure!(status.signal().is_none(), "{status}");
            ensure!(status.code() == Some(if is_killed { 3 } else { 0 }), "{status}: {said}");
            ensure!(!is_killed || said.contains("is not reachable any more"), "{said}");
            ensure!(counts(file)? == (10, 10));
            if is_killed {
                daemon.launch()?;
                daemon.until_state("b", "up", wait::SOON)?;
                // Nothing of the dead daemon's capture is left.
                a.send(&frame(1))?;
                daemon.settle()?;
            }
        }
        ensure!(audited(&daemon)?.iter().any(|line| line["reason"] == "daemon_stopped" && line["frames"] == 10));
        daemon.assert_gone(arena)
    });
}
