//! The switches under test, each in a namespace of its own, with one way to give them ports.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::lab::{Namespace, Running, until};
use crate::shell;

/// Which switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Linux bridge, no netfilter.
    Bridge,
    /// Weft with cached verdicts.
    Weft,
    /// The same without accounting flows: verdicts alone.
    WeftVerdicts,
    /// Weft with a table of 65,536 flows, of which one port may have a quarter.
    WeftSmallTable,
    /// Weft with every frame decided in user space.
    WeftUserspace,
}

/// A running switch. Fields are dropped in their order: the daemon before its namespace.
pub struct System {
    weft: Option<Weft>,
    namespace: Namespace,
}

/// A daemon of ours: the real binary.
struct Weft {
    running: Running,
    _state: Folder,
    binary: PathBuf,
    name: String,
}

impl System {
    /// Starts a switch without ports; `slot` tells instances apart.
    pub fn start(kind: Kind, binary: &Path, slot: &str) -> Result<Self> {
        let namespace = Namespace::new(slot)?;
        let weft = match kind {
            Kind::Bridge => {
                namespace.ip("link add br0 type bridge")?;
                namespace.ip("link set br0 up")?;
                None
            }
            Kind::Weft => Some(Weft::start(binary, &namespace, slot, ["kernel", "off"], None)?),
            Kind::WeftVerdicts | Kind::WeftSmallTable => {
                let file = std::env::temp_dir().join(format!("weftbench-{}{slot}.toml", std::process::id()));
                let flows = if kind == Kind::WeftVerdicts { "enabled = false" } else { "max = 65536" };
                std::fs::write(&file, format!("[flows]\n{flows}\n"))?;
                let started = Weft::start(binary, &namespace, slot, ["kernel", "off"], Some(&file));
                std::fs::remove_file(&file)?;
                Some(started?)
            }
            Kind::WeftUserspace => Some(Weft::start(binary, &namespace, slot, ["userspace", "off"], None)?),
        };
        Ok(Self { weft, namespace })
    }

    /// Starts Weft with a configuration file; metrics are served at an address in its namespace.
    pub fn configured(binary: &Path, slot: &str, file: &Path, metrics: &str) -> Result<Self> {
        let namespace = Namespace::new(slot)?;
        let weft = Weft::start(binary, &namespace, slot, ["kernel", metrics], Some(file))?;
        Ok(Self { weft: Some(weft), namespace })
    }

    /// Where it runs.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// The daemon's process id.
    pub fn daemon(&self) -> Result<u32> {
        self.weft.as_ref().map(|weft| weft.running.id()).context("a bridge has no daemon")
    }

    /// Makes an existing netdev a port.
    pub fn attach(&self, netdev: &str) -> Result<()> {
        self.namespace.noqueue(netdev)?;
        if let Some(weft) = &self.weft {
            weft.command(&format!("port add {netdev} --netdev {netdev}")).map(drop)
        } else {
            self.namespace.ip(&format!("link set {netdev} master br0"))?;
            self.namespace.ip(&format!("link set {netdev} up")).map(drop)
        }
    }

    /// Gives a container's namespace an interface `eth0` with this address.
    pub fn attach_container(&self, port: &str, container: &Namespace, address: &str) -> Result<()> {
        let inside = container.name();
        if let Some(weft) = &self.weft {
            return weft
                .command(&format!("port add {port} --netns {inside} --ifname eth0 --address {address}"))
                .map(drop);
        }
        self.namespace.ip(&format!("link add {port} type veth peer name eth0 netns {inside}"))?;
        self.namespace.ip(&format!("link set {port} master br0"))?;
        self.namespace.ip(&format!("link set {port} up"))?;
        container.ip(&format!("address add {address} dev eth0"))?;
        container.ip("link set eth0 up").map(drop)
    }

    /// Asks the daemon for something as JSON.
    pub fn ask(&self, command: &str) -> Result<serde_json::Value> {
        let weft = self.weft.as_ref().context("a bridge answers no questions")?;
        let text = weft.command(&format!("-o json {command}"))?;
        serde_json::from_str(&text).with_context(|| format!("`weft {command}` did not answer in JSON"))
    }

    /// Frames that the daemon was handed, by the kernel's count: a tap counts what is read from it.
    pub fn punted(&self) -> Result<u64> {
        let name = self.weft.as_ref().map(|weft| weft.name.as_str()).context("a bridge punts nothing")?;
        let text = self.namespace.ip(&format!("-json -statistics link show dev {name}"))?;
        let links: serde_json::Value = serde_json::from_str(&text)?;
        let count = links.pointer("/0/stats64/tx/packets").and_then(serde_json::Value::as_u64);
        count.context("the punt tap has no counters")
    }

    /// Checks that the daemon's books balance; a bridge keeps none.
    pub fn balanced(&self) -> Result<()> {
        self.weft.as_ref().map_or(Ok(()), |weft| weft.command("ledger --settle").map(drop))
    }
}

impl Weft {
    fn start(
        binary: &Path,
        namespace: &Namespace,
        slot: &str,
        [datapath, metrics]: [&str; 2],
        file: Option<&Path>,
    ) -> Result<Self> {
        // At most 15 characters, because it names the punt tap.
        let name = format!("wb{}{slot}", std::process::id() % 100_000);
        let state = Folder(std::env::temp_dir().join(format!("weftbench-{name}")));
        let mut command = Command::new(binary);
        command.args(["--name", &name, "run", "--datapath", datapath, "--on-stop", "remove", "--log-level", "error"]);
        command.args(["--metrics", metrics]).arg("--state-dir").arg(&state.0);
        if let Some(file) = file {
            command.arg("-c").arg(file);
        }
        let running = Running(namespace.spawn(command.stdin(Stdio::null()))?);
        let mut weft = Self { running, _state: state, binary: binary.to_owned(), name };
        until(Duration::from_secs(20), || {
            if let Some(status) = weft.running.0.try_wait()? {
                bail!("`weft run` ended with {status}; its words are above");
            }
            Ok(weft.command("port list").ok())
        })
        .context("the daemon did not answer")?;
        Ok(weft)
    }

    fn command(&self, line: &str) -> Result<String> {
        shell::output(Command::new(&self.binary).args(["--name", &self.name]).args(line.split_whitespace()))
    }
}

/// A folder that goes with its guard.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        if self.0.exists()
            && let Err(error) = std::fs::remove_dir_all(&self.0)
        {
            eprintln!("bench: {}: {error}", self.0.display());
        }
    }
}
