//! The harness, tried without Weft: two stations on a Linux bridge.

use anyhow::{Result, ensure};
use weft_tests::frames::{self, Builder, MacAddr};
use weft_tests::stream::Stream;
use weft_tests::{Arena, Namespace, Station, wait};

fn bridge_two(arena: &Arena, a: &Station, b: &Station) -> Result<()> {
    arena.ip("link add br0 type bridge mcast_snooping 0")?;
    for netdev in [a.netdev(), b.netdev(), "br0"] {
        weft_tests::command::run(&format!("sysctl -qw net.ipv6.conf.{netdev}.disable_ipv6=1"))?;
    }
    for netdev in [a.netdev(), b.netdev()] {
        arena.ip(&format!("link set dev {netdev} master br0 up"))?;
    }
    arena.ip("link set dev br0 up")?;
    Ok(())
}

#[test]
fn stations_on_a_linux_bridge_exchange_numbered_frames() {
    Arena::run(&[], |arena| {
        let (a, b) = (Station::plain("a")?, Station::offloading("b")?);
        bridge_two(arena, &a, &b)?;
        a.send(&Builder::new(frames::station(1), MacAddr::BROADCAST).number(5).build())?;
        let got = b.receive_until(wait::SOON, |frame| frames::number_of(frame) == Some(5))?;
        ensure!(got[0].len() == 60, "a frame of {} bytes", got[0].len());
        b.send(&Builder::new(frames::station(2), frames::station(1)).number(6).build())?;
        a.receive_until(wait::SOON, |frame| frames::number_of(frame) == Some(6))?;
        Ok(())
    });
}

#[test]
fn an_offloading_station_receives_a_super_frame_whole_and_a_plain_one_in_segments() {
    Arena::run(&[], |arena| {
        let (a, b) = (Station::offloading("a")?, Station::offloading("b")?);
        bridge_two(arena, &a, &b)?;
        let c = Station::plain("c")?;
        arena.ip("link set dev c master br0 up")?;
        let frame = frames::tcp_super_frame(frames::station(1), frames::station(2), 14_000)?;
        a.send_with(frames::Request::tcp4(1400), &frame)?;
        b.receive_until(wait::SOON, |got| got.len() == frame.len())?;
        c.receive_until(wait::SOON, |got| got.len() == 1454)?;
        Ok(())
    });
}

#[test]
fn arenas_see_neither_the_host_nor_each_other() {
    Arena::run(&[], |arena| {
        let _held = Station::plain("same")?;
        let inner = std::thread::spawn(|| {
            Arena::run(&[], |inner| {
                ensure!(inner.netdevs()?.is_empty(), "{:?}", inner.netdevs()?);
                Ok(())
            });
        });
        ensure!(inner.join().is_ok(), "the inner arena was not empty");
        let blue = Namespace::new("blue")?;
        ensure!(blue.run("ip -br link")?.lines().count() == 1);
        ensure!(arena.netdevs()? == ["same"], "{:?}", arena.netdevs()?);
        Ok(())
    });
}

#[test]
#[should_panic(expected = "network namespaces left behind")]
fn a_namespace_left_behind_fails_the_test() {
    let root = weft_tests::requirements::met(&[weft_tests::Need::Root]);
    assert!(root, "network namespaces left behind: not tried without root");
    Arena::run(&[], |_| weft_tests::command::run("ip netns add forgotten").map(drop));
}

#[test]
fn a_numbered_stream_over_a_linux_bridge_arrives_whole() {
    Arena::run(&[], |arena| {
        let (a, b) = (Station::plain("a")?, Station::plain("b")?);
        bridge_two(arena, &a, &b)?;
        Stream::new(&a, &b, Builder::new(frames::station(1), frames::station(2))).pump(10_000)
    });
}

#[test]
fn a_stream_notices_a_frame_that_is_lost() {
    Arena::run(&[], |arena| {
        let (a, b) = (Station::plain("a")?, Station::plain("b")?);
        bridge_two(arena, &a, &b)?;
        let frame = Builder::new(frames::station(1), frames::station(2));
        a.send(&frame.clone().number(1).build())?;
        let complaint = Stream::new(&a, &b, frame).pump(1).expect_err("frame 0 came second").to_string();
        ensure!(complaint.contains("frame 1 arrived when 0 was due"), "{complaint}");
        Ok(())
    });
}
