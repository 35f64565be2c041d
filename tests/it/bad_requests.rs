//! What operators and programs ask for that cannot be: a clear error, the right exit code, and nothing lost.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use weft_tests::frames::{self, Builder, MacAddr};
use weft_tests::{Arena, Daemon, Mode, Namespace, Need, Station, topology, wait};

/// Every request is refused with one of `codes` and names `word`; the ports are what they were.
fn refused(daemon: &Daemon, arguments: &[&str], codes: &[i32], word: &str) -> Result<()> {
    let before: Vec<_> = daemon.cli().ports()?.into_iter().map(|port| (port.name, port.id, port.state)).collect();
    let refusal = daemon.cli().refused_of(arguments)?;
    ensure!(codes.contains(&refusal.code), "{arguments:?}: {refusal:?} instead of {codes:?}");
    ensure!(refusal.message.contains(word), "{arguments:?}: {word:?} is not in {:?}", refusal.message);
    let after: Vec<_> = daemon.cli().ports()?.into_iter().map(|port| (port.name, port.id, port.state)).collect();
    ensure!(before == after, "{arguments:?} was refused and yet changed {before:?} to {after:?}");
    Ok(())
}

#[test]
fn netdevs_that_cannot_be_ports_are_refused_and_left_as_they_were() {
    Arena::run(&[Need::Bpf], |arena| {
        let daemon = Daemon::start(arena, Mode::Kernel)?;
        let _a = topology::station(&daemon, "a")?;
        for netdev in ["enslaved", "addressed"] {
            arena.ip(&format!("link add {netdev} type veth peer name {netdev}-far"))?;
        }
        arena.ip("link add br9 type bridge")?;
        arena.ip("link set dev enslaved master br9")?;
        arena.ip("address add 198.18.9.1/24 dev addressed")?;
        for netdev in ["enslaved", "enslaved-far", "addressed", "addressed-far"] {
            weft_tests::command::run(&format!("sysctl -qw net.ipv6.conf.{netdev}.disable_ipv6=1"))?;
            arena.ip(&format!("link set dev {netdev} up"))?;
        }
        // The kernel notices carriers in its own time; what it says of the state settles afterwards.
        let links = || -> Result<String> {
            wait::until_true("both carriers are noticed", wait::SOON, || {
                Ok(arena.ip("link show")?.matches("state UP").count() >= 4)
            })?;
            arena.ip("-d address show")
        };
        let before = links()?;
        let add = |netdev| ["port", "add", "p", "--netdev", netdev];
        refused(&daemon, &add("nowhere"), &[1, 4], "nowhere")?;
        refused(&daemon, &add("a"), &[1, 5], "already")?;
        refused(&daemon, &add("enslaved"), &[1], "br9")?;
        refused(&daemon, &add("addressed"), &[1], "--force")?;
        refused(&daemon, &add("addressed"), &[1], "198.18.9.1")?;
        refused(&daemon, &add("weft0"), &[1], "own")?;
        ensure!(links()? == before, "a refused netdev was changed:\n{before}\n{}", links()?);
        // With --force the operator gets what he asked for, and gets back what was found.
        daemon.cli().run("port add p --netdev addressed --force")?;
        daemon.cli().run("port del p")?;
        ensure!(links()? == before, "a detached netdev is not as it was found:\n{before}\n{}", links()?);
        daemon.stop(arena)
    });
}

#[test]
fn names_and_addresses_that_cannot_be_are_refused() {
    Arena::run(&[Need::Bpf], |arena| {
        let daemon = Daemon::start(arena, Mode::Kernel)?;
        let (_a, _b) = (topology::station(&daemon, "a")?, Station::plain("b")?);
        let long = "n".repeat(64);
        for name in ["", "a/b", "a b", ".", "..", long.as_str(), "n\u{e9}"] {
            refused(&daemon, &["port", "add", name, "--netdev", "b"], &[2], "")?;
        }
        refused(&daemon, &["port", "add", "a", "--netdev", "b"], &[5], "a")?;
        refused(&daemon, &["port", "add", "b", "--netdev", "sixteen-letters!"], &[2], "")?;
        refused(&daemon, &["port", "add", "b", "--tap", "sixteenletters16"], &[2], "")?;
        for mac in ["01:00:5e:00:00:01", "ff:ff:ff:ff:ff:ff", "00:00:00:00:00:00", "52:54:00", "nonsense"] {
            refused(&daemon, &["port", "add", "b", "--netdev", "b", "--mac", mac], &[1, 2], "")?;
            refused(&daemon, &["fdb", "add", "a", mac], &[1, 2], "")?;
        }
        refused(&daemon, &["port", "add", "b", "--netdev", "b", "--mtu", "1"], &[1, 2], "")?;
        refused(&daemon, &["port", "add", "b"], &[2], "--netdev")?;
        refused(&daemon, &["port", "add", "b", "--netdev", "b", "--host"], &[2], "")?;
        refused(&daemon, &["port", "del", "nobody"], &[4], "nobody")?;
        refused(&daemon, &["port", "show", "nobody"], &[4], "nobody")?;
        refused(&daemon, &["fdb", "add", "nobody", "52:54:00:00:00:01"], &[4], "nobody")?;
        refused(&daemon, &["fdb", "del", "52:54:00:00:00:01"], &[4], "52:54:00:00:00:01")?;
        refused(&daemon, &["fdb", "flush", "--port", "nobody"], &[4], "nobody")?;
        // What makes the harmless kind of "again" no error.
        daemon.cli().run("port add a --netdev a --may-exist")?;
        daemon.cli().run("port del nobody --if-exists")?;
        daemon.stop(arena)
    });
}

#[test]
fn namespaces_that_are_missing_or_taken_are_refused() {
    Arena::run(&[Need::Bpf], |arena| {
        let daemon = Daemon::start(arena, Mode::Kernel)?;
        let blue = Namespace::new("blue")?;
        blue.run("ip link add eth0 type veth peer name far")?;
        let before = arena.netdevs()?;
        refused(&daemon, &["port", "add", "p", "--netns", "nowhere"], &[1, 4], "nowhere")?;
        refused(&daemon, &["port", "add", "p", "--netns", "/run/netns/nowhere"], &[1, 4], "nowhere")?;
        refused(&daemon, &["port", "add", "p", "--netns", "4194304"], &[1, 2, 4], "4194304")?;
        refused(&daemon, &["port", "add", "p", "--netns", "blue"], &[1, 5], "eth0")?;
        refused(&daemon, &["port", "add", "p", "--netns", "blue", "--address", "198.18.0.1/33"], &[1, 2], "")?;
        ensure!(arena.netdevs()? == before, "half a veth pair was left: {:?}", arena.netdevs()?);
        daemon.cli().run("port add p --netns blue --ifname eth1")?;
        drop(blue);
        daemon.until_state("p", "absent", wait::SOON)?;
        daemon.stop(arena)
    });
}

#[test]
fn the_4095th_port_is_refused_and_the_others_go_on() {
    Arena::run(&[Need::Bpf], |arena| {
        let file = |count: u32| -> String {
            let ports = (0..count).map(|n| format!("[[port]]\nname = \"p{n}\"\nnetdev = \"absent{n}\"\n"));
            ports.collect::<Vec<_>>().concat()
        };
        let daemon = Daemon::start(arena, Mode::Kernel)?;
        fs::write("/run/full.toml", file(4094))?;
        daemon.cli().run("apply /run/full.toml")?;
        ensure!(daemon.cli().ports()?.len() == 4094);
        let refusal = daemon.cli().refused("port add more --netdev more --wait")?;
        ensure!(refusal.code == 1 && refusal.message.contains("4094"), "{refusal:?}");
        fs::write("/run/overfull.toml", file(4095))?;
        let refusal = daemon.cli().refused("apply /run/overfull.toml")?;
        ensure!(refusal.message.contains("4094"), "{refusal:?}");
        ensure!(daemon.cli().ports()?.len() == 4094);
        // One goes, one comes: the number is free again.
        let a = Station::plain("more")?;
        daemon.cli().run("port del p7")?;
        topology::attach(&daemon, "more")?;
        a.send(&Builder::new(frames::station(1), MacAddr::BROADCAST).build())?;
        daemon.stop(arena)
    });
}

#[test]
fn without_the_right_to_load_programs_the_daemon_says_what_is_missing_and_ends() {
    Arena::run(&[Need::Bpf], |arena| {
        let weft = weft_tests::Cli::new("weft0")?;
        // Whoever runs it must be able to reach it: a copy where everybody may look.
        let binary = "/run/weft-copy";
        fs::copy(weft.binary(), binary)?;
        let tries = [
            ("setpriv --reuid 65534 --regid 65534 --clear-groups", "root"),
            ("setpriv --bounding-set=-bpf,-sys_admin --inh-caps=-all", "CAP_BPF"),
        ];
        for (prefix, word) in tries {
            let line = format!("{prefix} {binary} run");
            let output = weft_tests::command::output(&mut weft_tests::command::words(&line))?;
            let said = String::from_utf8_lossy(&output.stderr);
            ensure!(output.status.code() == Some(1), "{line}: {} {said}", output.status);
            ensure!(said.contains("error:") && said.contains(word), "{line}: {word} is not in {said}");
        }
        ensure!(arena.netdevs()?.is_empty(), "{:?}", arena.netdevs()?);
        ensure!(!fs::exists("/sys/fs/bpf/weft/weft0")?, "pins were left behind");
        Ok(())
    });
}

#[test]
fn a_missing_bpf_file_system_is_mounted() {
    Arena::run(&[Need::Bpf], |arena| {
        rustix::mount::unmount("/sys/fs/bpf", rustix::mount::UnmountFlags::empty())?;
        let daemon = Daemon::start(arena, Mode::Kernel)?;
        let (a, b) = (topology::station(&daemon, "a")?, topology::station(&daemon, "b")?);
        a.send(&Builder::new(frames::station(1), MacAddr::BROADCAST).number(1).build())?;
        b.receive_until(wait::SOON, |frame| frames::number_of(frame) == Some(1))?;
        daemon.stop(arena)
    });
}

#[test]
fn a_state_file_that_is_damaged_or_from_the_future_is_refused_and_not_overwritten() {
    Arena::run(&[Need::Bpf], |arena| {
        let mut daemon = Daemon::start(arena, Mode::Kernel)?;
        let _a = topology::station(&daemon, "a")?;
        daemon.kill()?;
        let path = daemon.state().join("state.json");
        let good = fs::read_to_string(&path).context("the state file")?;
        let newer = good.replacen("\"version\": 1", "\"version\": 999", 1);
        ensure!(newer != good, "no version in {good}");
        for (bad, word) in [(good.get(..good.len() / 2).unwrap_or_default(), ""), ("", ""), (&newer, "newer")] {
            fs::write(&path, bad)?;
            let status = daemon.spawn()?.wait(wait::SOON)?;
            ensure!(status.code() == Some(1), "{status}\n{}", daemon.log());
            let said = daemon.log();
            ensure!(said.contains("state.json") && said.contains(word), "{said}");
            ensure!(fs::read_to_string(&path)? == bad, "a bad state file was overwritten");
        }
        fs::write(&path, good)?;
        daemon.launch()?;
        daemon.stop(arena)
    });
}
