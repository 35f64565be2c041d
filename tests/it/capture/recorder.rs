//! The flight recorder: what was before somebody looked.

use weft_tests::frames::MacAddr;

use super::*;

const FILE: &str = "/run/recorder.toml";
const CONFIG: &str = "[capture.recorder]\nenabled = true\nsecs = 300\nkib_per_port = 64\non_drops = 0\non_resets = 0\n";

fn frame(number: u64) -> Vec<u8> {
    Builder::new(frames::station(1), frames::station(2)).number(number).bytes(300).build()
}

in_every_mode! {
    fn what_is_recalled_after_an_event_holds_the_frames_before_it(arena, mode) {
        fs::write(FILE, CONFIG)?;
        let daemon = Daemon::start_with(arena, "weft0", mode, &["-c", FILE])?;
        let (a, b, c) = three(&daemon)?;
        // A busy neighbour takes nothing of what a quiet port's guest has said.
        c.send(&Builder::new(frames::station(3), MacAddr::BROADCAST).number(7777).build())?;
        for number in 0..3000 {
            a.send(&frame(number))?;
            if number % 200 == 0 {
                b.drain()?;
                daemon.settle()?;
            }
        }
        daemon.settle()?;
        let recall = |options: &[&str], file: &str| -> Result<Vec<Vec<u8>>> {
            let output = daemon.cli().output_of(&[&["capture", "--recall", "5m", "-w", file], options].concat())?;
            ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            frames_of(file)
        };
        let all = recall(&[], "/run/all.pcapng")?;
        let numbers: Vec<_> = all.iter().filter_map(|frame| frames::number_of(frame)).collect();
        ensure!(numbers.contains(&7777) && numbers.last() == Some(&2999), "{numbers:?}");
        // The last ones, without a gap, as many as there is room for; of each its beginning.
        let of_a: Vec<_> = numbers.iter().copied().filter(|number| *number != 7777).collect();
        ensure!(of_a.len() > 100 && of_a.len() < 1000, "{}", of_a.len());
        ensure!(of_a == (3000 - of_a.len() as u64..3000).collect::<Vec<_>>(), "{of_a:?}");
        ensure!(all.iter().all(|frame| frame.len() <= 128));
        ensure!(comments("/run/all.pcapng")?.iter().all(|comment| comment.starts_with("in ")));
        ensure!(counts("/run/all.pcapng")? == (all.len(), all.len()));
        // What c has sent, and the first frame of b, which was flooded.
        ensure!(recall(&["--port", "c"], "/run/c.pcapng")?.len() == 2);
        ensure!(recall(&["ether", "src", "02:00:00:00:00:03"], "/run/filtered.pcapng")?.len() == 1);
        ensure!(recall(&["-c", "5"], "/run/five.pcapng")?.len() == 5);
        let audit = fs::read_to_string(daemon.state().join("audit.jsonl"))?;
        ensure!(audit.matches("\"reason\":\"recalled\"").count() == 4, "{audit}");
        b.drain()?;
        daemon.stop(arena)
    }

    fn a_violation_makes_a_recording_of_what_was_before_it(arena, mode) {
        fs::write(FILE, CONFIG)?;
        let daemon = Daemon::start_with(arena, "weft0", mode, &["-c", FILE])?;
        let (a, b, _c) = three(&daemon)?;
        let strict = Station::plain("strict")?;
        daemon.cli().run("port add strict --netdev strict --mac 02:00:00:00:00:09")?;
        daemon.until_state("strict", "up", wait::SOON)?;
        for number in 0..10 {
            a.send(&frame(number))?;
        }
        daemon.settle()?;
        b.drain()?;
        let folder = daemon.state().join("recordings");
        let recordings = || -> Result<Vec<String>> {
            let Ok(entries) = fs::read_dir(&folder) else { return Ok(Vec::new()) };
            entries.map(|entry| Ok(entry?.path().display().to_string())).collect()
        };
        ensure!(recordings()?.is_empty());
        let written = wait::until("a recording", wait::SOON, || {
            strict.send(&Builder::new(frames::station(8), frames::station(1)).number(8888).build())?;
            let done = daemon.log().contains("recorded");
            Ok(recordings()?.into_iter().next().filter(|_| done))
        })?;
        ensure!(written.ends_with("-violation-spoofed_source.pcapng"), "{written}");
        let numbers: Vec<_> = frames_of(&written)?.iter().filter_map(|frame| frames::number_of(frame)).collect();
        let before: Vec<_> = numbers.iter().copied().take_while(|number| *number != 8888).collect();
        ensure!(before == (0..10).collect::<Vec<_>>() && numbers.contains(&8888), "{numbers:?}");
        let comments = comments(&written)?;
        ensure!(comments.iter().any(|comment| comment.starts_with("in strict; dropped: spoofed_source")), "{comments:?}");
        ensure!(fs::read_to_string(daemon.state().join("audit.jsonl"))?.contains("\"trigger\":\"violation-spoofed_source\""));
        daemon.stop(arena)
    }
}
