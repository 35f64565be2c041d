//! Frames, made or turned round in place. Offsets are those of Ethernet without tags.

use guest_abi::GuestConfig;

use crate::net::Frame;

/// What a frame carries, by its type field.
pub const IPV4: u16 = 0x0800;
const ARP: u16 = 0x0806;
const IPV6: u16 = 0x86dd;
/// For local experiments (IEEE 802): frames that no stack answers.
pub const EXPERIMENT: u16 = 0x88b5;

const ICMP: u8 = 1;
pub const TCP: u8 = 6;
pub const UDP: u8 = 17;
const ICMPV6: u8 = 58;
/// UDP's echo service (RFC 862).
pub const ECHO_PORT: u16 = 7;

/// A 16-bit field.
pub fn field(frame: &Frame, at: usize) -> u16 {
    match frame.get(at..) {
        Some([high, low, ..]) => u16::from_be_bytes([*high, *low]),
        _ => 0,
    }
}

/// Writes bytes at a place that is known to be inside.
pub fn put(frame: &mut Frame, at: usize, bytes: &[u8]) {
    if let Some(place) = frame.get_mut(at..at + bytes.len()) {
        place.copy_from_slice(bytes);
    }
}

/// Destination, source and EtherType.
pub fn ethernet(frame: &mut Frame, destination: [u8; 6], source: [u8; 6], ethertype: u16) {
    frame[0..6].copy_from_slice(&destination);
    frame[6..12].copy_from_slice(&source);
    frame[12..14].copy_from_slice(&ethertype.to_be_bytes());
}

/// An ARP packet, behind an Ethernet header: 42 bytes with it.
pub fn arp(frame: &mut Frame, operation: u8, sender: ([u8; 6], [u8; 4]), target: ([u8; 6], [u8; 4])) -> usize {
    frame[12..22].copy_from_slice(&[8, 6, 0, 1, 8, 0, 6, 4, 0, operation]);
    frame[22..28].copy_from_slice(&sender.0);
    frame[28..32].copy_from_slice(&sender.1);
    frame[32..38].copy_from_slice(&target.0);
    frame[38..42].copy_from_slice(&target.1);
    42
}

/// An IPv4 header behind the Ethernet header, for this many bytes of payload; the length of the frame.
pub fn ipv4(frame: &mut Frame, protocol: u8, source: [u8; 4], destination: [u8; 4], payload: usize) -> usize {
    let [high, low] = (payload as u16 + 20).to_be_bytes();
    frame[14..26].copy_from_slice(&[0x45, 0, high, low, 0, 0, 0x40, 0, 64, protocol, 0, 0]);
    frame[26..30].copy_from_slice(&source);
    frame[30..34].copy_from_slice(&destination);
    let sum = checksum(0, &frame[14..34]);
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
    34 + payload
}

/// The internet checksum (RFC 1071) of some bytes, on top of `sum`.
pub fn checksum(sum: u32, bytes: &[u8]) -> u16 {
    let (words, rest) = bytes.as_chunks::<2>();
    let sum = words.iter().fold(sum, |sum, word| sum + u32::from(u16::from_be_bytes(*word)));
    let sum = rest.iter().fold(sum, |sum, byte| sum + (u32::from(*byte) << 8));
    let sum = (sum & 0xffff) + (sum >> 16);
    !((sum & 0xffff) + (sum >> 16)) as u16
}

/// Turns a request to us into its reply, where it stands: its length, or `None` when it asks nothing of us.
pub fn answer(me: &GuestConfig, frame: &mut Frame, length: usize) -> Option<usize> {
    if frame[6] & 1 != 0 {
        return None;
    }
    match u16::from_be_bytes([frame[12], frame[13]]) {
        ARP if length >= 42 => answer_arp(me, frame),
        IPV4 if length >= 42 => answer_ipv4(me, frame, length),
        IPV6 if length >= 62 => answer_ipv6(me, frame, length),
        _ => None,
    }
}

fn answer_arp(me: &GuestConfig, frame: &mut Frame) -> Option<usize> {
    if frame[14..22] != [0, 1, 8, 0, 6, 4, 0, 1] || frame[38..42] != me.ip {
        return None;
    }
    frame[21] = 2;
    frame.copy_within(22..32, 32);
    frame[22..28].copy_from_slice(&me.mac);
    frame[28..32].copy_from_slice(&me.ip);
    turn_round(me, frame);
    Some(42)
}

fn answer_ipv4(me: &GuestConfig, frame: &mut Frame, length: usize) -> Option<usize> {
    let bytes = usize::from(u16::from_be_bytes([frame[16], frame[17]]));
    let ours = frame[30..34] == me.ip && frame[0..6] == me.mac;
    let whole = frame[14] == 0x45 && bytes >= 28 && 14 + bytes <= length && frame[20] & 0xbf == 0 && frame[21] == 0;
    if !ours || !whole || frame[26] >= 224 {
        return None;
    }
    match frame[23] {
        ICMP => answer_ping(frame, 34, [8, 0], [0, 0], 0x0800)?,
        UDP => answer_udp(frame, 34)?,
        _ => return None,
    }
    // Swapping addresses changes no checksum.
    frame.copy_within(26..30, 30);
    frame[26..30].copy_from_slice(&me.ip);
    turn_round(me, frame);
    Some(14 + bytes)
}

fn answer_ipv6(me: &GuestConfig, frame: &mut Frame, length: usize) -> Option<usize> {
    let bytes = 40 + usize::from(u16::from_be_bytes([frame[18], frame[19]]));
    if frame[14] >> 4 != 6 || bytes < 48 || 14 + bytes > length || frame[22] == 0xff || frame[22..38] == [0; 16] {
        return None;
    }
    if frame[20] == ICMPV6 && frame[54] == 135 {
        return if bytes >= 64 { advertise(me, frame) } else { None };
    }
    if frame[38..54] != me.ip6 || frame[0..6] != me.mac {
        return None;
    }
    match frame[20] {
        // One more in the sum is one less in its complement.
        ICMPV6 => answer_ping(frame, 54, [128, 0], [129, 0], 0xfeff)?,
        UDP => answer_udp(frame, 54)?,
        _ => return None,
    }
    frame.copy_within(22..38, 38);
    frame[22..38].copy_from_slice(&me.ip6);
    turn_round(me, frame);
    Some(14 + bytes)
}

/// Answers a neighbour solicitation (RFC 4861, 7.2.4).
fn advertise(me: &GuestConfig, frame: &mut Frame) -> Option<usize> {
    if frame[21] != 255 || frame[62..78] != me.ip6 {
        return None;
    }
    frame.copy_within(22..38, 38);
    frame[22..38].copy_from_slice(&me.ip6);
    frame[18..20].copy_from_slice(&[0, 32]);
    // Solicited, and to be believed rather than what is cached; then the option that says our station address.
    frame[54..62].copy_from_slice(&[136, 0, 0, 0, 0x60, 0, 0, 0]);
    frame[78..80].copy_from_slice(&[2, 1]);
    frame[80..86].copy_from_slice(&me.mac);
    let sum = checksum(32 + u32::from(ICMPV6), &frame[22..86]);
    frame[56..58].copy_from_slice(&sum.to_be_bytes());
    turn_round(me, frame);
    Some(86)
}

/// Makes an echo request a reply: the checksum is adjusted by `difference`, not summed (RFC 1624).
fn answer_ping(frame: &mut Frame, at: usize, request: [u8; 2], reply: [u8; 2], difference: u32) -> Option<()> {
    let message = frame.get_mut(at..)?.first_chunk_mut::<4>()?;
    let [kind, code, high, low] = *message;
    if [kind, code] != request {
        return None;
    }
    let sum = u32::from(u16::from_be_bytes([high, low])) + difference;
    let [high, low] = ((sum + (sum >> 16)) as u16).to_be_bytes();
    *message = [reply[0], reply[1], high, low];
    Some(())
}

/// Swaps a datagram's ports, which changes no checksum. Two echo services would never come to an end, so one whose source
/// is the service's port is not answered.
fn answer_udp(frame: &mut Frame, at: usize) -> Option<()> {
    let ports = frame.get_mut(at..)?.first_chunk_mut::<4>()?;
    let [a, b, c, d] = *ports;
    if u16::from_be_bytes([c, d]) != ECHO_PORT || u16::from_be_bytes([a, b]) == ECHO_PORT {
        return None;
    }
    *ports = [c, d, a, b];
    Some(())
}

/// Back to where it came from.
fn turn_round(me: &GuestConfig, frame: &mut Frame) {
    frame.copy_within(6..12, 0);
    frame[6..12].copy_from_slice(&me.mac);
}
