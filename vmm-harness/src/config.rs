//! What a guest is to be: checked before anything is opened.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use guest_abi::{GuestConfig, Role};

use crate::ending::Error;

/// The attacks that a hostile guest knows.
pub const ATTACKS: [&str; 15] = [
    "spoofed-source",
    "spoofed-arp",
    "group-source",
    "runt",
    "oversize",
    "bad-csum-start",
    "gso-size-0",
    "gso-size-1",
    "gso-size-65535",
    "hdr-len",
    "double-tag",
    "reserved",
    "source-flood",
    "broadcast-storm",
    "unknown-scan",
];

/// A station's address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MacAddr(pub [u8; 6]);

/// A text is no station address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no address of a station (six octets, as in 52:54:00:00:00:01)")]
pub struct NoMac(String);

impl FromStr for MacAddr {
    type Err = NoMac;

    fn from_str(text: &str) -> Result<Self, NoMac> {
        let octets = text.split(':').map(|octet| match octet.len() {
            2 => u8::from_str_radix(octet, 16).ok().filter(|_| !octet.starts_with('+')),
            _ => None,
        });
        let octets: Option<Vec<u8>> = octets.collect();
        octets.and_then(|octets| octets.try_into().ok()).map(Self).ok_or_else(|| NoMac(text.to_owned()))
    }
}

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let octets = self.0.map(|octet| format!("{octet:02x}"));
        f.write_str(&octets.join(":"))
    }
}

/// What runs in the guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Payload {
    /// The micro guest.
    Micro(MicroGuest),
    /// Linux.
    Linux(LinuxGuest),
}

/// A micro guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MicroGuest {
    /// Its image.
    pub image: Image,
    /// What it does.
    pub role: Role,
    /// Its IPv4 address.
    pub ip: Ipv4Addr,
    /// Its IPv6 address.
    pub ip6: Ipv6Addr,
    /// The IPv4 address of its peer.
    pub peer: Ipv4Addr,
    /// The IPv6 address of its peer.
    pub peer6: Ipv6Addr,
    /// The peer's station address, all zero: found out by ARP.
    pub peer_mac: MacAddr,
    /// The station that an attack is about.
    pub victim: MacAddr,
    /// How many datagrams a talker sends.
    pub count: u32,
    /// Name of the attack, empty for none.
    pub attack: String,
}

/// Where a micro guest's ELF image comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Image {
    /// A file.
    File(PathBuf),
    /// Bytes at hand.
    Bytes(Vec<u8>),
}

/// A Linux guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinuxGuest {
    /// The kernel, a bzImage.
    pub kernel: PathBuf,
    /// The initial file system.
    pub initrd: Option<PathBuf>,
    /// The command line.
    pub cmdline: String,
}

/// A guest on a tap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// What runs in it.
    pub payload: Payload,
    /// The tap.
    pub tap: String,
    /// Whether frames carry a virtio-net header on the tap.
    pub offloads: bool,
    /// The address of its network device.
    pub mac: MacAddr,
    /// The MTU told to it.
    pub mtu: u16,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// Processors.
    pub cpus: u8,
    /// How long the guest may take until its driver is ready.
    pub driver_timeout: Duration,
}

impl Config {
    /// Refuses what can be refused before anything is opened.
    pub fn check(&self) -> Result<(), Error> {
        if !(16..=3072).contains(&self.memory_mib) {
            return Err(Error::MemorySize(self.memory_mib));
        }
        if !(1..=16).contains(&self.cpus) {
            return Err(Error::Cpus(self.cpus));
        }
        let MacAddr(octets @ [first, ..]) = self.mac;
        if first & 1 != 0 || octets == [0; 6] {
            return Err(Error::GuestMac(self.mac));
        }
        match &self.payload {
            Payload::Micro(micro) if micro.role == Role::Hostile && !ATTACKS.contains(&micro.attack.as_str()) => {
                Err(Error::AttackName(micro.attack.clone()))
            }
            Payload::Micro(micro) if micro.role == Role::Talker && micro.peer.is_unspecified() => Err(Error::NoPeer),
            _ => Ok(()),
        }
    }
}

impl MicroGuest {
    /// The page that tells the guest all this.
    pub fn page(&self, mac: MacAddr) -> Vec<u8> {
        let mut attack = [0; 32];
        for (to, from) in attack.iter_mut().take(31).zip(self.attack.bytes()) {
            *to = from;
        }
        let page = GuestConfig {
            role: self.role as u32,
            mac: mac.0,
            peer_mac: self.peer_mac.0,
            ip: self.ip.octets(),
            peer_ip: self.peer.octets(),
            ip6: self.ip6.octets(),
            peer_ip6: self.peer6.octets(),
            count: self.count,
            attack,
            victim_mac: self.victim.0,
            ..GuestConfig::EMPTY
        };
        let mut bytes = Vec::with_capacity(size_of::<GuestConfig>());
        bytes.extend(page.magic.to_le_bytes());
        bytes.extend(page.mmio_base.to_le_bytes());
        bytes.extend(page.mmio_irq.to_le_bytes());
        bytes.extend(page.role.to_le_bytes());
        bytes.extend(page.mac);
        bytes.extend(page.peer_mac);
        bytes.extend(page.ip);
        bytes.extend(page.peer_ip);
        bytes.extend(page.ip6);
        bytes.extend(page.peer_ip6);
        bytes.extend(page.count.to_le_bytes());
        bytes.extend(page.attack);
        bytes.extend(page.victim_mac);
        bytes.extend(page.reserved);
        bytes
    }
}
