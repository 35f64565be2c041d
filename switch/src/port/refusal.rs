//! What cannot be a port, and why. Each message says what to do next. Nothing here changes anything.

use std::io;
use std::net::IpAddr;

use switch_common::MacAddr;

use super::link::LinkFacts;
use super::netlink::{Netlink, NetlinkError};
use super::spec::IfName;

/// How a punt tap's alias ends: what another instance's is known by.
pub(super) const PUNT_ALIAS: &str = " punt tap";
/// The MTUs that taps and veths take: IPv4's least (RFC 791), and what a length of 16 bits can say.
pub(super) const MADE_MTU: (u32, u32) = (68, 65_535);

/// Why a port could not be attached. Nothing was changed, or it was put back.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// There is no such netdev.
    #[error("there is no netdev '{netdev}'; `ip link` lists those there are, and --wait attaches it when it appears")]
    NoSuchNetdev {
        /// Its name.
        netdev: IfName,
    },
    /// The loopback device cannot be a port.
    #[error("'{netdev}' is the loopback device and cannot be a port; for the host itself use --host")]
    Loopback {
        /// Its name.
        netdev: IfName,
    },
    /// It carries no Ethernet frames.
    #[error("'{netdev}' does not carry Ethernet frames; a tun has to be made as a tap")]
    NotEthernet {
        /// Its name.
        netdev: IfName,
    },
    /// It belongs to a switch already: a punt tap, the port end of a veth pair, or the other end on the host.
    #[error("'{netdev}' is Weft's own device and cannot be attached to a switch again; name the guest's netdev")]
    OwnDevice {
        /// Its name.
        netdev: IfName,
    },
    /// A bridge or a bond has it.
    #[error(
        "'{netdev}' belongs to '{bridge}'; take it out (ip link set {netdev} nomaster), or use --force to attach it all the same"
    )]
    BridgeMember {
        /// Its name.
        netdev: IfName,
        /// Whose member it is.
        bridge: String,
    },
    /// The host talks through it.
    #[error(
        "'{netdev}' has the address {address}, which would stop working; remove it (ip address del {address} dev {netdev}), or use --force"
    )]
    HasAddress {
        /// Its name.
        netdev: IfName,
        /// The first of its addresses.
        address: String,
    },
    /// The device does not take that MTU.
    #[error("'{netdev}' does not take an MTU of {mtu}; from {min} to {max} it does")]
    BadMtu {
        /// Its name.
        netdev: IfName,
        /// What was asked for.
        mtu: u32,
        /// The smallest it takes.
        min: u32,
        /// The largest it takes.
        max: u32,
    },
    /// There is no such namespace.
    #[error(
        "there is no network namespace '{netns}' ({source}); give a name of `ip netns list`, an absolute path or a process id"
    )]
    NoSuchNetns {
        /// What was asked for.
        netns: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// The namespace is the switch's own.
    #[error("'{netns}' is the network namespace the switch itself runs in; use --host to give it an interface")]
    OwnNetns {
        /// What was asked for.
        netns: String,
    },
    /// The far end's name is taken where it is to be.
    #[error(
        "there is an interface '{ifname}' already where the port's is to be; choose another with --ifname, or remove it there"
    )]
    NameTakenInside {
        /// The name.
        ifname: IfName,
    },
    /// Not an address with prefix length.
    #[error("'{address}' is not an address with prefix length, as 198.18.0.2/24 or 2001:db8::2/64")]
    BadAddress {
        /// What was given.
        address: String,
    },
    /// Not a station's MAC address.
    #[error("{mac} cannot be an interface's MAC address: it is a group address or zero")]
    BadMac {
        /// What was given.
        mac: MacAddr,
    },
    /// No such user.
    #[error("there is no user '{user}'; give a name of the user database or a number")]
    NoSuchUser {
        /// What was given.
        user: String,
    },
    /// A netdev of that name exists, and is not what would have been made.
    #[error(
        "a netdev '{netdev}' exists already {but}; attach it as it is with --netdev {netdev}, or remove it (ip link del {netdev})"
    )]
    NotATap {
        /// Its name.
        netdev: IfName,
        /// What it is not.
        but: &'static str,
    },
    /// A tap could not be made.
    #[error("making the tap '{netdev}': {source}; is /dev/net/tun there (modprobe tun)?")]
    Tap {
        /// Its name.
        netdev: IfName,
        /// What the kernel said.
        source: io::Error,
    },
    /// No privilege.
    #[error("{doing}: not permitted; run weft as root, or with CAP_NET_ADMIN and CAP_SYS_ADMIN")]
    NotPermitted {
        /// What was being done.
        doing: String,
    },
    /// Loop or reflex refused the port.
    #[error("'{netdev}' could not be made a port: {reason}")]
    Refused {
        /// Its name.
        netdev: IfName,
        /// What was said.
        reason: String,
    },
    /// The kernel refused a step.
    #[error(transparent)]
    Netlink(NetlinkError),
}

impl From<NetlinkError> for AttachError {
    fn from(error: NetlinkError) -> Self {
        match error.errno() {
            Some(libc::EPERM | libc::EACCES) => Self::NotPermitted { doing: error.doing },
            _ => Self::Netlink(error),
        }
    }
}

/// Refuses a netdev that cannot be a port, or that the host uses.
pub(super) async fn check(
    netlink: &Netlink,
    netdev: &IfName,
    facts: &LinkFacts,
    mtu: Option<u32>,
    punt_ifindex: u32,
    force: bool,
) -> Result<(), AttachError> {
    let netdev = netdev.clone();
    if facts.loopback {
        return Err(AttachError::Loopback { netdev });
    }
    if facts.ifindex == punt_ifindex || is_own(netlink, facts).await? {
        return Err(AttachError::OwnDevice { netdev });
    }
    if !facts.ethernet {
        return Err(AttachError::NotEthernet { netdev });
    }
    check_mtu(&netdev, mtu, (facts.mtu_min, facts.mtu_max))?;
    if force {
        return Ok(());
    }
    if let Some(master) = facts.master {
        let bridge = netlink.by_index(master).await?.map_or_else(|| master.to_string(), |facts| facts.name);
        return Err(AttachError::BridgeMember { netdev, bridge });
    }
    let addresses = netlink.addresses(facts.ifindex).await?;
    match addresses.iter().find(|(address, _)| !is_link_local(address)) {
        Some((address, prefix)) => Err(AttachError::HasAddress { netdev, address: format!("{address}/{prefix}") }),
        None => Ok(()),
    }
}

/// Whether a netdev is some instance's punt tap, or one of the two ends of a pair made for a port.
async fn is_own(netlink: &Netlink, facts: &LinkFacts) -> Result<bool, NetlinkError> {
    if is_port_end(&facts.name) || facts.alias.ends_with(PUNT_ALIAS) {
        return Ok(true);
    }
    match facts.link {
        Some(other) if facts.kind == "veth" && !facts.link_elsewhere => {
            Ok(netlink.by_index(other).await?.is_some_and(|other| is_port_end(&other.name)))
        }
        _ => Ok(false),
    }
}

/// Refuses an MTU outside the range; a largest of 0 is none.
pub(super) fn check_mtu(netdev: &IfName, mtu: Option<u32>, (min, max): (u32, u32)) -> Result<(), AttachError> {
    let max = if max == 0 { u32::MAX } else { max };
    match mtu {
        Some(mtu) if mtu < min || mtu > max => Err(AttachError::BadMtu { netdev: netdev.clone(), mtu, min, max }),
        _ => Ok(()),
    }
}

/// Refuses a tap that is not as this switch makes them.
pub(super) fn check_tap(tap: &IfName, facts: &LinkFacts, owner: Option<u32>) -> Result<(), AttachError> {
    let tun = facts.tun.unwrap_or_default();
    let but = match () {
        () if !tun.tap => "and is no tap",
        () if !tun.persistent => "and is not persistent",
        () if !tun.vnet_header => "and has no virtio-net header",
        () if tun.multi_queue => "and has several queues",
        () if tun.owner != owner => "and belongs to another user",
        () => return Ok(()),
    };
    Err(AttachError::NotATap { netdev: tap.clone(), but })
}

/// Whether this is the name of the host end of a pair made for a port: `wv<punt tap>p<port id>`.
pub(super) fn is_port_end(name: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let parts = name.strip_prefix("wv").and_then(|rest| rest.split_once('p'));
    parts.is_some_and(|(punt, id)| digits(punt) && digits(id))
}

/// Whether the kernel gave it by itself (RFC 4291, clause 2.5.6).
pub(super) fn is_link_local(address: &IpAddr) -> bool {
    matches!(address, IpAddr::V6(address) if address.is_unicast_link_local())
}
