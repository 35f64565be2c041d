//! Why a port could not be attached. Each message says what to do next.

use std::io;

use switch_common::MacAddr;

use super::netlink::NetlinkError;
use super::spec::IfName;

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
    /// A tap of that name exists, and a program holds it open.
    #[error("a tap '{netdev}' exists already and a program holds it open; attach it as it is with --netdev {netdev}")]
    Busy {
        /// Its name.
        netdev: IfName,
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
