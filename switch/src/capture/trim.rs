//! Where a frame's headers end: what is kept when nobody asked for payloads.

use switch_common::flow::{self, KIND_FRAGMENT, KIND_IPV6, KIND_MASK};
use switch_common::wire::{self, Bytes as _};

/// What is kept of a frame without a TCP or UDP header that is whole: ARP, ICMP, whatever a guest makes up.
pub const OTHER_BYTES: usize = 128;
/// Longest headers that are looked at, and so kept: Ethernet, three tags, IPv6 with extensions, TCP with options.
pub const HEADERS_BYTES_MAX: usize = 192;

/// How many of a frame's first `bytes` its headers take, to the end of TCP's or UDP's.
pub fn headers(bytes: &[u8]) -> usize {
    let bytes = bytes.get(..HEADERS_BYTES_MAX).unwrap_or(bytes);
    let other = OTHER_BYTES.min(bytes.len());
    let Ok(ethernet) = wire::ethernet(bytes) else { return other };
    if may_be_part(bytes, &ethernet)
        && let Ok(parsed) = flow::parse(bytes, u32::MAX, true)
        && parsed.tail.kind & KIND_FRAGMENT != 0
    {
        // What follows its IP header (and, in IPv6, the fragment header) may be the middle of anything.
        let behind = if parsed.tail.kind & KIND_MASK == KIND_IPV6 { 32 + 8 } else { 8 };
        return other.min(parsed.addresses_at + behind);
    }
    match wire::segments(bytes, &ethernet, u32::MAX, u16::MAX) {
        Ok(segments) => usize::try_from(segments.header_bytes).unwrap_or(other).min(bytes.len()),
        Err(_) => other,
    }
}

/// Whether a frame is worth the whole of a parse, which alone can say that it is a part of a datagram: not when the bits of IPv4
/// (RFC 791, section 3.1) say that it is whole, or when TCP or UDP follows IPv6's header at once.
fn may_be_part(bytes: &[u8], ethernet: &wire::Ethernet) -> bool {
    let at = ethernet.payload_at;
    match ethernet.ethertype {
        wire::ETHERTYPE_IPV4 => bytes.u16(at + 6).is_none_or(|fragment| fragment & 0x3fff != 0),
        wire::ETHERTYPE_IPV6 => !matches!(bytes.u8(at + 6), Some(wire::PROTOCOL_TCP | wire::PROTOCOL_UDP)),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use etherparse::PacketBuilder;
    use proptest::prelude::*;

    use super::*;

    const FROM: [u8; 6] = [0x52, 0x54, 0, 0, 0, 1];
    const TO: [u8; 6] = [0x52, 0x54, 0, 0, 0, 2];

    #[test]
    fn headers_end_where_the_payload_begins() -> Result<(), Box<dyn std::error::Error>> {
        let payload = [0x55; 700];
        let mut udp = Vec::new();
        PacketBuilder::ethernet2(FROM, TO)
            .ipv4([198, 18, 0, 1], [198, 18, 0, 2], 9)
            .udp(1, 2)
            .write(&mut udp, &payload)?;
        assert_eq!(headers(&udp), 14 + 20 + 8);
        let v6 = |last| [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last];
        let mut tcp = Vec::new();
        let tagged = PacketBuilder::ethernet2(FROM, TO).single_vlan(etherparse::VlanId::try_new(7)?);
        let options = [etherparse::TcpOptionElement::Timestamp(1, 2)];
        tagged.ipv6(v6(1), v6(2), 9).tcp(1, 2, 3, 4).options(&options)?.write(&mut tcp, &payload)?;
        assert_eq!(headers(&tcp), 14 + 4 + 40 + 32);
        // Of a frame that is cut short all that is there is kept.
        assert_eq!(headers(tcp.get(..60).unwrap_or_default()), 60);
        let mut ping = Vec::new();
        let ip = PacketBuilder::ethernet2(FROM, TO).ipv4([198, 18, 0, 1], [198, 18, 0, 2], 9);
        ip.icmpv4_echo_request(1, 1).write(&mut ping, &payload)?;
        assert_eq!(headers(&ping), OTHER_BYTES);
        // The second part of a datagram has no header of UDP's.
        if let Some(offset) = udp.get_mut(21) {
            *offset = 100;
        }
        assert_eq!(headers(&udp), 14 + 20);
        Ok(())
    }

    proptest! {
        #[test]
        fn whatever_a_guest_sends_no_more_is_kept_than_there_is(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            prop_assert!(headers(&bytes) <= bytes.len().min(HEADERS_BYTES_MAX));
        }

        #[test]
        fn no_part_of_a_datagram_is_taken_for_a_whole_one(
            ipv6 in any::<bool>(),
            next in prop_oneof![Just(0_u8), Just(6), Just(17), Just(43), Just(44), Just(60), any::<u8>()],
            mut bytes in proptest::collection::vec(any::<u8>(), 14..120),
        ) {
            let ethertype = if ipv6 { wire::ETHERTYPE_IPV6 } else { wire::ETHERTYPE_IPV4 }.to_be_bytes();
            let sets = [(12, ethertype[0]), (13, ethertype[1]), (14, if ipv6 { 0x60 } else { 0x45 })];
            for (at, value) in sets.into_iter().chain(ipv6.then_some((20, next))) {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = value;
                }
            }
            let is_part = flow::parse(bytes.as_slice(), u32::MAX, true)
                .is_ok_and(|parsed| parsed.tail.kind & KIND_FRAGMENT != 0);
            let ethernet = wire::ethernet(bytes.as_slice()).unwrap();
            prop_assert!(!is_part || may_be_part(&bytes, &ethernet));
        }
    }
}
