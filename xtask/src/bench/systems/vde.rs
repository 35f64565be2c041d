//! `vde_switch`, which reads and writes taps of its own.
//!
//! It cannot take a netdev that exists, so a port is one of its taps: for a container that tap is the interface inside;
//! for a guest a pair of `tc` redirections wires it to the guest's tap, in the kernel, without a queue in between.
//! Its taps are made when it starts, and it ends when its standard input does.

use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::Folder;
use crate::bench::lab::{Namespace, Running, until};
use crate::setup::{Need, need};
use crate::shell;

/// What it takes.
pub(super) const NEEDS: &[Need] = &[need("vde2", "vde_switch", "VDE, a peer of the bench")];

/// A switch with taps, of which some are in use.
pub(super) struct Vde {
    running: Running,
    _folder: Folder,
    ports: usize,
    used: usize,
}

impl Vde {
    /// Starts it with so many taps, `v0` and on.
    pub(super) fn start(namespace: &Namespace, slot: &str, ports: usize) -> Result<Self> {
        let folder = Folder::new(slot)?;
        let mut command = Command::new("vde_switch");
        command.arg("--numports").arg((ports + 1).to_string()).arg("--sock").arg(folder.0.join("control"));
        for port in 0..ports {
            command.arg("--tap").arg(format!("v{port}"));
        }
        let running = Running(namespace.spawn(command.stdin(Stdio::piped()).stdout(Stdio::null()))?);
        let last = ports.checked_sub(1).context("a switch without ports")?;
        until(Duration::from_secs(10), || Ok(namespace.ip(&format!("link show dev v{last}")).ok().map(drop)))
            .context("vde_switch makes no taps")?;
        Ok(Self { running, _folder: folder, ports, used: 0 })
    }

    /// Its process.
    pub(super) fn process(&self) -> u32 {
        self.running.id()
    }

    /// Wires a guest's tap to a port.
    pub(super) fn wire(&mut self, namespace: &Namespace, netdev: &str) -> Result<()> {
        let port = self.next()?;
        let name = namespace.name();
        namespace.noqueue(&port)?;
        for (from, to) in [(netdev, port.as_str()), (&port, netdev)] {
            namespace.ip(&format!("link set {from} up"))?;
            shell::line(&format!("tc -n {name} qdisc add dev {from} clsact"))?;
            shell::line(&format!(
                "tc -n {name} filter add dev {from} ingress protocol all u32 match u32 0 0 \
                 action mirred egress redirect dev {to}"
            ))?;
        }
        Ok(())
    }

    /// Gives a namespace a port as its `eth0`.
    pub(super) fn give(&mut self, namespace: &Namespace, inside: &str) -> Result<()> {
        let port = self.next()?;
        namespace.noqueue(&port)?;
        namespace.ip(&format!("link set {port} netns {inside} name eth0")).map(drop)
    }

    fn next(&mut self) -> Result<String> {
        if self.used == self.ports {
            bail!("vde_switch was started with {} taps", self.ports);
        }
        self.used += 1;
        Ok(format!("v{}", self.used - 1))
    }
}
