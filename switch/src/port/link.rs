//! A netdev as facts: what netlink tells about it, in this room's words.

use netlink_packet_core::Nla;
use netlink_packet_route::link::{
    InfoData, InfoTun, InfoVxlan, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage,
};
use serde::{Deserialize, Serialize};
use switch_common::MacAddr;

use super::spec::PortState;

/// A netdev's own counters since it was made, in the netdev's view: `rx` is what came from it into the switch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkStats {
    /// Frames received from the wire or the guest.
    pub rx_frames: u64,
    /// Their bytes.
    pub rx_bytes: u64,
    /// Frames received and dropped before any hook.
    pub rx_dropped: u64,
    /// Frames sent to the wire or the guest.
    pub tx_frames: u64,
    /// Their bytes.
    pub tx_bytes: u64,
    /// Frames that found no room (a full tap ring).
    pub tx_dropped: u64,
}

/// What a tun device was made for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "facts, independent of each other, as the kernel tells them")]
pub struct TunFacts {
    /// Ethernet frames (a tap), not IP packets.
    pub tap: bool,
    /// A virtio-net header stands in front of each frame.
    pub vnet_header: bool,
    /// It outlives its opener.
    pub persistent: bool,
    /// It has several queues.
    pub multi_queue: bool,
    /// The user who may open it.
    pub owner: Option<u32>,
}

/// A netdev as netlink describes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "facts, independent of each other, as the kernel tells them")]
pub struct LinkFacts {
    /// Interface index.
    pub ifindex: u32,
    /// Name now.
    pub name: String,
    /// Administratively up.
    pub up: bool,
    /// Somebody holds the other end.
    pub carrier: bool,
    /// MTU in bytes, without the Ethernet header.
    pub mtu: u32,
    /// Smallest MTU the device takes; 0: not said.
    pub mtu_min: u32,
    /// Largest MTU the device takes; 0: not said.
    pub mtu_max: u32,
    /// `tun`, `veth`, `bond`, …; empty for hardware.
    pub kind: String,
    /// Interface index of the bridge or bond it belongs to.
    pub master: Option<u32>,
    /// Interface index of its other end (veth) or lower device.
    pub link: Option<u32>,
    /// The other end is in another network namespace.
    pub link_elsewhere: bool,
    /// Its own address.
    pub mac: Option<MacAddr>,
    /// The operator's remark.
    pub alias: String,
    /// Root queueing discipline.
    pub qdisc: String,
    /// Carries Ethernet frames.
    pub ethernet: bool,
    /// Is the loopback device.
    pub loopback: bool,
    /// Answers no ARP.
    pub noarp: bool,
    /// Promiscuous by the operator's wish.
    pub promisc: bool,
    /// Present for taps and tuns.
    pub tun: Option<TunFacts>,
    /// Its counters.
    pub stats: LinkStats,
}

impl LinkFacts {
    /// What a port on this netdev is doing.
    pub fn state(&self) -> PortState {
        match (self.up, self.carrier) {
            (true, true) => PortState::Up,
            (true, false) => PortState::NoCarrier,
            (false, _) => PortState::Down,
        }
    }

    /// Reads a link message.
    pub(super) fn read(message: &LinkMessage) -> Self {
        let flags = message.header.flags;
        let mut facts = Self {
            ifindex: message.header.index,
            up: flags.contains(LinkFlags::Up),
            noarp: flags.contains(LinkFlags::Noarp),
            promisc: flags.contains(LinkFlags::Promisc),
            loopback: flags.contains(LinkFlags::Loopback),
            carrier: flags.contains(LinkFlags::LowerUp),
            ethernet: message.header.link_layer_type == LinkLayerType::Ether,
            ..Self::default()
        };
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => facts.name.clone_from(name),
                LinkAttribute::Carrier(carrier) => facts.carrier = *carrier != 0,
                LinkAttribute::Mtu(mtu) => facts.mtu = *mtu,
                LinkAttribute::MinMtu(mtu) => facts.mtu_min = *mtu,
                LinkAttribute::MaxMtu(mtu) => facts.mtu_max = *mtu,
                LinkAttribute::Controller(index) => facts.master = Some(*index).filter(|index| *index != 0),
                LinkAttribute::Link(index) => facts.link = Some(*index).filter(|index| *index != 0),
                LinkAttribute::LinkNetNsId(_) => facts.link_elsewhere = true,
                LinkAttribute::Address(bytes) => facts.mac = bytes.as_slice().try_into().ok().map(MacAddr),
                LinkAttribute::IfAlias(alias) => facts.alias.clone_from(alias),
                LinkAttribute::Qdisc(qdisc) => facts.qdisc.clone_from(qdisc),
                LinkAttribute::Stats64(stats) => {
                    facts.stats = LinkStats {
                        rx_frames: stats.rx_packets,
                        rx_bytes: stats.rx_bytes,
                        rx_dropped: stats.rx_dropped,
                        tx_frames: stats.tx_packets,
                        tx_bytes: stats.tx_bytes,
                        tx_dropped: stats.tx_dropped,
                    };
                }
                LinkAttribute::LinkInfo(infos) => facts.read_infos(infos),
                _ => {}
            }
        }
        facts
    }

    fn read_infos(&mut self, infos: &[LinkInfo]) {
        for info in infos {
            match info {
                LinkInfo::Kind(kind) => self.kind = kind.to_string(),
                LinkInfo::Data(InfoData::Tun(attributes)) => self.tun = Some(read_tun(attributes)),
                LinkInfo::Data(InfoData::Vxlan(attributes)) => {
                    let below = attributes.iter().find_map(|attribute| match attribute {
                        InfoVxlan::Link(below) => Some(*below).filter(|below| *below != 0),
                        _ => None,
                    });
                    self.link = below.or(self.link);
                }
                _ => {}
            }
        }
    }
}

/// Attributes of a tun (`include/uapi/linux/if_link.h`, `IFLA_TUN_*`), which the packet crate hands over as bytes.
fn read_tun(attributes: &[InfoTun]) -> TunFacts {
    let mut facts = TunFacts::default();
    for attribute in attributes {
        let mut value = vec![0; attribute.value_len()];
        attribute.emit_value(&mut value);
        let first = value.first().copied().unwrap_or(0);
        match attribute.kind() {
            1 => facts.owner = value.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes)),
            3 => facts.tap = i32::from(first) == libc::IFF_TAP,
            5 => facts.vnet_header = first != 0,
            6 => facts.persistent = first != 0,
            7 => facts.multi_queue = first != 0,
            _ => {}
        }
    }
    facts
}
