//! `apply` of ports and mirrors together: all of it, or nothing.

use std::fs;

use anyhow::{Result, ensure};
use serde_json::Value;
use weft_tests::command::run;
use weft_tests::frames::{self, Builder};
use weft_tests::{Arena, Daemon, Mode, Need, Station, wait};

const NEXT: &str = "/run/next.toml";

fn port(name: &str) -> String {
    format!("[[port]]\nname = \"{name}\"\nnetdev = \"{name}\"\n")
}

fn mirror(name: &str, from: &str, to: &str) -> String {
    format!("[[mirror]]\nname = \"{name}\"\nfrom = [\"{from}\"]\nto = \"{to}\"\n")
}

/// What runs, and what control and kernel have of it.
fn state(daemon: &Daemon) -> Result<(String, Vec<Value>, Vec<Value>)> {
    let ports: Vec<Value> = daemon.cli().json("port list")?;
    let ids = ports.iter().map(|port| Value::from(vec![port["name"].clone(), port["id"].clone()])).collect();
    Ok((daemon.cli().run("export")?, ids, daemon.cli().json("mirror list")?))
}

/// A daemon with the port a of its file, and the mirror m of a to the tap look; the stations that hold the taps.
fn with_mirror(arena: &Arena) -> Result<(Daemon, [Station; 3])> {
    let [a, look, next] = ["a", "look", "next"].map(Station::plain);
    for analyser in ["look", "next"] {
        // Nothing of the host's is in its ring when it becomes a port.
        run(&format!("sysctl -qw net.ipv6.conf.{analyser}.disable_ipv6=1"))?;
        run(&format!("ip link set {analyser} arp off up"))?;
    }
    let file = "/run/applied.toml";
    fs::write(file, [port("a"), mirror("m", "a:ingress", "look")].concat())?;
    let daemon = Daemon::start_with(arena, "weft0", Mode::Kernel, &["-c", file])?;
    daemon.until_state("a", "up", wait::SOON)?;
    wait::until_true("the mirror runs", wait::SOON, || {
        Ok(daemon.cli().json::<Vec<Value>>("mirror list")?.iter().any(|mirror| mirror["state"] == "up"))
    })?;
    Ok((daemon, [a?, look?, next?]))
}

#[test]
fn a_file_with_a_good_port_and_a_mirror_that_is_refused_leaves_no_trace() {
    Arena::run(&[Need::Bpf], |arena| {
        let (daemon, [a, look, _next]) = with_mirror(arena)?;
        let _new = Station::plain("new")?;
        run("ip link add v0 type veth peer name v1")?;
        let before = state(&daemon)?;
        let kept = [port("a"), mirror("m", "a:ingress", "look")].concat();
        let netdevs = arena.netdevs()?;
        let made = "[[port]]\nname = \"made\"\ntap = \"made0\"\n";
        for (more, code, said) in [
            // As the ports will be: the target is the netdev of a port that comes with the same file, or leads back by one.
            (mirror("n", "new", "new"), 1, "mirror 'n': 'new' is the netdev of port 'new'"),
            (
                [port("v1"), mirror("n", "new", "v0")].concat(),
                1,
                "mirror 'n': what 'v0' is given comes back into the switch by 'v1'",
            ),
            (mirror("n", "new", "lo"), 1, "mirror 'n': 'lo' does not carry Ethernet"),
            (mirror("n", "new", "weft0"), 1, "mirror 'n': 'weft0' belongs to a switch itself"),
            (mirror("n", "nobody", "next"), 4, "mirror 'n': there will be no port 'nobody'"),
            (
                [mirror("n", "new", "next"), "filter = \"tcp[\"\n".to_owned()].concat(),
                1,
                "can't parse filter expression",
            ),
            (port("look"), 5, "port 'look': 'look' gets the copies of mirror 'm'"),
            // Found out when the other ports are made: one that cannot be had.
            (
                [mirror("n", "new", "next"), "[[port]]\nname = \"worst\"\nnetns = \"none\"\n".to_owned()].concat(),
                4,
                "port 'worst'",
            ),
        ] {
            fs::write(NEXT, [kept.as_str(), &port("new"), made, &more].concat())?;
            let refusal = daemon.cli().refused(&format!("apply {NEXT}"))?;
            ensure!(refusal.code == code && refusal.message.contains(said), "{more}: {refusal:?}");
            ensure!(state(&daemon)? == before, "{more} left a trace");
            ensure!(arena.netdevs()? == netdevs, "{more} left a netdev");
            // A reload is the same.
            let logged = daemon.log().len();
            fs::write("/run/applied.toml", fs::read(NEXT)?)?;
            daemon.hang_up()?;
            wait::until_true("the refusal is logged", wait::SOON, || {
                Ok(daemon.log().get(logged..).is_some_and(|new| new.contains("the old one stays")))
            })?;
            ensure!(state(&daemon)? == before, "a reload with {more} left a trace");
        }
        // The mirror that was there went on all the time.
        a.send(&Builder::new(frames::station(1), frames::station(2)).number(7).build())?;
        look.receive_until(wait::SOON, |frame| frames::number_of(frame) == Some(7))?;
        let before = state(&daemon)?;
        // The control: the same with a target that may be one.
        fs::write(NEXT, [kept.as_str(), &port("new"), made, &mirror("n", "new", "next")].concat())?;
        let said = daemon.cli().run(&format!("apply {NEXT} --dry-run"))?;
        ensure!(
            said.contains("+ new") && said.contains("mirrors:\n+ n\nnot applied") && state(&daemon)? == before,
            "{said}"
        );
        daemon.cli().run(&format!("apply {NEXT}"))?;
        daemon.until_state("new", "up", wait::SOON)?;
        let (_, ports, mirrors) = state(&daemon)?;
        ensure!(ports.len() == 3 && mirrors.len() == 2, "{ports:?} {mirrors:?}");
        ensure!(mirrors.iter().all(|mirror| mirror["state"] == "up"), "{mirrors:?}");
        let said = daemon.cli().run(&format!("-o json apply {NEXT}"))?;
        let said: Value = serde_json::from_str(&said)?;
        ensure!(said["add"] == Value::from(Vec::<u8>::new()) && said["mirrors"]["applied"] == true, "{said}");
        run("ip link del v0")?;
        daemon.stop(arena)
    });
}

#[test]
fn a_target_that_is_missing_is_waited_for_as_a_ports_netdev_is() {
    Arena::run(&[Need::Bpf], |arena| {
        let daemon = Daemon::start(arena, Mode::Kernel)?;
        let a = Station::plain("a")?;
        fs::write(NEXT, [port("a"), mirror("m", "a:ingress", "look")].concat())?;
        daemon.cli().run(&format!("apply {NEXT}"))?;
        let mirrors = || daemon.cli().json::<Vec<Value>>("mirror list");
        ensure!(mirrors()?.iter().all(|mirror| mirror["state"] == "waiting"), "{:?}", mirrors()?);
        let look = Station::plain("look")?;
        run("ip link set look arp off up")?;
        wait::until_true("the mirror runs", wait::SOON, || {
            Ok(mirrors()?.iter().all(|mirror| mirror["state"] == "up"))
        })?;
        a.send(&Builder::new(frames::station(1), frames::station(2)).number(1).build())?;
        look.receive_until(wait::SOON, |frame| frames::number_of(frame) == Some(1))?;
        daemon.stop(arena)
    });
}

#[test]
fn ports_and_mirrors_may_take_each_others_netdevs_in_one_apply() {
    Arena::run(&[Need::Bpf], |arena| {
        let (daemon, [a, look, next]) = with_mirror(arena)?;
        // What was a target becomes a port, and what was none a target.
        fs::write(NEXT, [port("a"), port("look"), mirror("m", "a:ingress", "next")].concat())?;
        daemon.cli().run(&format!("apply {NEXT}"))?;
        daemon.until_state("look", "up", wait::SOON)?;
        a.send(&Builder::new(frames::station(1), frames::station(2)).number(1).build())?;
        next.receive_until(wait::SOON, |frame| frames::number_of(frame) == Some(1))?;
        look.receive_until(wait::SOON, |frame| frames::number_of(frame) == Some(1))?;
        daemon.settle()?;
        // And back: the port that goes is the target again.
        fs::write(NEXT, [port("a"), mirror("m", "a:ingress", "look")].concat())?;
        daemon.cli().run(&format!("apply {NEXT}"))?;
        // Removing a port leaves its netdev down, as an operator's own was found.
        run("ip link set look arp off up")?;
        a.send(&Builder::new(frames::station(1), frames::station(2)).number(2).build())?;
        look.receive_until(wait::SOON, |frame| frames::number_of(frame) == Some(2))?;
        ensure!(next.drain()?.iter().all(|frame| frames::number_of(frame) != Some(2)));
        daemon.stop(arena)
    });
}
