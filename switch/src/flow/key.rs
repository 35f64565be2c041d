//! Who talks to whom: a flow's key as the kernel keeps it, and as we read it.
//!
//! A *raw* key is what identifies an entry of the kernel's tables; it is compared, hashed and turned round as it is. A
//! [`FlowKey`] is the same thing read: the kernel's bytes are checked once, when an entry is first seen.

use std::hash::{Hash, Hasher};
use std::net::IpAddr;

use switch_common::flow::{
    FLOW_ALTERNATE, FLOW_PORT_MASK, FLOW_TAG, FLOW_TAG_SERVICE, FLOW_TAG_VID, FlowKey4, FlowKey6, FlowPair, FlowTail,
    KIND_CUT, KIND_FRAGMENT, KIND_IPV4, KIND_IPV6, KIND_LINK, KIND_MASK, Parsed, parse,
};
use switch_common::{MacAddr, PORT_ID_MAX, PortId};

const TCP: u8 = 6;
const UDP: u8 = 17;

const ICMP: u8 = 1;
const ICMPV6: u8 = 58;

/// The key of an entry, as it lies in the kernel's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RawKey {
    /// Of the table for IPv4 and for everything that is not IP.
    V4(FlowKey4),
    /// Of the table for IPv6.
    V6(FlowKey6),
}

/// In few words: it is done for every entry in every sweep.
impl Hash for RawKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let (pair, tail) = (self.pair(), self.tail());
        for (station, number) in [(pair.destination, pair.ingress), (pair.source, pair.outer)] {
            let high = station.into_iter().fold(0, |high: u64, byte| high << 8 | u64::from(byte));
            state.write_u64(high << 16 | u64::from(number));
        }
        match self {
            Self::V4(key) => {
                let [source, destination] = [key.source_address, key.destination_address].map(u32::from_ne_bytes);
                state.write_u64(u64::from(source) << 32 | u64::from(destination));
            }
            Self::V6(key) => {
                state.write_u128(u128::from_ne_bytes(key.source_address));
                state.write_u128(u128::from_ne_bytes(key.destination_address));
            }
        }
        let ports = u64::from(tail.source_port) << 48 | u64::from(tail.destination_port) << 32;
        state.write_u64(ports | u64::from(tail.inner) << 16 | u64::from(tail.protocol) << 8 | u64::from(tail.kind));
    }
}

impl RawKey {
    /// Of which flow a frame is that came in by a port, as the programs tell it; nothing when they cannot. `segmented`: it is a super-frame.
    pub fn of_frame(ingress: PortId, frame: &[u8], segmented: bool) -> Option<Self> {
        let (destination, source) = (*frame.first_chunk()?, *frame.get(6..)?.first_chunk()?);
        let Parsed { outer, tail, addresses_at, .. } =
            parse(frame, u32::try_from(frame.len()).unwrap_or(u32::MAX), segmented).ok()?;
        let pair = FlowPair { destination, source, ingress: ingress.get(), outer };
        let none = FlowKey4 { pair, source_address: [0; 4], destination_address: [0; 4], tail };
        Some(match tail.kind & KIND_MASK {
            KIND_IPV4 => Self::V4(FlowKey4 {
                source_address: *frame.get(addresses_at..)?.first_chunk()?,
                destination_address: *frame.get(addresses_at + 4..)?.first_chunk()?,
                ..none
            }),
            KIND_IPV6 => Self::V6(FlowKey6 {
                pair,
                source_address: *frame.get(addresses_at..)?.first_chunk()?,
                destination_address: *frame.get(addresses_at + 16..)?.first_chunk()?,
                tail,
            }),
            _ => Self::V4(none),
        })
    }

    /// Stations, ingress port and outer tag, as the kernel has them.
    pub fn pair(&self) -> &FlowPair {
        match self {
            Self::V4(key) => &key.pair,
            Self::V6(key) => &key.pair,
        }
    }

    fn pair_mut(&mut self) -> &mut FlowPair {
        match self {
            Self::V4(key) => &mut key.pair,
            Self::V6(key) => &mut key.pair,
        }
    }

    fn tail(&self) -> FlowTail {
        match self {
            Self::V4(key) => key.tail,
            Self::V6(key) => key.tail,
        }
    }

    /// The number of the port it came in by.
    pub fn ingress(&self) -> u16 {
        self.pair().ingress & FLOW_PORT_MASK
    }

    /// The same key at another port (0: at any), whichever life it is in.
    pub(super) fn at(mut self, ingress: u16) -> Self {
        self.pair_mut().ingress = ingress & FLOW_PORT_MASK;
        self
    }

    /// The key without its life bit.
    pub(crate) fn plain(self) -> Self {
        self.at(self.ingress())
    }

    /// The key of what is sent back, at the port it comes back by (0: at any).
    pub(super) fn reversed(mut self, ingress: u16) -> Self {
        let tail = match &mut self {
            Self::V4(key) => {
                (key.source_address, key.destination_address) = (key.destination_address, key.source_address);
                &mut key.tail
            }
            Self::V6(key) => {
                (key.source_address, key.destination_address) = (key.destination_address, key.source_address);
                &mut key.tail
            }
        };
        match tail.ports() {
            Ports::L4 { .. } => (tail.source_port, tail.destination_port) = (tail.destination_port, tail.source_port),
            Ports::Icmp { kind, .. } => {
                tail.source_port = u16::from(icmp_answer(tail.protocol, kind).unwrap_or(kind));
            }
            Ports::None | Ports::Fragment | Ports::Cut => {}
        }
        let pair = self.pair_mut();
        (pair.source, pair.destination) = (pair.destination, pair.source);
        self.at(ingress)
    }

    /// Whether anything can be sent back: not to a group, and not to an ICMP message that asks nothing.
    pub(super) fn is_answerable(&self) -> bool {
        let group = MacAddr(self.pair().destination).is_group();
        let silent = match self.tail().ports() {
            Ports::Icmp { kind, .. } => icmp_answer(self.tail().protocol, kind).is_none(),
            Ports::None | Ports::Fragment | Ports::Cut | Ports::L4 { .. } => false,
        };
        !group && !silent
    }

    /// Whether it is TCP with its ports.
    pub(super) fn is_tcp(&self) -> bool {
        self.tail().protocol == TCP && matches!(self.tail().ports(), Ports::L4 { .. })
    }

    /// What is behind it, for the sums.
    pub fn transport(&self) -> Transport {
        let tail = self.tail();
        match (tail.kind & KIND_MASK, tail.protocol) {
            (KIND_LINK, _) => Transport::Link,
            (_, TCP) => Transport::Tcp,
            (_, UDP) => Transport::Udp,
            (_, ICMP | ICMPV6) => Transport::Icmp,
            _ => Transport::OtherIp,
        }
    }

    /// Whether the frame says that its sender does useful work: unicast, and neither ARP nor neighbour discovery.
    pub(super) fn is_useful(&self) -> bool {
        const ARP: u16 = 0x0806;
        let tail = self.tail();
        let housekeeping = match tail.kind & KIND_MASK {
            KIND_LINK => tail.source_port == ARP,
            _ => tail.protocol == ICMPV6 && matches!(tail.ports(), Ports::Icmp { kind: 133..=137, .. }),
        };
        !housekeeping && !MacAddr(self.pair().destination).is_group()
    }
}

/// What the part of a key behind the addresses says of ports.
trait ReadPorts {
    fn ports(&self) -> Ports;
}

impl ReadPorts for FlowTail {
    fn ports(&self) -> Ports {
        let (source, destination) = (self.source_port, self.destination_port);
        if self.kind & KIND_MASK == KIND_LINK {
            Ports::None
        } else if self.kind & KIND_FRAGMENT != 0 {
            Ports::Fragment
        } else if self.kind & KIND_CUT != 0 {
            Ports::Cut
        } else if matches!(self.protocol, ICMP | ICMPV6) {
            let [kind, code] = [source, destination].map(|number| number.to_be_bytes()[1]);
            Ports::Icmp { kind, code }
        } else if matches!(self.protocol, TCP | UDP | 33 | 132 | 136) {
            Ports::L4 { source, destination }
        } else {
            Ports::None
        }
    }
}

/// A flow's key, read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FlowKey {
    /// The port it came in by.
    pub ingress: PortId,
    /// The life bit: an entry that is dead but not yet deleted leaves its key to one with the other bit.
    pub alternate: bool,
    /// Source station.
    pub source: MacAddr,
    /// Destination station, or a group.
    pub destination: MacAddr,
    /// The frame's own tags.
    pub tags: Tags,
    /// What is above Ethernet.
    pub network: Network,
}

/// The tags a frame brought along.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Tags {
    /// The first.
    pub outer: Option<Tag>,
    /// The one behind it.
    pub inner: Option<Tag>,
}

/// One tag (IEEE 802.1Q-2022, clause 9.6), without its priority.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tag {
    /// A service tag (802.1ad), not a customer's.
    pub service: bool,
    /// The VLAN's number; 0 is a mere priority tag.
    pub vlan: u16,
}

/// What is above Ethernet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Network {
    /// No IP.
    Link {
        /// Its EtherType; 0 for a frame with a length instead (IEEE 802.3).
        ethertype: u16,
    },
    /// IPv4 or IPv6.
    Ip {
        /// Source address.
        source: IpAddr,
        /// Destination address, of the same version.
        destination: IpAddr,
        /// Protocol, behind all extension headers.
        protocol: u8,
        /// What tells flows of one protocol apart.
        ports: Ports,
    },
}

/// What tells flows of one protocol between two hosts apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ports {
    /// Nothing: the protocol has no ports that we know of.
    None,
    /// A fragment: a class of its own, because only the first one has ports.
    Fragment,
    /// The frame ends before the ports.
    Cut,
    /// TCP, UDP, DCCP, SCTP, UDP-Lite.
    L4 {
        /// Source port.
        source: u16,
        /// Destination port.
        destination: u16,
    },
    /// ICMP and `ICMPv6`.
    Icmp {
        /// Type.
        kind: u8,
        /// Code.
        code: u8,
    },
}

/// What the sums tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// ICMP and `ICMPv6`.
    Icmp,
    /// Any other protocol above IP.
    OtherIp,
    /// Not IP.
    Link,
}

impl Transport {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Tcp, Self::Udp, Self::Icmp, Self::OtherIp, Self::Link];

    /// The label in metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Icmp => "icmp",
            Self::OtherIp => "other_ip",
            Self::Link => "link",
        }
    }
}

/// A key that the reflex does not write: it stands for a defect, and is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAKey {
    /// No port has this number.
    #[error("port id {0} is not within 1 and {PORT_ID_MAX}")]
    Ingress(u16),
    /// Neither a link flow nor one of the version whose table it is in.
    #[error("kind {0:#04x} does not belong into this table")]
    Kind(u8),
}

impl TryFrom<&RawKey> for FlowKey {
    type Error = NotAKey;
    fn try_from(raw: &RawKey) -> Result<Self, NotAKey> {
        match raw {
            RawKey::V4(key) => key.try_into(),
            RawKey::V6(key) => key.try_into(),
        }
    }
}

impl TryFrom<&FlowKey4> for FlowKey {
    type Error = NotAKey;
    fn try_from(key: &FlowKey4) -> Result<Self, NotAKey> {
        match key.tail.kind & KIND_MASK {
            KIND_LINK => read(&key.pair, key.tail, Network::Link { ethertype: key.tail.source_port }),
            KIND_IPV4 => read(&key.pair, key.tail, ip(key.source_address, key.destination_address, key.tail)),
            kind => Err(NotAKey::Kind(kind)),
        }
    }
}

impl TryFrom<&FlowKey6> for FlowKey {
    type Error = NotAKey;
    fn try_from(key: &FlowKey6) -> Result<Self, NotAKey> {
        match key.tail.kind & KIND_MASK {
            KIND_IPV6 => read(&key.pair, key.tail, ip(key.source_address, key.destination_address, key.tail)),
            kind => Err(NotAKey::Kind(kind)),
        }
    }
}

fn ip(source: impl Into<IpAddr>, destination: impl Into<IpAddr>, tail: FlowTail) -> Network {
    let (source, destination) = (source.into(), destination.into());
    Network::Ip { source, destination, protocol: tail.protocol, ports: tail.ports() }
}

fn read(pair: &FlowPair, tail: FlowTail, network: Network) -> Result<FlowKey, NotAKey> {
    let id = pair.ingress & FLOW_PORT_MASK;
    Ok(FlowKey {
        ingress: PortId::new(id).ok_or(NotAKey::Ingress(id))?,
        alternate: pair.ingress & FLOW_ALTERNATE != 0,
        source: MacAddr(pair.source),
        destination: MacAddr(pair.destination),
        tags: Tags { outer: tag(pair.outer), inner: tag(tail.inner) },
        network,
    })
}

fn tag(bits: u16) -> Option<Tag> {
    (bits & FLOW_TAG != 0).then_some(Tag { service: bits & FLOW_TAG_SERVICE != 0, vlan: bits & FLOW_TAG_VID })
}

/// The ICMP type that answers a type, or that it answers, as community IDs have it (and Zeek, and Suricata).
pub(super) fn icmp_answer(protocol: u8, kind: u8) -> Option<u8> {
    /// Echo, router discovery, timestamp, information, address mask (RFC 792, 950, 1256).
    const V4: &[(u8, u8)] = &[(8, 0), (10, 9), (13, 14), (15, 16), (17, 18)];
    /// Echo, listener discovery, router and neighbour discovery, node information, home agent discovery (RFC 4443, 2710,
    /// 4861, 4620, 6275).
    const V6: &[(u8, u8)] = &[(128, 129), (130, 131), (133, 134), (135, 136), (139, 140), (144, 145)];
    let pairs = match protocol {
        ICMP => V4,
        ICMPV6 => V6,
        _ => return None,
    };
    pairs.iter().find_map(|(ask, answer)| match kind {
        _ if kind == *ask => Some(*answer),
        _ if kind == *answer => Some(*ask),
        _ => None,
    })
}
