//! A frame in one line, for people: what it is, from whom, to whom.
//!
//! Decoded by etherparse, not by our own parser: who looks at a frame that was dropped wants a second opinion. Frames are
//! untrusted and often cut short. The line is made of numbers and addresses alone, never of bytes that a guest chose.

use std::fmt::Write as _;

use etherparse::{
    EtherType, LaxLinkExtSlice, LaxNetSlice, LaxSlicedPacket, LinkSlice, TcpSlice, TransportSlice, ether_type,
};
use switch_common::MacAddr;

/// Describes the frame of `length` bytes that begins with `bytes`.
#[must_use]
pub fn describe(bytes: &[u8], length: u32) -> String {
    let (Some(to), Some(from)) = (mac(bytes, 0), mac(bytes, 6)) else { return format!("{length} bytes") };
    let mut line = format!("{from} > {to} ");
    let Ok(packet) = LaxSlicedPacket::from_ethernet(bytes) else { return format!("{line}{length} bytes") };
    let mut inner = packet.link.as_ref().and_then(LinkSlice::ether_payload).map(|payload| payload.ether_type);
    for tag in &packet.link_exts {
        if let LaxLinkExtSlice::Vlan(tag) = tag {
            inner = Some(tag.ether_type());
            // Writing to a string cannot fail.
            write!(line, "VLAN {} ", tag.vlan_identifier().value()).ok();
        }
    }
    match &packet.net {
        Some(LaxNetSlice::Ipv4(ip)) => {
            let header = ip.header();
            let ends = Ends { from: header.source_addr().to_string(), to: header.destination_addr().to_string() };
            line.push_str("IPv4 ");
            ends.write(&mut line, packet.transport.as_ref(), header.protocol().0, header.is_fragmenting_payload());
        }
        Some(LaxNetSlice::Ipv6(ip)) => {
            let header = ip.header();
            let (from, to) = (header.source_addr(), header.destination_addr());
            let ends = Ends { from: bracketed(from), to: bracketed(to) };
            line.push_str("IPv6 ");
            let fragment = ip.is_payload_fragmented();
            ends.write(&mut line, packet.transport.as_ref(), ip.payload().ip_number.0, fragment);
        }
        Some(LaxNetSlice::Arp(_)) => line.push_str("ARP"),
        None => line.push_str(&name(inner)),
    }
    write!(line, " {length} bytes").ok();
    line
}

fn mac(bytes: &[u8], at: usize) -> Option<MacAddr> {
    Some(MacAddr(*bytes.get(at..)?.first_chunk()?))
}

fn bracketed(address: std::net::Ipv6Addr) -> String {
    format!("[{address}]")
}

fn name(ether_type: Option<EtherType>) -> String {
    match ether_type {
        Some(ether_type::IPV4) => "IPv4, cut short".to_owned(),
        Some(ether_type::IPV6) => "IPv6, cut short".to_owned(),
        Some(ether_type::ARP) => "ARP".to_owned(),
        Some(EtherType(length)) if length <= 1500 => "LLC".to_owned(),
        Some(EtherType(other)) => format!("type {other:#06x}"),
        None => "cut short".to_owned(),
    }
}

/// Two addresses, to which ports may be added.
struct Ends {
    from: String,
    to: String,
}

impl Ends {
    fn write(&self, line: &mut String, transport: Option<&TransportSlice<'_>>, protocol: u8, fragment: bool) {
        let Self { from, to } = self;
        match transport {
            Some(TransportSlice::Udp(udp)) => {
                write!(line, "{from}:{} > {to}:{} UDP", udp.source_port(), udp.destination_port())
            }
            Some(TransportSlice::Tcp(tcp)) => {
                write!(line, "{from}:{} > {to}:{} TCP{}", tcp.source_port(), tcp.destination_port(), flags(tcp))
            }
            Some(TransportSlice::Icmpv4(icmp)) => {
                write!(line, "{from} > {to} ICMP type {} code {}", icmp.type_u8(), icmp.code_u8())
            }
            Some(TransportSlice::Icmpv6(icmp)) => {
                write!(line, "{from} > {to} ICMPv6 type {} code {}", icmp.type_u8(), icmp.code_u8())
            }
            Some(TransportSlice::Igmp(_)) => write!(line, "{from} > {to} IGMP"),
            None => write!(line, "{from} > {to} protocol {protocol}{}", if fragment { " fragment" } else { "" }),
        }
        .ok();
    }
}

fn flags(tcp: &TcpSlice<'_>) -> String {
    let all = [(tcp.syn(), "SYN"), (tcp.fin(), "FIN"), (tcp.rst(), "RST"), (tcp.psh(), "PSH"), (tcp.ack(), "ACK")];
    let set: Vec<&str> = all.into_iter().filter_map(|(is_set, name)| is_set.then_some(name)).collect();
    if set.is_empty() { String::new() } else { format!(" {}", set.join("+")) }
}

#[cfg(test)]
mod tests {
    use etherparse::PacketBuilder;
    use proptest::prelude::*;

    use super::*;

    const FROM: [u8; 6] = [0x52, 0x54, 0, 0, 0, 1];
    const TO: [u8; 6] = [0x52, 0x54, 0, 0, 0, 2];
    const MACS: &str = "52:54:00:00:00:01 > 52:54:00:00:00:02";

    fn line(bytes: &[u8]) -> String {
        describe(bytes, u32::try_from(bytes.len()).unwrap_or(0))
    }

    #[test]
    fn frames_are_told_by_addresses_ports_and_length() -> Result<(), Box<dyn std::error::Error>> {
        let ip = || PacketBuilder::ethernet2(FROM, TO).ipv4([198, 18, 0, 1], [198, 18, 0, 2], 64);
        let mut bytes = Vec::new();
        ip().udp(53, 4242).write(&mut bytes, &[0; 78])?;
        assert_eq!(line(&bytes), format!("{MACS} IPv4 198.18.0.1:53 > 198.18.0.2:4242 UDP 120 bytes"));
        // Its beginning alone tells the same.
        let start = bytes.get(..60).unwrap_or_default();
        assert_eq!(describe(start, 120), format!("{MACS} IPv4 198.18.0.1:53 > 198.18.0.2:4242 UDP 120 bytes"));
        let mut bytes = Vec::new();
        ip().tcp(80, 4242, 1, 100).syn().ack(1).write(&mut bytes, &[])?;
        assert_eq!(line(&bytes), format!("{MACS} IPv4 198.18.0.1:80 > 198.18.0.2:4242 TCP SYN+ACK 54 bytes"));
        let mut bytes = Vec::new();
        let v6 = |last| [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last];
        let tagged = PacketBuilder::ethernet2(FROM, TO).single_vlan(etherparse::VlanId::try_new(7)?);
        tagged.ipv6(v6(1), v6(2), 64).icmpv6_echo_request(1, 1).write(&mut bytes, &[])?;
        let said = "VLAN 7 IPv6 [2001:db8::1] > [2001:db8::2] ICMPv6 type 128 code 0 66 bytes";
        assert_eq!(line(&bytes), format!("{MACS} {said}"));
        let plain = [&TO[..], &FROM, &[0x88, 0xcc, 0x1b, b'[', b'2', b'J']].concat();
        assert_eq!(line(&plain), format!("{MACS} type 0x88cc 18 bytes"));
        assert_eq!(describe(&[1, 2, 3], 3), "3 bytes");
        Ok(())
    }

    proptest! {
        #[test]
        fn whatever_a_guest_sends_the_line_is_plain_text(bytes in proptest::collection::vec(any::<u8>(), 0..128)) {
            let said = line(&bytes);
            prop_assert!(said.chars().all(|c| c == ' ' || c.is_ascii_graphic()), "{said}");
        }
    }
}
