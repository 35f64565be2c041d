//! Which flow a frame is of, by `etherparse`: a decoder that shares no line with ours.
//!
//! It gives up sooner than an accountant may. Where it does, what it has read until then is compared and the rest is ours alone:
//! [`GivenUp`] is the closed list of such places.

use etherparse::{
    EtherType, IpAuthHeaderSlice, Ipv6FragmentHeaderSlice, Ipv6RawExtHeaderSlice, LaxLinkExtSlice, LaxNetSlice,
    LaxSlicedPacket, LinkSlice, TransportSlice,
};
use switch_common::flow::{
    FLOW_EXTENSIONS, FLOW_TAG, FLOW_TAG_SERVICE, FlowKey4, FlowKey6, FlowPair, FlowTail, KIND_CUT, KIND_FRAGMENT,
    KIND_IPV4, KIND_IPV6, KIND_LINK,
};
use weft::flow::RawKey;

/// Where the decoder stops although the frame has a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum GivenUp {
    /// It wants the transport header whole (and a plausible length in TCP's); for us the ports are enough.
    CutTransport,
    /// The IP header says that the packet ends before its ports, the frame goes on; we read the ports.
    ShortLength,
    /// It wants extension headers whole, hop-by-hop options first; we read as far as a length is.
    Extensions,
}

/// What it says of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decoded {
    /// Its type promises IP, and there is no whole header of it.
    Unparsable,
    /// The flow, and the TCP flags if it is of TCP.
    Whole(RawKey, Option<u8>),
    /// The flow without what the decoder did not come to: ports, and of IPv6 the protocol.
    Part(RawKey, GivenUp),
}

/// Looks at a frame that came in by port 1.
pub(super) fn decode(frame: &[u8]) -> Option<Decoded> {
    let packet = LaxSlicedPacket::from_ethernet(frame).ok()?;
    let Some(LinkSlice::Ethernet2(ethernet)) = &packet.link else { return None };
    let mut pair = FlowPair { destination: ethernet.destination(), source: ethernet.source(), ingress: 1, outer: 0 };
    let mut tail = FlowTail { kind: KIND_LINK, ..FlowTail::default() };
    let mut ethertype = ethernet.ether_type();
    let mut tags = packet.link_exts.iter();
    for number in 0..2 {
        let service = match ethertype {
            EtherType::VLAN_TAGGED_FRAME => 0,
            EtherType::PROVIDER_BRIDGING => FLOW_TAG_SERVICE,
            _ => break,
        };
        // A tag that is cut short has no flow: the frame is malformed.
        let Some(LaxLinkExtSlice::Vlan(tag)) = tags.next() else { return None };
        let tag_of_key = FLOW_TAG | service | tag.vlan_identifier().value();
        *(if number == 0 { &mut pair.outer } else { &mut tail.inner }) = tag_of_key;
        ethertype = tag.ether_type();
    }
    // Whatever else the decoder looks through (a third tag, 0x9100, MACsec) is accounted by its type.
    match ethertype {
        EtherType::IPV4 => Some(ipv4(&packet, pair, tail)),
        EtherType::IPV6 => Some(ipv6(&packet, pair, tail)),
        other => {
            tail.source_port = if other.0 < 0x0600 { 0 } else { other.0 };
            Some(Decoded::Whole(RawKey::V4(FlowKey4 { pair, tail, ..FlowKey4::default() }), None))
        }
    }
}

fn ipv4(packet: &LaxSlicedPacket<'_>, pair: FlowPair, mut tail: FlowTail) -> Decoded {
    // What calls itself something else is no IPv4 to us.
    let Some(LaxNetSlice::Ipv4(ip)) = &packet.net else { return Decoded::Unparsable };
    let header = ip.header();
    tail.kind = KIND_IPV4;
    tail.protocol = header.protocol().0;
    let (source_address, destination_address) = (header.source(), header.destination());
    let key = |tail| RawKey::V4(FlowKey4 { pair, source_address, destination_address, tail });
    if ip.is_payload_fragmented() {
        tail.kind |= KIND_FRAGMENT;
        return Decoded::Whole(key(tail), None);
    }
    // Behind an authentication header over IPv4 we do not look.
    if tail.protocol == 51 {
        return Decoded::Whole(key(tail), None);
    }
    let behind = frame_behind(packet, ip.payload().payload);
    transport(packet, ip.payload().payload, behind, tail, key)
}

fn ipv6(packet: &LaxSlicedPacket<'_>, pair: FlowPair, mut tail: FlowTail) -> Decoded {
    let Some(LaxNetSlice::Ipv6(ip)) = &packet.net else { return Decoded::Unparsable };
    let header = ip.header();
    tail.kind = KIND_IPV6;
    tail.protocol = header.next_header().0;
    let (source_address, destination_address) = (header.source(), header.destination());
    let key = |tail| RawKey::V6(FlowKey6 { pair, source_address, destination_address, tail });
    // Header by header: the decoder's own iterator runs past the end when the last one is cut.
    let (mut rest, mut seen, mut is_last) = (ip.extensions().slice(), 0, false);
    while let Some((next, bytes, parts)) = extension(tail.protocol, rest) {
        // No further than so many, and not behind a fragment header.
        if is_last || (seen == FLOW_EXTENSIONS && parts.is_none()) {
            return Decoded::Whole(key(tail), None);
        }
        tail.protocol = next;
        if parts == Some(true) {
            tail.kind |= KIND_FRAGMENT;
            return Decoded::Whole(key(tail), None);
        }
        is_last = parts.is_some();
        seen += 1;
        rest = rest.get(bytes..).unwrap_or_default();
    }
    if !is_last && [0, 43, 44, 51, 60].contains(&tail.protocol) {
        return Decoded::Part(key(tail), GivenUp::Extensions);
    }
    let behind = frame_behind(packet, ip.payload().payload);
    transport(packet, ip.payload().payload, behind, tail, key)
}

/// Of the extension header at the beginning of `bytes`: what follows, its length, and if it is a fragment header whether the
/// packet is in parts.
fn extension(number: u8, bytes: &[u8]) -> Option<(u8, usize, Option<bool>)> {
    match number {
        0 | 43 | 60 => {
            let header = Ipv6RawExtHeaderSlice::from_slice(bytes).ok()?;
            Some((header.next_header().0, header.slice().len(), None))
        }
        51 => {
            let header = IpAuthHeaderSlice::from_slice(bytes).ok()?;
            Some((header.next_header().0, header.slice().len(), None))
        }
        44 => {
            let header = Ipv6FragmentHeaderSlice::from_slice(bytes).ok()?;
            Some((header.next_header().0, header.slice().len(), Some(header.is_fragmenting_payload())))
        }
        _ => None,
    }
}

/// Bytes of the frame from where the payload of IP begins, those among them that IP does not count.
fn frame_behind(packet: &LaxSlicedPacket<'_>, payload: &[u8]) -> usize {
    let whole = match &packet.link {
        Some(LinkSlice::Ethernet2(ethernet)) => ethernet.slice().as_ptr_range().end as usize,
        _ => 0,
    };
    whole.saturating_sub(payload.as_ptr() as usize)
}

fn transport(
    packet: &LaxSlicedPacket<'_>,
    payload: &[u8],
    behind: usize,
    mut tail: FlowTail,
    key: impl Fn(FlowTail) -> RawKey,
) -> Decoded {
    let (needed, ports) = match tail.protocol {
        6 | 17 | 33 | 132 | 136 => (4, true),
        1 | 58 => (2, false),
        _ => return Decoded::Whole(key(tail), None),
    };
    if behind < needed {
        tail.kind |= KIND_CUT;
        return Decoded::Whole(key(tail), None);
    }
    let mut flags = None;
    (tail.source_port, tail.destination_port) = match &packet.transport {
        Some(TransportSlice::Tcp(tcp)) => {
            flags = tcp.slice().get(13).copied();
            (tcp.source_port(), tcp.destination_port())
        }
        Some(TransportSlice::Udp(udp)) => (udp.source_port(), udp.destination_port()),
        Some(TransportSlice::Icmpv4(icmp)) => (icmp.type_u8().into(), icmp.code_u8().into()),
        Some(TransportSlice::Icmpv6(icmp)) => (icmp.type_u8().into(), icmp.code_u8().into()),
        _ if payload.len() < needed => return Decoded::Part(key(tail), GivenUp::ShortLength),
        // It knows no SCTP, UDP-Lite and DCCP; their ports are where UDP's are.
        _ if ports && ![6, 17].contains(&tail.protocol) => {
            let word = |at: usize| u16::from_be_bytes([payload[at], payload[at + 1]]);
            (word(0), word(2))
        }
        _ => return Decoded::Part(key(tail), GivenUp::CutTransport),
    };
    Decoded::Whole(key(tail), flags)
}
