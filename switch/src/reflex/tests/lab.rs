//! A network to try the programs in: a namespace for the switch, two for containers, a bpffs that nobody else sees.
//!
//! A test runs itself again inside, so that everything it leaves behind goes with it. Without root it says so and counts
//! as skipped, or fails when `WEFT_TESTS_REQUIRE` names `bpf`.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use switch_common::{MacAddr, PairKey, PairVerdict, PortConfig, PortId, SETTING_PUNT, Settings};

use crate::reflex::{Adopted, Hook, Reflex};

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
    let status = Command::new("nsenter")
        .arg(format!("--net=/run/netns/{}", outside.space("s")))
        .args(["unshare", "--mount", "--"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", &format!("reflex::tests::{test}"), "--nocapture", "--test-threads=1"])
        .env(INSIDE, &outside.name)
        .status()
        .unwrap();
    assert!(status.success(), "{test} failed inside its namespace");
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
            let _ = Command::new("ip").args(["netns", "del", &self.space(space)]).status();
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

pub(super) const PUNT_TAP: &str = "punt";

impl Lab {
    /// Both stations with a veth pair each, neighbours known, the host ends up and mute.
    pub(super) fn wire(&self) {
        run(&format!("ip tuntap add {PUNT_TAP} mode tap"));
        run(&format!("ip link set {PUNT_TAP} arp off up"));
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
        PathBuf::from("/sys/fs/bpf/weft/lab")
    }

    /// Opens the instance.
    pub(super) fn open(&self, hook: Hook) -> (Reflex, Adopted) {
        Reflex::open(&self.pins(), hook).unwrap()
    }

    /// Sets a command off in a station's namespace.
    pub(super) fn spawn(&self, station: Station, command: &str) -> Child {
        let words = command.split_whitespace();
        Command::new("ip")
            .args(["netns", "exec", &self.space(station.space)])
            .args(words)
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
    std::fs::read_to_string(format!("/proc/self/net/dev_snmp6/{name}")).map_or_else(
        |_| {
            let line = run(&format!("ip -o link show dev {name}"));
            line.split(':').next().unwrap().trim().parse().unwrap()
        },
        |text| text.lines().next().unwrap().split_whitespace().last().unwrap().parse().unwrap(),
    )
}

/// Waits until something holds, ten seconds at most.
pub(super) fn wait_for(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !holds() {
        assert!(Instant::now() < deadline, "waited in vain for: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Settings with a generation, and a brain or none.
pub(super) fn settings(generation: u32, punt: bool) -> Settings {
    Settings {
        punt_ifindex: ifindex(PUNT_TAP),
        generation,
        flags: if punt { SETTING_PUNT } else { 0 },
        punt_in_flight_max: 100,
    }
}

/// A port that is up and may punt without limit.
pub(super) fn config(station: Station, flags: u32) -> PortConfig {
    PortConfig {
        ifindex: ifindex(station.port),
        flags: switch_common::PORT_UP | flags,
        punt_interval_ns: 0,
        punt_ahead_ns: 1_000_000_000,
        group_interval_ns: 0,
        group_ahead_ns: 1_000_000_000,
    }
}

/// The pair of what goes from one station to the other.
pub(super) fn pair(from: Station, to: Station) -> PairKey {
    PairKey { destination: to.mac.0, source: from.mac.0, ingress: from.id.get(), vlan: 0 }
}

/// Forward to a station's port.
pub(super) fn forward(to: Station, action: u8) -> PairVerdict {
    PairVerdict {
        ifindex: ifindex(to.port),
        generation: 1,
        frame_bytes_max: 1514,
        egress: to.id.get(),
        action,
        reason: 0,
        last_seen_jiffies: 0,
    }
}
