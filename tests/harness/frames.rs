//! Frames to send: Ethernet headers, tags, numbers, and TCP or UDP super-frames with the offload request of a driver.

use std::str::FromStr;

use anyhow::{Context as _, Result};
pub use switch_common::MacAddr;
use switch_common::wire::{ETHERTYPE_IPV4, TPID_C, TPID_S};

/// EtherType for local experiments (IEEE 802, clause 9.2.3): no stack answers it.
pub const ETHERTYPE_TEST: u16 = 0x88b5;
/// The shortest frame without FCS that Ethernet knows.
pub const FRAME_BYTES_MIN: usize = 60;
/// Marks a numbered frame, in front of its number.
const NUMBERED: &[u8; 8] = b"weft-no.";

/// A station of tests: locally administered, `02:00:00:…` and the number.
pub fn station(number: u32) -> MacAddr {
    let [a, b, c, d] = number.to_be_bytes();
    MacAddr([0x02, 0x00, a, b, c, d])
}

/// Builds one frame.
#[derive(Clone, Debug)]
pub struct Builder {
    header: Vec<u8>,
    ethertype: u16,
    payload: Vec<u8>,
    bytes_min: usize,
}

impl Builder {
    /// An untagged frame of the test EtherType, without payload, padded to 60 bytes.
    pub fn new(source: MacAddr, destination: MacAddr) -> Self {
        let header = [destination.0, source.0].concat();
        Self { header, ethertype: ETHERTYPE_TEST, payload: Vec::new(), bytes_min: FRAME_BYTES_MIN }
    }

    /// Appends a tag: its type and its sixteen bits (priority, drop eligibility, VLAN).
    #[must_use]
    pub fn tag(mut self, tpid: u16, tci: u16) -> Self {
        self.header.extend(tpid.to_be_bytes());
        self.header.extend(tci.to_be_bytes());
        self
    }

    /// Another EtherType.
    #[must_use]
    pub fn ethertype(mut self, ethertype: u16) -> Self {
        self.ethertype = ethertype;
        self
    }

    /// The payload.
    #[must_use]
    pub fn payload(mut self, payload: &[u8]) -> Self {
        payload.clone_into(&mut self.payload);
        self
    }

    /// A payload that carries a number; [`number_of`] reads it back.
    #[must_use]
    pub fn number(self, number: u64) -> Self {
        let payload = [&NUMBERED[..], &number.to_be_bytes()].concat();
        self.payload(&payload)
    }

    /// Pads the frame to at least this many bytes.
    #[must_use]
    pub fn bytes(mut self, bytes: usize) -> Self {
        self.bytes_min = bytes;
        self
    }

    /// The frame.
    pub fn build(&self) -> Vec<u8> {
        let mut frame = [&self.header[..], &self.ethertype.to_be_bytes(), &self.payload].concat();
        frame.resize(frame.len().max(self.bytes_min), 0);
        frame
    }
}

/// The number a frame carries; `None` for any other frame.
pub fn number_of(frame: &[u8]) -> Option<u64> {
    let mut at = 12;
    while [TPID_C, TPID_S].map(u16::to_be_bytes).iter().any(|tpid| frame.get(at..at + 2) == Some(tpid)) {
        at += 4;
    }
    let payload = frame.get(at + 2..)?.strip_prefix(NUMBERED)?;
    payload.first_chunk::<8>().map(|number| u64::from_be_bytes(*number))
}

/// An offload request: `struct virtio_net_hdr` (virtio 1.2, section 5.1.6), little-endian.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// `VIRTIO_NET_HDR_F_*`: 1 needs a checksum.
    pub flags: u8,
    /// `VIRTIO_NET_HDR_GSO_*`: 0 none, 1 TCP over IPv4, 3 UDP (old), 4 TCP over IPv6, 5 UDP segments; 0x80 ECN.
    pub gso_type: u8,
    /// Length of all headers.
    pub hdr_len: u16,
    /// Payload bytes of a segment.
    pub gso_size: u16,
    /// Where checksumming begins.
    pub csum_start: u16,
    /// Where, from there, the sum goes.
    pub csum_offset: u16,
}

impl Request {
    /// The ten bytes in front of the frame.
    pub fn encode(self) -> [u8; 10] {
        let mut bytes = [self.flags, self.gso_type, 0, 0, 0, 0, 0, 0, 0, 0];
        let fields = [self.hdr_len, self.gso_size, self.csum_start, self.csum_offset].map(u16::to_le_bytes);
        for (to, from) in bytes.iter_mut().skip(2).zip(fields.as_flattened()) {
            *to = *from;
        }
        bytes
    }

    /// What a driver asks for with a TCP super-frame over IPv4 as [`tcp_super_frame`] builds it.
    pub fn tcp4(gso_size: u16) -> Self {
        Self { flags: 1, gso_type: 1, hdr_len: 54, gso_size, csum_start: 34, csum_offset: 16 }
    }
}

/// A TCP segment over IPv4 of `payload` bytes, its checksum left to the device.
pub fn tcp_super_frame(source: MacAddr, destination: MacAddr, payload: usize) -> Result<Vec<u8>> {
    let total = u16::try_from(40 + payload).context("an IPv4 packet has at most 65,535 bytes")?;
    let mut ip = vec![0x45, 0, 0, 0, 0, 1, 0x40, 0, 64, 6, 0, 0, 198, 18, 0, 1, 198, 18, 0, 2];
    ip.splice(2..4, total.to_be_bytes());
    let sum = checksum(&ip);
    ip.splice(10..12, sum.to_be_bytes());
    let tcp = [0x9c, 0x40, 0x9c, 0x41, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x10, 0xff, 0xff, 0, 0, 0, 0];
    let packet = [&ip[..], &tcp, &vec![0x55; payload]].concat();
    Ok(Builder::new(source, destination).ethertype(ETHERTYPE_IPV4).payload(&packet).build())
}

/// The Internet checksum (RFC 1071) of an even number of bytes.
fn checksum(bytes: &[u8]) -> u16 {
    let (pairs, _) = bytes.as_chunks::<2>();
    let sum = pairs.iter().fold(0_u32, |sum, pair| sum + u32::from(u16::from_be_bytes(*pair)));
    let folded = (sum & 0xffff) + (sum >> 16);
    !u16::try_from((folded & 0xffff) + (folded >> 16)).unwrap_or(u16::MAX)
}

/// Reads a MAC address that a test wrote down.
pub fn mac(text: &str) -> Result<MacAddr> {
    MacAddr::from_str(text).with_context(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_read_back_behind_any_tags() {
        let plain = Builder::new(station(1), station(2)).number(7);
        assert_eq!(number_of(&plain.build()), Some(7));
        let tagged = Builder::new(station(1), station(2)).tag(TPID_S, 5).tag(TPID_C, 6).number(8);
        assert_eq!(number_of(&tagged.build()), Some(8));
        assert_eq!(number_of(&Builder::new(station(1), station(2)).build()), None);
        assert_eq!(number_of(&[0; 3]), None);
    }

    #[test]
    fn etherparse_reads_what_we_build() {
        let frame = tcp_super_frame(station(1), station(2), 3000).expect("it fits");
        let read = etherparse::SlicedPacket::from_ethernet(&frame).expect("a sound frame");
        let Some(etherparse::NetSlice::Ipv4(ip)) = read.net else { panic!("not IPv4") };
        let header = ip.header().to_header();
        assert_eq!(header.header_checksum, header.calc_header_checksum());
        assert!(matches!(read.transport, Some(etherparse::TransportSlice::Tcp(_))));
    }
}
