//! What is in a capture: every frame, once, byte for byte, with its fate.

use anyhow::{Result, ensure};
use weft_tests::Daemon;
use weft_tests::frames::{self, Builder, MacAddr};

use super::*;

fn sorted(mut frames: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    frames.sort();
    frames
}

in_every_mode! {
    fn a_capture_has_what_tcpdump_has_on_the_taps_each_frame_once(arena, mode) {
        let daemon = Daemon::start(arena, mode)?;
        let (a, b, c) = three(&daemon)?;
        let taps = ["a", "b", "c"].map(Tcpdump::start).into_iter().collect::<Result<Vec<_>>>()?;
        let capture = Capture::start(&daemon, &["--full"], "/run/all.pcapng")?;
        let to = |from: u32, to: MacAddr, number: u64| Builder::new(frames::station(from), to).number(number);
        for number in 0..200 {
            // Known both ways, to all, to nobody known, tagged.
            a.send(&to(1, frames::station(2), number).bytes(60 + usize::try_from(number)? * 7).build())?;
            b.send(&to(2, frames::station(1), 1000 + number).tag(0x8100, 7).build())?;
            if number % 10 == 0 {
                c.send(&to(3, MacAddr::BROADCAST, 2000 + number).build())?;
                c.send(&to(3, frames::station(77), 3000 + number).bytes(1400).build())?;
            }
        }
        daemon.settle()?;
        let expected = [200, 200, 40];
        let mut seen = Vec::new();
        for (tap, count) in taps.into_iter().zip(expected) {
            seen.extend(tap.frames(count)?);
        }
        let said = capture.interrupt()?;
        ensure!(said.contains("440 frames captured, 440 matched, 0 lost"), "{said}");
        let captured = frames_of("/run/all.pcapng")?;
        ensure!(captured.len() == 440, "{}", captured.len());
        ensure!(sorted(captured) == sorted(seen), "not the frames that tcpdump has");
        ensure!(counts("/run/all.pcapng")? == (440, 440));
        let rows = tshark("/run/all.pcapng", &["frame.interface_name", "frame.packet_id", "frame.comment", "frame.time_epoch", "frame.verdict.ebpf_tc"])?;
        let of = |port: &str| rows.iter().filter(|row| row[0] == port).count();
        ensure!((of("a"), of("b"), of("c")) == (200, 200, 40));
        let mut ids: Vec<_> = rows.iter().map(|row| row[1].clone()).collect();
        ids.sort();
        ids.dedup();
        ensure!(ids.len() == 440, "a frame's number is its own");
        let times: Vec<_> = rows.iter().map(|row| row[3].clone()).collect();
        ensure!(times.is_sorted(), "frames are in the order of their times");
        ensure!(rows.iter().all(|row| row[4] == "7"), "every frame was handed on: {:?}", rows[0]);
        for (port, fate, count) in [("a", "in a; out b; forwarded", 200), ("b", "in b; out a; forwarded", 200), ("c", "in c; out a, b; flooded", 40)] {
            let told = rows.iter().filter(|row| row[0] == port && row[2].starts_with(fate)).count();
            ensure!(told == count, "{told} are '{fate}': {:?}", rows.iter().find(|row| row[0] == port));
        }
        for (code, count) in [(RECEIVED, 440), (DROPPED, 0), (ACCEPTED, 440), (DROPPED_BY_OS, 0), (DELIVERED, 440)] {
            ensure!(sum("/run/all.pcapng", code)? == count, "statistics {code}: {:?}", statistics("/run/all.pcapng")?);
        }
        daemon.stop(arena)
    }

    fn a_capture_of_a_port_has_its_frames_both_ways_and_no_others(arena, mode) {
        let daemon = Daemon::start(arena, mode)?;
        let (a, b, c) = three(&daemon)?;
        let capture = Capture::start(&daemon, &["--port", "a"], "/run/one.pcapng")?;
        for number in 0..20 {
            a.send(&Builder::new(frames::station(1), frames::station(2)).number(number).bytes(500).build())?;
            b.send(&Builder::new(frames::station(2), frames::station(1)).number(100 + number).build())?;
            b.send(&Builder::new(frames::station(2), frames::station(2)).number(200 + number).build())?;
        }
        c.send(&Builder::new(frames::station(3), MacAddr::BROADCAST).number(300).build())?;
        daemon.settle()?;
        let said = capture.interrupt()?;
        ensure!(said.contains("41 frames captured, 41 matched"), "{said}");
        let captured = frames_of("/run/one.pcapng")?;
        let mut numbers: Vec<_> = captured.iter().filter_map(|frame| frames::number_of(frame)).collect();
        numbers.sort_unstable();
        let expected: Vec<u64> = (0..20).chain(100..120).chain([300]).collect();
        ensure!(numbers == expected, "{numbers:?}");
        // What is no IP has no headers beyond its type: so much is kept of it.
        ensure!(captured.iter().all(|frame| frame.len() <= 128) && captured.iter().any(|frame| frame.len() == 128));
        daemon.stop(arena)
    }

    fn a_filter_chooses_what_libpcap_would_and_a_super_frame_is_kept_whole(arena, mode) {
        let daemon = Daemon::start(arena, mode)?;
        let a = weft_tests::topology::offloading_station(&daemon, "a")?;
        let b = weft_tests::topology::offloading_station(&daemon, "b")?;
        b.send(&Builder::new(frames::station(2), frames::station(1)).build())?;
        daemon.settle()?;
        let filtered = Capture::start(&daemon, &["--full", "tcp", "port", "40001"], "/run/tcp.pcapng")?;
        let others = Capture::start(&daemon, &["not", "ip"], "/run/others.pcapng")?;
        let large = frames::tcp_super_frame(frames::station(1), frames::station(2), 28_000)?;
        for number in 0..5 {
            a.send_with(frames::Request::tcp4(1400), &large)?;
            a.send(&Builder::new(frames::station(1), frames::station(2)).number(number).build())?;
        }
        daemon.settle()?;
        filtered.interrupt()?;
        others.interrupt()?;
        let (captured, rest) = (frames_of("/run/tcp.pcapng")?, frames_of("/run/others.pcapng")?);
        ensure!(captured.len() == 5 && captured.iter().all(|frame| *frame == large), "{}", captured.len());
        ensure!(rest.len() == 5 && rest.iter().all(|frame| frames::number_of(frame).is_some()), "{}", rest.len());
        for comment in comments("/run/tcp.pcapng")? {
            ensure!(comment.starts_with("in a; out b; forwarded"), "{comment}");
            ensure!(comment.ends_with("super-frame: 20 segments of 1400 bytes"), "{comment}");
        }
        let filters = weft_tests::command::run("capinfos -I /run/tcp.pcapng")?;
        ensure!(filters.contains("tcp port 40001") && filters.contains("Name = a"), "{filters}");
        daemon.stop(arena)
    }
}
