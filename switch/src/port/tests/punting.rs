//! The punt tap against a VMM's tap on the same bridge: the kernel puts the tag aside and back, as it does for the reflex.

use std::os::fd::OwnedFd;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use switch_common::PortId;

use super::super::attach::Host;
use super::super::medium::{FrameBuffer, Medium, TransmitError};
use super::super::punt_tap::{PUNT_RING, PuntTap, PuntTapError};
use super::super::sys::{self, TapMode};
use super::{in_new_netns, json, name, run, soon};
use crate::frame::Offload;

const HEADER: usize = 10;
/// Header bytes of TCP over IPv4 over Ethernet.
const TCP_AT: u16 = 34;

/// `flags = NEEDS_CSUM, gso_type = TCPV4, hdr_len, gso_size 1448, csum_start, csum_offset 16` for a frame with `tags` bytes
/// of tags.
fn request(tags: u16) -> [u8; HEADER] {
    let [start_0, start_1] = (TCP_AT + tags).to_le_bytes();
    let [length_0, length_1] = (TCP_AT + 20 + tags).to_le_bytes();
    [1, 1, length_0, length_1, 0xa8, 0x05, start_0, start_1, 16, 0]
}

/// A TCP segment of that many bytes of payload, behind the tag if there is one.
fn super_frame(payload: u16, tag: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x02, 0, 0, 0, 0, 0x0b, 0x02, 0, 0, 0, 0, 0x0a];
    frame.extend(tag);
    frame.extend([0x08, 0x00]);
    let [high, low] = (40 + payload).to_be_bytes();
    frame.extend([0x45, 0, high, low, 0, 1, 0x40, 0, 64, 6, 0, 0, 198, 18, 0, 1, 198, 18, 0, 2]);
    frame.extend([0x10, 0, 0x20, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 0x10, 1, 0, 0, 0, 0, 0]);
    frame.extend((0..payload).map(|each| each.to_le_bytes()[0]));
    frame
}

fn wait(tap: &impl std::os::fd::AsFd) {
    let deadline = Timespec { tv_sec: 5, tv_nsec: 0 };
    assert_eq!(poll(&mut [PollFd::new(tap, PollFlags::IN)], Some(&deadline)).unwrap(), 1, "nothing came within 5 s");
}

/// A punt tap and a VMM's on one bridge, with nothing else speaking.
async fn two_taps() -> (Host, PuntTap, OwnedFd) {
    let host = Host::connect().unwrap();
    std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1").unwrap();
    let punt = PuntTap::open(&name("weft-t")).unwrap();
    host.raise_punt_tap(&punt).await.unwrap();
    let far = sys::open_tap(&name("far"), TapMode::CreateNew).unwrap();
    sys::take_all_offloads(&far).unwrap();
    run("ip link add br0 type bridge mcast_snooping 0");
    for netdev in ["weft-t", "far"] {
        run(&format!("ip link set {netdev} master br0"));
        run(&format!("ip link set {netdev} up"));
    }
    run("ip link set br0 up");
    (host, punt, far)
}

#[test]
fn a_super_frame_comes_and_goes_whole_with_its_port_and_its_request() {
    in_new_netns(async || {
        let (_host, mut punt, far) = two_taps().await;
        let mut buffer = FrameBuffer::new();
        assert_eq!(punt.receive(&mut buffer).unwrap(), None);
        // The tag's priority and drop-eligible bits are not the port's business; the latter is the epoch.
        for (tag, port) in
            [([0x88, 0xa8, 0x00, 0x07], 7), ([0x88, 0xa8, 0xff, 0xfe], 4094), ([0x88, 0xa8, 0x20, 0x01], 1)]
        {
            for payload in [1448, 20_000, 60_000] {
                let mut bytes = request(4).to_vec();
                bytes.extend(super_frame(payload, &tag));
                assert_eq!(rustix::io::write(&far, &bytes).unwrap(), bytes.len());
                wait(&punt);
                assert_eq!(punt.receive(&mut buffer).unwrap(), PortId::new(port));
                assert_eq!(buffer.frame(), super_frame(payload, &[]));
                assert_eq!(buffer.odd, tag[2] & 0x10 != 0);
                // hdr_len is the kernel's hint, and may be longer than what was asked; a lone segment is no super-frame.
                let (got, asked) = (buffer.offload.0, request(0));
                assert_eq!(got[6..], asked[6..], "checksum request without the tag");
                assert_eq!(got[0], 1);
                if payload > 1448 {
                    assert_eq!((got[1], &got[4..6]), (1, &asked[4..6]), "segmentation request");
                }
            }
        }
        assert_eq!((punt.receive(&mut buffer).unwrap(), punt.skipped()), (None, 0));

        // And the other way: from our buffer to the VMM's tap.
        for (payload, port) in [(20_000, 5), (60_000, 4094)] {
            buffer.fill(&super_frame(payload, &[]), Offload(request(0)));
            punt.transmit(&buffer, PortId::new(port).unwrap()).unwrap();
            wait(&far);
            let mut bytes = vec![0; 70_000];
            let length = rustix::io::read(&far, &mut bytes[..]).unwrap();
            let [high, low] = port.to_be_bytes();
            assert_eq!(bytes[HEADER..length], super_frame(payload, &[0x88, 0xa8, high, low]));
            let (got, asked) = (&bytes[..HEADER], request(4));
            assert_eq!((got[..2].to_vec(), &got[4..]), (asked[..2].to_vec(), &asked[4..]));
        }
    });
}

#[test]
fn a_frame_with_a_tag_of_its_own_keeps_it() {
    in_new_netns(async || {
        let (_host, mut punt, far) = two_taps().await;
        let mut buffer = FrameBuffer::new();
        for own in [&[0x81, 0, 0, 5][..], &[0x88, 0xa8, 0, 6], &[0x88, 0xa8, 0, 6, 0x81, 0, 0xe0, 0]] {
            let mut tags = vec![0x88, 0xa8, 0, 9];
            tags.extend(own);
            let mut bytes = vec![0; HEADER];
            bytes.extend(super_frame(100, &tags));
            rustix::io::write(&far, &bytes).unwrap();
            wait(&punt);
            assert_eq!(punt.receive(&mut buffer).unwrap(), PortId::new(9));
            assert_eq!(buffer.frame(), super_frame(100, own));
            punt.transmit(&buffer, PortId::new(9).unwrap()).unwrap();
            wait(&far);
            let mut back = vec![0; 70_000];
            let length = rustix::io::read(&far, &mut back[..]).unwrap();
            assert_eq!(back[HEADER..length], super_frame(100, &tags));
        }
    });
}

#[test]
fn what_is_no_punted_frame_is_skipped_and_counted() {
    in_new_netns(async || {
        let (_host, mut punt, far) = two_taps().await;
        let mut buffer = FrameBuffer::new();
        let good = [0x88, 0xa8, 0, 3];
        for tag in [&[][..], &[0x81, 0, 0, 3], &[0x88, 0xa8, 0, 0], &[0x88, 0xa8, 0x0f, 0xff], &good] {
            let mut bytes = vec![0; HEADER];
            bytes.extend(super_frame(100, tag));
            rustix::io::write(&far, &bytes).unwrap();
        }
        wait(&punt);
        assert_eq!(punt.receive(&mut buffer).unwrap(), PortId::new(3));
        assert_eq!(punt.receive(&mut buffer).unwrap(), None);
        // A VLAN id of 4095 is legal on no wire, so the bridge may have kept that one to itself.
        assert!((3..=4).contains(&punt.skipped()), "{}", punt.skipped());
    });
}

#[test]
fn a_copy_that_the_kernel_refuses_is_refused() {
    in_new_netns(async || {
        let (_host, mut punt, _far) = two_taps().await;
        let mut buffer = FrameBuffer::new();
        let port = PortId::new(1).unwrap();
        // A checksum past the end.
        buffer.fill(&super_frame(10, &[]), Offload([1, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0]));
        assert_eq!(punt.transmit(&buffer, port), Err(TransmitError::Refused(libc::EINVAL)));
        buffer.fill(&[0; 11], Offload::default());
        assert_eq!(punt.transmit(&buffer, port), Err(TransmitError::Refused(libc::EINVAL)));
        run("ip link set weft-t down");
        buffer.fill(&super_frame(10, &[]), Offload::default());
        assert_eq!(punt.transmit(&buffer, port), Err(TransmitError::Refused(libc::EIO)));
        // Reading finds nothing, which is no error; a deleted tap is one.
        assert_eq!(punt.receive(&mut buffer).unwrap(), None);
        run("ip link del weft-t");
        assert_eq!(punt.receive(&mut buffer).unwrap_err().raw_os_error(), Some(libc::EBADFD));
    });
}

#[test]
fn the_punt_tap_is_quiet_long_and_outlives_its_daemon() {
    in_new_netns(async || {
        let host = Host::connect().unwrap();
        let punt = PuntTap::open(&name("weft-t")).unwrap();
        host.raise_punt_tap(&punt).await.unwrap();
        let ifindex = punt.ifindex();
        let link = json("ip -d -j address show dev weft-t");
        assert_eq!((&link[0]["txqlen"], &link[0]["qdisc"]), (&PUNT_RING.into(), &"noqueue".into()));
        assert_eq!(link[0]["addr_info"], serde_json::Value::Array(Vec::new()));
        let flags = link[0]["flags"].to_string();
        assert!(flags.contains("NOARP") && flags.contains("\"UP\""), "{flags}");
        let busy = PuntTap::open(&name("weft-t")).unwrap_err();
        assert!(matches!(busy, PuntTapError::Busy { .. }), "{busy:?}");

        drop(punt);
        let punt = soon(async || PuntTap::open(&name("weft-t"))).await;
        host.raise_punt_tap(&punt).await.unwrap();
        assert_eq!(punt.ifindex(), ifindex);
        assert_eq!(json("ip -d -j link show dev weft-t")[0]["qdisc"], "noqueue");
        host.remove_punt_tap(&name("weft-t")).await.unwrap();
        host.remove_punt_tap(&name("weft-t")).await.unwrap();
        assert_eq!(host.look(&name("weft-t")).await.unwrap(), None);
    });
}

#[test]
fn a_name_that_belongs_to_something_else_is_no_punt_tap() {
    in_new_netns(async || {
        let host = Host::connect().unwrap();
        run("ip link add weft-t type veth peer name weft-t-peer");
        run("ip tuntap add dev weft-q mode tap vnet_hdr multi_queue");
        for taken in ["weft-t", "weft-q"] {
            let error = PuntTap::open(&name(taken)).unwrap_err();
            assert!(matches!(error, PuntTapError::Taken { .. }), "{taken}: {error:?}");
        }
        host.remove_punt_tap(&name("weft-t")).await.unwrap();
        assert!(host.look(&name("weft-t")).await.unwrap().is_some(), "a netdev that is no tap stays");
    });
}
