//! What attaching changed on a netdev, and how it is put back.
//!
//! Only what was changed is recorded, so that detaching never undoes what the operator did meanwhile to the rest. The record
//! is plain data: it lies in the state file, and another daemon can put back what a dead one changed.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::link::LinkFacts;
use super::netlink::{Netlink, NetlinkError, change, plain_socket};
use super::spec::IfName;
use super::sys;

/// How to take a port away again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restore {
    /// The netdev's name when it was attached.
    pub ifname: IfName,
    /// Its interface index, which goes before the name.
    pub ifindex: u32,
    /// What to do with it.
    pub undo: Undo,
}

/// What to do with a netdev that is no longer a port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Undo {
    /// The switch made it: delete it.
    Delete,
    /// It was there: put back what was changed.
    PutBack(Found),
}

/// Values found before they were changed; absent when they were not.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[expect(clippy::struct_excessive_bools, reason = "changes, independent of each other")]
pub struct Found {
    /// It was down.
    pub down: bool,
    /// It answered ARP.
    pub arp: bool,
    /// It was not promiscuous.
    pub not_promisc: bool,
    /// It had IPv6, and these addresses besides the link-local one.
    pub ipv6: Option<Vec<(Ipv6Addr, u8)>>,
    /// Its MTU.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// It merged received frames in software.
    pub gro: bool,
    /// It merged received frames in hardware.
    pub lro: bool,
}

impl Restore {
    /// The netdev as it is now; `None` when it is gone or another has taken its index.
    pub(super) async fn netdev(&self, netlink: &Netlink) -> Result<Option<LinkFacts>, NetlinkError> {
        let facts = netlink.by_index(self.ifindex).await?;
        Ok(match self.undo {
            Undo::Delete => facts.filter(|facts| facts.name == self.ifname.as_str()),
            Undo::PutBack(_) => facts,
        })
    }

    /// Does it. A netdev that is gone needs nothing.
    pub(super) async fn run(&self, netlink: &Netlink) -> Result<(), NetlinkError> {
        let Some(facts) = self.netdev(netlink).await? else { return Ok(()) };
        let result = match &self.undo {
            Undo::Delete => netlink.delete(facts.ifindex).await,
            Undo::PutBack(found) => put_back(netlink, &facts, found).await,
        };
        result.or_else(|error| if error.is_gone() { Ok(()) } else { Err(error) })
    }
}

async fn put_back(netlink: &Netlink, facts: &LinkFacts, found: &Found) -> Result<(), NetlinkError> {
    let mut flags = change(facts.ifindex);
    if found.down {
        flags = flags.down();
    }
    if found.arp {
        flags = flags.arp(true);
    }
    if found.not_promisc {
        flags = flags.promiscuous(false);
    }
    if let Some(mtu) = found.mtu {
        flags = flags.mtu(mtu);
    }
    netlink.set(&format!("putting '{}' back as it was found", facts.name), flags).await?;
    if found.gro || found.lro {
        merging(facts, found, true)?;
    }
    if let Some(addresses) = &found.ipv6 {
        set_ipv6(&facts.name, true)?;
        for (address, prefix) in addresses {
            let result = netlink.add_address(facts.ifindex, IpAddr::V6(*address), *prefix).await;
            result.or_else(|error| if error.errno() == Some(libc::EEXIST) { Ok(()) } else { Err(error) })?;
        }
    }
    Ok(())
}

/// Which receive offloads are on: (GRO, LRO). A driver that knows none has them off.
pub(super) fn merges(name: &str) -> Result<(bool, bool), NetlinkError> {
    let (name, socket) = named_socket(name)?;
    Ok((sys::gro(&socket, &name).unwrap_or(false), sys::lro(&socket, &name).unwrap_or(false)))
}

/// Switches those receive offloads that were found on.
pub(super) fn merging(facts: &LinkFacts, found: &Found, on: bool) -> Result<(), NetlinkError> {
    let (name, socket) = named_socket(&facts.name)?;
    let failed = |what| move |source| NetlinkError::new(format!("switching {what} of '{}'", facts.name), source);
    if found.gro {
        sys::set_gro(&socket, &name, on).map_err(failed("generic receive offload"))?;
    }
    if found.lro {
        sys::set_lro(&socket, &name, on).map_err(failed("large receive offload"))?;
    }
    Ok(())
}

fn named_socket(name: &str) -> Result<(IfName, std::os::fd::OwnedFd), NetlinkError> {
    let failed = |source| NetlinkError::new(format!("asking for the receive offloads of '{name}'"), source);
    let ifname = name.parse().map_err(|error| failed(io::Error::other(error)))?;
    Ok((ifname, plain_socket().map_err(failed)?))
}

/// Where the calling thread's network namespace has a netdev's IPv6 switch.
fn ipv6_switch(name: &str) -> PathBuf {
    PathBuf::from("/proc/sys/net/ipv6/conf").join(name).join("disable_ipv6")
}

/// Whether a netdev takes part in IPv6. Not when the kernel has none, or its MTU is below 1280.
pub(super) fn has_ipv6(name: &str) -> Result<bool, NetlinkError> {
    match fs::read_to_string(ipv6_switch(name)) {
        Ok(text) => Ok(text.trim() == "0"),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(source) => Err(NetlinkError::new(format!("reading whether '{name}' has IPv6"), source)),
    }
}

/// Switches a netdev's IPv6: with it off the kernel sends no router solicitations and joins no groups of its own.
pub(super) fn set_ipv6(name: &str, on: bool) -> Result<(), NetlinkError> {
    match fs::write(ipv6_switch(name), if on { "0" } else { "1" }) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            let doing = format!("switching IPv6 of '{name}' in /proc/sys (is it mounted read-only?)");
            Err(NetlinkError::new(doing, error))
        }
        _ => Ok(()),
    }
}
