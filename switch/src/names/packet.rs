//! What a frame's first bytes tell, whatever they are wrapped in. The wrapping is etherparse's business.

use std::net::{IpAddr, SocketAddr};

use etherparse::{LaxLinkExtSlice, LaxNetSlice, LaxSlicedPacket, TransportSlice};
use switch_common::MacAddr;

use super::dhcp::{Dhcp, dhcp_v4, dhcp_v6};
use super::dns::{Malformed, Message};
use super::neighbours::{Spoken, arp, neighbour};

/// A frame that says who is who.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told<'a> {
    /// Who sent the frame.
    pub source: MacAddr,
    /// The VLAN of the outer tag, 0 without one.
    pub vlan: u16,
    /// What it says.
    pub saying: Saying<'a>,
}

/// What a frame says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Saying<'a> {
    /// Of an address: by ARP or neighbour discovery.
    Neighbour(Spoken),
    /// Of a lease.
    Dhcp(Dhcp<'a>),
    /// Of names.
    Dns {
        /// From where.
        from: SocketAddr,
        /// To where.
        to: SocketAddr,
        /// What.
        message: Result<Message, Malformed>,
    },
}

/// Reads a frame; `None` when it says nothing of all this.
pub fn tell(frame: &[u8]) -> Option<Told<'_>> {
    let source = MacAddr(*frame.get(6..)?.first_chunk()?);
    let packet = LaxSlicedPacket::from_ethernet(frame).ok()?;
    let vlan = packet.link_exts.iter().find_map(|tag| match tag {
        LaxLinkExtSlice::Vlan(tag) => Some(tag.vlan_identifier().value()),
        LaxLinkExtSlice::Macsec(_) => None,
    });
    let saying = say(&packet, source)?;
    Some(Told { source, vlan: vlan.unwrap_or(0), saying })
}

fn say<'a>(packet: &LaxSlicedPacket<'a>, source: MacAddr) -> Option<Saying<'a>> {
    let (from, to, hops): (IpAddr, IpAddr, u8) = match packet.net.as_ref()? {
        LaxNetSlice::Arp(packet) => return arp(packet).map(Saying::Neighbour),
        LaxNetSlice::Ipv4(ip) => {
            let header = ip.header();
            (header.source_addr().into(), header.destination_addr().into(), header.ttl())
        }
        LaxNetSlice::Ipv6(ip) => {
            let header = ip.header();
            (header.source_addr().into(), header.destination_addr().into(), header.hop_limit())
        }
    };
    match packet.transport.as_ref()? {
        TransportSlice::Udp(udp) => {
            let payload = udp.payload();
            let (source_port, destination_port) = (udp.source_port(), udp.destination_port());
            if source_port == 53 || destination_port == 53 {
                let (from, to) = (SocketAddr::new(from, source_port), SocketAddr::new(to, destination_port));
                return Some(Saying::Dns { from, to, message: Message::read(payload) });
            }
            match (from, destination_port) {
                (IpAddr::V4(_), 67 | 68) => dhcp_v4(payload).map(Saying::Dhcp),
                (IpAddr::V6(_), 546 | 547) => dhcp_v6(payload).map(Saying::Dhcp),
                _ => None,
            }
        }
        TransportSlice::Icmpv6(icmp) => match from {
            // RFC 4861, section 6.1 and 7.1: from farther away it is forged.
            IpAddr::V6(from) if hops == 255 => neighbour(from, source, icmp.slice()).map(Saying::Neighbour),
            IpAddr::V4(_) | IpAddr::V6(_) => None,
        },
        TransportSlice::Icmpv4(_) | TransportSlice::Igmp(_) | TransportSlice::Tcp(_) => None,
    }
}
