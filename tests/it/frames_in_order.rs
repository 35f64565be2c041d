//! Numbered frames between stations: none lost, none reordered, none doubled, and not a byte changed.

use anyhow::ensure;
use switch_common::wire::{TPID_C, TPID_S};
use weft_tests::frames::{self, Builder, MacAddr, Request};
use weft_tests::stream::Stream;
use weft_tests::{Daemon, topology, wait};

in_every_mode! {
    /// New stations on both sides, so that the verdict is installed in the middle of the burst.
    fn a_numbered_burst_between_new_stations_arrives_whole_and_in_order(arena, mode) {
        let daemon = Daemon::start(arena, mode)?;
        let (a, b) = (topology::station(&daemon, "a")?, topology::station(&daemon, "b")?);
        // The receiver is known by one broadcast; whoever floods thousands of frames is limited, and rightly so.
        b.send(&Builder::new(frames::station(2), MacAddr::BROADCAST).number(0).build())?;
        a.receive_until(wait::SOON, |frame| frames::number_of(frame) == Some(0))?;
        Stream::new(&a, &b, Builder::new(frames::station(1), frames::station(2))).pump(10_000)?;
        Stream::new(&b, &a, Builder::new(frames::station(2), frames::station(1))).pump(10_000)?;
        // A third station, behind a port that is in full swing.
        Stream::new(&a, &b, Builder::new(frames::station(3), frames::station(2))).pump(10_000)?;
        let (at_a, at_b) = (daemon.cli().port("a")?, daemon.cli().port("b")?);
        ensure!((at_a.ingress.frames, at_b.egress.frames) == (20_000, 20_000), "{at_a:?} {at_b:?}");
        ensure!((at_b.ingress.frames, at_a.egress.frames) == (10_001, 10_001), "{at_a:?} {at_b:?}");
        ensure!(at_b.egress.bytes == 20_000 * 60, "{at_b:?}");
        ensure!(at_a.drops.is_empty() && at_b.drops.is_empty(), "{at_a:?} {at_b:?}");
        daemon.stop(arena)
    }

    fn tagged_frames_come_out_byte_for_byte(arena, mode) {
        let daemon = Daemon::start(arena, mode)?;
        let (a, b) = (topology::offloading_station(&daemon, "a")?, topology::station(&daemon, "b")?);
        let c = topology::offloading_station(&daemon, "c")?;
        let plain = |to| Builder::new(frames::station(1), to).bytes(80);
        let kinds = |to: MacAddr| {
            [
                plain(to),
                plain(to).tag(TPID_C, 100),
                plain(to).tag(TPID_S, 200),
                plain(to).tag(TPID_S, 200).tag(TPID_C, 100),
                plain(to).tag(TPID_C, 100).tag(TPID_C, 101),
                plain(to).tag(TPID_S, 1).tag(TPID_S, 2),
                // Priority tags: VLAN 0, and every bit of priority and drop eligibility set.
                plain(to).tag(TPID_C, 0xf000),
                plain(to).tag(TPID_S, 0xf000),
                plain(to).tag(TPID_C, 0xffff),
                plain(to).tag(TPID_S, 4095).tag(TPID_C, 0).tag(TPID_C, 7),
                plain(to).ethertype(TPID_C).payload(&[0, 5, 0x88, 0xb5]),
            ]
        };
        b.send(&Builder::new(frames::station(2), MacAddr::BROADCAST).number(0).build())?;
        a.receive_until(wait::SOON, |frame| frames::number_of(frame) == Some(0))?;
        c.receive_until(wait::SOON, |frame| frames::number_of(frame) == Some(0))?;
        // Unknown, then known and perhaps cached, then a group: the three ways a frame may take.
        for to in [frames::station(9), frames::station(2), frames::station(2), MacAddr::BROADCAST] {
            for (number, kind) in kinds(to).into_iter().enumerate() {
                let frame = kind.build();
                a.send(&frame)?;
                let got = b.receive_until(wait::SOON, |got| got == frame)?;
                ensure!(got.len() == 1, "kind {number} to {to}: {got:02x?} instead of {frame:02x?}");
                if to != frames::station(2) {
                    c.receive_until(wait::SOON, |got| got == frame)?;
                }
            }
        }
        ensure!(c.drain()?.is_empty(), "known unicast reached a bystander");
        daemon.stop(arena)
    }

    /// Between guests that negotiated it a super-frame stays whole; for one that did not the kernel cuts it.
    fn super_frames_travel_whole_and_are_weighed_as_a_wire_would(arena, mode) {
        let daemon = Daemon::start(arena, mode)?;
        let (a, b) = (topology::offloading_station(&daemon, "a")?, topology::offloading_station(&daemon, "b")?);
        let plain = topology::station(&daemon, "plain")?;
        for (number, station) in [(2, &b), (3, &plain)] {
            station.send(&Builder::new(frames::station(number), MacAddr::BROADCAST).number(number.into()).build())?;
            a.receive_until(wait::SOON, |frame| frames::number_of(frame) == Some(number.into()))?;
        }
        let whole = frames::tcp_super_frame(frames::station(1), frames::station(2), 64_240)?;
        for _ in 0..10 {
            a.send_with(Request::tcp4(1460), &whole)?;
            b.receive_until(wait::SOON, |got| got == whole)?;
        }
        let cut = frames::tcp_super_frame(frames::station(1), frames::station(3), 14_600)?;
        for _ in 0..10 {
            a.send_with(Request::tcp4(1460), &cut)?;
            let mut segments = 0;
            while segments < 10 {
                let got = plain.receive_until(wait::SOON, |got| got.len() == 1514)?;
                segments += got.iter().filter(|got| got.len() == 1514).count();
            }
        }
        let port = daemon.cli().port("a")?;
        ensure!(port.ingress.frames == 20 && port.ingress.wire_frames == 10 * 44 + 10 * 10, "{port:?}");
        daemon.stop(arena)
    }
}
