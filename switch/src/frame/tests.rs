//! What is a frame and what it weighs, with etherparse as the independent judge.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test ends where an assumption fails")]

use etherparse::{
    EtherType, Ethernet2HeaderSlice, IpFragOffset, IpHeaders, IpNumber, Ipv4Extensions, Ipv4Header, Ipv6Extensions,
    Ipv6FlowLabel, Ipv6Header, Ipv6RawExtHeader, PacketBuilder, PacketBuilderStep, SingleVlanHeaderSlice, VlanId,
};
use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

const ANN: [u8; 6] = [2, 0, 0, 0, 0, 1];
const BOB: [u8; 6] = [2, 0, 0, 0, 0, 2];
const TCPV4: u8 = 1;
const UDP_L4: u8 = 5;

fn plain(bytes: &[u8]) -> Result<Frame<'_>, DropReason> {
    Frame::check(bytes, Offload::default(), Trust::Guest)
}

/// The headers as etherparse reads them, one at a time.
fn judge(bytes: &[u8]) -> Option<wire::Ethernet> {
    let ethernet = Ethernet2HeaderSlice::from_slice(bytes).ok()?;
    let mut ethertype = ethernet.ether_type();
    let (mut payload_at, mut tags) = (ethernet.slice().len(), 0);
    while tags < wire::TAGS_MAX && [EtherType::VLAN_TAGGED_FRAME, EtherType::PROVIDER_BRIDGING].contains(&ethertype) {
        let tag = SingleVlanHeaderSlice::from_slice(bytes.get(payload_at..)?).ok()?;
        ethertype = tag.ether_type();
        payload_at += tag.slice().len();
        tags += 1;
    }
    Some(wire::Ethernet {
        destination: MacAddr(ethernet.destination()),
        source: MacAddr(ethernet.source()),
        ethertype: ethertype.0,
        payload_at,
        tags: u8::try_from(tags).unwrap(),
    })
}

/// Addresses, up to four tags, a type and a payload, cut anywhere.
fn frames() -> impl Strategy<Value = Vec<u8>> {
    let tpid = prop_oneof![Just(0x8100_u16), Just(0x88a8), Just(0x9100)];
    let ethertype = prop_oneof![Just(0x0800_u16), Just(0x86dd), Just(0x8100), any::<u16>()];
    let tags = vec((tpid, any::<u16>()), 0..=4);
    (any::<[u8; 12]>(), tags, ethertype, vec(any::<u8>(), 0..64), 0..100_usize).prop_map(
        |(addresses, tags, ethertype, payload, cut)| {
            let mut bytes = addresses.to_vec();
            for (tpid, tci) in tags {
                bytes.extend(tpid.to_be_bytes());
                bytes.extend(tci.to_be_bytes());
            }
            bytes.extend(ethertype.to_be_bytes());
            bytes.extend(payload);
            bytes.truncate(cut);
            bytes
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2000) })]

    #[test]
    fn headers_are_read_as_etherparse_reads_them(bytes in frames()) {
        let judged = judge(&bytes);
        prop_assert_eq!(wire::ethernet(bytes.as_slice()).ok(), judged);
        match (plain(&bytes), judged) {
            (Err(reason), None) => prop_assert_eq!(reason, DropReason::Malformed),
            (Ok(frame), Some(headers)) => {
                prop_assert_eq!(frame.destination(), headers.destination);
                prop_assert_eq!(frame.source(), headers.source);
                prop_assert_eq!(frame.ethertype(), headers.ethertype);
                prop_assert_eq!(frame.bytes(), bytes.as_slice());
                prop_assert_eq!(frame.len_bytes(), bytes.len() as u64);
                prop_assert_eq!(frame.wire_frames(), 1);
                prop_assert_eq!(frame.longest_bytes() as usize, bytes.len() - 4 * headers.tags as usize);
            }
            (ours, theirs) => prop_assert!(false, "we say {ours:?}, etherparse says {theirs:?}"),
        }
    }

    #[test]
    fn a_super_frame_weighs_what_its_segments_would(
        ip_v6 in any::<bool>(), tcp in any::<bool>(), tags in 0..=2_u8, option_words in 0..=10_usize,
        payload in 0..60_000_usize, gso_size in wire_gso_sizes(),
    ) {
        let (bytes, header_bytes) = packet(ip_v6, tcp, tags, option_words, payload);
        let gso_type = if tcp { TCPV4 } else { UDP_L4 };
        let frame = Frame::check(&bytes, Offload::segment(gso_type, gso_size), Trust::Guest).unwrap();
        let segment = usize::from(gso_size);
        prop_assert_eq!(frame.wire_frames(), payload.div_ceil(segment).max(1) as u64);
        let longest = header_bytes - 4 * usize::from(tags) + payload.min(segment);
        prop_assert_eq!(frame.longest_bytes() as usize, longest);
    }

    #[test]
    fn no_bytes_and_no_offload_request_can_harm(bytes in vec(any::<u8>(), 0..200), offload: [u8; 10]) {
        for trust in [Trust::Guest, Trust::Kernel] {
            if let Ok(frame) = Frame::check(&bytes, Offload(offload), trust) {
                prop_assert!(frame.wire_frames() >= 1 && frame.wire_frames() <= frame.len_bytes());
            }
        }
    }
}

fn wire_gso_sizes() -> impl Strategy<Value = u16> {
    prop_oneof![Just(switch_common::GSO_SIZE_MIN), 48..2000_u16, Just(u16::MAX)]
}

/// A packet as etherparse builds it, and the length of its headers.
fn packet(ip_v6: bool, tcp: bool, tags: u8, option_words: usize, payload: usize) -> (Vec<u8>, usize) {
    let vlan = VlanId::try_new(7).unwrap();
    let ethernet = PacketBuilder::ethernet2(ANN, BOB);
    let ip = if ip_v6 {
        IpHeaders::Ipv6(
            Ipv6Header {
                traffic_class: 0,
                flow_label: Ipv6FlowLabel::ZERO,
                payload_length: 0,
                next_header: IpNumber(0),
                hop_limit: 64,
                source: [1; 16],
                destination: [2; 16],
            },
            Ipv6Extensions {
                // A hop-by-hop header of 8 bytes plus up to three times as many.
                hop_by_hop_options: (option_words > 0)
                    .then(|| Ipv6RawExtHeader::new_raw(IpNumber(0), &vec![0; 6 + 8 * (option_words % 4)]).unwrap()),
                ..Ipv6Extensions::default()
            },
        )
    } else {
        let options = vec![1; 4 * option_words];
        IpHeaders::Ipv4(
            Ipv4Header {
                options: options.as_slice().try_into().unwrap(),
                fragment_offset: IpFragOffset::ZERO,
                ..Ipv4Header::new(0, 64, IpNumber::TCP, [198, 18, 0, 1], [198, 18, 0, 2]).unwrap()
            },
            Ipv4Extensions::default(),
        )
    };
    let ip = match tags {
        0 => ethernet.ip(ip),
        1 => ethernet.single_vlan(vlan).ip(ip),
        _ => ethernet.double_vlan(vlan, vlan).ip(ip),
    };
    build(ip, tcp, option_words, &vec![0xab; payload])
}

fn build(ip: PacketBuilderStep<IpHeaders>, tcp: bool, option_words: usize, payload: &[u8]) -> (Vec<u8>, usize) {
    let mut bytes = Vec::new();
    if tcp {
        ip.tcp(1, 2, 3, 4).options_raw(&vec![1; 4 * option_words]).unwrap().write(&mut bytes, payload).unwrap();
    } else {
        ip.udp(1, 2).write(&mut bytes, payload).unwrap();
    }
    let header_bytes = bytes.len() - payload.len();
    (bytes, header_bytes)
}

#[test]
fn a_runt_is_malformed_and_fourteen_bytes_are_not() {
    for len in 0..14 {
        assert_eq!(plain(&vec![2; len]).unwrap_err(), DropReason::Malformed, "{len} bytes");
    }
    assert!(plain(&[2; 14]).is_ok());
}

#[test]
fn a_cut_tag_is_malformed_and_a_whole_one_is_not() {
    for tpid in [[0x81, 0x00], [0x88, 0xa8]] {
        let mut bytes = [ANN, BOB].concat();
        bytes.extend(tpid);
        for cut in 0..4 {
            assert_eq!(plain(&bytes).unwrap_err(), DropReason::Malformed, "{cut} bytes of the tag");
            bytes.push(0);
        }
        assert!(plain(&bytes).is_ok());
    }
}

#[test]
fn every_ethertype_is_a_frame() {
    for ethertype in 0..=u16::MAX {
        let mut bytes = [0; 64];
        bytes[12..14].copy_from_slice(&ethertype.to_be_bytes());
        let frame = plain(&bytes).unwrap();
        let is_tag = ethertype == wire::TPID_C || ethertype == wire::TPID_S;
        assert_eq!(frame.ethertype(), if is_tag { 0 } else { ethertype });
    }
}

#[test]
fn a_guests_impossible_offload_is_refused_and_an_honest_one_is_not() {
    let (tcp, _) = packet(false, true, 0, 0, 4000);
    let check = |bytes: &[u8], gso_type, gso_size| {
        Frame::check(bytes, Offload::segment(gso_type, gso_size), Trust::Guest).map(|frame| frame.wire_frames())
    };
    let bad = Err(DropReason::BadOffload);
    assert_eq!(check(&tcp, TCPV4, 1448), Ok(3));
    assert_eq!(check(&tcp, TCPV4 | GSO_ECN, 1448), Ok(3));
    assert_eq!(check(&tcp, TCPV4, 1), bad, "4,000 wire frames of one byte");
    assert_eq!(check(&tcp, TCPV4, 0), bad, "no segment size");
    assert_eq!(check(&tcp, 77, 1448), bad, "a type there is not");
    let mut icmp = tcp.clone();
    icmp[23] = 1;
    assert_eq!(check(&icmp, TCPV4, 1448), bad, "neither TCP nor UDP");
    let mut arp = tcp.clone();
    arp[12..14].copy_from_slice(&[0x08, 0x06]);
    assert_eq!(check(&arp, TCPV4, 1448), bad, "not IP");
    assert_eq!(check(&tcp[..40], TCPV4, 1448), bad, "TCP's header cut");
    assert_eq!(check(&icmp, GSO_NONE, 1), Ok(1), "no segmentation asked for, so its size does not matter");
}

#[test]
fn a_kernels_super_frame_is_never_refused() {
    let mut bytes = vec![0; 14 + 3000];
    bytes[12..14].copy_from_slice(&[0x88, 0x47]);
    let check = |gso_size| Frame::check(&bytes, Offload::segment(TCPV4, gso_size), Trust::Kernel).unwrap();
    assert_eq!((check(1000).wire_frames(), check(1000).longest_bytes()), (3, 1014));
    assert_eq!((check(0).wire_frames(), check(0).longest_bytes()), (1, 3014));
    assert!(Frame::check(&bytes, Offload::segment(TCPV4, 1000), Trust::Guest).is_err(), "but a guest's is");
}

#[test]
fn the_offload_request_is_read_as_the_kernel_writes_it() {
    let offload = Offload([1, 0x81, 0x42, 0, 0xa8, 0x05, 0x22, 0, 0x10, 0]);
    assert_eq!((offload.flags(), offload.gso_type(), offload.header_bytes()), (1, 0x81, 66));
    assert_eq!((offload.gso_size(), offload.csum_start(), offload.csum_offset()), (1448, 34, 16));
    assert!(offload.is_segmented() && !Offload::default().is_segmented());
    assert!(!Offload::segment(GSO_ECN, 1448).is_segmented());
}
