//! What the daemon sends to who captures: records one after the other, little-endian.
//!
//! ```text
//! u32 length of what follows │ u8 kind │ …
//!
//! kind 1, begin      JSON, a [`Begin`]: the first record
//! kind 2, port       JSON, a [`Port`]: before the first frame that names it
//! kind 3, frame      u8 0 │ u32 f │ u64 time, ns since 1970 │ u64 number │ u32 length │ f bytes: its fate │ its bytes
//! kind 4, end        JSON, an [`End`]: the last record; a stream without one broke off
//!
//! fate               u16 ingress port │ u8 outcome │ u8 flags │ u16 segment size │ u16 segments
//!                    u8 r │ r bytes: why the whole frame was refused
//!                    u16 n │ n × (u16 egress port │ u8 r │ r bytes: why this copy was refused, nothing when it was not)
//! ```
//!
//! A fate says everything that frames of one conversation have in common, in bytes that can be compared: who writes them as
//! words does so once per conversation.

use serde::{Deserialize, Serialize};

use super::fate::{FATE_BYTES, Reader};
use crate::port::spec::Mac;

pub use super::fate::{BY_BRAIN, Fate, FateHead, Outcome};

const BEGIN: u8 = 1;
const PORT: u8 = 2;
const FRAME: u8 = 3;
const END: u8 = 4;

/// Bytes of a frame's record that are always there.
pub const FRAME_HEADER_BYTES: usize = 30;
/// Longest record: a super-frame and its fate, with room to spare. What says it is longer is none of ours.
pub const RECORD_BYTES_MAX: usize = 1 << 20;

/// How a session began.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Begin {
    /// The session's number.
    pub session: u64,
    /// The instance.
    pub switch: String,
    /// The daemon's version.
    pub version: String,
    /// The machine and its system.
    pub host: String,
    /// When, in nanoseconds since 1970.
    pub began_ns: u64,
    /// The filter, empty for none.
    pub filter: String,
    /// Bytes kept of a frame; 0: its headers.
    pub snaplen: u32,
    /// What it is a capture of, in words.
    pub what: String,
}

/// A port as a capture names it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Port {
    /// Its number in this stream.
    pub id: u16,
    /// Its name.
    pub name: String,
    /// Its netdev and labels.
    pub description: String,
    /// Its station's address, or its netdev's.
    #[schema(value_type = Option<String>)]
    pub mac: Option<Mac>,
}

/// Why a session ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum EndReason {
    /// Who captured asked for its end.
    #[default]
    Stopped,
    /// As many frames as were asked for.
    Frames,
    /// As long as was asked for.
    Duration,
    /// As many bytes as were asked for.
    Bytes,
    /// What was kept is told.
    Recalled,
    /// Who captured went away.
    ClientGone,
    /// The daemon stops.
    DaemonStopped,
    /// It could not go on.
    Failed,
}

impl EndReason {
    /// The word in the audit log.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Stopped => "stopped",
            Self::Frames => "frames",
            Self::Duration => "duration",
            Self::Bytes => "bytes",
            Self::Recalled => "recalled",
            Self::ClientGone => "client_gone",
            Self::DaemonStopped => "daemon_stopped",
            Self::Failed => "failed",
        }
    }
}

/// What there was of one port as ingress.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct PortSums {
    /// The port.
    pub id: u16,
    /// Frames that came in by it meanwhile, whatever the filter says; nothing when that is not known.
    pub received: Option<u64>,
    /// Frames put into the stream.
    pub delivered: u64,
    /// Frames left out, because the reader was too slow.
    pub lost: u64,
}

/// How a session ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct End {
    /// Why.
    pub reason: EndReason,
    /// When, in nanoseconds since 1970.
    pub ended_ns: u64,
    /// Frames that the filter accepted: delivered and lost ones.
    pub matched: u64,
    /// Frames put into the stream.
    pub delivered: u64,
    /// Frames lost before their port was looked at: the kernel's ring was full, or the loop's queue.
    pub lost_early: u64,
    /// Frames left out, because the reader was too slow.
    pub lost_late: u64,
    /// By port.
    pub ports: Vec<PortSums>,
}

/// A frame as it is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// When, in nanoseconds since 1970.
    pub time_ns: u64,
    /// The frame's number: the same in every session.
    pub number: u64,
    /// Its length when it was seen.
    pub length: u32,
    /// Its fate; see [`Fate::decode`].
    pub fate: &'a [u8],
    /// What is kept of it.
    pub bytes: &'a [u8],
}

impl Frame<'_> {
    /// Bytes of its record.
    pub fn record_bytes(&self) -> usize {
        FRAME_HEADER_BYTES + self.fate.len() + self.bytes.len()
    }

    /// Appends its record.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.reserve(self.record_bytes());
        let length = u32::try_from(self.record_bytes() - 4).unwrap_or(u32::MAX);
        out.extend_from_slice(&length.to_le_bytes());
        out.extend_from_slice(&[FRAME, 0]);
        out.extend_from_slice(&u32::try_from(self.fate.len()).unwrap_or(u32::MAX).to_le_bytes());
        out.extend_from_slice(&self.time_ns.to_le_bytes());
        out.extend_from_slice(&self.number.to_le_bytes());
        out.extend_from_slice(&self.length.to_le_bytes());
        out.extend_from_slice(self.fate);
        out.extend_from_slice(self.bytes);
    }
}

/// What is in a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record<'a> {
    /// The beginning.
    Begin(Begin),
    /// A port.
    Port(Port),
    /// A frame.
    Frame(Frame<'a>),
    /// The end.
    End(End),
}

/// Appends the record of a beginning.
pub fn encode_begin(begin: &Begin, out: &mut Vec<u8>) {
    encode_json(BEGIN, begin, out);
}

/// Appends the record of a port.
pub fn encode_port(port: &Port, out: &mut Vec<u8>) {
    encode_json(PORT, port, out);
}

/// Appends the record of an end.
pub fn encode_end(end: &End, out: &mut Vec<u8>) {
    encode_json(END, end, out);
}

fn encode_json(kind: u8, value: &impl Serialize, out: &mut Vec<u8>) {
    let json = serde_json::to_vec(value).expect("strings and numbers are JSON");
    let length = u32::try_from(json.len() + 1).expect("a port has a few labels");
    out.extend_from_slice(&length.to_le_bytes());
    out.push(kind);
    out.extend_from_slice(&json);
}

/// What came is not what a daemon of this version sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("what the daemon sends cannot be understood; is it another version? See `weft --version` and its log")]
pub struct Garbled;

/// What a record is, as far as it can be said without reading what people made up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sealed<'a> {
    /// The beginning.
    Begin(&'a [u8]),
    /// A port.
    Port(&'a [u8]),
    /// A frame.
    Frame(Frame<'a>),
    /// The end.
    End(&'a [u8]),
}

impl<'a> Sealed<'a> {
    /// Reads the rest.
    pub fn open(self) -> Result<Record<'a>, Garbled> {
        let json = |_| Garbled;
        Ok(match self {
            Self::Begin(body) => Record::Begin(serde_json::from_slice(body).map_err(json)?),
            Self::Port(body) => Record::Port(serde_json::from_slice(body).map_err(json)?),
            Self::Frame(frame) => Record::Frame(frame),
            Self::End(body) => Record::End(serde_json::from_slice(body).map_err(json)?),
        })
    }
}

/// The first record of `bytes` and how many of them it takes; `None` when it is not all there yet.
pub fn peel(bytes: &[u8]) -> Result<Option<(Sealed<'_>, usize)>, Garbled> {
    let mut head = Reader(bytes);
    let Some(length) = head.u32() else { return Ok(None) };
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    if length > RECORD_BYTES_MAX {
        return Err(Garbled);
    }
    let Some(body) = head.0.get(..length) else { return Ok(None) };
    let (kind, body) = body.split_first().ok_or(Garbled)?;
    let record = match *kind {
        FRAME => Sealed::Frame(frame(body).ok_or(Garbled)?),
        BEGIN => Sealed::Begin(body),
        PORT => Sealed::Port(body),
        END => Sealed::End(body),
        _ => return Err(Garbled),
    };
    Ok(Some((record, 4 + length)))
}

/// The first record of `bytes`, read, and how many of them it takes; `None` when it is not all there yet.
pub fn decode(bytes: &[u8]) -> Result<Option<(Record<'_>, usize)>, Garbled> {
    peel(bytes)?.map(|(sealed, taken)| Ok((sealed.open()?, taken))).transpose()
}

fn frame(body: &[u8]) -> Option<Frame<'_>> {
    let mut body = Reader(body);
    body.u8()?;
    let fate_bytes = usize::try_from(body.u32()?).ok()?;
    let (time_ns, number, length) = (body.u64()?, body.u64()?, body.u32()?);
    let (fate, bytes) = body.0.split_at_checked(fate_bytes)?;
    (fate_bytes >= FATE_BYTES).then_some(Frame { time_ns, number, length, fate, bytes })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use proptest::prelude::*;

    use super::*;

    fn fate() -> Vec<u8> {
        let head = FateHead {
            ingress: 7,
            outcome: Outcome::Flooded,
            flags: BY_BRAIN,
            segment_bytes: 1448,
            segments: 45,
            reason: "",
        };
        let mut fate = Vec::new();
        head.encode([(1, ""), (2, "too_big"), (4094, "")].into_iter(), &mut fate);
        fate
    }

    #[test]
    fn what_was_written_is_read() {
        let fate = fate();
        let frame = Frame { time_ns: 1 << 60, number: 9, length: 65_000, fate: &fate, bytes: &[1, 2, 3] };
        let port = Port { id: 3, name: "a".into(), description: "b".into(), mac: None };
        let end =
            End { reason: EndReason::Frames, ports: vec![PortSums { id: 3, ..PortSums::default() }], ..End::default() };
        let mut stream = Vec::new();
        encode_begin(&Begin::default(), &mut stream);
        encode_port(&port, &mut stream);
        frame.encode(&mut stream);
        encode_end(&end, &mut stream);
        let (mut rest, mut read) = (stream.as_slice(), Vec::new());
        while let Some((record, taken)) = decode(rest).unwrap() {
            // Half a record is none.
            assert_eq!(decode(rest.get(..taken - 1).unwrap()).unwrap(), None);
            read.push(record);
            rest = rest.get(taken..).unwrap();
        }
        assert_eq!(read, [Record::Begin(Begin::default()), Record::Port(port), Record::Frame(frame), Record::End(end)]);
        assert!(rest.is_empty());
        let read = Fate::decode(&fate).unwrap();
        assert_eq!(read.egress().collect::<Vec<_>>(), [(1, ""), (2, "too_big"), (4094, "")]);
        assert_eq!((read.ingress, read.outcome, read.segments), (7, Outcome::Flooded, 45));
        assert!(read.is_refused(None) && read.is_refused(Some("too_big")) && !read.is_refused(Some("hairpin")));
    }

    proptest! {
        #[test]
        fn garbage_is_no_record_and_no_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(Some((_, taken))) = decode(&bytes) {
                prop_assert!(taken <= bytes.len());
            }
            if let Some(fate) = Fate::decode(&bytes) {
                prop_assert!(fate.egress().count() <= bytes.len());
            }
        }
    }
}
