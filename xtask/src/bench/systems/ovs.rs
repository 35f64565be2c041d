//! Open vSwitch with its user-space datapath: its own database and daemon in a namespace, never the distribution's service.
//!
//! Ports are netdevs that exist already (`type=system`), which the `netdev` datapath reads and writes by packet sockets.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::{Folder, Kind};
use crate::bench::lab::{Namespace, Running, until};
use crate::setup::{Need, need};
use crate::shell;

/// What it takes. The package's service is not started by the installation ([`crate::setup`]).
pub(super) const NEEDS: &[Need] = &[
    need("openvswitch-switch", "ovs-vswitchd", "Open vSwitch, a peer of the bench"),
    need("ethtool", "ethtool", "offloads"),
];

const SCHEMA: &str = "/usr/share/openvswitch/vswitch.ovsschema";

/// A database and a switch. Fields are dropped in their order.
pub(super) struct Ovs {
    switch: Option<Running>,
    database: Running,
    folder: Folder,
}

impl Ovs {
    /// Starts both, with one bridge.
    pub(super) fn start(kind: Kind, namespace: &Namespace, slot: &str) -> Result<Self> {
        let folder = Folder::new(slot)?;
        let conf = folder.0.join("conf.db");
        shell::output(Command::new("ovsdb-tool").arg("create").arg(&conf).arg(SCHEMA))?;
        let socket = folder.0.join("db.sock");
        let mut command = Command::new("ovsdb-server");
        command.arg(&conf).arg(format!("--remote=punix:{}", socket.display())).arg("--unixctl=none");
        let database = Running(spawn(namespace, &mut command, &folder, "database")?);
        until(Duration::from_secs(10), || Ok(socket.exists().then_some(()))).context("ovsdb-server does not listen")?;
        let mut ovs = Self { switch: None, database, folder };
        ovs.vsctl("--no-wait init")?;
        ovs.vsctl("--no-wait set Open_vSwitch . other_config:pmd-auto-lb=false")?;
        if kind == Kind::OvsTso {
            ovs.vsctl("--no-wait set Open_vSwitch . other_config:userspace-tso-enable=true")?;
        }
        let mut command = Command::new("ovs-vswitchd");
        command.arg(format!("unix:{}", socket.display()));
        command.arg(format!("--unixctl={}", ovs.folder.0.join("switch.ctl").display()));
        ovs.switch = Some(Running(spawn(namespace, &mut command, &ovs.folder, "switch")?));
        ovs.vsctl("add-br br0 -- set bridge br0 datapath_type=netdev other_config:mac-table-size=1000000")?;
        if kind == Kind::OvsIpfix {
            ovs.vsctl("set bridge br0 ipfix=@i -- --id=@i create IPFIX targets=\"127.0.0.1:4739\" sampling=1")?;
        }
        Ok(ovs)
    }

    /// Its processes.
    pub(super) fn processes(&self) -> Vec<u32> {
        self.switch.iter().chain([&self.database]).map(Running::id).collect()
    }

    /// Makes a netdev a port.
    pub(super) fn attach(&self, netdev: &str) -> Result<()> {
        self.vsctl(&format!("add-port br0 {netdev}"))?;
        let error = self.vsctl(&format!("get interface {netdev} error"))?;
        if error.trim() != "[]" {
            bail!("Open vSwitch does not take {netdev}: {}", error.trim());
        }
        Ok(())
    }

    fn vsctl(&self, line: &str) -> Result<String> {
        let mut command = Command::new("ovs-vsctl");
        command.arg("--timeout=20").arg(format!("--db=unix:{}", self.folder.0.join("db.sock").display()));
        let said = shell::output(command.args(line.split_whitespace()));
        said.with_context(|| self.words("switch").unwrap_or_default())
    }

    /// What a program wrote last.
    fn words(&self, program: &str) -> Option<String> {
        let text = std::fs::read_to_string(self.log(program)).ok()?;
        text.lines().rfind(|line| line.contains("|ERR|") || line.contains("|EMER|")).map(str::to_owned)
    }

    fn log(&self, program: &str) -> PathBuf {
        self.folder.0.join(format!("{program}.log"))
    }
}

/// Starts a program that keeps its files in the folder and writes its words into a file there.
fn spawn(namespace: &Namespace, command: &mut Command, folder: &Folder, name: &str) -> Result<std::process::Child> {
    for variable in ["OVS_RUNDIR", "OVS_DBDIR", "OVS_LOGDIR"] {
        command.env(variable, &folder.0);
    }
    let words = std::fs::File::create(folder.0.join(format!("{name}.log")))?;
    namespace.spawn(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(words))
}
