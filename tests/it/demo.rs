//! The demo, without its Linux guest: what it shows is so, and nothing of it stays.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Result, ensure};
use rustix::process::Signal;
use weft_tests::command::{self, Running};
use weft_tests::{Arena, Cli, Need, wait};

/// Nothing that the demo made is there.
fn nothing_stays(arena: &Arena) -> Result<()> {
    ensure!(arena.netdevs()?.is_empty(), "{:?}", arena.netdevs()?);
    ensure!(command::run("ip netns list")?.trim().is_empty(), "a namespace was left behind");
    for path in ["/run/weft-demo", "/run/weft/weftdemo.sock", "/sys/fs/bpf/weft/weftdemo"] {
        ensure!(!std::fs::exists(path)?, "{path} was left behind");
    }
    Ok(())
}

fn shows_and_goes(datapath: &str) {
    Arena::run(&[Need::Bpf], |arena| {
        let weft = Cli::new("weftdemo")?;
        let shown = command::text(Command::new(weft.binary()).args(["demo", "--exit", "--datapath", datapath]))?;
        for line in ["http   blue → green  Hello from the container green.", "http   host → blue", "laws hold"] {
            ensure!(shown.contains(line), "'{line}' is not in {shown}");
        }
        // The micro guest is there exactly where KVM and its monitor are.
        let micro = Path::new("/dev/kvm").exists() && weft.binary().with_file_name("vmm-harness").is_file();
        ensure!(shown.contains("ping   blue → micro") == micro, "{shown}");
        ensure!(shown.contains("(no micro guest: ") != micro, "{shown}");
        nothing_stays(arena)
    });
}

#[test]
fn the_demo_shows_stations_that_talk_and_leaves_nothing() {
    shows_and_goes("kernel");
}

#[test]
fn the_demo_shows_the_same_without_cached_verdicts() {
    shows_and_goes("userspace");
}

#[test]
fn the_demo_goes_on_without_kvm_and_says_so() {
    Arena::run(&[Need::Bpf, Need::Kvm], |arena| {
        arena.forbid_device("/dev/kvm")?;
        let mut demo = Command::new(Cli::new("weftdemo")?.binary());
        let shown = command::text(demo.args(["demo", "--exit"]))?;
        for line in ["(no micro guest: /dev/kvm: Permission denied", "http   host → blue", "laws hold"] {
            ensure!(shown.contains(line), "'{line}' is not in {shown}");
        }
        nothing_stays(arena)
    });
}

#[test]
fn what_a_killed_demo_left_is_removed_by_the_next() {
    Arena::run(&[Need::Bpf], |arena| {
        let weft = Cli::new("weftdemo")?;
        let mut killed = Running::start(Command::new(weft.binary()).arg("demo").stdout(Stdio::null()))?;
        wait::until_true("the demo's ports", wait::SOON, || Ok(weft.ports().is_ok_and(|ports| ports.len() >= 3)))?;
        killed.signal(Signal::KILL)?;
        killed.wait(wait::SOON)?;
        command::text(Command::new(weft.binary()).args(["demo", "--exit"]))?;
        nothing_stays(arena)
    });
}

#[test]
fn an_interrupt_ends_the_demo_and_removes_every_trace() {
    Arena::run(&[Need::Bpf], |arena| {
        let weft = Cli::new("weftdemo")?;
        let mut demo = Command::new(weft.binary());
        let mut demo = Running::start(demo.arg("demo").stdout(Stdio::null()))?;
        // The host port comes after the containers'; interrupting at once would only test the start.
        wait::until_true("the demo's ports", wait::SOON, || Ok(weft.ports().is_ok_and(|ports| ports.len() >= 3)))?;
        demo.signal(Signal::INT)?;
        let status = demo.wait(wait::SOON)?;
        ensure!(status.success(), "{status}");
        nothing_stays(arena)
    });
}
