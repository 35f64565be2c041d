//! Micro guests on KVM talk: to each other, to containers, to Linux.

use std::net::Ipv4Addr;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use weft_tests::frames;
use weft_tests::guest::{self, Guest, Kernel};
use weft_tests::micro::{self, Micro, Report};
use weft_tests::topology::Container;
use weft_tests::{Arena, Daemon, Mode, Need, requirements, wait};

/// Datagrams of a talk.
const COUNT: u64 = 1000;

/// Runs in both datapaths.
fn in_both_datapaths(body: impl Fn(&Arena, Mode) -> Result<()> + Sync) {
    for mode in [Mode::Kernel, Mode::Userspace] {
        Arena::run(&[Need::Bpf, Need::Kvm], |arena| body(arena, mode).with_context(|| format!("{mode:?}")));
    }
}

/// Guest 1 as a talker; all that it sent comes back, once, whole and in order.
fn talker(peer: &str) -> Result<Report> {
    let report = Micro::boot(1, &format!("--guest talker --peer {peer} --count {COUNT}"))?.finish()?;
    let said = ["sent", "returned", "reordered", "corrupt"].map(|name| report.guest(name));
    ensure!(said == [Some(COUNT), Some(COUNT), Some(0), Some(0)], "{report:?}");
    Ok(report)
}

#[test]
fn two_micro_guests_talk() {
    in_both_datapaths(|arena, mode| {
        let daemon = Daemon::start(arena, mode)?;
        for number in [1, 2] {
            micro::port(&daemon, number, &format!("--mac {}", frames::station(number.into())))?;
        }
        let echo = Micro::echo(&daemon, 2)?;
        let talk = talker("198.18.0.2")?;
        ensure!(daemon.cli().port("m1")?.ingress.frames == talk.monitor("tx_frames").unwrap_or(0), "{talk:?}");
        echo.kill()?;
        daemon.until_state("m2", "no_carrier", wait::SOON)?;
        daemon.stop(arena)
    });
}

#[test]
fn a_micro_guest_answers_a_container() {
    in_both_datapaths(|arena, mode| {
        let daemon = Daemon::start(arena, mode)?;
        let container = Container::new(&daemon, 1)?;
        micro::port(&daemon, 2, &format!("--mac {}", frames::station(2)))?;
        let echo = Micro::echo(&daemon, 2)?;
        // What was flooded before the guest held its tap is not this test's business.
        let drops = daemon.cli().port("m2")?.drops;
        for address in ["198.18.0.2", "2001:db8::2"] {
            let said = container.namespace().run(&format!("ping -n -q -c 400 -i 0.002 -W 10 {address}"))?;
            ensure!(said.contains(" 400 received"), "{said}");
        }
        let talk = container.talk(Ipv4Addr::new(198, 18, 0, 2), COUNT)?;
        ensure!(talk.is_perfect(COUNT), "{talk:?}");
        let port = daemon.cli().port("m2")?;
        ensure!(port.drops == drops, "{drops:?} became {port:?}");
        echo.kill()?;
        drop(container);
        daemon.stop(arena)
    });
}

/// Where the kernel's instruction emulator runs the guest at a million instructions a second, this is what its driver's
/// thrift is for.
#[test]
fn a_micro_guest_answers_200_pings_a_second() {
    in_both_datapaths(|arena, mode| {
        let daemon = Daemon::start(arena, mode)?;
        let container = Container::new(&daemon, 1)?;
        micro::port(&daemon, 2, "")?;
        let echo = Micro::echo(&daemon, 2)?;
        for address in ["198.18.0.2", "2001:db8::2"] {
            // The next one goes out when the answer is there.
            let said = container.namespace().run(&format!("ping -n -q -f -c {COUNT} -W 10 {address}"))?;
            ensure!(said.contains(&format!(" {COUNT} received")), "{said}");
            let took_ms = said.split_once("time ").and_then(|(_, rest)| rest.split_once("ms"));
            let took_ms: u64 = took_ms.with_context(|| said.clone())?.0.parse()?;
            let per_second = COUNT * 1000 / took_ms.max(1);
            eprintln!("{mode:?}: {per_second} pings per second of {address}");
            ensure!(per_second >= 200, "{said}");
        }
        echo.kill()?;
        drop(container);
        daemon.stop(arena)
    });
}

#[test]
fn a_micro_guest_talks_to_a_container() {
    in_both_datapaths(|arena, mode| {
        let daemon = Daemon::start(arena, mode)?;
        let container = Container::new(&daemon, 2)?;
        let echo = container.echo()?;
        micro::port(&daemon, 1, &format!("--mac {}", frames::station(1)))?;
        let report = talker("198.18.0.2")?;
        ensure!(daemon.cli().port("m1")?.ingress.frames == report.monitor("tx_frames").unwrap_or(0), "{report:?}");
        drop(echo);
        drop(container);
        daemon.stop(arena)
    });
}

#[test]
fn a_micro_guest_and_a_linux_guest_talk() -> Result<()> {
    if !requirements::met(&[Need::Root, Need::Bpf, Need::Kvm, Need::Qemu]) {
        return Ok(());
    }
    // Outside of the arena, where apt finds its lists and its mirror.
    let kernel = guest::kernel(Path::new(env!("CARGO_TARGET_TMPDIR")))?;
    in_both_datapaths(|arena, mode| with_linux(arena, mode, &kernel));
    Ok(())
}

fn with_linux(arena: &Arena, mode: Mode, kernel: &Kernel) -> Result<()> {
    const MAC: &str = "52:54:00:12:34:56";
    let daemon = Daemon::start(arena, mode)?;
    daemon.cli().run(&format!("port add linux --tap vm0 --mac {MAC}"))?;
    for number in [1, 2] {
        micro::port(&daemon, number, &format!("--mac {}", frames::station(number.into())))?;
    }
    let mut linux = Guest::boot(kernel, "vm0", MAC)?;
    daemon.until_state("linux", "up", wait::SOON)?;
    linux.run("echo 0 > /proc/sys/net/ipv6/conf/eth0/accept_dad")?;
    linux.run("ip link set eth0 up && ip addr add 198.18.0.100/24 dev eth0 && ip addr add 2001:db8::64/64 dev eth0")?;
    let echo = Micro::echo(&daemon, 2)?;
    let drops = daemon.cli().port("m2")?.drops;

    for ping in ["ping -c 100 -i 0.02 -W 10 198.18.0.2", "ping6 -c 100 -i 0.02 -W 10 2001:db8::2"] {
        let said = linux.run(ping)?;
        ensure!(said.contains(" 100 packets received"), "{said}");
    }
    // Who talks and who answers, both ways.
    let said = linux.run(&format!("numbered talk 198.18.0.2 {COUNT}"))?;
    ensure!(said == format!(r#"{{"sent":{COUNT},"returned":{COUNT},"reordered":0,"corrupt":0}}"#), "{said}");
    linux.run("numbered echo >/dev/null 2>&1 & until grep -q ':0007 ' /proc/net/udp; do usleep 10000; done")?;
    talker("198.18.0.100")?;

    let port = daemon.cli().port("m2")?;
    ensure!(port.drops == drops, "{drops:?} became {port:?}");
    echo.kill()?;
    linux.power_off()?;
    daemon.until_state("linux", "no_carrier", wait::SOON)?;
    daemon.stop(arena)
}
