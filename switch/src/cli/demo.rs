//! `weft demo`: a switch on this host to look at, in one minute.
//!
//! A script of real commands, each shown as it is run: the real daemon as a child, two containers (network namespaces), a
//! port of the host itself, a micro guest where `/dev/kvm` and its monitor are and, where a kernel is given, a Linux guest
//! under QEMU. They ping and fetch from each other. Everything has a guard, so that Ctrl-C, a failed check or an error removes every trace; what a killed demo
//! left behind is removed by the next one.
//!
//! Addresses are of 198.18.77.0/24 (RFC 2544: never routed).

mod guest;
mod stage;
mod talk;

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::signal::unix::{Signal, SignalKind, signal};

use guest::Guest;
use stage::{Namespace, Stage};
use talk::Server;

/// The host's own address in the segment.
const HOST: &str = "198.18.77.1";
const BLUE: &str = "198.18.77.11";
const GREEN: &str = "198.18.77.12";
const GUEST: &str = "198.18.77.13";
const MICRO: &str = "198.18.77.14";

/// Show namespaces and guests that talk, to look around in one minute
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Options {
    /// The instance's name; all that is made is named after it.
    #[arg(long, default_value = "weftdemo", value_parser = instance)]
    instance: String,
    /// `auto`, `kernel` or `userspace`.
    #[arg(long, default_value = "auto")]
    datapath: String,
    /// A Linux kernel to boot as a guest under QEMU; needs --guest-initrd.
    #[arg(long, requires = "guest_initrd")]
    guest_kernel: Option<PathBuf>,
    /// Its initramfs; it is given `weft.address=ADDRESS/24` and must serve HTTP on port 80.
    #[arg(long, requires = "guest_kernel")]
    guest_initrd: Option<PathBuf>,
    /// Boot the guest on /dev/kvm instead of QEMU's own translator.
    #[arg(long)]
    guest_kvm: bool,
    /// End after the checks instead of waiting for Ctrl-C; the exit code says whether they passed.
    #[arg(long)]
    exit: bool,
}

/// An instance's name that leaves room for what the demo adds to it.
fn instance(text: &str) -> Result<String, String> {
    if text.len() > 13 {
        return Err("at most 13 characters, so that interfaces can be named after it".to_owned());
    }
    text.parse::<crate::port::IfName>().map(String::from).map_err(|error| error.to_string())
}

/// Shows the switch at work.
///
/// # Errors
/// Something could not be set up, or a check failed; what was made is gone again.
pub(super) fn run(demo: &Options) -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        bail!("the demo makes namespaces, taps and eBPF programs and needs root; run it with sudo");
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let _context = runtime.enter();
    // Taken before anything is made, so that no signal can end us without the guards.
    let mut signals = [SignalKind::interrupt(), SignalKind::terminate()].map(signal);
    let outcome = show(demo, || runtime.block_on(wait(&mut signals)));
    say(&format!("{} is gone, and every trace of it.", demo.instance))?;
    outcome
}

/// Waits for the first of the signals.
async fn wait(signals: &mut [io::Result<Signal>; 2]) -> Result<()> {
    let [interrupt, terminate] = signals;
    let (Ok(interrupt), Ok(terminate)) = (interrupt, terminate) else { bail!("signals cannot be listened to") };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    Ok(())
}

/// The play; the guards that it holds end with it.
fn show(demo: &Options, wait: impl FnOnce() -> Result<()>) -> Result<()> {
    let name = &demo.instance;
    Stage::clear(name)?;
    // Made before the daemon, so that they go after it.
    let blue = Namespace::new(&format!("{name}-blue"))?;
    let green = Namespace::new(&format!("{name}-green"))?;
    say("The daemon, and its ports:")?;
    let stage = Stage::set(name, &demo.datapath)?;

    let host = format!("{name}-h");
    for (port, container, address) in [("blue", &blue, BLUE), ("green", &green, GREEN)] {
        let inside = container.name();
        stage.weft(&format!("port add {port} --netns {inside} --address {address}/24 --label kind=container"))?;
    }
    stage.weft(&format!("port add host --host --ifname {host} --address {HOST}/24"))?;
    let micro = boot_micro(demo, &stage)?;
    let guest = boot(demo, &stage)?;

    let _servers = [
        Server::start(Some(&blue), BLUE, "Hello from the container blue.")?,
        Server::start(Some(&green), GREEN, "Hello from the container green.")?,
        Server::start(None, HOST, "Hello from the host.")?,
    ];
    say("\nThey talk:")?;
    let mut pairs = vec![
        (Some(&blue), "blue", GREEN, "green"),
        (Some(&green), "green", HOST, "host"),
        (None, "host", BLUE, "blue"),
    ];
    if guest.is_some() {
        pairs.extend([(Some(&blue), "blue", GUEST, "guest"), (None, "host", GUEST, "guest")]);
    }
    for (from, from_name, address, to_name) in pairs {
        ping(from, from_name, address, to_name)?;
        let page = talk::fetch(from, address).with_context(|| format!("{from_name} cannot fetch from {to_name}"))?;
        say(&format!("  http  {from_name:>5} → {to_name:<5}  {page}"))?;
    }
    // It has no TCP.
    if micro.is_some() {
        ping(Some(&blue), "blue", MICRO, "micro")?;
        ping(None, "host", MICRO, "micro")?;
    }

    say("\nWhat the switch saw:")?;
    stage.weft("port list")?;
    stage.weft("flows --protocol tcp --protocol icmp --last 6")?;
    stage.weft("explain blue green")?;
    let laws = stage.quietly("ledger --settle")?.lines().count().saturating_sub(1);
    say(&format!("    {laws} laws hold: every frame that came in is accounted for"))?;
    if demo.exit {
        return Ok(());
    }
    say(&next(demo, guest.is_some()))?;
    wait()
}

/// Pings, and shows how long it took.
fn ping(from: Option<&Namespace>, from_name: &str, address: &str, to_name: &str) -> Result<()> {
    let time = talk::ping(from, address).with_context(|| format!("{from_name} cannot ping {to_name}"))?;
    say(&format!("  ping  {from_name:>5} → {to_name:<5}  {time}"))
}

/// Boots the micro guest where that can be. Where it cannot, the demo says why and goes on.
fn boot_micro(demo: &Options, stage: &Stage) -> Result<Option<Guest>> {
    let monitor = match guest::monitor() {
        Ok(monitor) => monitor,
        Err(why) => {
            say(&format!("  (no micro guest: {why:#})"))?;
            return Ok(None);
        }
    };
    let tap = format!("{}-m", demo.instance);
    stage.weft(&format!("port add micro --tap {tap} --mac {} --label kind=guest", guest::MICRO_MAC))?;
    let booted = Guest::boot_micro(&monitor, &tap, MICRO, &stage.folder()).and_then(|mut guest| {
        let took = talk::answers(MICRO, Duration::from_secs(20), || guest.check())?;
        Ok((guest, took))
    });
    match booted {
        Ok((guest, took)) => {
            say(&format!("  a micro guest on /dev/kvm answers after {:.1} s", took.as_secs_f64()))?;
            Ok(Some(guest))
        }
        Err(why) => {
            say(&format!("  (no micro guest: {why:#}; its tap waits for a VMM)"))?;
            Ok(None)
        }
    }
}

/// Boots the Linux guest where a kernel is given.
fn boot(demo: &Options, stage: &Stage) -> Result<Option<Guest>> {
    let (Some(kernel), Some(initrd)) = (&demo.guest_kernel, &demo.guest_initrd) else {
        say("  (no Linux guest: give --guest-kernel and --guest-initrd, or use `cargo xtask demo`)")?;
        return Ok(None);
    };
    let tap = format!("{}-g", demo.instance);
    stage.weft(&format!("port add guest --tap {tap} --mac {} --label kind=guest", guest::MAC))?;
    let address = format!("{GUEST}/24");
    let Some(mut guest) = Guest::boot(&tap, kernel, initrd, &address, &stage.folder(), demo.guest_kvm)? else {
        say("  (no Linux guest: qemu-system-x86_64 is not there; its tap waits for a VMM)")?;
        return Ok(None);
    };
    say("  a Linux guest boots under QEMU …")?;
    let booted = talk::serves(GUEST, Duration::from_mins(2), || guest.check()).context("the guest did not come up")?;
    say(&format!("  … and answers after {:.1} s", booted.as_secs_f64()))?;
    Ok(Some(guest))
}

/// What to type next.
fn next(demo: &Options, guest: bool) -> String {
    let name = &demo.instance;
    let page = if guest { GUEST } else { BLUE };
    let lines = [
        (format!("weft --name {name} port list -o wide"), "the ports and what they carried"),
        (format!("weft --name {name} top"), "all of it, once a second"),
        (format!("weft --name {name} flows -f"), "conversations as they end"),
        (format!("weft --name {name} capture -w - | tshark -r -"), "their frames"),
        (format!("weft --name {name} drops"), "what did not arrive, and why"),
        (format!("weft --name {name} ledger"), "whether the books balance"),
        (format!("ip netns exec {name}-blue ping {GREEN}"), "traffic to look at"),
        (format!("curl http://{page}/"), "a page through the switch"),
    ];
    let lines = lines.map(|(command, why)| format!("  {command:<48}  {why}")).join("\n");
    format!("\nNow, in another terminal:\n{lines}\n\nCtrl-C ends it and removes every trace.")
}

/// A line for the person who looks.
fn say(text: &str) -> Result<()> {
    writeln!(io::stdout().lock(), "{text}").context("nobody reads what the demo says")
}
