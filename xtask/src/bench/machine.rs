//! Where a run took place, and the settings that its figures depend on.

use std::fmt::Write as _;
use std::fs;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::bed::Bed;
use crate::shell;

/// A machine, as far as it matters.
#[derive(Serialize, Deserialize)]
pub struct Machine {
    kernel: String,
    processors: usize,
    model: String,
    revision: String,
    date: String,
    /// Name and version of what was measured beside Weft.
    programs: Vec<String>,
    /// Settings of the kernel.
    settings: Vec<(String, String)>,
    /// Of each system that was measured: its netdevs, with queueing discipline and offloads.
    pub netdevs: Vec<String>,
}

/// What tells versions, by its first line.
const PROGRAMS: &[&str] = &["ovs-vswitchd --version", "vde_switch --version", "iperf3 --version", "sockperf --version"];

/// Settings that change what frames cost.
const SETTINGS: &[&str] = &[
    "net/core/default_qdisc",
    "net/core/bpf_jit_enable",
    "net/core/bpf_jit_harden",
    "net/core/netdev_max_backlog",
    "net/core/netdev_budget",
    "net/core/rmem_max",
    "net/bridge/bridge-nf-call-iptables",
    "kernel/bpf_stats_enabled",
    "net/ipv4/tcp_congestion_control",
];

impl Machine {
    /// Looks around.
    pub fn look() -> Result<Self> {
        let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = info.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("unknown");
        let first_line = |command: &&str| -> Option<String> {
            shell::find(command.split(' ').next()?)?;
            Some(shell::line(command).ok()?.lines().next()?.trim().to_owned())
        };
        let setting = |name: &&str| {
            let value = fs::read_to_string(format!("/proc/sys/{name}"));
            ((*name).to_owned(), value.map_or_else(|_| "absent".to_owned(), |value| value.trim().to_owned()))
        };
        Ok(Self {
            kernel: shell::line("uname -r")?.trim().to_owned(),
            processors: std::thread::available_parallelism()?.get(),
            model: model.trim_matches([' ', '\t', ':']).to_owned(),
            revision: shell::line("git describe --always --dirty")
                .map_or_else(|_| "unknown".to_owned(), |text| text.trim().to_owned()),
            date: shell::line("date -u +%Y-%m-%d")?.trim().to_owned(),
            programs: PROGRAMS.iter().filter_map(first_line).collect(),
            settings: SETTINGS.iter().map(setting).collect(),
            netdevs: Vec::new(),
        })
    }

    /// Notes how a system's ports are set.
    pub fn note(&mut self, group: &str, bed: &Bed) -> Result<()> {
        let system = bed.system();
        let links: serde_json::Value = serde_json::from_str(&system.namespace().ip("-json link show")?)?;
        let mut ports = Vec::new();
        for link in links.as_array().into_iter().flatten() {
            let text = |field: &str| link.get(field).and_then(serde_json::Value::as_str).unwrap_or("?");
            let name = text("ifname");
            // Two of them stand for all.
            if name == "lo" || ports.len() == 2 || !name.starts_with(['t', 'c', 'v']) {
                continue;
            }
            let features = system.namespace().inside(|| shell::line(&format!("ethtool -k {name}")))?;
            let on = |feature: &str| features.lines().any(|line| line.trim().starts_with(&format!("{feature}: on")));
            let offloads = ["tx-checksumming", "tcp-segmentation-offload", "generic-receive-offload"];
            let offloads: Vec<&str> = offloads.into_iter().filter(|feature| on(feature)).collect();
            ports.push(format!("{name} {}, {}", text("qdisc"), offloads.join(" + ")));
        }
        self.netdevs.push(format!("{group}, {}: {}", system.kind().label(), ports.join("; ")));
        Ok(())
    }

    /// As the head of a document.
    pub fn markdown(&self) -> Result<String> {
        let Self { kernel, processors, model, revision, date, .. } = self;
        let mut text = format!("{date}, revision {revision}, Linux {kernel}, {processors} × {model}\n\n");
        writeln!(text, "Programs: {}.\n", self.programs.join("; "))?;
        let settings: Vec<String> = self.settings.iter().map(|(name, value)| format!("`{name}` {value}")).collect();
        writeln!(text, "Settings: {}.\n", settings.join(", "))?;
        text.push_str("<details><summary>Netdevs: queueing discipline, offloads that are on</summary>\n\n");
        for line in &self.netdevs {
            writeln!(text, "- {line}")?;
        }
        text.push_str("\n</details>\n");
        Ok(text)
    }
}
