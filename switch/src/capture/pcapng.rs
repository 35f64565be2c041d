//! Blocks of a pcapng file (draft-ietf-opsawg-pcapng), appended to a buffer. Pure: no file, no clock.
//!
//! ```text
//! section header ─ interface … ─ packet … (a new interface may come between packets) ─ statistics, one per interface
//! ```
//!
//! Everything is little-endian, as the section header says. A block is whole or not there: who writes the buffer to a file
//! cuts a file at the end of a block, and what is left can be read.

use switch_common::MacAddr;

const SECTION_HEADER: u32 = 0x0a0d_0d0a;
const INTERFACE: u32 = 1;
const STATISTICS: u32 = 5;
const PACKET: u32 = 6;

/// `LINKTYPE_ETHERNET`.
const ETHERNET: u16 = 1;
/// Times are in 10⁻⁹ s.
const NANOSECONDS: u8 = 9;

/// Options of every block.
const END: u16 = 0;
const COMMENT: u16 = 1;

/// Longest value of an option.
const OPTION_BYTES_MAX: usize = 65_535;

/// What wrote a file.
#[derive(Clone, Copy, Debug)]
pub struct Section<'a> {
    /// The machine.
    pub hardware: &'a str,
    /// Its operating system.
    pub os: &'a str,
    /// The program.
    pub application: &'a str,
    /// What else is to be said; nothing when empty.
    pub comment: &'a str,
}

/// A place where frames were seen.
#[derive(Clone, Copy, Debug)]
pub struct Interface<'a> {
    /// Its name.
    pub name: &'a str,
    /// More about it; nothing when empty.
    pub description: &'a str,
    /// Its address.
    pub mac: Option<MacAddr>,
    /// The filter in tcpdump's words; nothing when empty.
    pub filter: &'a str,
    /// Longest packet; 0: no limit.
    pub snaplen: u32,
}

/// A frame.
#[derive(Clone, Copy, Debug)]
pub struct Packet<'a> {
    /// The number of its interface: the first one in the file is 0.
    pub interface: u32,
    /// When, in nanoseconds since 1970.
    pub time_ns: u64,
    /// Its length when it was seen.
    pub length: u32,
    /// `epb_flags`.
    pub flags: u32,
    /// `epb_packetid`: the same frame has the same one wherever it is seen.
    pub id: u64,
    /// Options that it has in common with others: see [`shared_options`].
    pub shared: &'a [u8],
    /// The bytes that are kept of it.
    pub bytes: &'a [u8],
}

/// `epb_flags`: the frame came in by the interface.
pub const FLAG_INBOUND: u32 = 1;
/// `epb_flags`: the frame was to leave by the interface.
pub const FLAG_OUTBOUND: u32 = 2;
/// `epb_flags`: to one station.
pub const FLAG_UNICAST: u32 = 1 << 2;
/// `epb_flags`: to a group.
pub const FLAG_MULTICAST: u32 = 2 << 2;
/// `epb_flags`: to all.
pub const FLAG_BROADCAST: u32 = 3 << 2;

/// `TC_ACT_SHOT`: dropped.
pub const VERDICT_SHOT: u64 = 2;
/// `TC_ACT_REDIRECT`: handed to another interface.
pub const VERDICT_REDIRECT: u64 = 7;

/// What an interface has seen over the whole capture.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics<'a> {
    /// The number of the interface.
    pub interface: u32,
    /// When the capture began and ended, in nanoseconds since 1970.
    pub span_ns: (u64, u64),
    /// Frames that came in by it, whatever the filter says.
    pub received: Option<u64>,
    /// Frames that the filter accepted.
    pub accepted: Option<u64>,
    /// Of these: lost, because a reader was too slow.
    pub dropped: Option<u64>,
    /// Of these: lost in the kernel.
    pub dropped_by_os: Option<u64>,
    /// Of these: written.
    pub delivered: Option<u64>,
    /// What else is to be said; nothing when empty.
    pub comment: &'a str,
}

/// Begins a file.
pub fn section(out: &mut Vec<u8>, section: &Section<'_>) {
    block(out, SECTION_HEADER, |out| {
        out.extend_from_slice(&0x1a2b_3c4d_u32.to_le_bytes());
        // Version 1.0, and nobody knows yet how long the section will be.
        out.extend_from_slice(&[1, 0, 0, 0]);
        out.extend_from_slice(&u64::MAX.to_le_bytes());
        text(out, COMMENT, section.comment);
        text(out, 2, section.hardware);
        text(out, 3, section.os);
        text(out, 4, section.application);
        option(out, END, &[]);
    });
}

/// Describes the next interface: the first one is number 0.
pub fn interface(out: &mut Vec<u8>, interface: &Interface<'_>) {
    block(out, INTERFACE, |out| {
        out.extend_from_slice(&ETHERNET.to_le_bytes());
        out.extend_from_slice(&[0; 2]);
        out.extend_from_slice(&interface.snaplen.to_le_bytes());
        text(out, 2, interface.name);
        text(out, 3, interface.description);
        if let Some(mac) = interface.mac {
            option(out, 6, &mac.0);
        }
        option(out, 9, &[NANOSECONDS]);
        if !interface.filter.is_empty() {
            // Its first byte says what the rest is: 0 for tcpdump's words.
            let words = interface.filter.as_bytes();
            let words = words.get(..OPTION_BYTES_MAX - 1).unwrap_or(words);
            option(out, 11, &[&[0], words].concat());
        }
        option(out, END, &[]);
    });
}

/// The options that frames of one fate have in common, ready for [`packet`]: what is to be said of them, nothing when empty, and
/// `epb_verdict` of Linux's traffic control (`TC_ACT_*`).
pub fn shared_options(comment: &str, verdict: u64) -> Vec<u8> {
    let mut options = Vec::new();
    text(&mut options, COMMENT, comment);
    // Its first byte says whose verdict: 1 for Linux's traffic control.
    option(&mut options, 7, &[&[1][..], &verdict.to_le_bytes()].concat());
    options
}

/// Code and length of `epb_flags` and of `epb_packetid`, which need no padding.
const FLAGS_HEAD: [u8; 4] = [2, 0, 4, 0];
const NUMBER_HEAD: [u8; 4] = [5, 0, 8, 0];
/// Bytes of a packet's block besides its frame and its shared options: head, flags, number, end of options, length.
const PACKET_BYTES: usize = 28 + 8 + 12 + 4 + 4;

/// Adds a frame. Hundreds of thousands come in a second: its length is known before, and nothing is looked at twice.
pub fn packet(out: &mut Vec<u8>, packet: &Packet<'_>) {
    let Packet { interface, time_ns, length, flags, id, shared, bytes } = *packet;
    let padding = padding(bytes.len());
    let total = PACKET_BYTES + bytes.len() + padding.len() + shared.len();
    let block = u32::try_from(total).expect("a block is a frame and a few options").to_le_bytes();
    out.reserve(total);
    out.extend_from_slice(&PACKET.to_le_bytes());
    out.extend_from_slice(&block);
    out.extend_from_slice(&interface.to_le_bytes());
    time(out, time_ns);
    out.extend_from_slice(&length_of(bytes).to_le_bytes());
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(bytes);
    out.extend_from_slice(padding);
    out.extend_from_slice(shared);
    out.extend_from_slice(&FLAGS_HEAD);
    out.extend_from_slice(&flags.to_le_bytes());
    out.extend_from_slice(&NUMBER_HEAD);
    out.extend_from_slice(&id.to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&block);
}

/// Says what an interface has seen.
pub fn statistics(out: &mut Vec<u8>, statistics: &Statistics<'_>) {
    block(out, STATISTICS, |out| {
        let (begin, end) = statistics.span_ns;
        out.extend_from_slice(&statistics.interface.to_le_bytes());
        time(out, end);
        text(out, COMMENT, statistics.comment);
        for (code, at) in [(2, begin), (3, end)] {
            out.extend_from_slice(&u16::to_le_bytes(code));
            out.extend_from_slice(&8_u16.to_le_bytes());
            time(out, at);
        }
        let counts = [
            (4, statistics.received),
            (5, statistics.dropped),
            (6, statistics.accepted),
            (7, statistics.dropped_by_os),
            (8, statistics.delivered),
        ];
        for (code, count) in counts {
            if let Some(count) = count {
                option(out, code, &count.to_le_bytes());
            }
        }
        option(out, END, &[]);
    });
}

/// A block: its type, its length, what `body` writes, and its length again.
fn block(out: &mut Vec<u8>, kind: u32, body: impl FnOnce(&mut Vec<u8>)) {
    let begin = out.len();
    out.extend_from_slice(&kind.to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    body(out);
    let length = u32::try_from(out.len() - begin + 4).expect("a block is a frame and a few options").to_le_bytes();
    for (to, from) in out.iter_mut().skip(begin + 4).zip(length) {
        *to = from;
    }
    out.extend_from_slice(&length);
}

/// The upper half comes first, whatever the byte order.
fn time(out: &mut Vec<u8>, ns: u64) {
    out.extend_from_slice(&ns.rotate_left(32).to_le_bytes());
}

fn text(out: &mut Vec<u8>, code: u16, text: &str) {
    if !text.is_empty() {
        // A cut may leave half a character; no reader minds at this length.
        option(out, code, text.as_bytes().get(..OPTION_BYTES_MAX).unwrap_or(text.as_bytes()));
    }
}

fn option(out: &mut Vec<u8>, code: u16, value: &[u8]) {
    out.extend_from_slice(&code.to_le_bytes());
    out.extend_from_slice(&u16::try_from(value.len()).unwrap_or(u16::MAX).to_le_bytes());
    out.extend_from_slice(value);
    pad(out, value.len());
}

/// Values begin at multiples of four bytes.
fn pad(out: &mut Vec<u8>, bytes: usize) {
    out.extend_from_slice(padding(bytes));
}

/// What follows so many bytes.
fn padding(bytes: usize) -> &'static [u8] {
    match bytes % 4 {
        1 => &[0; 3],
        2 => &[0; 2],
        3 => &[0; 1],
        _ => &[],
    }
}

fn length_of(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).unwrap_or(u32::MAX)
}
