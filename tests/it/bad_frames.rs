//! Frames that no honest guest sends. None of them stops the switch, and each is accounted for.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use switch_common::wire::{TPID_C, TPID_S};
use weft::port::punt_tap::PUNT_RING;
use weft_tests::frames::{self, Builder, MacAddr, Request};
use weft_tests::stream::Stream;
use weft_tests::{Daemon, Station, topology, wait};

/// A daemon with an attacker and two bystanders that know each other.
fn with_bystanders(arena: &weft_tests::Arena, mode: weft_tests::Mode) -> Result<(Daemon, [Station; 3])> {
    let daemon = Daemon::start(arena, mode)?;
    let attacker = topology::offloading_station(&daemon, "attacker")?;
    let (a, b) = (topology::station(&daemon, "a")?, topology::station(&daemon, "b")?);
    for (station, number) in [(&a, 1), (&b, 2), (&attacker, 3)] {
        let frame = Builder::new(frames::station(number), MacAddr::BROADCAST).number(number.into()).build();
        station.send(&frame)?;
        for other in [&a, &b, &attacker].into_iter().filter(|other| other.netdev() != station.netdev()) {
            other.receive_until(wait::SOON, |got| got == frame)?;
        }
    }
    Ok((daemon, [attacker, a, b]))
}

/// The bystanders still talk, in order and without loss.
fn bystanders_talk(a: &Station, b: &Station) -> Result<()> {
    a.drain()?;
    b.drain()?;
    Stream::new(a, b, Builder::new(frames::station(1), frames::station(2))).pump(500)?;
    Stream::new(b, a, Builder::new(frames::station(2), frames::station(1))).pump(500)
}

/// Sends a frame with an offload request; whether the kernel took it.
fn tried(station: &Station, request: Request, frame: &[u8]) -> Result<bool> {
    match station.send_with(request, frame) {
        Ok(()) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// A sound generator of nonsense (xorshift, Marsaglia 2003): the same on every run.
struct Nonsense(u64);

impl Nonsense {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn bytes(&mut self) -> [u8; 8] {
        self.next().to_le_bytes()
    }
}

in_every_mode! {
    fn runts_are_refused_by_the_kernel_or_dropped(arena, mode) {
        let (daemon, [attacker, a, b]) = with_bystanders(arena, mode)?;
        let whole = Builder::new(frames::station(3), frames::station(2)).build();
        let before = daemon.cli().port("attacker")?.ingress.frames;
        let mut taken = 0;
        for length in 0..=60 {
            taken += u64::from(tried(&attacker, Request::default(), &whole[..length])?);
        }
        // The last one is whole; in order, so all before it are dealt with.
        b.receive_until(wait::SOON, |got| got == whole)?;
        bystanders_talk(&a, &b)?;
        ensure!(daemon.cli().port("attacker")?.ingress.frames == before + taken, "{taken} were taken");
        ensure!(taken >= 60 - 13, "{taken}");
        daemon.stop(arena)
    }

    fn every_ethertype_and_length_is_carried(arena, mode) {
        let (daemon, [attacker, _, b]) = with_bystanders(arena, mode)?;
        // Every EtherType would take minutes; every first byte, and every one that somebody defines something for.
        let known = [0x0000, 0x0001, 0x002e, 0x05dc, 0x05ff, 0x0600, 0x0800, 0x0806, 0x22f3, 0x8035, 0x86dd, 0x8808,
            0x8809, 0x8847, 0x8848, 0x8863, 0x8864, 0x888e, 0x88cc, 0x88e5, 0x88e7, 0x88f7, 0x8906, 0x9000, 0x9100,
            0xffff];
        let all = (0..=0xff_u16).map(|high| high << 8 | 0x5a).chain(known);
        for ethertype in all {
            let frame = Builder::new(frames::station(3), frames::station(2)).ethertype(ethertype).payload(&[0x45; 46]);
            let frame = frame.build();
            attacker.send(&frame)?;
            let got = b.receive_until(wait::SOON, |got| got == frame)?;
            ensure!(got.len() == 1, "{ethertype:04x}: {got:02x?}");
        }
        daemon.stop(arena)
    }

    fn cut_tags_are_malformed_and_stop_nothing(arena, mode) {
        let (daemon, [attacker, a, b]) = with_bystanders(arena, mode)?;
        // The kernel takes the outermost tag off and frees what is cut in it; what is cut behind it is ours to drop.
        let tagged = Builder::new(frames::station(3), frames::station(2)).tag(TPID_S, 5).tag(TPID_C, 6).bytes(0).build();
        for length in 14..tagged.len() {
            tried(&attacker, Request::default(), &tagged[..length])?;
        }
        let deep = (0..10).fold(Builder::new(frames::station(3), frames::station(2)), |f, n| f.tag(TPID_C, n)).build();
        attacker.send(&deep)?;
        b.receive_until(wait::SOON, |got| got == deep)?;
        bystanders_talk(&a, &b)?;
        ensure!(daemon.cli().drops("attacker", "malformed")? > 0, "{:?}", daemon.cli().port("attacker")?);
        daemon.stop(arena)
    }

    fn a_super_frame_of_tiny_segments_or_of_no_transport_is_bad_offload(arena, mode) {
        let (daemon, [attacker, a, b]) = with_bystanders(arena, mode)?;
        let tcp = frames::tcp_super_frame(frames::station(3), frames::station(2), 20_000)?;
        let mut taken = 0;
        for size in [1, 2, 8, 47] {
            taken += u64::from(tried(&attacker, Request::tcp4(size), &tcp)?);
        }
        ensure!(taken > 0, "the kernel took none of them: this tests nothing");
        let booked = daemon.cli().drops("attacker", "bad_offload")?;
        wait::until_true("all are booked", wait::SOON, || Ok(daemon.cli().drops("attacker", "bad_offload")? == taken))
            .map_err(|error| error.context(format!("{booked} of {taken}")))?;
        // The same with a size that an honest driver uses goes through.
        attacker.send_with(Request::tcp4(1460), &tcp)?;
        // The receiver has no offloads: the kernel cuts it into fourteen.
        let mut segments = 0;
        while segments < 14 {
            let got = b.receive_until(wait::SOON, |got| got.get(12..14) == Some(&[8, 0]))?;
            segments += got.iter().filter(|got| got.get(12..14) == Some(&[8, 0])).count();
        }
        // Segmentation of what is neither TCP nor UDP.
        let mut icmp = tcp.clone();
        icmp[23] = 1;
        taken += u64::from(tried(&attacker, Request { flags: 0, ..Request::tcp4(1460) }, &icmp)?);
        bystanders_talk(&a, &b)?;
        ensure!(daemon.cli().drops("attacker", "bad_offload")? == taken, "{:?}", daemon.cli().port("attacker")?);
        daemon.stop(arena)
    }

    fn random_offload_requests_stop_nothing(arena, mode) {
        let (daemon, [attacker, a, b]) = with_bystanders(arena, mode)?;
        let mut nonsense = Nonsense(0x5eed);
        let tcp = frames::tcp_super_frame(frames::station(3), frames::station(2), 9000)?;
        let plain = Builder::new(frames::station(3), frames::station(2)).bytes(1514).build();
        let mut taken = 0_u32;
        for round in 0..20_000 {
            let [flags, gso_type, a0, a1, b0, b1, c0, c1] = nonsense.bytes();
            let [d0, d1, small, ..] = nonsense.bytes();
            let mut request = Request {
                flags: flags & 0x07,
                gso_type: [0, 1, 3, 4, 5, 0x81, 0x84, gso_type][usize::from(gso_type % 8)],
                hdr_len: u16::from_le_bytes([a0, a1]),
                gso_size: u16::from_le_bytes([b0, b1]),
                csum_start: u16::from_le_bytes([c0, c1]),
                csum_offset: u16::from_le_bytes([d0, d1]),
            };
            if small < 0x80 {
                request.hdr_len &= 0xff;
                request.csum_start &= 0x3f;
                request.csum_offset &= 0x1f;
                request.gso_size &= 0x7ff;
            }
            let frame = if round % 2 == 0 { &tcp } else { &plain };
            taken += u32::from(tried(&attacker, request, frame)?);
            // The receivers' rings hold 500; what a kernel segments may be many frames.
            if round % 8 == 0 {
                a.drain()?;
                b.drain()?;
            }
        }
        ensure!(taken > 1000, "the kernel took {taken} of them only: this tests little");
        daemon.settle()?;
        bystanders_talk(&a, &b)?;
        daemon.stop(arena)
    }

    /// The kernel frees them on their way to the brain, and does not tell. Others' frames go that way all the time, so it
    /// never falls quiet; yet more than all ports together may have in flight are lost, and nobody else notices.
    fn super_frames_that_contradict_themselves_deny_nobody_the_brain(arena, mode) {
        let (daemon, [attacker, a, b]) = with_bystanders(arena, mode)?;
        let freed = || arena.statistic("weft0", "tx_dropped");
        // TCP, in a request to segment it as UDP: the present one, or the older one where the kernel refuses that (6.1).
        let contradiction = frames::tcp_super_frame(frames::station(3), frames::station(4), 3000)?;
        let requests = [5, 3].map(|gso_type| Request { gso_type, csum_offset: 6, ..Request::tcp4(1460) });
        let before = freed()?;
        let taken = requests.into_iter().find(|request| attacker.send_with(*request, &contradiction).is_ok());
        let request = taken.context("the kernel refuses both")?;
        ensure!(freed()? == before + 1, "the kernel takes them for sound: this tests nothing");
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            let attack = scope.spawn(|| -> Result<()> {
                while !stop.load(Ordering::Relaxed) {
                    attacker.send_with(request, &contradiction)?;
                }
                Ok(())
            });
            let talk = || -> Result<()> {
                let mut newcomers = (1000..).map(frames::station);
                let mut there = frames::station(2);
                let begin = Instant::now();
                while freed()? < before + u64::from(PUNT_RING) {
                    ensure!(begin.elapsed() < wait::LATER, "{} were freed, then no more punted", freed()? - before);
                    // Each is new, so that only the brain can decide, and speaks to the last one that spoke: a port
                    // with more stations than it may have forgets those that are silent.
                    let here = newcomers.next().expect("endless");
                    let round = Instant::now();
                    Stream::new(&a, &b, Builder::new(here, there)).pump(100)?;
                    there = newcomers.next().expect("endless");
                    Stream::new(&b, &a, Builder::new(there, here)).pump(100)?;
                    // Half of what the brain takes from a port, and never more to catch up: whatever is refused is
                    // refused for another's sake.
                    while round.elapsed() < Duration::from_millis(10) {
                        thread::yield_now();
                    }
                }
                Ok(())
            };
            let talked = talk();
            stop.store(true, Ordering::Relaxed);
            attack.join().expect("an attack does not panic")?;
            talked.with_context(|| format!("{:?}", daemon.cli().port("a")))
        })?;
        daemon.settle()?;
        for port in ["a", "b"] {
            ensure!(daemon.cli().port(port)?.drops.is_empty(), "{:?}", daemon.cli().port(port)?);
        }
        // A port that is made anew owes nothing for the old one's last frames.
        attacker.send_with(request, &contradiction)?;
        daemon.cli().run("port del attacker")?;
        topology::attach(&daemon, "attacker")?;
        ensure!(daemon.cli().port("attacker")?.ingress.frames == 0, "{:?}", daemon.cli().port("attacker")?);
        daemon.stop(arena)
    }

    fn random_bytes_stop_nothing(arena, mode) {
        let (daemon, [attacker, a, b]) = with_bystanders(arena, mode)?;
        let mut nonsense = Nonsense(0xf00d);
        for _ in 0..5000 {
            let length = usize::try_from(nonsense.next() % 200)?;
            let mut frame: Vec<u8> = (0..length.div_ceil(8)).flat_map(|_| nonsense.bytes()).collect();
            // Half of them look like something.
            if nonsense.next().is_multiple_of(2) && frame.len() >= 16 {
                frame.splice(..14, Builder::new(frames::station(3), frames::station(2)).ethertype(0x0800).build()[..14].to_vec());
            }
            tried(&attacker, Request::default(), &frame)?;
            a.drain()?;
            b.drain()?;
        }
        daemon.settle()?;
        bystanders_talk(&a, &b)?;
        daemon.stop(arena)
    }

    fn oversize_frames_are_dropped_where_they_do_not_fit(arena, mode) {
        let (daemon, [attacker, a, b]) = with_bystanders(arena, mode)?;
        for bytes in [1515, 9000, 65_535] {
            let frame = Builder::new(frames::station(3), frames::station(2)).bytes(bytes).build();
            ensure!(tried(&attacker, Request::default(), &frame)?, "the kernel refused {bytes} bytes");
        }
        // Tags do not count: 1,514 bytes and two tags fit.
        let tagged = Builder::new(frames::station(3), frames::station(2)).tag(TPID_S, 1).tag(TPID_C, 2).bytes(1522);
        attacker.send(&tagged.build())?;
        let got = b.receive_until(wait::SOON, |got| got.len() == 1522)?;
        ensure!(got.len() == 1, "an oversize frame arrived");
        ensure!(daemon.cli().drops("b", "too_big")? == 3, "{:?}", daemon.cli().port("b")?);
        bystanders_talk(&a, &b)?;
        daemon.stop(arena)
    }
}
