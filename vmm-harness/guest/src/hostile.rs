//! The hostile guest: named attacks, each reported as one line of JSON.
//!
//! Frames carry the EtherType for local experiments, [`MARK`] and a number, unless the attack is about what they carry, so
//! that no stack answers them and a bystander that sees one knows what it is. "Refused" are those that the device
//! completed with an error, because the kernel did not take them from the monitor.

use guest_abi::GuestConfig;

use crate::cpu::{Exit, console};
use crate::net::{Frame, HEADER, Net, ROOM};
use crate::virtio::feature;
use crate::wire;

/// First bytes behind the EtherType.
const MARK: [u8; 8] = *b"WEFTHOST";
/// Buffers to receive into; the rest is to attack with.
const SHARE: u16 = 16;
/// Length of a frame that is not about its length.
const SHORTEST: usize = 60;

/// What a guest may try.
#[derive(Clone, Copy)]
enum Attack {
    SpoofedSource,
    SpoofedArp,
    GroupSource,
    Runt,
    Oversize,
    BadCsumStart,
    GsoSize(u16),
    HdrLen,
    DoubleTag,
    Reserved,
    SourceFlood,
    BroadcastStorm,
    UnknownScan,
}

/// Every attack: its name, and how many frames it is unless the monitor says.
const ATTACKS: [(&str, Attack, u32); 15] = [
    ("spoofed-source", Attack::SpoofedSource, 100),
    ("spoofed-arp", Attack::SpoofedArp, 100),
    ("group-source", Attack::GroupSource, 100),
    ("runt", Attack::Runt, 100),
    ("oversize", Attack::Oversize, 100),
    ("bad-csum-start", Attack::BadCsumStart, 100),
    ("gso-size-0", Attack::GsoSize(0), 100),
    ("gso-size-1", Attack::GsoSize(1), 100),
    ("gso-size-65535", Attack::GsoSize(0xffff), 100),
    ("hdr-len", Attack::HdrLen, 100),
    ("double-tag", Attack::DoubleTag, 100),
    ("reserved", Attack::Reserved, 160),
    ("source-flood", Attack::SourceFlood, 10_000),
    ("broadcast-storm", Attack::BroadcastStorm, 10_000),
    ("unknown-scan", Attack::UnknownScan, 10_000),
];

/// Attacks, waits until the device is done with every frame, and reports.
pub fn run(config: &GuestConfig) -> Exit {
    let name = config.attack.split(|byte| *byte == 0).next().unwrap_or_default();
    let Some((name, attack, frames)) = ATTACKS.iter().find(|(known, ..)| known.as_bytes() == name) else {
        console!("{{\"role\":\"hostile\",\"error\":\"no such attack\"}}");
        return Exit::Refused;
    };
    let mut net = match Net::start(config, feature::CSUM | feature::HOST_TSO, SHARE) {
        Ok(net) => net,
        Err(refusal) => {
            console!("{{\"error\":\"{refusal:?}\"}}");
            return Exit::Refused;
        }
    };
    let frames = if config.count == 0 { *frames } else { config.count };
    let mut number = 0;
    while number < frames || net.sending() {
        while number < frames && net.send_new(|header, frame| attack.write(config, number, header, frame)) {
            number += 1;
        }
        net.turn(|_, _| None);
        // Room again, or all done: no reason to sleep.
        if !net.reclaim() && net.sending() {
            net.wait_sent();
        }
    }
    let (sent, refused) = (net.sent, net.refused);
    console!("{{\"role\":\"hostile\",\"attack\":\"{name}\",\"sent\":{sent},\"refused\":{refused}}}");
    Exit::Done
}

impl Attack {
    /// Writes the attack's frame of this number, and the header that the device gets; the frame's length.
    fn write(self, config: &GuestConfig, number: u32, header: &mut [u8; HEADER], frame: &mut Frame) -> usize {
        let (own, victim) = (config.mac, config.victim_mac);
        let [_, b1, b2, b3] = number.to_be_bytes();
        wire::ethernet(frame, victim, own, wire::EXPERIMENT);
        frame[14..22].copy_from_slice(&MARK);
        frame[22..26].copy_from_slice(&number.to_be_bytes());
        match self {
            Self::SpoofedSource => wire::ethernet(frame, [0xff; 6], victim, wire::EXPERIMENT),
            Self::SpoofedArp => {
                wire::ethernet(frame, [0xff; 6], own, 0);
                wire::arp(frame, 2, (own, config.peer_ip), ([0xff; 6], config.peer_ip));
            }
            Self::GroupSource => wire::ethernet(frame, victim, [1, 0, 0x5e, 1, 2, 3], wire::EXPERIMENT),
            Self::Runt => return runt(number, frame),
            Self::Oversize => return ROOM,
            Self::BadCsumStart => header[..8].copy_from_slice(&vnet([1, 0], 0, 0, 0xf000)),
            Self::GsoSize(size) => return super_frame(config, header, frame, 54, size),
            Self::HdrLen => return super_frame(config, header, frame, 0xfff0, 1448),
            Self::DoubleTag => {
                frame.copy_within(12..26, 20);
                frame[12..20].copy_from_slice(&[0x88, 0xa8, 0, 5, 0x81, 0, 0, 6]);
            }
            Self::Reserved => frame[0..6].copy_from_slice(&[1, 0x80, 0xc2, 0, 0, b3 & 15]),
            Self::SourceFlood => frame[6..12].copy_from_slice(&[2, 0xf1, 0, b1, b2, b3]),
            Self::BroadcastStorm => frame[0..6].copy_from_slice(&[0xff; 6]),
            Self::UnknownScan => frame[0..6].copy_from_slice(&[2, 0x5c, 0, b1, b2, b3]),
        }
        SHORTEST
    }
}

/// By turns a frame shorter than an Ethernet header, and one whose second tag is cut.
fn runt(number: u32, frame: &mut Frame) -> usize {
    if number.is_multiple_of(2) {
        return number as usize % 14;
    }
    frame[12..20].copy_from_slice(&[0x88, 0xa8, 0, 5, 0x81, 0, 0, 6]);
    20
}

/// `flags` and kind of segmentation, length of the headers, size of a segment, where the checksum begins: all of the
/// virtio-net header but where the checksum belongs.
fn vnet([flags, kind]: [u8; 2], headers: u16, size: u16, start: u16) -> [u8; 8] {
    let ([h0, h1], [s0, s1], [c0, c1]) = (headers.to_le_bytes(), size.to_le_bytes(), start.to_le_bytes());
    [flags, kind, h0, h1, s0, s1, c0, c1]
}

/// A TCP super-frame to the peer, to be cut into segments of `size` behind `headers` bytes.
fn super_frame(config: &GuestConfig, header: &mut [u8; HEADER], frame: &mut Frame, headers: u16, size: u16) -> usize {
    header[..8].copy_from_slice(&vnet([1, 1], headers, size, 34));
    header[8..10].copy_from_slice(&16_u16.to_le_bytes());
    wire::ethernet(frame, config.victim_mac, config.mac, wire::IPV4);
    let length = wire::ipv4(frame, wire::TCP, config.ip, config.peer_ip, ROOM - 34);
    // Ports, numbers, twenty bytes of header, push and acknowledge, a window; the checksum's pseudo header stays 0.
    wire::put(frame, 34, &[0x10, 0x92, 0x10, 0x93, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x18, 0xff, 0xff, 0, 0, 0, 0]);
    length
}
