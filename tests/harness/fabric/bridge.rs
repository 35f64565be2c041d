//! The oracle: the Linux bridge of the machine, with stations on plain taps.

use std::collections::BTreeMap;
use std::io;

use anyhow::{Context as _, Result};
use serde_json::Value;
use switch_common::MacAddr;

use super::Fabric;
use crate::command::run;
use crate::scenario::{Feature, PortPlan};
use crate::{Arena, Station, frames, wait};

/// A bridge without STP and snooping.
#[derive(Debug)]
pub struct Bridge<'a> {
    arena: &'a Arena,
    stations: BTreeMap<usize, Station>,
}

impl<'a> Bridge<'a> {
    /// Makes one in the arena, which stays silent itself.
    pub fn new(arena: &'a Arena) -> Result<Self> {
        make(arena)?;
        Ok(Self { arena, stations: BTreeMap::new() })
    }
}

/// Makes the bridge `br0`, without the rest of a fabric.
pub fn make(arena: &Arena) -> Result<()> {
    run("sysctl -qw net.ipv6.conf.default.disable_ipv6=1")?;
    arena.ip("link add br0 type bridge stp_state 0 mcast_snooping 0")?;
    arena.ip("link set dev br0 mtu 1500 up").map(drop)
}

/// Makes a netdev that somebody holds a port of `br0`, and waits until it forwards.
pub fn join(arena: &Arena, netdev: &str, mtu: u32) -> Result<()> {
    arena.ip(&format!("link set dev {netdev} mtu {mtu} master br0 up"))?;
    until_forwarding(netdev, true)
}

/// The entries of `br0`, its own included.
fn entries() -> Result<Vec<Value>> {
    Ok(serde_json::from_str(&run("bridge -j fdb show br br0")?)?)
}

/// A field of an entry.
fn text<'a>(entry: &'a Value, key: &str) -> &'a str {
    entry.get(key).and_then(Value::as_str).unwrap_or_default()
}

/// The addresses that `br0` has learned from a port.
pub fn learned_from(netdev: &str) -> Result<Vec<String>> {
    let entries = entries()?;
    let learned = entries.iter().filter(|entry| text(entry, "state") != "permanent" && text(entry, "ifname") == netdev);
    Ok(learned.map(|entry| text(entry, "mac").to_owned()).collect())
}

fn until_forwarding(netdev: &str, forwarding: bool) -> Result<()> {
    wait::until_true(&format!("{netdev} forwards: {forwarding}"), wait::SOON, || {
        Ok(run(&format!("bridge link show dev {netdev}"))?.contains("state forwarding") == forwarding)
    })
}

fn netdev(index: usize) -> String {
    format!("tap{index}")
}

impl Fabric for Bridge<'_> {
    fn features(&self) -> &[Feature] {
        &[]
    }

    fn add_port(&mut self, index: usize, plan: &PortPlan) -> Result<()> {
        let netdev = netdev(index);
        self.stations.insert(index, Station::plain(&netdev)?);
        let mtu = plan.mtu.unwrap_or(1500);
        join(self.arena, &netdev, mtu)
    }

    fn remove_port(&mut self, index: usize) -> Result<()> {
        self.arena.ip(&format!("link set dev {} down nomaster", netdev(index)))?;
        self.stations.remove(&index);
        Ok(())
    }

    fn set_up(&mut self, index: usize, up: bool) -> Result<()> {
        self.arena.ip(&format!("link set dev {} {}", netdev(index), if up { "up" } else { "down" }))?;
        until_forwarding(&netdev(index), up)
    }

    fn pin(&mut self, index: usize, station: MacAddr) -> Result<()> {
        run(&format!("bridge fdb replace {station} dev {} master static", netdev(index))).map(drop)
    }

    fn unpin(&mut self, station: MacAddr) -> Result<()> {
        let index = *self.stations()?.get(&station).with_context(|| format!("{station} is not known"))?;
        run(&format!("bridge fdb del {station} dev {} master", netdev(index))).map(drop)
    }

    fn flush(&mut self, index: Option<usize>) -> Result<()> {
        match index {
            Some(index) => self.arena.ip(&format!("link set dev {} type bridge_slave fdb_flush", netdev(index))),
            None => self.arena.ip("link set dev br0 type bridge fdb_flush"),
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
        for entry in entries()?.iter().filter(|entry| text(entry, "state") != "permanent") {
            let index = self.stations.iter().find(|(_, station)| station.netdev() == text(entry, "ifname"));
            if let (Some((index, _)), Ok(mac)) = (index, frames::mac(text(entry, "mac"))) {
                stations.insert(mac, *index);
            }
        }
        Ok(stations)
    }
}
