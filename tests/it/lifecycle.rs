//! Death, rebirth and orderly ends.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::{Context as _, Result, ensure};
use weft_tests::command::run;
use weft_tests::frames::{self, Builder, MacAddr};
use weft_tests::stream::Stream;
use weft_tests::topology::{self, Container};
use weft_tests::{Arena, Cli, Daemon, Mode, Need, Station, wait};

/// Two stations that know each other, in both directions, by verdicts in effect.
fn acquainted(daemon: &Daemon) -> Result<(Station, Station)> {
    let (a, b) = (topology::station(daemon, "a")?, topology::station(daemon, "b")?);
    b.send(&Builder::new(frames::station(2), MacAddr::BROADCAST).number(0).build())?;
    a.receive_until(wait::SOON, |frame| frames::number_of(frame) == Some(0))?;
    there(&a, &b).pump(499)?;
    back(&a, &b).pump(499)?;
    // A verdict is followed from the first frame on that finds nothing of its port in flight: this one.
    daemon.settle()?;
    there(&a, &b).pump(1)?;
    back(&a, &b).pump(1)?;
    Ok((a, b))
}

fn there<'a>(a: &'a Station, b: &'a Station) -> Stream<'a> {
    Stream::new(a, b, Builder::new(frames::station(1), frames::station(2)))
}

fn back<'a>(a: &'a Station, b: &'a Station) -> Stream<'a> {
    Stream::new(b, a, Builder::new(frames::station(2), frames::station(1)))
}

/// Kills the daemon and starts another, over and over, while both directions carry numbered frames.
fn survive(arena: &Arena, mode: Mode) -> Result<()> {
    let mut daemon = Daemon::start(arena, mode)?;
    let (a, b) = acquainted(&daemon)?;
    let stop = AtomicBool::new(false);
    // The streams take what processor time the daemons leave: else they keep, on two processors, the next one from its start.
    let carry = |mut stream: Stream<'_>| {
        rustix::process::nice(19)?;
        stream.pump_until(&stop)
    };
    let carried = thread::scope(|scope| {
        let one = scope.spawn(|| carry(there(&a, &b)));
        let other = scope.spawn(|| carry(back(&a, &b)));
        let killed = (0..5).try_for_each(|_| {
            daemon.kill()?;
            daemon.launch()
        });
        stop.store(true, Ordering::Relaxed);
        let one = one.join().expect("a stream does not panic");
        let other = other.join().expect("a stream does not panic");
        killed.and(Ok((one?, other?)))
    })?;
    ensure!(carried.0 > 0 && carried.1 > 0, "{carried:?}");
    // Adopted, not begun anew: names, numbers and totals are what they were, to the frame.
    let (at_a, at_b) = (daemon.cli().port("a")?, daemon.cli().port("b")?);
    ensure!((at_a.id, at_b.id) == (1, 2), "{at_a:?} {at_b:?}");
    ensure!(at_a.ingress.frames == 500 + carried.0, "{at_a:?} after {carried:?}");
    ensure!(at_b.ingress.frames == 501 + carried.1, "{at_b:?} after {carried:?}");
    // And the newcomer learns: a third station is reached.
    let c = topology::station(&daemon, "c")?;
    c.send(&Builder::new(frames::station(3), MacAddr::BROADCAST).number(9).build())?;
    a.receive_until(wait::SOON, |frame| frames::number_of(frame) == Some(9))?;
    daemon.stop(arena)
}

#[test]
fn no_established_frame_is_lost_when_the_daemon_is_killed_and_another_adopts() {
    Arena::run(&[Need::Bpf], |arena| survive(arena, Mode::Kernel));
}

#[test]
fn no_established_frame_is_lost_when_the_daemon_is_killed_with_clsact() {
    Arena::run(&[Need::Bpf], |arena| survive(arena, Mode::Clsact));
}

#[test]
fn what_was_punted_to_a_dead_brain_is_booked_as_unobserved_and_the_books_balance() {
    Arena::run(&[Need::Bpf], |arena| {
        let mut daemon = Daemon::start(arena, Mode::Kernel)?;
        let (a, b) = acquainted(&daemon)?;
        daemon.kill()?;
        for number in 0..100 {
            a.send(&Builder::new(frames::station(1000 + number), frames::station(3)).build())?;
        }
        there(&a, &b).pump(1000)?;
        daemon.launch()?;
        ensure!(daemon.cli().port("a")?.ingress.frames == 500 + 100 + 1000);
        daemon.stop(arena)
    });
}

#[test]
fn containers_keep_talking_while_the_daemon_is_dead() {
    Arena::run(&[Need::Bpf], |arena| {
        let mut daemon = Daemon::start(arena, Mode::Kernel)?;
        let (one, two) = (Container::new(&daemon, 1)?, Container::new(&daemon, 2)?);
        one.ping(two.v4())?;
        two.ping(one.v4())?;
        daemon.kill()?;
        one.ping(two.v4())?;
        two.ping(one.v4())?;
        daemon.launch()?;
        one.ping(two.v4())?;
        drop((one, two));
        daemon.stop(arena)
    });
}

#[test]
fn an_orderly_stop_with_remove_leaves_guest_taps_as_they_were_found() {
    Arena::run(&[Need::Bpf], |arena| {
        let tap = Station::plain("guest")?;
        arena.ip("link set dev guest up")?;
        let found = || -> Result<String> {
            // The kernel notices a carrier in its own time.
            wait::until_true("guest is up", wait::SOON, || Ok(arena.ip("link show dev guest")?.contains("LOWER_UP")))?;
            Ok(arena.ip("-d link show dev guest")? + &run("sysctl net.ipv6.conf.guest.disable_ipv6")?)
        };
        let before = found()?;
        let mut daemon = Daemon::start_with(arena, "weft0", Mode::Kernel, &["--on-stop", "remove"])?;
        topology::attach(&daemon, "guest")?;
        daemon.cli().run("port add made --tap made0")?;
        ensure!(arena.has_netdev("made0"), "`--tap` made no tap");
        daemon.settle()?;
        daemon.terminate()?;
        daemon.assert_gone(arena)?;
        let after = found()?;
        ensure!(before == after, "before:\n{before}\nafter:\n{after}");
        ensure!(arena.netdevs()? == ["guest"], "{:?}", arena.netdevs()?);
        drop(tap);
        Ok(())
    });
}

#[test]
fn an_orderly_stop_with_keep_leaves_traffic_running_until_the_next_daemon() {
    Arena::run(&[Need::Bpf], |arena| {
        let mut daemon = Daemon::start_with(arena, "weft0", Mode::Kernel, &["--on-stop", "keep"])?;
        let (a, b) = acquainted(&daemon)?;
        daemon.terminate()?;
        there(&a, &b).pump(2000)?;
        // Nobody decides about strangers now, and that is said.
        for number in 0..10 {
            a.send(&Builder::new(frames::station(77 + number), frames::station(88)).build())?;
        }
        daemon.launch()?;
        ensure!(daemon.cli().drops("a", "brain_absent")? == 10, "{:?}", daemon.cli().port("a")?);
        there(&a, &b).pump(2000)?;
        ensure!(daemon.cli().port("b")?.egress.frames >= 4500);
        daemon.settle()?;
        daemon.terminate()?;
        daemon.cli().run("down")?;
        daemon.assert_gone(arena)
    });
}

#[test]
fn down_takes_a_living_instance_away() {
    Arena::run(&[Need::Bpf], |arena| {
        let mut daemon = Daemon::start_with(arena, "weft0", Mode::Kernel, &["--on-stop", "keep"])?;
        let _stations = acquainted(&daemon)?;
        daemon.settle()?;
        daemon.cli().run("down")?;
        daemon.await_end()?;
        daemon.assert_gone(arena)
    });
}

#[test]
fn down_takes_a_dead_instance_away() {
    Arena::run(&[Need::Bpf], |arena| {
        let mut daemon = Daemon::start(arena, Mode::Kernel)?;
        let _stations = acquainted(&daemon)?;
        let container = Container::new(&daemon, 1)?;
        daemon.settle()?;
        daemon.kill()?;
        daemon.cli().run("down")?;
        daemon.assert_gone(arena)?;
        ensure!(!container.namespace().run("ip -br link")?.contains("eth0"), "the container's interface was left");
        // A second time there is nothing to take away.
        let refusal = daemon.cli().output("down")?;
        ensure!(matches!(refusal.status.code(), Some(0 | 4)), "{refusal:?}");
        Ok(())
    });
}

#[test]
fn two_instances_share_a_host_and_do_not_meet() {
    Arena::run(&[Need::Bpf], |arena| {
        let first = Daemon::start_with(arena, "left", Mode::Kernel, &["--metrics", "127.0.0.1:9901"])?;
        let second = Daemon::start_with(arena, "right", Mode::Kernel, &["--metrics", "127.0.0.1:9902"])?;
        let (a, b) = (topology::station(&first, "a")?, topology::station(&first, "b")?);
        let c = topology::station(&second, "c")?;
        a.send(&Builder::new(frames::station(1), MacAddr::BROADCAST).number(1).build())?;
        b.receive_until(wait::SOON, |frame| frames::number_of(frame) == Some(1))?;
        second.settle()?;
        ensure!(c.drain()?.is_empty(), "a frame crossed from one instance to the other");
        first.stop(arena)?;
        second.stop(arena)
    });
}

#[test]
fn a_second_daemon_on_the_same_instance_is_refused_and_names_the_first() {
    Arena::run(&[Need::Bpf], |arena| {
        let daemon = Daemon::start(arena, Mode::Kernel)?;
        let (a, b) = acquainted(&daemon)?;
        let status = daemon.spawn()?.wait(wait::SOON)?;
        ensure!(status.code() == Some(1), "{status}");
        let pid = daemon.pid()?.to_string();
        ensure!(daemon.log().contains(&pid), "process {pid} is not named:\n{}", daemon.log());
        there(&a, &b).pump(100)?;
        daemon.stop(arena)
    });
}

#[test]
fn without_a_daemon_the_command_line_says_so_with_exit_code_3() {
    Arena::run(&[], |_| {
        let refusal = Cli::new("nobody")?.refused("port list")?;
        ensure!(refusal.code == 3, "{refusal:?}");
        let code = Cli::new("nobody")?.output("no-such-command")?.status.code().context("killed")?;
        ensure!(code == 2, "{code}");
        Ok(())
    });
}

#[test]
fn a_spoofer_gains_nothing_by_a_restart() {
    Arena::run(&[Need::Bpf], |arena| {
        let mut daemon = Daemon::start(arena, Mode::Kernel)?;
        let victim = topology::station(&daemon, "victim")?;
        let asker = topology::station(&daemon, "asker")?;
        let spoofer = Station::plain("spoofer")?;
        daemon.cli().run(&format!("port add spoofer --netdev spoofer --mac {}", frames::station(66)))?;
        daemon.until_state("spoofer", "up", wait::SOON)?;
        let forged = Builder::new(frames::station(1), frames::station(2)).number(7).build();
        spoofer.send(&forged)?;
        wait::until_true("the refusal", wait::SOON, || Ok(daemon.cli().drops("spoofer", "spoofed_source")? == 1))?;
        daemon.kill()?;
        daemon.launch()?;
        // The victim has not spoken since: a frame for it floods, and so reaches it.
        asker.send(&Builder::new(frames::station(2), frames::station(1)).number(8).build())?;
        victim.receive_until(wait::SOON, |frame| frames::number_of(frame) == Some(8))?;
        daemon.stop(arena)
    });
}

#[test]
fn a_netdev_of_another_instance_is_refused_and_goes_on_there() {
    for mode in [Mode::Kernel, Mode::Clsact] {
        Arena::run(&[Need::Bpf], |arena| {
            let first = Daemon::start_with(arena, "left", mode, &["--metrics", "127.0.0.1:9903"])?;
            let second = Daemon::start_with(arena, "right", Mode::Kernel, &["--metrics", "127.0.0.1:9904"])?;
            let (a, b) = (topology::station(&first, "a")?, topology::station(&first, "b")?);
            let refusal = second.cli().refused("port add a --netdev a")?;
            ensure!(refusal.message.contains("another instance"), "{refusal:?}");
            ensure!(second.cli().ports()?.is_empty());
            a.send(&Builder::new(frames::station(1), MacAddr::BROADCAST).number(1).build())?;
            b.receive_until(wait::SOON, |frame| frames::number_of(frame) == Some(1))?;
            for daemon in [&first, &second] {
                ensure!(!daemon.log().contains("somebody set the punt tap down"), "{}", daemon.log());
            }
            first.stop(arena)?;
            second.stop(arena)
        });
    }
}
