//! What the kernel and other tools do to our netdevs, and how soon it is seen.

use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use weft_tests::command::Running;
use weft_tests::frames::{self, Builder, MacAddr};
use weft_tests::stream::Stream;
use weft_tests::{Arena, Daemon, Mode, Need, Station, http, topology, wait};

/// What an operator is promised.
const PROMISE: Duration = Duration::from_millis(100);

/// Waits for a port's state by the API, without the cost of a process per look.
fn seen(daemon: &Daemon, port: &str, state: &str) -> Result<()> {
    let wanted = format!("\"state\":\"{state}\"");
    wait::until_true(&format!("{port} is {state}"), wait::SOON, || {
        let reply = http::request(&daemon.socket(), "GET", &format!("/v1/ports/{port}"), b"")?;
        Ok(reply.body.replace(": ", ":").contains(&wanted))
    })
}

fn says(from: &Station, to: &Station, number: u64) -> Result<()> {
    from.send(&Builder::new(frames::station(1), MacAddr::BROADCAST).number(number).build())?;
    to.receive_until(wait::SOON, |frame| frames::number_of(frame) == Some(number)).map(drop)
}

#[test]
fn a_changed_link_is_seen_within_100_milliseconds() {
    Arena::run(&[Need::Bpf], |arena| {
        let daemon = Daemon::start(arena, Mode::Kernel)?;
        let _station = topology::station(&daemon, "a")?;
        let mut took = Vec::new();
        for _ in 0..5 {
            for word in ["down", "up"] {
                arena.ip(&format!("link set dev a {word}"))?;
                let begin = Instant::now();
                seen(&daemon, "a", word)?;
                took.push(begin.elapsed());
            }
        }
        // The median: a test beside us may hold both cores for a while, the switch may not.
        took.sort();
        ensure!(took[took.len() / 2] < wait::here(PROMISE), "{took:?}");
        daemon.stop(arena)
    });
}

#[test]
fn who_waits_for_quiet_holds_up_nobody() {
    Arena::run(&[Need::Bpf], |arena| {
        let daemon = Daemon::start(arena, Mode::Kernel)?;
        let (a, b) = (topology::station(&daemon, "a")?, topology::station(&daemon, "b")?);
        says(&b, &a, 1)?;
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            let traffic = scope.spawn(|| {
                let frame = Builder::new(frames::station(2), frames::station(1));
                Stream::new(&a, &b, frame).pump_until(&stop)
            });
            let tried = (|| {
                let mut command = std::process::Command::new(daemon.cli().binary());
                let mut waiting = Running::start(command.args(["ledger", "--settle=20"]).stdout(Stdio::null()))?;
                let _c = topology::station(&daemon, "c")?;
                arena.ip("link set dev c down")?;
                seen(&daemon, "c", "down")?;
                ensure!(waiting.ended()?.is_none(), "the ledger came to rest under traffic");
                Ok(())
            })();
            stop.store(true, Ordering::Relaxed);
            traffic.join().expect("a stream does not panic")?;
            tried
        })?;
        daemon.stop(arena)
    });
}

#[test]
fn a_deleted_tap_is_absent_at_once_and_attached_again_when_it_comes_back() {
    Arena::run(&[Need::Bpf], |arena| {
        let daemon = Daemon::start(arena, Mode::Kernel)?;
        let a = topology::station(&daemon, "a")?;
        let b = topology::station(&daemon, "b")?;
        says(&b, &a, 1)?;
        let mut took = Vec::new();
        let mut held = Some(b);
        for number in 2..7 {
            drop(held.take());
            let begin = Instant::now();
            seen(&daemon, "b", "absent")?;
            took.push(begin.elapsed());
            let stations = daemon.cli().stations()?;
            ensure!(stations.iter().all(|station| station.port != "b"), "its stations were kept: {stations:?}");
            // A stranger in between gets neither the port nor its frames, whatever index the kernel gives it.
            let name = format!("stranger{number}");
            let stranger = Station::plain(&name)?;
            arena.ip(&format!("link set dev {name} up addrgenmode none"))?;
            a.send(&Builder::new(frames::station(9), MacAddr::BROADCAST).number(1000).build())?;
            let again = Station::plain("b")?;
            seen(&daemon, "b", "up")?;
            says(&a, &again, number)?;
            says(&again, &a, number + 100)?;
            ensure!(stranger.drain()?.iter().all(|frame| frames::number_of(frame).is_none()), "a stranger was served");
            held = Some(again);
        }
        took.sort();
        ensure!(took[took.len() / 2] < wait::here(PROMISE), "{took:?}");
        daemon.stop(arena)
    });
}

#[test]
fn a_renamed_netdev_is_no_longer_the_port_and_is_again_under_its_old_name() {
    Arena::run(&[Need::Bpf], |arena| {
        let daemon = Daemon::start(arena, Mode::Kernel)?;
        let (a, b) = (topology::station(&daemon, "a")?, topology::station(&daemon, "b")?);
        says(&a, &b, 1)?;
        arena.ip("link set dev b down")?;
        arena.ip("link set dev b name elsewhere")?;
        seen(&daemon, "b", "absent")?;
        // The host's own stack stays silent, or what it queues in the tap before the switch takes it is read afterwards,
        // and only then counted by the kernel as transmitted.
        arena.ip("link set dev elsewhere addrgenmode none")?;
        arena.ip("link set dev elsewhere name b")?;
        arena.ip("link set dev b up")?;
        seen(&daemon, "b", "up")?;
        says(&a, &b, 2)?;
        daemon.stop(arena)
    });
}

#[test]
fn a_netdev_moved_to_another_namespace_is_absent() {
    Arena::run(&[Need::Bpf], |arena| {
        let daemon = Daemon::start(arena, Mode::Kernel)?;
        arena.ip("link add v0 type veth peer name v1")?;
        arena.ip("link set dev v1 up")?;
        topology::attach(&daemon, "v0")?;
        let away = weft_tests::Namespace::new("away")?;
        arena.ip("link set dev v0 netns away")?;
        seen(&daemon, "v0", "absent")?;
        drop(away);
        daemon.cli().run("port del v0")?;
        daemon.stop(arena)
    });
}

#[test]
fn a_tap_nobody_holds_has_no_carrier_until_a_guest_opens_it() {
    Arena::run(&[Need::Bpf], |arena| {
        let daemon = Daemon::start(arena, Mode::Kernel)?;
        daemon.cli().run("port add guest --tap vm0")?;
        seen(&daemon, "guest", "no_carrier")?;
        let vm = Station::offloading("vm0")?;
        seen(&daemon, "guest", "up")?;
        let b = topology::station(&daemon, "b")?;
        says(&vm, &b, 1)?;
        says(&b, &vm, 2)?;
        drop(vm);
        seen(&daemon, "guest", "no_carrier")?;
        daemon.cli().run("port del guest")?;
        ensure!(!arena.has_netdev("vm0"), "the tap we made was left behind");
        daemon.stop(arena)
    });
}

#[test]
fn a_fresh_tap_is_sent_nothing_by_the_host() {
    Arena::run(&[Need::Bpf], |arena| {
        let daemon = Daemon::start(arena, Mode::Kernel)?;
        let (a, b) = (topology::station(&daemon, "a")?, topology::station(&daemon, "b")?);
        says(&a, &b, 1)?;
        says(&b, &a, 2)?;
        daemon.settle()?;
        for station in [&a, &b] {
            let strange: Vec<_> = station.drain()?.into_iter().filter(|f| frames::number_of(f).is_none()).collect();
            ensure!(strange.is_empty(), "the host sent {strange:02x?}");
        }
        for port in daemon.cli().ports()? {
            ensure!(port.egress.frames == 1, "{port:?}");
            ensure!(arena.statistic(&port.name, "tx_packets")? == 1, "somebody else sent by {}", port.name);
        }
        daemon.stop(arena)
    });
}
