//! What a capture may not do: start without being written down, fill a disk, be too many, hold up who is captured.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;

use rustix::process::{Pid, kill_process};
use weft_tests::{Arena, Mode, Need};

use super::*;

fn frame(number: u64) -> Vec<u8> {
    Builder::new(frames::station(1), frames::station(2)).number(number).bytes(1400).build()
}

fn running(daemon: &Daemon) -> Result<usize> {
    let mut stream = UnixStream::connect(daemon.socket())?;
    stream.write_all(b"GET /v1/captures HTTP/1.1\r\nhost: weft\r\nconnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer.matches("\"session\"").count())
}

/// A capture that nobody reads more of than its beginning.
pub(super) fn begin(daemon: &Daemon, request: &str) -> Result<UnixStream> {
    let mut stream = UnixStream::connect(daemon.socket())?;
    let length = request.len();
    write!(stream, "POST /v1/captures HTTP/1.1\r\nhost: weft\r\ncontent-length: {length}\r\n\r\n{request}")?;
    let mut head = [0; 15];
    stream.read_exact(&mut head)?;
    ensure!(head.starts_with(b"HTTP/1.1 200 OK"), "{}", String::from_utf8_lossy(&head));
    Ok(stream)
}

#[test]
fn what_cannot_be_captured_is_refused_and_said_why() {
    Arena::run(&[Need::Bpf], |arena| {
        let daemon = Daemon::start(arena, Mode::Kernel)?;
        let (_a, _b, _c) = three(&daemon)?;
        for (options, code, said) in [
            (&["-w", "/run/none/x.pcapng"][..], 1, "cannot write /run/none/x.pcapng"),
            (&["-w", "/run/x", "tcp", "port", "80", "und", "ip"], 1, "(at character 13)"),
            (&["-w", "/run/x", "--port", "nobody"], 4, "no port 'nobody'"),
            (&["-w", "/run/x", "--dropped", "bad_luck"], 1, "there is no drop reason 'bad_luck'"),
            (&["-w", "/run/x", "--dropped", "tcp port 80"], 2, "put -- before it"),
            (&["-w", "/run/x", "--recall", "30s"], 1, "the recorder is off"),
            (&["-w", "/run/x", "--snaplen", "0"], 2, "--snaplen"),
            (&["-w", "-", "-C", "1M"], 1, "name a file to rotate"),
            (&[], 2, "--write"),
        ] {
            let refused = daemon.cli().refused_of(&[&["capture"], options].concat())?;
            ensure!(refused.code == code && refused.message.contains(said), "{options:?}: {refused:?}");
        }
        // None of them was begun.
        let audit = daemon.state().join("audit.jsonl");
        ensure!(!audit.exists() && running(&daemon)? == 0, "{}", fs::read_to_string(audit)?);
        // One that cannot be written down is not begun, either.
        fs::create_dir(&audit)?;
        let refused = daemon.cli().refused_of(&["capture", "-w", "/run/x"])?;
        ensure!(refused.code == 1 && refused.message.contains("no capture starts without it"), "{refused:?}");
        ensure!(running(&daemon)? == 0);
        fs::remove_dir(&audit)?;
        Capture::start(&daemon, &[], "/run/fine.pcapng")?.interrupt()?;
        daemon.stop(arena)
    });
}

#[test]
fn a_full_disk_a_quota_and_a_floor_end_a_capture_with_a_valid_file() {
    Arena::run(&[Need::Bpf], |arena| {
        let daemon = Daemon::start(arena, Mode::Kernel)?;
        let (a, b, _c) = three(&daemon)?;
        fs::create_dir("/run/small")?;
        weft_tests::command::run("mount -t tmpfs -o size=2m tmpfs /run/small")?;
        for (name, options, code, said) in [
            ("full", &["--full", "--keep-free", "0"][..], 1, "No space left on device"),
            ("floor", &["--full", "--keep-free", "1M"], 1, "less than --keep-free left"),
            ("quota", &["--full", "--keep-free", "0", "--max-bytes", "500K"], 0, "as --max-bytes allows"),
        ] {
            let file = format!("/run/small/{name}.pcapng");
            let mut capture = Capture::start(&daemon, options, &format!("/run/small/{name}.pcapng"))
                .with_context(|| name.to_owned())?;
            let status = wait::until("the capture has ended", wait::SOON, || {
                for number in 0..100 {
                    a.send(&frame(number))?;
                }
                b.drain()?;
                capture.running.ended()
            });
            let status =
                status.with_context(|| format!("{name}: {} bytes", fs::metadata(&file).map_or(0, |it| it.len())))?;
            // What it said is on the disk that is full.
            let told = fs::read_to_string(&capture.said)?;
            ensure!(status.code() == Some(code), "{name}: {status}: {told}");
            ensure!(name == "full" || told.contains(said), "{name}: {told}");
            let held = frames_of(&file)?.len();
            ensure!(held > 100 && counts_in(&file)? == held, "{name}: {held}");
            ensure!(comments(&file)?.iter().all(|comment| comment.starts_with("in a; out b")), "{name}");
            fs::remove_file(&file)?;
        }
        wait::until_true("all sessions have ended", wait::SOON, || Ok(running(&daemon)? == 0))?;
        daemon.settle()?;
        weft_tests::command::run("umount /run/small")?;
        daemon.stop(arena)
    });
}

/// How many packets capinfos counts.
fn counts_in(file: &str) -> Result<usize> {
    let shown = weft_tests::command::run(&format!("capinfos -c -M -T -r {file}"))?;
    Ok(shown.split_whitespace().last().context("capinfos says nothing")?.parse()?)
}

#[test]
fn there_are_64_captures_and_no_more_and_who_goes_makes_room() {
    Arena::run(&[Need::Bpf], |arena| {
        let daemon = Daemon::start(arena, Mode::Kernel)?;
        let (a, b, _c) = three(&daemon)?;
        let mut readers = (0..64).map(|_| begin(&daemon, "{}")).collect::<Result<Vec<_>>>()?;
        ensure!(running(&daemon)? == 64);
        let refused = daemon.cli().refused_of(&["capture", "-w", "/run/x"])?;
        ensure!(refused.code == 1 && refused.message.contains("which is the most there can be"), "{refused:?}");
        // Everybody gets every frame, and the switch goes on.
        for number in 0..10 {
            a.send(&frame(number))?;
        }
        daemon.settle()?;
        ensure!(b.drain()?.len() == 10);
        readers.truncate(63);
        wait::until_true("one has gone", wait::SOON, || Ok(running(&daemon)? == 63))?;
        let capture = Capture::start(&daemon, &[], "/run/late.pcapng")?;
        a.send(&frame(10))?;
        daemon.settle()?;
        ensure!(capture.interrupt()?.contains("1 frames captured"));
        drop(readers);
        let audit = || -> Result<String> { Ok(fs::read_to_string(daemon.state().join("audit.jsonl"))?) };
        wait::until_true("all have gone", wait::SOON, || Ok(audit()?.matches("client_gone").count() == 64))?;
        let audit = audit()?;
        let ended = |frames: u64| audit.matches(&format!("\"frames\":{frames},")).count();
        ensure!(audit.matches("capture_start").count() == 65, "{audit}");
        ensure!((ended(10), ended(11), ended(1)) == (1, 63, 1), "{audit}");
        daemon.stop(arena)
    });
}

#[test]
fn a_ring_that_overflows_loses_frames_and_counts_each() {
    Arena::run(&[Need::Bpf], |arena| {
        let daemon = Daemon::start(arena, Mode::Kernel)?;
        let (a, b, _c) = three(&daemon)?;
        let send = |count: u64| -> Result<()> {
            for number in 0..count {
                a.send(&frame(number))?;
                if number % 100 == 0 {
                    b.drain()?;
                }
            }
            b.drain()?;
            Ok(())
        };
        // The verdict is taught, and no longer armed.
        send(5)?;
        daemon.settle()?;
        send(5)?;
        daemon.settle()?;
        let capture = Capture::start(&daemon, &["--full"], "/run/ring.pcapng")?;
        let pid = Pid::from_raw(i32::try_from(daemon.pid()?)?).context("no pid")?;
        kill_process(pid, Signal::STOP)?;
        wait::until_true("the daemon stands still", wait::SOON, || {
            Ok(fs::read_to_string(format!("/proc/{}/status", daemon.pid()?))?.contains("State:\tT"))
        })?;
        let outcome = send(20_000);
        kill_process(pid, Signal::CONT)?;
        outcome?;
        daemon.settle()?;
        let said = capture.interrupt()?;
        let held = frames_of("/run/ring.pcapng")?.len() as u64;
        let lost = sum("/run/ring.pcapng", DROPPED_BY_OS)?;
        ensure!(lost > 1000 && held > 1000 && held + lost == 20_000, "{held} held, {lost} lost: {said}");
        ensure!(said.contains(&format!("{held} frames captured, 20000 matched, {lost} lost")), "{said}");
        ensure!(sum("/run/ring.pcapng", DELIVERED)? == held && sum("/run/ring.pcapng", ACCEPTED)? == 20_000);
        ensure!(counts("/run/ring.pcapng")? == (usize::try_from(held)?, usize::try_from(held)?));
        daemon.stop(arena)
    });
}

in_every_mode! {
    fn a_reader_that_stands_still_holds_up_nobody_and_what_it_misses_is_counted(arena, mode) {
        let daemon = Daemon::start(arena, mode)?;
        let (a, b, _c) = three(&daemon)?;
        let capture = Capture::start(&daemon, &["--full"], "/run/slow.pcapng")?;
        capture.running.signal(Signal::STOP)?;
        let large = Builder::new(frames::station(1), frames::station(2)).bytes(1514).build();
        // More than all readers together may leave waiting.
        let count = 52_000_u64;
        let mut arrived = 0;
        for number in 0..count {
            a.send(&large)?;
            if number % 200 == 199 {
                let due = usize::try_from(number)? + 1;
                wait::until_true("they arrive", wait::SOON, || {
                    arrived += b.drain()?.len();
                    Ok(arrived == due)
                })?;
            }
        }
        capture.running.signal(Signal::CONT)?;
        daemon.settle()?;
        let said = capture.interrupt()?;
        let held = frames_of("/run/slow.pcapng")?.len() as u64;
        let lost = sum("/run/slow.pcapng", DROPPED)? + sum("/run/slow.pcapng", DROPPED_BY_OS)?;
        ensure!(lost > 0 && held + lost == count, "{held} held, {lost} lost of {count}: {said}");
        ensure!(said.contains(&format!("{held} frames captured, {count} matched, {lost} lost")), "{said}");
        daemon.stop(arena)
    }
}
