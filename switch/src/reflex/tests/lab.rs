//! A network to try the programs in: a namespace for the switch, two for containers, a bpffs that nobody else sees.
//!
//! A test runs itself again inside, so that everything it leaves behind goes with it. Without root it says so and counts
//! as skipped, or fails when `WEFT_TESTS_REQUIRE` names `bpf`.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use switch_common::{MacAddr, PORT_UP, PairKey, PairVerdict, PortConfig, PortId, Settings};

use crate::reflex::{Adopted, Attachment, Hook, Load, Reflex, VerdictMap};

const INSIDE: &str = "WEFT_REFLEX_LAB";

/// The inside of a laboratory.
pub(super) struct Lab {
    name: String,
}

/// Goes inside for the named test: `None` outside, when the test has run there, or cannot.
pub(super) fn enter(test: &str) -> Option<Lab> {
    if let Ok(name) = std::env::var(INSIDE) {
        // Pins of our own, whatever this machine has mounted there.
        run("mount -t bpf bpf /sys/fs/bpf");
        return Some(Lab { name });
    }
    let required = std::env::var("WEFT_TESTS_REQUIRE").is_ok_and(|list| list.split(',').any(|word| word == "bpf"));
    if !rustix::process::geteuid().is_root() {
        assert!(!required, "WEFT_TESTS_REQUIRE names bpf, but this is not root");
        eprintln!("skipped: {test} loads eBPF programs, which takes root");
        return None;
    }
    let outside = Outside::new(test);
    let output = Command::new("nsenter")
        .arg(format!("--net=/run/netns/{}", outside.space("s")))
        .args(["unshare", "--mount", "--"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", &format!("reflex::tests::{test}"), "--nocapture", "--test-threads=1"])
        .env(INSIDE, &outside.name)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    eprint!("{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{test} failed inside its namespace");
    assert!(said.contains("1 passed"), "there is no test {test}");
    None
}

/// The namespaces, removed when the test is over.
struct Outside {
    name: String,
}

impl Outside {
    fn new(test: &str) -> Self {
        let number = test.bytes().fold(0_u32, |sum, byte| sum.wrapping_mul(31).wrapping_add(u32::from(byte)));
        let outside = Self { name: format!("reflex-{}-{number:x}", std::process::id()) };
        for space in ["s", "a", "b"] {
            run(&format!("ip netns add {}", outside.space(space)));
        }
        outside
    }

    fn space(&self, which: &str) -> String {
        format!("{}-{which}", self.name)
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        for space in ["s", "a", "b"] {
            Command::new("ip").args(["netns", "del", &self.space(space)]).status().ok();
        }
    }
}

/// One container's side of the network.
#[derive(Clone, Copy)]
pub(super) struct Station {
    pub(super) id: PortId,
    pub(super) space: &'static str,
    pub(super) port: &'static str,
    pub(super) mac: MacAddr,
    pub(super) address: &'static str,
}

pub(super) const A: Station = Station {
    id: PortId::new(1).unwrap(),
    space: "a",
    port: "pa",
    mac: MacAddr([0x02, 0, 0, 0, 0, 0x0a]),
    address: "198.18.0.1",
};
pub(super) const B: Station = Station {
    id: PortId::new(2).unwrap(),
    space: "b",
    port: "pb",
    mac: MacAddr([0x02, 0, 0, 0, 0, 0x0b]),
    address: "198.18.0.2",
};

impl Lab {
    /// Both stations with a veth pair each, neighbours known, the host ends up and mute.
    pub(super) fn wire(&self) {
        for (here, there) in [(A, B), (B, A)] {
            let space = self.space(here.space);
            let port = here.port;
            run(&format!("ip link add {port} type veth peer name eth0 netns {space} address {}", here.mac));
            run(&format!("sysctl -qw net.ipv6.conf.{port}.disable_ipv6=1"));
            run(&format!("ip link set {port} arp off up"));
            run(&format!("ip netns exec {space} sysctl -qw net.ipv6.conf.eth0.disable_ipv6=1"));
            run(&format!("ip -n {space} address add {}/24 dev eth0", here.address));
            run(&format!("ip -n {space} link set eth0 up"));
            run(&format!("ip -n {space} link set lo up"));
            run(&format!("ip -n {space} neigh replace {} lladdr {} dev eth0 nud permanent", there.address, there.mac));
        }
    }

    /// The name of a namespace.
    pub(super) fn space(&self, which: &str) -> String {
        format!("{}-{which}", self.name)
    }

    /// Where this instance's pins are.
    pub(super) fn pins(&self) -> PathBuf {
        Path::new("/sys/fs/bpf/weft").join(&self.name)
    }

    /// Opens the instance.
    pub(super) fn open(&self, hook: Hook) -> (Reflex, Adopted) {
        self.open_as(Load { hook, ..Load::default() })
    }

    /// Opens the instance, made in a way of the test's.
    pub(super) fn open_as(&self, how: Load) -> (Reflex, Adopted) {
        Reflex::open(&self.pins(), how).unwrap()
    }

    /// Sets a command off in a station's namespace.
    pub(super) fn spawn(&self, station: Station, command: &str) -> Child {
        Command::new("ip")
            .args(["netns", "exec", &self.space(station.space)])
            .args(command.split_whitespace())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap()
    }

    /// Runs a command in a station's namespace; its output.
    pub(super) fn run(&self, station: Station, command: &str) -> String {
        run(&format!("ip netns exec {} {command}", self.space(station.space)))
    }
}

/// Runs a command, which must succeed; its output.
pub(super) fn run(command: &str) -> String {
    let mut words = command.split_whitespace();
    let output = Command::new(words.next().unwrap()).args(words).output().unwrap();
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The number of an interface here.
pub(super) fn ifindex(name: &str) -> u32 {
    run(&format!("ip -o link show dev {name}")).split(':').next().unwrap().trim().parse().unwrap()
}

/// How many times longer than usual this machine may take.
pub(super) fn patience() -> u32 {
    std::env::var("WEFT_TESTS_PATIENCE").ok().and_then(|times| times.parse().ok()).unwrap_or(1)
}

/// Waits until something holds, ten seconds at most; `WEFT_TESTS_PATIENCE` multiplies them.
pub(super) fn wait_for(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10) * patience();
    while !holds() {
        assert!(Instant::now() < deadline, "waited in vain for: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Settings without a brain.
pub(super) fn settings() -> Settings {
    Settings { flow_port_max: 1000, flow_idle_jiffies: 60_000, flow_closed_jiffies: 10_000, ..Settings::default() }
}

/// The pair of what goes from one station to the other.
pub(super) fn pair(from: Station, to: Station) -> PairKey {
    PairKey { destination: to.mac.0, source: from.mac.0, ingress: from.id.get(), vlan: 0 }
}

/// Tells a kernel half of both stations, and what to do with what goes between them.
pub(super) fn teach(reflex: &mut Reflex, action: u8) -> VerdictMap {
    let mut verdicts = reflex.verdicts().unwrap();
    reflex.set_settings(settings()).unwrap();
    for (here, there) in [(A, B), (B, A)] {
        let ifindex = ifindex(here.port);
        reflex.set_port(here.id, PortConfig { ifindex, flags: PORT_UP, ..PortConfig::default() }).unwrap();
        reflex.link(ifindex, here.id).unwrap();
        verdicts.insert(&pair(here, there), &forward(there, action)).unwrap();
    }
    verdicts
}

/// Attaches both stations' ports.
pub(super) fn attach(reflex: &mut Reflex) -> [Attachment; 2] {
    [A, B].map(|station| reflex.attach_port(station.id, station.port, ifindex(station.port)).unwrap())
}

/// A counter of a netdev's own, here or in a station's namespace.
pub(super) fn netdev_counter(lab: &Lab, space: Option<Station>, netdev: &str, name: &str) -> u64 {
    let path = format!("/sys/class/net/{netdev}/statistics/{name}");
    match space {
        Some(station) => lab.run(station, &format!("cat {path}")),
        // The sysfs that is mounted here shows another namespace's netdevs.
        None => run(&format!("ip netns exec {} cat {path}", lab.space("s"))),
    }
    .trim()
    .parse()
    .unwrap()
}

/// Forward to a station's port.
pub(super) fn forward(to: Station, action: u8) -> PairVerdict {
    PairVerdict {
        ifindex: ifindex(to.port),
        frame_bytes_max: 1514,
        egress: to.id.get(),
        action,
        ..PairVerdict::default()
    }
}
