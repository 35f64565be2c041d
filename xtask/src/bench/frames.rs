//! The frames that stations send, each behind the virtio-net header that a guest's driver would put there.

/// Bytes of `struct virtio_net_hdr` (legacy, no merged buffers).
pub const VNET_BYTES: usize = 10;
/// Payload bytes of a segment in the super-frame.
const GSO_SIZE: u16 = 1448;
/// Segments in the super-frame: the most that IPv4's length field allows.
const SEGMENTS: u16 = 45;
/// Where TCP begins, and where its payload does.
const TCP_AT: u16 = 34;
const HEADERS: u16 = 54;

/// A station's address, told apart by its number.
pub fn mac(number: u32) -> [u8; 6] {
    let [a, b, c, d] = number.to_be_bytes();
    [0x52, 0x54, a, b, c, d]
}

/// A UDP frame of so many bytes (four more on a wire) behind an empty virtio-net header.
pub fn udp(source: [u8; 6], destination: [u8; 6], bytes: u16) -> Vec<u8> {
    let mut frame = vec![0; VNET_BYTES];
    ipv4(&mut frame, source, destination, 17, bytes - 14);
    // Ports 4000 to 4001, a length, no checksum; then zeros.
    let [high, low] = (bytes - 34).to_be_bytes();
    frame.extend([0x0f, 0xa0, 0x0f, 0xa1, high, low, 0, 0]);
    frame.resize(VNET_BYTES + usize::from(bytes), 0);
    frame
}

/// Bytes of the super-frame, from its destination address on.
pub const SUPER_BYTES: usize = HEADERS as usize + GSO_SIZE as usize * SEGMENTS as usize;

/// A TCP super-frame of 45 segments, as a guest's driver hands it over: checksum and segmentation left to the device.
pub fn super_frame(source: [u8; 6], destination: [u8; 6]) -> Vec<u8> {
    const NEEDS_CSUM: u8 = 1;
    const GSO_TCPV4: u8 = 1;
    let mut frame = vec![NEEDS_CSUM, GSO_TCPV4];
    for field in [HEADERS, GSO_SIZE, TCP_AT, 16] {
        frame.extend(field.to_le_bytes());
    }
    ipv4(&mut frame, source, destination, 6, 40 + GSO_SIZE * SEGMENTS);
    // Ports 4000 to 4001, sequence and acknowledgement 1, 20 bytes of header, ACK, a window, no checksum yet.
    frame.extend([0x0f, 0xa0, 0x0f, 0xa1, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x10, 0xff, 0xff, 0, 0, 0, 0]);
    frame.resize(VNET_BYTES + SUPER_BYTES, 0x5a);
    frame
}

/// Makes of a super-frame the one that follows it in its stream; leaves other frames alone.
pub fn advance(frame: &mut [u8]) {
    const SEQUENCE_AT: usize = VNET_BYTES + 14 + 20 + 4;
    if frame.len() != VNET_BYTES + SUPER_BYTES {
        return;
    }
    if let Some(sequence) = frame.get_mut(SEQUENCE_AT..).and_then(|rest| rest.first_chunk_mut::<4>()) {
        let payload = u32::from(GSO_SIZE) * u32::from(SEGMENTS);
        *sequence = u32::from_be_bytes(*sequence).wrapping_add(payload).to_be_bytes();
    }
}

/// Makes a UDP frame one of another flow, by its two ports.
pub fn set_flow(frame: &mut [u8], flow: u32) {
    const PORTS_AT: usize = VNET_BYTES + 14 + 20;
    if let Some(ports) = frame.get_mut(PORTS_AT..).and_then(|rest| rest.first_chunk_mut::<4>()) {
        *ports = flow.to_be_bytes();
    }
}

/// Appends an Ethernet and an IPv4 header; `total` is IPv4's length field.
fn ipv4(frame: &mut Vec<u8>, source: [u8; 6], destination: [u8; 6], protocol: u8, total: u16) {
    frame.extend(destination);
    frame.extend(source);
    frame.extend([0x08, 0x00]);
    let [high, low] = total.to_be_bytes();
    let mut header = [0x45, 0, high, low, 0, 0, 0x40, 0, 64, protocol, 0, 0, 198, 18, 0, 1, 198, 18, 0, 2];
    let sum: u32 =
        header.chunks_exact(2).filter_map(|pair| pair.first_chunk()).map(|p| u32::from(u16::from_be_bytes(*p))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let check = u16::try_from(folded & 0xffff).map_or(0, |low| !low);
    if let Some(field) = header.get_mut(10..12) {
        field.copy_from_slice(&check.to_be_bytes());
    }
    frame.extend(header);
}

/// What a frame of a stream says of itself, in its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Label {
    /// Which measurement it belongs to.
    pub run: u16,
    /// Which station or flow it is of, as far as order counts.
    pub source: u16,
    /// Its number within the measurement, from zero.
    pub number: u32,
    /// When it was written, in nanoseconds since the measurement's start.
    pub time: u64,
}

/// Bytes of a label; a frame of 60 has 18 to spare behind its headers.
const LABEL_BYTES: usize = 16;
/// Where the payload begins, from the destination address on: of a UDP frame, and of a super-frame.
const UDP_PAYLOAD: usize = 42;
/// IPv4's protocol field.
const PROTOCOL_AT: usize = 23;

/// Where a frame has its label; `at` is where its destination address begins.
fn label_range(frame: &[u8], at: usize) -> Option<std::ops::Range<usize>> {
    let payload = match frame.get(at + PROTOCOL_AT)? {
        17 => UDP_PAYLOAD,
        6 => usize::from(HEADERS),
        _ => return None,
    };
    Some(at + payload..at + payload + LABEL_BYTES)
}

impl Label {
    /// Writes it into a frame with its virtio-net header.
    pub fn write(self, frame: &mut [u8]) {
        let Some(place) = label_range(frame, VNET_BYTES).and_then(|range| frame.get_mut(range)) else { return };
        let (run, source, number, time) =
            (self.run.to_le_bytes(), self.source.to_le_bytes(), self.number.to_le_bytes(), self.time.to_le_bytes());
        for (to, from) in place.iter_mut().zip(run.into_iter().chain(source).chain(number).chain(time)) {
            *to = from;
        }
    }

    /// Reads it from a frame as it is received.
    pub fn read(frame: &[u8]) -> Option<Self> {
        let bytes: &[u8; LABEL_BYTES] = frame.get(label_range(frame, 0)?)?.first_chunk()?;
        let [r0, r1, s0, s1, n0, n1, n2, n3, time @ ..] = *bytes;
        Some(Self {
            run: u16::from_le_bytes([r0, r1]),
            source: u16::from_le_bytes([s0, s1]),
            number: u32::from_le_bytes([n0, n1, n2, n3]),
            time: u64::from_le_bytes(time),
        })
    }
}

/// Makes a frame one of a station that nobody has heard of.
pub fn set_source(frame: &mut [u8], number: u32) {
    if let Some(source) = frame.get_mut(VNET_BYTES + 6..).and_then(|rest| rest.first_chunk_mut()) {
        *source = mac(number);
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::indexing_slicing, reason = "a test may panic")]
    use super::*;

    #[test]
    fn a_label_is_read_as_it_was_written_in_frames_of_both_kinds() {
        let label = Label { run: 7, source: 3, number: 0x0102_0304, time: 0x0506_0708_090a };
        for mut frame in [udp(mac(1), mac(2), 60), udp(mac(1), mac(2), 1514), super_frame(mac(1), mac(2))] {
            let before = frame.clone();
            label.write(&mut frame);
            assert_eq!(Label::read(&frame[VNET_BYTES..]), Some(label));
            assert_eq!(frame[..VNET_BYTES + 42], before[..VNET_BYTES + 42], "headers stay");
        }
        assert_eq!(Label::read(&[0; 60]), None, "what is neither UDP nor TCP has none");
    }

    #[test]
    fn a_frame_is_as_long_as_its_headers_say() {
        for bytes in [60_u16, 128, 570, 1514] {
            let frame = udp(mac(1), mac(2), bytes);
            assert_eq!(frame.len(), VNET_BYTES + usize::from(bytes));
            assert_eq!(frame[VNET_BYTES + 16..VNET_BYTES + 18], (bytes - 14).to_be_bytes());
            assert_eq!(frame[VNET_BYTES + 38..VNET_BYTES + 40], (bytes - 34).to_be_bytes());
        }
        assert_eq!(super_frame(mac(1), mac(2)).len(), VNET_BYTES + SUPER_BYTES);
    }
}
