//! The switches under test, each in a namespace of its own, with one way to give them ports.
//!
//! What a switch is told, and what its ports may offer, is here and in its file; the measurements know only [`System`].

mod ovs;
mod vde;
mod weft;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use super::lab::{Namespace, PREFIX, Running};
use super::tap::{self, Drain};
use crate::setup::{self, Need};
use crate::shell;
use ovs::Ovs;
use vde::Vde;
use weft::Weft;

/// Which switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Linux bridge, no netfilter.
    Bridge,
    /// Linux bridge as distributions leave it: bridge netfilter on.
    BridgeStock,
    /// Linux bridge, every frame of its first port written to a file by tcpdump.
    BridgeTcpdump,
    /// Weft with everything on: verdicts cached, flows accounted, metrics scraped once a second.
    Weft,
    /// Weft that only forwards: verdicts cached, no flows, nobody asks for metrics.
    WeftForwarding,
    /// Weft with a table of 65,536 flows, of which one port may have a quarter.
    WeftSmallTable,
    /// Weft with room for 2,097,152 flows, all of which one port may have.
    WeftLargeTable,
    /// Weft with its flight recorder on.
    WeftRecorder,
    /// Weft with every frame decided in user space.
    WeftUserspace,
    /// Open vSwitch, `datapath_type=netdev`.
    Ovs,
    /// The same with `userspace-tso-enable`.
    OvsTso,
    /// Open vSwitch, `datapath_type=netdev`, every frame sampled for IPFIX.
    OvsIpfix,
    /// `vde_switch`.
    Vde,
}

impl Kind {
    /// What it is called in tables and plots.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Bridge => "Linux bridge",
            Self::BridgeStock => "Linux bridge, bridge-nf on",
            Self::BridgeTcpdump => "Linux bridge, tcpdump -w",
            Self::Weft => "Weft, everything on",
            Self::WeftForwarding => "Weft, forwarding only",
            Self::WeftSmallTable => "Weft, 65,536 flows",
            Self::WeftLargeTable => "Weft, 2 M flows",
            Self::WeftRecorder => "Weft, recorder on",
            Self::WeftUserspace => "Weft, user space",
            Self::Ovs => "OVS netdev",
            Self::OvsTso => "OVS netdev, TSO",
            Self::OvsIpfix => "OVS netdev, IPFIX 1:1",
            Self::Vde => "VDE",
        }
    }

    /// Whether it is one of ours.
    pub const fn is_weft(self) -> bool {
        matches!(
            self,
            Self::Weft
                | Self::WeftForwarding
                | Self::WeftSmallTable
                | Self::WeftLargeTable
                | Self::WeftRecorder
                | Self::WeftUserspace
        )
    }

    /// Whether stations may leave checksums and segmentation to the device. Elsewhere, frames would arrive broken.
    pub const fn offloads(self) -> bool {
        !matches!(self, Self::Ovs | Self::OvsIpfix | Self::Vde)
    }

    /// What the machine must offer.
    fn needs(self) -> &'static [Need] {
        match self {
            Self::Ovs | Self::OvsTso | Self::OvsIpfix => ovs::NEEDS,
            Self::Vde => vde::NEEDS,
            _ => &[],
        }
    }
}

/// Who looks at the frames of a switch of ours, beside the switch.
#[derive(Clone, Copy, Debug)]
pub enum Look {
    /// Nobody.
    Nobody,
    /// `weft capture` of a port, with a filter.
    Capture(&'static str, &'static str),
    /// `weft capture` of the headers of everything.
    CaptureAll,
    /// A mirror of whole frames from a port to an analyser's tap; a port that is not there yet is made, and idle.
    Mirror(&'static str),
}

impl Look {
    /// What is said of it behind the switch's name.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Nobody => "",
            Self::Capture(..) => ", a capture with a filter",
            Self::CaptureAll => ", a capture of headers",
            Self::Mirror(_) => ", a mirror",
        }
    }
}

/// A running switch. Fields are dropped in their order: programs before their namespace.
pub struct System {
    kind: Kind,
    watcher: Option<(Running, Folder)>,
    analyser: Option<Drain>,
    switch: Switch,
    namespace: Namespace,
}

enum Switch {
    Bridge { watcher: Option<(Running, Folder)> },
    Weft(Weft),
    Ovs(Ovs),
    Vde(Vde),
}

impl System {
    /// Starts a switch without ports; `slot` tells instances apart, `ports` is how many it will get at most.
    pub fn start(kind: Kind, binary: &Path, slot: &str, ports: usize) -> Result<Self> {
        setup::ensure(kind.needs())?;
        let namespace = Namespace::new(slot)?;
        let switch = match kind {
            Kind::Bridge | Kind::BridgeStock | Kind::BridgeTcpdump => {
                namespace.ip("link add br0 type bridge")?;
                namespace.ip("link set br0 up")?;
                if kind == Kind::BridgeStock {
                    namespace.bridge_netfilter(true)?;
                }
                Switch::Bridge { watcher: None }
            }
            Kind::Weft
            | Kind::WeftForwarding
            | Kind::WeftSmallTable
            | Kind::WeftLargeTable
            | Kind::WeftRecorder
            | Kind::WeftUserspace => Switch::Weft(Weft::start(kind, binary, &namespace, slot)?),
            Kind::Ovs | Kind::OvsTso | Kind::OvsIpfix => Switch::Ovs(Ovs::start(kind, &namespace, slot)?),
            Kind::Vde => Switch::Vde(Vde::start(&namespace, slot, ports)?),
        };
        Ok(Self { kind, watcher: None, analyser: None, switch, namespace })
    }

    /// Starts Weft with a configuration file; metrics are served at an address in its namespace.
    pub fn configured(binary: &Path, slot: &str, file: &Path, metrics: &str) -> Result<Self> {
        let namespace = Namespace::new(slot)?;
        let weft = Weft::run(binary, &namespace, slot, ["kernel", metrics], Some(file))?;
        Ok(Self { kind: Kind::Weft, watcher: None, analyser: None, switch: Switch::Weft(weft), namespace })
    }

    /// Which it is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Where it runs.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// The programs that are part of it.
    pub fn processes(&self) -> Vec<u32> {
        match &self.switch {
            Switch::Bridge { watcher } => watcher.iter().map(|(running, _)| running.id()).collect(),
            Switch::Weft(weft) => vec![weft.process()],
            Switch::Ovs(ovs) => ovs.processes(),
            Switch::Vde(vde) => vec![vde.process()],
        }
    }

    /// The daemon's process id.
    pub fn daemon(&self) -> Result<u32> {
        self.weft().map(Weft::process)
    }

    /// Makes an existing netdev a port. What a guest may offer is not bounded, for the others do not bound it either.
    pub fn attach(&mut self, netdev: &str) -> Result<()> {
        self.namespace.noqueue(netdev)?;
        match &mut self.switch {
            Switch::Weft(weft) => weft.attach(netdev),
            Switch::Bridge { watcher } => {
                self.namespace.ip(&format!("link set {netdev} master br0"))?;
                self.namespace.ip(&format!("link set {netdev} up"))?;
                if self.kind == Kind::BridgeTcpdump && watcher.is_none() {
                    *watcher = Some(tcpdump(&self.namespace, netdev)?);
                }
                Ok(())
            }
            Switch::Ovs(ovs) => {
                self.namespace.ip(&format!("link set {netdev} up"))?;
                ovs.attach(netdev)
            }
            Switch::Vde(vde) => vde.wire(&self.namespace, netdev),
        }
    }

    /// Gives a container's namespace an interface `eth0` with this address.
    pub fn attach_container(&mut self, port: &str, container: &Namespace, address: &str) -> Result<()> {
        let inside = container.name();
        match &mut self.switch {
            Switch::Weft(weft) => return weft.attach_container(port, inside, address),
            Switch::Vde(vde) => vde.give(&self.namespace, inside)?,
            Switch::Bridge { .. } | Switch::Ovs(_) => {
                self.namespace.ip(&format!("link add {port} type veth peer name eth0 netns {inside}"))?;
                self.attach(port)?;
            }
        }
        container.ip(&format!("address add {address} dev eth0"))?;
        container.ip("link set eth0 up")?;
        if !self.kind.offloads() && self.kind != Kind::Vde {
            container.inside(|| shell::line("ethtool -K eth0 tx off").map(drop))?;
        }
        Ok(())
    }

    /// Lets somebody look on from now on.
    pub fn look(&mut self, look: Look) -> Result<()> {
        let arguments = match look {
            Look::Nobody => return Ok(()),
            Look::Mirror(port) => {
                // An analyser that reads what it is given.
                self.analyser = Some(Drain::start(tap::open(&self.namespace, "look", false)?));
                self.namespace.ip(&format!("link set look arp off txqueuelen {} up", tap::ANALYSER_RING))?;
                self.namespace.noqueue("look")?;
                if self.ask(&format!("port show {port}")).is_err() {
                    self.namespace.ip(&format!("link add {port} type veth peer name idle"))?;
                    self.namespace.ip("link set idle up")?;
                    self.attach(port)?;
                }
                return self.weft()?.command(&format!("mirror add bench --from {port} --to look")).map(drop);
            }
            Look::Capture(port, filter) => format!("--port {port} -- {filter}"),
            Look::CaptureAll => String::new(),
        };
        let folder = Folder::new(&format!("capture-{}", self.namespace.name()))?;
        let running = self.weft()?.capture(&folder.0.join("frames.pcapng"), &arguments)?;
        let first = folder.0.join("frames_00001.pcapng");
        super::lab::until(std::time::Duration::from_secs(10), || {
            Ok(std::fs::metadata(&first).is_ok_and(|file| file.len() > 0).then_some(()))
        })
        .context("weft capture does not begin")?;
        self.watcher = Some((running, folder));
        Ok(())
    }

    /// Asks the daemon for something as JSON.
    pub fn ask(&self, command: &str) -> Result<serde_json::Value> {
        let text = self.weft()?.command(&format!("-o json {command}"))?;
        serde_json::from_str(&text).with_context(|| format!("`weft {command}` did not answer in JSON"))
    }

    /// Frames that the daemon was handed, by the kernel's count: a tap counts what is read from it.
    pub fn punted(&self) -> Result<u64> {
        let text = self.namespace.ip(&format!("-json -statistics link show dev {}", self.weft()?.name()))?;
        let links: serde_json::Value = serde_json::from_str(&text)?;
        let count = links.pointer("/0/stats64/tx/packets").and_then(serde_json::Value::as_u64);
        count.context("the punt tap has no counters")
    }

    /// Checks that the daemon's books balance; the others keep none.
    pub fn balanced(&self) -> Result<()> {
        match &self.switch {
            Switch::Weft(weft) => weft.command("ledger --settle").map(drop),
            Switch::Bridge { .. } | Switch::Ovs(_) | Switch::Vde(_) => Ok(()),
        }
    }

    fn weft(&self) -> Result<&Weft> {
        match &self.switch {
            Switch::Weft(weft) => Ok(weft),
            Switch::Bridge { .. } | Switch::Ovs(_) | Switch::Vde(_) => bail!("{} is not ours", self.kind.label()),
        }
    }
}

/// Writes every frame of a netdev to a file, whole, as an operator would who wants to see them.
fn tcpdump(namespace: &Namespace, netdev: &str) -> Result<(Running, Folder)> {
    let folder = Folder::new(&format!("tcpdump-{}", namespace.name()))?;
    let mut command = Command::new("tcpdump");
    // Two files of 64 MB in turn, so that the disk is written and does not fill up.
    command.args(["-i", netdev, "-n", "-Z", "root", "-C", "64", "-W", "2", "-w"]).arg(folder.0.join("frames.pcap"));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let running = Running(namespace.spawn(&mut command)?);
    super::lab::until(std::time::Duration::from_secs(10), || Ok(folder.0.join("frames.pcap0").exists().then_some(())))
        .context("tcpdump does not begin")?;
    Ok((running, folder))
}

/// A folder that goes with its guard.
struct Folder(PathBuf);

impl Folder {
    /// Makes one that nobody else has.
    fn new(name: &str) -> Result<Self> {
        let path = std::env::temp_dir().join(format!("{PREFIX}{}-{name}", std::process::id()));
        std::fs::create_dir(&path).with_context(|| path.display().to_string())?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if self.0.exists()
            && let Err(error) = std::fs::remove_dir_all(&self.0)
        {
            eprintln!("bench: {}: {error}", self.0.display());
        }
    }
}
