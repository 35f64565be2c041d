//! DNS messages (RFC 1035, section 4), as far as they are there. Our own parser: a guest writes every byte of them.
//!
//! - A name's pointers must point before the name, each before the one that led to it: so no chain of them has a loop, and none is
//!   longer than the message. A name is at most 255 bytes, whatever it is made of.
//! - Names are shown in lower case, since DNS does not tell case apart and resolvers play with it (0x20), and as printable ASCII.
//! - What is cut short is read as far as it goes. EDNS and all that is behind the answers is not looked at.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::text::{self, Reader};

/// Longest name on the wire (RFC 1035, section 2.3.4).
const NAME_BYTES_MAX: usize = 255;
/// Answers that are looked at.
const ANSWERS_MAX: usize = 32;

const CLASS_IN: u16 = 1;
const TYPE_A: u16 = 1;
const TYPE_AAAA: u16 = 28;

/// The response code (RFC 6895, section 2.3): a closed list, for it is a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rcode {
    /// It is answered.
    NoError,
    /// The query was not understood.
    FormErr,
    /// The server failed.
    ServFail,
    /// There is no such name.
    NxDomain,
    /// The server cannot do that.
    NotImp,
    /// The server does not want to.
    Refused,
    /// Another one.
    Other,
}

impl Rcode {
    /// Every one.
    pub const ALL: [Self; 7] =
        [Self::NoError, Self::FormErr, Self::ServFail, Self::NxDomain, Self::NotImp, Self::Refused, Self::Other];

    fn from_bits(bits: u8) -> Self {
        match bits & 0x0f {
            0 => Self::NoError,
            1 => Self::FormErr,
            2 => Self::ServFail,
            3 => Self::NxDomain,
            4 => Self::NotImp,
            5 => Self::Refused,
            _ => Self::Other,
        }
    }

    /// Its word.
    pub const fn label(self) -> &'static str {
        match self {
            Self::NoError => "noerror",
            Self::FormErr => "formerr",
            Self::ServFail => "servfail",
            Self::NxDomain => "nxdomain",
            Self::NotImp => "notimp",
            Self::Refused => "refused",
            Self::Other => "other",
        }
    }
}

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// The name, in lower case and printable.
    pub name: String,
    /// The type's number.
    pub query_type: u16,
}

impl Question {
    /// The type's name (IANA's list of those that are asked for), or `TYPE` and its number (RFC 3597).
    pub fn type_name(&self) -> String {
        let known = match self.query_type {
            1 => "A",
            2 => "NS",
            5 => "CNAME",
            6 => "SOA",
            12 => "PTR",
            15 => "MX",
            16 => "TXT",
            28 => "AAAA",
            33 => "SRV",
            35 => "NAPTR",
            43 => "DS",
            48 => "DNSKEY",
            64 => "SVCB",
            65 => "HTTPS",
            252 => "AXFR",
            255 => "ANY",
            257 => "CAA",
            other => return format!("TYPE{other}"),
        };
        known.to_owned()
    }
}

/// A message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// What ties an answer to its query, beside the addresses.
    pub id: u16,
    /// Whether it is an answer.
    pub is_answer: bool,
    /// Of an answer: how it went.
    pub rcode: Rcode,
    /// The first question; an answer may be without.
    pub question: Option<Question>,
    /// The addresses among the answers, as far as they are there.
    pub addresses: Vec<IpAddr>,
}

/// It is no DNS message, or not one that can be taken at its word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

impl Message {
    /// Reads a message.
    ///
    /// # Errors
    /// Its header is not whole, it is no query, or its question is none.
    pub fn read(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut header = Reader::new(bytes);
        let id = header.u16().ok_or(Malformed)?;
        let [flags, rcode] = header.array().ok_or(Malformed)?;
        let questions = header.u16().ok_or(Malformed)?;
        let answers = header.u16().ok_or(Malformed)?;
        header.take(4).ok_or(Malformed)?;
        let is_answer = flags & 0x80 != 0;
        // Opcode 0 is a query; updates, notifications and the like have other sections.
        if flags & 0x78 != 0 || (!is_answer && questions == 0) {
            return Err(Malformed);
        }
        let mut at = 12;
        let mut question = None;
        for _ in 0..questions {
            let (name, next) = read_name(bytes, at).ok_or(Malformed)?;
            let mut fields = Reader::new(bytes.get(next..).ok_or(Malformed)?);
            let query_type = fields.u16().ok_or(Malformed)?;
            fields.u16().ok_or(Malformed)?;
            question.get_or_insert(Question { name, query_type });
            at = next + 4;
        }
        let addresses = read_answers(bytes, at, usize::from(answers));
        Ok(Self { id, is_answer, rcode: Rcode::from_bits(rcode), question, addresses })
    }
}

/// The addresses among the answers, up to the first one that is not whole.
fn read_answers(bytes: &[u8], mut at: usize, count: usize) -> Vec<IpAddr> {
    let mut addresses = Vec::new();
    for _ in 0..count.min(ANSWERS_MAX) {
        let Some((kind, data, next)) = read_answer(bytes, at) else { break };
        match (kind, data) {
            (TYPE_A, data) => addresses.extend(<[u8; 4]>::try_from(data).map(|it| IpAddr::from(Ipv4Addr::from(it)))),
            (TYPE_AAAA, data) => {
                addresses.extend(<[u8; 16]>::try_from(data).map(|it| IpAddr::from(Ipv6Addr::from(it))));
            }
            _ => {}
        }
        at = next;
    }
    addresses
}

/// One record: its type (0 in another class than IN), its data, and where the next one begins.
fn read_answer(bytes: &[u8], at: usize) -> Option<(u16, &[u8], usize)> {
    let (_, at) = read_name(bytes, at)?;
    let mut fields = Reader::new(bytes.get(at..)?);
    let (kind, class) = (fields.u16()?, fields.u16()?);
    fields.u32()?;
    let length = usize::from(fields.u16()?);
    let data = fields.take(length)?;
    Some((if class == CLASS_IN { kind } else { 0 }, data, at + 10 + length))
}

/// Reads the name at `start`: as text, and where what follows it begins.
fn read_name(bytes: &[u8], start: usize) -> Option<(String, usize)> {
    let mut text = String::new();
    let (mut at, mut wire_bytes) = (start, 1);
    // Where the name goes on behind its first pointer, and what pointers must point before.
    let (mut end, mut before) = (None, start);
    loop {
        let length = *bytes.get(at)?;
        match length {
            0 => {
                if text.is_empty() {
                    text.push('.');
                }
                return Some((text, end.unwrap_or(at + 1)));
            }
            1..=63 => {
                let label = bytes.get(at + 1..at + 1 + usize::from(length))?;
                wire_bytes += 1 + label.len();
                if wire_bytes > NAME_BYTES_MAX {
                    return None;
                }
                if !text.is_empty() {
                    text.push('.');
                }
                for byte in label {
                    // A dot within a label is no separator.
                    if *byte == b'.' { text.push_str("\\.") } else { text::push(&mut text, byte.to_ascii_lowercase()) }
                }
                at += 1 + label.len();
            }
            192..=255 => {
                let low = *bytes.get(at + 1)?;
                let target = usize::from(u16::from_be_bytes([length & 0x3f, low]));
                if target >= before {
                    return None;
                }
                end.get_or_insert(at + 2);
                (at, before) = (target, target);
            }
            _ => return None,
        }
    }
}
