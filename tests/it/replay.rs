//! Every Ethernet capture of a collection, damaged ones above all, sent into a port: no crash, and the books balance.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use weft_tests::frames::{self, Builder, MacAddr};
use weft_tests::{Daemon, Mode, Need, Station, pcap, requirements, topology, wait};

fn drain(stations: &[&Station]) -> Result<()> {
    stations.iter().try_for_each(|station| station.drain().map(drop)).context("drain")
}

fn replay(mode: Mode) {
    weft_tests::Arena::run(&[Need::Bpf, Need::Pcaps], |arena| {
        let daemon = Daemon::start(arena, mode)?;
        let sender = topology::offloading_station(&daemon, "sender")?;
        let (a, b) = (topology::station(&daemon, "a")?, topology::offloading_station(&daemon, "b")?);
        let (mut files, mut taken, mut refused) = (0, 0_u64, 0_u64);
        let folder = requirements::pcaps().context("WEFT_PCAPS")?;
        let mut paths: Vec<_> = fs::read_dir(&folder)?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
        paths.sort();
        for path in paths.iter().filter(|path| path.is_file()) {
            let capture = pcap::read(&fs::read(path)?);
            files += usize::from(!capture.frames.is_empty());
            for frame in &capture.frames {
                match sender.send(frame) {
                    Ok(()) => taken += 1,
                    Err(error) if error.raw_os_error() == Some(libc::EINVAL) => refused += 1,
                    Err(error) => return Err(error).with_context(|| path.display().to_string()),
                }
                drain(&[&sender, &a, &b])?;
            }
            ensure!(
                daemon.log().lines().all(|line| !line.contains("panicked")),
                "{}: {}",
                path.display(),
                daemon.log()
            );
        }
        ensure!(files > 0 && taken > 0, "no Ethernet capture in {}", folder.display());
        // Alive, and still a switch. The sender has spent what it may have flooded, so it is the others that speak first.
        b.send(&Builder::new(frames::station(2), MacAddr::BROADCAST).number(2).build())?;
        sender.receive_until(wait::SOON, |frame| frames::number_of(frame) == Some(2))?;
        sender.send(&Builder::new(frames::station(1), frames::station(2)).number(1).build())?;
        b.receive_until(wait::SOON, |frame| frames::number_of(frame) == Some(1))?;
        daemon.settle()?;
        // What the kernel's own counter saw come in is what the port counts, but for tags cut short, freed before us.
        let (counted, kernel) = (daemon.cli().port("sender")?.ingress.frames, arena.statistic("sender", "rx_packets")?);
        ensure!(kernel == taken + 1 && counted <= kernel, "{counted} counted, {kernel} received, {refused} refused");
        daemon.stop(arena)
    });
}

#[test]
fn every_capture_is_survived_with_cached_verdicts() {
    replay(Mode::Kernel);
}

#[test]
fn every_capture_is_survived_without_cached_verdicts() {
    replay(Mode::Userspace);
}
