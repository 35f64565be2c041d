//! ARP (RFC 826, RFC 5227) and neighbour discovery (RFC 4861): whose address is whose, as stations say themselves.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use etherparse::{ArpHardwareId, ArpPacketSlice, EtherType};
use switch_common::MacAddr;

use super::text::Reader;

/// A word about an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spoken {
    /// The address.
    pub address: IpAddr,
    /// The station whose it is, or who wants it.
    pub mac: MacAddr,
    /// It is not used yet: the station asks whether anybody has it.
    pub is_probe: bool,
    /// By neighbour discovery, not by ARP.
    pub is_nd: bool,
}

/// Whether a host can have this address.
fn is_host(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            !(address.is_unspecified() || address.is_multicast() || address.is_broadcast() || address.is_loopback())
        }
        IpAddr::V6(address) => !(address.is_unspecified() || address.is_multicast() || address.is_loopback()),
    }
}

fn spoken(address: IpAddr, mac: MacAddr, is_probe: bool) -> Option<Spoken> {
    let is_nd = address.is_ipv6();
    (is_host(address) && mac.is_station()).then_some(Spoken { address, mac, is_probe, is_nd })
}

/// What an ARP packet says of its sender, request or reply.
pub(super) fn arp(packet: &ArpPacketSlice<'_>) -> Option<Spoken> {
    if packet.hw_addr_type() != ArpHardwareId::ETHERNET || packet.proto_addr_type() != EtherType::IPV4 {
        return None;
    }
    let mac = MacAddr(packet.sender_hw_addr().try_into().ok()?);
    let sender = Ipv4Addr::from(<[u8; 4]>::try_from(packet.sender_protocol_addr()).ok()?);
    let target = Ipv4Addr::from(<[u8; 4]>::try_from(packet.target_protocol_addr()).ok()?);
    if sender.is_unspecified() { spoken(target.into(), mac, true) } else { spoken(sender.into(), mac, false) }
}

/// What a message of neighbour discovery says, from its `ICMPv6` header on.
pub(super) fn neighbour(from: Ipv6Addr, source: MacAddr, message: &[u8]) -> Option<Spoken> {
    let mut fields = Reader::new(message);
    let [kind, code] = fields.array()?;
    // Behind the checksum: what is reserved or the router's values, and for two of them the target.
    fields.take(2)?;
    if code != 0 {
        return None;
    }
    match kind {
        133 => {
            fields.take(4)?;
            spoken(from.into(), option(fields, 1).unwrap_or(source), false)
        }
        134 => {
            fields.take(12)?;
            spoken(from.into(), option(fields, 1).unwrap_or(source), false)
        }
        135 => {
            fields.take(4)?;
            let target = Ipv6Addr::from(fields.array::<16>()?);
            if from.is_unspecified() {
                // Duplicate address detection (RFC 4862, section 5.4).
                return spoken(target.into(), source, true);
            }
            spoken(from.into(), option(fields, 1).unwrap_or(source), false)
        }
        136 => {
            fields.take(4)?;
            let target = Ipv6Addr::from(fields.array::<16>()?);
            spoken(target.into(), option(fields, 2).unwrap_or(source), false)
        }
        137 => spoken(from.into(), source, false),
        _ => None,
    }
}

/// The link-layer address in the option of this type.
fn option(mut fields: Reader<'_>, wanted: u8) -> Option<MacAddr> {
    loop {
        let [kind, units] = fields.array()?;
        // Of length 0 is forged (RFC 4861, section 4.6).
        let body = fields.take((usize::from(units) * 8).checked_sub(2)?)?;
        if kind == wanted {
            return body.first_chunk().map(|mac| MacAddr(*mac));
        }
    }
}
