//! Weft itself: the real daemon, with stations on taps that they hold open as a VMM does.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;

use anyhow::{Context as _, Result};
use switch_common::MacAddr;

use super::Fabric;
use crate::play::sentinel;
use crate::scenario::{Feature, PortPlan, Scenario};
use crate::{Arena, Daemon, Mode, Station, frames, wait};

/// A daemon with a port per station.
#[derive(Debug)]
pub struct Taps<'a> {
    arena: &'a Arena,
    daemon: Option<Daemon>,
    stations: BTreeMap<usize, Station>,
    names: BTreeMap<usize, String>,
    /// The configuration file's ports, as they stand.
    tables: BTreeMap<usize, toml::Table>,
}

impl<'a> Taps<'a> {
    /// Starts a daemon with a scenario's limits.
    pub fn new(arena: &'a Arena, mode: Mode, scenario: &Scenario) -> Result<Self> {
        let mut config = String::from("[switch]\n");
        if let Some(secs) = scenario.switch.aging_secs {
            writeln!(config, "aging_secs = {secs}")?;
        }
        if let Some(stations) = scenario.switch.stations_max {
            writeln!(config, "stations_max = {}", stations + scenario.port.len())?;
        }
        std::fs::write("/run/scenario.toml", config)?;
        let daemon = Daemon::start_with(arena, "weft0", mode, &["-c", "/run/scenario.toml"])?;
        Ok(Self {
            arena,
            daemon: Some(daemon),
            stations: BTreeMap::new(),
            names: BTreeMap::new(),
            tables: BTreeMap::new(),
        })
    }

    fn daemon(&self) -> Result<&Daemon> {
        self.daemon.as_ref().context("finished")
    }

    fn port(&self, index: usize) -> Result<&str> {
        self.names.get(&index).map(String::as_str).with_context(|| format!("no port {index}"))
    }
}

fn netdev(index: usize) -> String {
    format!("tap{index}")
}

/// A port as the configuration file has it; `flood_per_sec` has no option on the command line.
fn table(index: usize, plan: &PortPlan) -> toml::Table {
    let mut table = toml::Table::new();
    table.insert("name".into(), plan.name.clone().into());
    table.insert("netdev".into(), netdev(index).into());
    table.insert("role".into(), plan.role.clone().unwrap_or_else(|| "guest".into()).into());
    let numbers = [
        ("station_limit", plan.station_limit.map(|limit| limit + 1)),
        ("flood_per_sec", plan.flood_per_sec),
        ("mtu", plan.mtu),
    ];
    for (key, number) in numbers {
        if let Some(number) = number {
            table.insert(key.into(), i64::from(number).into());
        }
    }
    if !plan.macs.is_empty() {
        let macs = plan.macs.iter().map(|mac| mac.0).chain([sentinel(index)]);
        table.insert("macs".into(), toml::Value::Array(macs.map(|mac| mac.to_string().into()).collect()));
    }
    table
}

impl Fabric for Taps<'_> {
    fn features(&self) -> &[Feature] {
        &[Feature::Drops, Feature::Limits, Feature::Sources, Feature::KeepsDown, Feature::StrictReserved]
    }

    fn add_port(&mut self, index: usize, plan: &PortPlan) -> Result<()> {
        let netdev = netdev(index);
        self.stations.insert(index, Station::offloading(&netdev)?);
        self.names.insert(index, plan.name.clone());
        self.tables.insert(index, table(index, plan));
        let ports = self.tables.values().cloned().map(toml::Value::Table).collect();
        let file = toml::Table::from_iter([("port".to_owned(), toml::Value::Array(ports))]);
        std::fs::write("/run/ports.toml", toml::to_string(&file)?)?;
        let daemon = self.daemon()?;
        daemon.cli().run("apply /run/ports.toml")?;
        daemon.until_state(&plan.name, "up", wait::SOON)
    }

    fn remove_port(&mut self, index: usize) -> Result<()> {
        self.daemon()?.cli().run(&format!("port del {}", self.port(index)?))?;
        self.tables.remove(&index);
        self.stations.remove(&index);
        Ok(())
    }

    fn set_up(&mut self, index: usize, up: bool) -> Result<()> {
        let word = if up { "up" } else { "down" };
        self.arena.ip(&format!("link set dev {} {word}", netdev(index)))?;
        self.daemon()?.until_state(self.port(index)?, word, wait::SOON)
    }

    fn pin(&mut self, index: usize, station: MacAddr) -> Result<()> {
        self.daemon()?.cli().run(&format!("fdb add {} {station}", self.port(index)?)).map(drop)
    }

    fn unpin(&mut self, station: MacAddr) -> Result<()> {
        self.daemon()?.cli().run(&format!("fdb del {station}")).map(drop)
    }

    fn flush(&mut self, index: Option<usize>) -> Result<()> {
        let cli = self.daemon()?.cli();
        match index {
            Some(index) => cli.run(&format!("fdb flush --port {}", self.port(index)?)),
            None => cli.run("fdb flush"),
        }
        .map(drop)
    }

    fn send(&mut self, index: usize, frame: &[u8]) -> io::Result<()> {
        self.stations.get(&index).ok_or(io::ErrorKind::NotFound)?.send(frame)
    }

    fn receive(&mut self, index: usize) -> Result<Vec<Vec<u8>>> {
        self.stations.get(&index).map_or(Ok(Vec::new()), |station| Ok(station.drain()?))
    }

    fn stations(&mut self) -> Result<BTreeMap<MacAddr, usize>> {
        let mut stations = BTreeMap::new();
        for entry in self.daemon()?.cli().stations()? {
            let index = self.names.iter().find(|(_, name)| **name == entry.port).map(|(index, _)| *index);
            stations.insert(frames::mac(&entry.mac)?, index.with_context(|| format!("no port {}", entry.port))?);
        }
        Ok(stations)
    }

    fn drops(&mut self, index: usize, reason: &str) -> Result<u64> {
        self.daemon()?.cli().drops(self.port(index)?, reason)
    }

    fn settle(&mut self) -> Result<()> {
        self.daemon()?.settle()
    }

    fn finish(&mut self) -> Result<()> {
        self.daemon.take().context("finished before")?.stop(self.arena)
    }
}
