//! Mirrors: an analyser sees each frame once, whatever comes and goes, and nobody else feels it.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use weft_tests::command::run;
use weft_tests::frames::{self, Builder, MacAddr};
use weft_tests::{Daemon, Mode, Station, topology, wait};

/// An analyser: a tap that is up and that nobody speaks on.
fn analyser(name: &str) -> Result<Station> {
    let station = Station::plain(name)?;
    run(&format!("sysctl -qw net.ipv6.conf.{name}.disable_ipv6=1"))?;
    run(&format!("ip link set {name} arp off up"))?;
    Ok(station)
}

fn mirror(daemon: &Daemon, name: &str) -> Result<Value> {
    let all: Vec<Value> = daemon.cli().json("mirror list")?;
    all.into_iter().find(|mirror| mirror["name"] == name).with_context(|| format!("no mirror {name}"))
}

/// How often each number came to a station.
fn numbers(station: &Station) -> Result<BTreeMap<u64, usize>> {
    let mut seen = BTreeMap::new();
    for frame in station.drain()? {
        if let Some(number) = frames::number_of(&frame) {
            *seen.entry(number).or_default() += 1;
        }
    }
    Ok(seen)
}

/// Frames `from..to` from one station to another, one after the other.
fn send(from: &Station, source: u32, destination: MacAddr, numbers: std::ops::Range<u64>) -> Result<()> {
    for number in numbers {
        from.send(&Builder::new(frames::station(source), destination).number(number).build())?;
    }
    Ok(())
}

/// Each of the numbers once, nothing else.
fn once(numbers: impl Iterator<Item = u64>) -> BTreeMap<u64, usize> {
    numbers.map(|number| (number, 1)).collect()
}

in_every_mode! {
    fn an_analyser_gets_each_frame_of_a_conversation_once_and_only_those(arena, mode) {
        let daemon = Daemon::start(arena, mode)?;
        let (a, b) = (topology::station(&daemon, "a")?, topology::station(&daemon, "b")?);
        let c = topology::station(&daemon, "c")?;
        let look = analyser("look")?;
        daemon.cli().run("mirror add m --from a --from b --to look")?;
        // Floods, the first frames of pairs and those that follow: to both mirrored ports, to one, to none.
        send(&a, 1, MacAddr::BROADCAST, 0..10)?;
        send(&b, 2, frames::station(1), 10..20)?;
        daemon.settle()?;
        send(&a, 1, frames::station(2), 20..120)?;
        send(&c, 3, MacAddr::BROADCAST, 120..130)?;
        daemon.settle()?;
        send(&a, 1, frames::station(3), 130..140)?;
        send(&c, 3, frames::station(1), 140..150)?;
        daemon.settle()?;
        let seen = numbers(&look)?;
        ensure!(seen == once(0..150), "{seen:?}");
        let m = mirror(&daemon, "m")?;
        ensure!(m["matched"]["frames"] == 150 && m["delivered"]["frames"] == 150 && m["lost"]["frames"] == 0, "{m}");
        ensure!(m["state"] == "up" && m["target_dropped_frames"] == 0, "{m}");
        let ledger = daemon.cli().ledger()?;
        let mut laws = ledger["laws"].as_array().context("no laws")?.iter();
        let law = laws.find(|law| law["law"] == "L6" && law["what"] == "mirror m: frames matched = delivered + lost");
        ensure!(law.is_some_and(|law| law["left"] == 150 && law["right"] == 150 && law["holds"] == true), "{ledger:#}");
        // The ports got what they would have got anyway, and the analyser is no port.
        ensure!(numbers(&b)? == once((0..10).chain(20..130)));
        drop((a, c));
        daemon.cli().run("mirror del m")?;
        ensure!(daemon.cli().json::<Vec<Value>>("mirror list")?.is_empty());
        daemon.stop(arena)
    }

    fn sides_and_filters_choose_what_is_mirrored_and_two_mirrors_do_not_meet(arena, mode) {
        let daemon = Daemon::start(arena, mode)?;
        let (a, b) = (topology::station(&daemon, "a")?, topology::station(&daemon, "b")?);
        let (look, peek) = (analyser("look")?, analyser("peek")?);
        send(&a, 1, MacAddr::BROADCAST, 0..1)?;
        send(&b, 2, frames::station(1), 1..2)?;
        daemon.settle()?;
        daemon.cli().run("mirror add in --from a:ingress --to look")?;
        let output = daemon.cli().output_of(&["mirror", "add", "out", "--from", "a:egress", "--filter", "len > 100", "--to", "peek"])?;
        ensure!(output.status.success());
        send(&a, 1, frames::station(2), 10..20)?;
        send(&b, 2, frames::station(1), 20..30)?;
        for number in 30..40 {
            b.send(&Builder::new(frames::station(2), frames::station(1)).number(number).bytes(200).build())?;
        }
        daemon.settle()?;
        let (seen, peeked) = (numbers(&look)?, numbers(&peek)?);
        ensure!((&seen, &peeked) == (&once(10..20), &once(30..40)), "{seen:?} {peeked:?}");
        daemon.stop(arena)
    }

    fn a_mirror_outlives_the_daemon_its_sources_tap_and_its_target(arena, mode) {
        let mut daemon = Daemon::start(arena, mode)?;
        let (a, b) = (topology::station(&daemon, "a")?, topology::station(&daemon, "b")?);
        let look = analyser("look")?;
        daemon.cli().run("mirror add m --from a:ingress --to look")?;
        send(&a, 1, MacAddr::BROADCAST, 0..1)?;
        send(&b, 2, frames::station(1), 1..2)?;
        daemon.settle()?;
        send(&a, 1, frames::station(2), 2..10)?;
        daemon.settle()?;
        daemon.kill()?;
        send(&a, 1, frames::station(2), 10..20)?;
        daemon.launch()?;
        daemon.until_state("a", "up", wait::SOON)?;
        send(&a, 1, frames::station(2), 20..30)?;
        daemon.settle()?;
        let seen = numbers(&look)?;
        // Without a verdict nobody forwards while the daemon is dead; the frames came in all the same, and are dropped.
        ensure!(seen == once((0..1).chain(2..30)), "{mode:?} {seen:?}");
        // The source's tap is made anew, with another number.
        drop(a);
        daemon.until_state("a", "absent", wait::SOON)?;
        let waiting = mirror(&daemon, "m")?;
        ensure!(waiting["state"] == "waiting" && waiting["problem"] == "waits for a", "{waiting}");
        let a = Station::plain("a")?;
        daemon.until_state("a", "up", wait::SOON)?;
        send(&a, 1, frames::station(2), 30..40)?;
        daemon.settle()?;
        ensure!(numbers(&look)? == once(30..40));
        // So is the target; what is mirrored meanwhile is lost, and counted.
        drop(look);
        wait::until_true("the target is missed", wait::SOON, || Ok(mirror(&daemon, "m")?["ifindex"].is_null()))?;
        send(&a, 1, frames::station(2), 40..50)?;
        daemon.settle()?;
        let before = mirror(&daemon, "m")?;
        ensure!(before["lost"]["frames"] == 10 && before["matched"]["frames"] == 49, "{before}");
        let look = analyser("look")?;
        wait::until_true("the target is found", wait::SOON, || Ok(mirror(&daemon, "m")?["state"] == "up"))?;
        send(&a, 1, frames::station(2), 50..60)?;
        daemon.settle()?;
        ensure!(numbers(&look)? == once(50..60));
        drop(b);
        daemon.stop(arena)
    }

    fn what_leads_back_into_a_switch_is_no_target(arena, mode) {
        let daemon = Daemon::start(arena, mode)?;
        let _a = topology::station(&daemon, "a")?;
        let _look = analyser("look")?;
        run("ip link add v0 type veth peer name v1")?;
        run("ip link set v0 up")?;
        topology::attach(&daemon, "v1")?;
        run("ip link add x0 type vxlan id 5 dev v0 dstport 4789 group 239.0.0.1")?;
        let refused = |arguments: &str, code: i32, words: &str| -> Result<()> {
            let refusal = daemon.cli().refused(arguments)?;
            ensure!(refusal.code == code && refusal.message.contains(words), "{arguments}: {refusal:?}");
            Ok(())
        };
        refused("mirror add m --from a --to a", 1, "is the netdev of port 'a'")?;
        refused("mirror add m --from a --to weft0", 1, "belongs to a switch itself")?;
        refused("mirror add m --from a --to v0", 1, "comes back into the switch by 'v1'")?;
        refused("mirror add m --from a --to x0", 1, "comes back into the switch")?;
        refused("mirror add m --from a --to lo", 1, "does not carry Ethernet")?;
        refused("mirror add m --from a --to none", 4, "ip link add")?;
        refused("mirror add m --from nobody --to look", 4, "there is no port 'nobody'")?;
        refused("mirror add m --from a --to look --filter tcp[", 1, "character")?;
        refused("mirror add m --to look", 2, "--from")?;
        refused("mirror del m", 4, "weft mirror list")?;
        // The control; and what it takes is no port any more.
        daemon.cli().run("mirror add m --from a --to look")?;
        refused("mirror add m --from a --to look", 5, "exists already")?;
        refused("port add look --netdev look", 5, "gets the copies of mirror 'm'")?;
        run("ip link del x0")?;
        run("ip link del v0")?;
        daemon.stop(arena)
    }

    fn super_frames_reach_a_plain_analyser_in_as_many_frames_as_are_counted(arena, mode) {
        let daemon = Daemon::start(arena, mode)?;
        let (a, b) = (topology::offloading_station(&daemon, "a")?, topology::offloading_station(&daemon, "b")?);
        let look = analyser("look")?;
        b.send(&Builder::new(frames::station(2), MacAddr::BROADCAST).number(2).build())?;
        a.receive_until(wait::SOON, |frame| frames::number_of(frame) == Some(2))?;
        daemon.settle()?;
        daemon.cli().run("mirror add m --from a:ingress --to look")?;
        let whole = frames::tcp_super_frame(frames::station(1), frames::station(2), 14_600)?;
        for _ in 0..10 {
            a.send_with(frames::Request::tcp4(1460), &whole)?;
            b.receive_until(wait::SOON, |got| got == whole)?;
        }
        daemon.settle()?;
        let segments = look.drain()?.iter().filter(|got| got.len() == 1514).count();
        let m = mirror(&daemon, "m")?;
        ensure!(segments == 100 && m["matched"]["wire_frames"] == 100 && m["matched"]["frames"] == 10, "{segments} {m}");
        ensure!(m["delivered"] == m["matched"] && m["lost"]["frames"] == 0, "{m}");
        daemon.stop(arena)
    }

    fn a_vxlan_device_carries_the_copies_to_a_remote_analyser(arena, mode) {
        let daemon = Daemon::start(arena, mode)?;
        let (a, b) = (topology::station(&daemon, "a")?, topology::station(&daemon, "b")?);
        let wire = analyser("wire")?;
        run("ip address add 198.18.0.1/24 dev wire")?;
        run("ip link add x0 type vxlan id 5 local 198.18.0.1 remote 198.18.0.2 dev wire dstport 4789")?;
        run("sysctl -qw net.ipv6.conf.x0.disable_ipv6=1")?;
        run("ip link set x0 arp off up")?;
        daemon.cli().run("mirror add m --from a:ingress --to x0")?;
        send(&a, 1, MacAddr::BROADCAST, 0..1)?;
        send(&b, 2, frames::station(1), 1..2)?;
        daemon.settle()?;
        send(&a, 1, frames::station(2), 2..50)?;
        daemon.settle()?;
        // Outer Ethernet, IPv4, UDP and VXLAN: 50 bytes.
        let mut seen = BTreeMap::new();
        for outer in wire.drain()?.iter().filter(|outer| outer.get(36..38) == Some(&4789_u16.to_be_bytes())) {
            if let Some(number) = outer.get(50..).and_then(frames::number_of) {
                *seen.entry(number).or_default() += 1;
            }
        }
        ensure!(seen == once((0..1).chain(2..50)), "{seen:?}");
        daemon.stop(arena)
    }

    /// A flow that has its verdict is mirrored from the command on, without waiting for it to expire.
    fn a_mirror_begins_within_a_second_for_a_flow_that_runs(arena, mode) {
        let daemon = Daemon::start(arena, mode)?;
        let (a, b) = (topology::station(&daemon, "a")?, topology::station(&daemon, "b")?);
        let look = analyser("look")?;
        send(&a, 1, MacAddr::BROADCAST, 0..1)?;
        send(&b, 2, frames::station(1), 1..2)?;
        daemon.settle()?;
        send(&a, 1, frames::station(2), 2..100)?;
        daemon.settle()?;
        ensure!(look.drain()?.is_empty(), "nobody asked for a copy");
        daemon.cli().run("mirror add m --from a:ingress --to look")?;
        let began = std::time::Instant::now();
        let mut number = 100;
        wait::until_true("a copy comes", wait::SOON, || {
            send(&a, 1, frames::station(2), number..number + 1)?;
            number += 1;
            Ok(!look.drain()?.is_empty())
        })?;
        let took = began.elapsed();
        ensure!(took < wait::here(std::time::Duration::from_secs(1)), "{took:?}");
        daemon.stop(arena)
    }

    fn mirrors_of_the_file_come_and_go_with_it(arena, mode) {
        let file = "/run/mirrors.toml";
        let port = "[[port]]\nname = \"a\"\nnetdev = \"a\"\n";
        let one = "[[mirror]]\nname = \"m\"\nfrom = [\"a:ingress\"]\nfilter = \"ether proto 0x88b5\"\nto = \"look\"\n";
        fs::write(file, [port, one].concat())?;
        let daemon = Daemon::start_with(arena, "weft0", mode, &["-c", file])?;
        // Neither is there yet: both are waited for.
        ensure!(mirror(&daemon, "m")?["state"] == "waiting");
        let look = analyser("look")?;
        let a = Station::plain("a")?;
        daemon.until_state("a", "up", wait::SOON)?;
        wait::until_true("the mirror runs", wait::SOON, || Ok(mirror(&daemon, "m")?["state"] == "up"))?;
        send(&a, 1, frames::station(9), 0..5)?;
        daemon.settle()?;
        let seen = numbers(&look)?;
        ensure!(seen.len() == 5, "{seen:?}");
        ensure!(daemon.cli().run("export")?.contains("[[mirror]]"));
        fs::write(file, port)?;
        daemon.hang_up()?;
        wait::until_true("the mirror is gone", wait::SOON, || Ok(daemon.cli().json::<Vec<Value>>("mirror list")?.is_empty()))?;
        send(&a, 1, frames::station(9), 5..10)?;
        daemon.settle()?;
        ensure!(numbers(&look)?.is_empty());
        daemon.stop(arena)
    }
}

/// A thousand copies that are cut, and the sources' own that are not.
#[test]
fn copies_are_cut_to_what_the_analyser_wants() {
    weft_tests::Arena::run(&[weft_tests::Need::Bpf], |arena| {
        let daemon = Daemon::start(arena, Mode::Kernel)?;
        let (a, b) = (topology::station(&daemon, "a")?, topology::station(&daemon, "b")?);
        let look = analyser("look")?;
        daemon.cli().run("mirror add m --from a:ingress --snaplen 100 --to look")?;
        for bytes in [60, 100, 101, 1000] {
            let sent = Builder::new(frames::station(1), MacAddr::BROADCAST).bytes(bytes).number(1).build();
            a.send(&sent)?;
            let expected = &sent[..sent.len().min(100)];
            look.receive_until(wait::SOON, |got| got == expected)?;
            b.receive_until(wait::SOON, |got| got == sent)?;
        }
        daemon.stop(arena)
    });
}
