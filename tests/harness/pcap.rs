//! Frames of a pcap or pcapng file, those of Ethernet interfaces only.
//!
//! Files of the test collections are damaged on purpose: reading ends at the first record that makes no sense, and what
//! was read until then counts. Formats: draft-ietf-opsawg-pcap and draft-ietf-opsawg-pcapng.

/// Link type of Ethernet.
const ETHERNET: u32 = 1;
/// Block type of a pcapng section header, the same in either byte order.
const SECTION: u32 = 0x0a0d_0d0a;

/// What was found in a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Capture {
    /// Frames of Ethernet interfaces.
    pub frames: Vec<Vec<u8>>,
    /// Packets of other link types, or files that are no capture at all.
    pub others: usize,
}

#[derive(Clone, Copy)]
struct Order {
    big: bool,
}

impl Order {
    fn u32(self, bytes: &[u8], at: usize) -> Option<u32> {
        let four = bytes.get(at..)?.first_chunk::<4>()?;
        Some(if self.big { u32::from_be_bytes(*four) } else { u32::from_le_bytes(*four) })
    }

    fn length(self, bytes: &[u8], at: usize) -> Option<usize> {
        usize::try_from(self.u32(bytes, at)?).ok()
    }

    fn u16(self, bytes: &[u8], at: usize) -> Option<u16> {
        let two = bytes.get(at..)?.first_chunk::<2>()?;
        Some(if self.big { u16::from_be_bytes(*two) } else { u16::from_le_bytes(*two) })
    }
}

/// Reads a capture of either format.
pub fn read(file: &[u8]) -> Capture {
    let mut capture = Capture::default();
    let read_to_end = match file.first_chunk::<4>() {
        Some([0x0a, 0x0d, 0x0d, 0x0a]) => read_ng(file, &mut capture),
        Some([0xd4, 0xc3, 0xb2, 0xa1] | [0x4d, 0x3c, 0xb2, 0xa1]) => read_old(file, Order { big: false }, &mut capture),
        Some([0xa1, 0xb2, 0xc3, 0xd4] | [0xa1, 0xb2, 0x3c, 0x4d]) => read_old(file, Order { big: true }, &mut capture),
        _ => None,
    };
    if read_to_end.is_none() && capture.frames.is_empty() {
        capture.others += 1;
    }
    capture
}

fn keep(capture: &mut Capture, link_type: u32, frame: &[u8]) {
    if link_type == ETHERNET {
        capture.frames.push(frame.to_owned());
    } else {
        capture.others += 1;
    }
}

fn read_old(file: &[u8], order: Order, capture: &mut Capture) -> Option<()> {
    // The upper bits say how long the FCS is; the type is in the lower sixteen.
    let link_type = order.u32(file, 20)? & 0xffff;
    let mut rest = file.get(24..)?;
    while !rest.is_empty() {
        let length = order.length(rest, 8)?;
        keep(capture, link_type, rest.get(16..16_usize.checked_add(length)?)?);
        rest = rest.get(16 + length..)?;
    }
    Some(())
}

fn read_ng(file: &[u8], capture: &mut Capture) -> Option<()> {
    let mut order = Order { big: false };
    let mut interfaces: Vec<u32> = Vec::new();
    let mut rest = file;
    while !rest.is_empty() {
        if order.u32(rest, 0)? == SECTION {
            order = Order { big: rest.get(8..12)? == [0x1a, 0x2b, 0x3c, 0x4d] };
            interfaces.clear();
        }
        let kind = order.u32(rest, 0)?;
        let length = order.length(rest, 4)?;
        let block = rest.get(..length).filter(|block| block.len() >= 12)?;
        match kind {
            1 => interfaces.push(u32::from(order.u16(block, 8)?)),
            3 => {
                let captured = order.length(block, 8)?.min(length - 16);
                keep(capture, *interfaces.first()?, block.get(12..12 + captured)?);
            }
            6 => {
                let link_type = *interfaces.get(order.length(block, 8)?)?;
                let captured = order.length(block, 20)?;
                keep(capture, link_type, block.get(28..28_usize.checked_add(captured)?)?);
            }
            _ => {}
        }
        rest = rest.get(length..)?;
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn old(link_type: u32, packets: &[&[u8]]) -> Vec<u8> {
        let mut file = [0xa1b2_c3d4_u32, 0x0004_0002, 0, 0, 65_535, link_type].map(u32::to_le_bytes).concat();
        for packet in packets {
            let length = u32::try_from(packet.len()).expect("short");
            file.extend([0, 0, length, length].map(u32::to_le_bytes).concat());
            file.extend_from_slice(packet);
        }
        file
    }

    #[test]
    fn ethernet_packets_are_read_and_others_counted() {
        assert_eq!(read(&old(1, &[b"one", b"three"])).frames, [b"one".to_vec(), b"three".to_vec()]);
        assert_eq!(read(&old(113, &[b"cooked"])), Capture { frames: Vec::new(), others: 1 });
    }

    #[test]
    fn a_file_cut_anywhere_gives_what_is_whole() {
        let file = old(1, &[b"one", b"three"]);
        for end in 0..file.len() {
            assert!(read(file.get(..end).expect("in range")).frames.len() < 2);
        }
    }

    #[test]
    fn pcapng_blocks_are_read() {
        let words = |words: &[u32]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<_>>();
        let mut file = words(&[SECTION, 28, 0x1a2b_3c4d, 1, u32::MAX, u32::MAX, 28]);
        file.extend(words(&[1, 20, 1, 0, 20]));
        file.extend(words(&[6, 36, 0, 0, 0, 4, 4, u32::from_le_bytes(*b"four"), 36]));
        assert_eq!(read(&file).frames, [b"four".to_vec()]);
    }
}
