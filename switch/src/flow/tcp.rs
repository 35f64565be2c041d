//! What TCP says about how well a conversation goes, seen from the middle.
//!
//! **Handshake.** The switch sees SYN, SYN-ACK and the first ACK go by. The time from SYN to SYN-ACK is the round trip between
//! us and the destination, the time from SYN-ACK to ACK the one between us and the source; their sum is what the source
//! itself measures. Both hold only when no SYN was repeated, for nobody knows which of two was answered.
//!
//! ```text
//! source ──SYN──▶ │ ──▶ destination      t0 = first frame of the forward direction
//!          ◀──── │ ◀──SYN-ACK──          t1 = first frame of the reverse direction
//!        ──ACK──▶ │ ──▶                  t2 = first ACK behind the source's own SYN
//!        └ t2−t1 ┘ └ t1−t0 ┘
//! ```

use std::time::Duration;

use serde::{Deserialize, Serialize};
use switch_common::flow::{TCP_ACK, TCP_FIN, TCP_RST, TCP_SYN};

/// TCP flags that were seen, in both directions together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(from = "Vec<String>", into = "Vec<String>")]
pub struct TcpFlags(pub u8);

/// The flags' names by bit (RFC 9293, section 3.1).
const NAMES: [&str; 8] = ["fin", "syn", "rst", "psh", "ack", "urg", "ece", "cwr"];

impl TcpFlags {
    /// Whether one of these bits was seen.
    pub fn any(self, bits: u8) -> bool {
        self.0 & bits != 0
    }

    /// The names of those that were seen.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        NAMES.into_iter().enumerate().filter(move |(bit, _)| self.0 >> bit & 1 == 1).map(|(_, name)| name)
    }
}

impl From<TcpFlags> for Vec<String> {
    fn from(flags: TcpFlags) -> Self {
        flags.names().map(str::to_owned).collect()
    }
}

impl From<Vec<String>> for TcpFlags {
    /// Names that are none of ours are left out.
    fn from(names: Vec<String>) -> Self {
        let bit = |name: &String| NAMES.iter().position(|known| known == name).map_or(0, |bit| 1 << bit);
        Self(names.iter().map(bit).fold(0, |all, bit| all | bit))
    }
}

/// What TCP says of a conversation as a whole; what each direction repeated is in its counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// Flags seen in either direction, since the conversation began.
    pub flags: TcpFlags,
    /// A SYN that nobody answered.
    pub half_open: bool,
    /// How long the handshake took, when it was seen whole.
    pub handshake: Option<Handshake>,
}

/// The two halves of the handshake's round trip.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Handshake {
    /// Between the switch and the source.
    pub source: Duration,
    /// Between the switch and the destination.
    pub destination: Duration,
}

impl Handshake {
    /// From the times of SYN, SYN-ACK and ACK, in ns of one clock; nothing when they are not in that order.
    pub(super) fn between(syn_ns: u64, syn_ack_ns: u64, ack_ns: u64) -> Option<Self> {
        Some(Self {
            source: Duration::from_nanos(ack_ns.checked_sub(syn_ack_ns)?),
            destination: Duration::from_nanos(syn_ack_ns.checked_sub(syn_ns)?),
        })
    }

    /// What the source itself would have measured.
    pub fn whole(&self) -> Duration {
        self.source + self.destination
    }
}

/// Whether a direction that began with a SYN has sent nothing else, and so was never let in.
pub(super) fn only_knocked(flags: TcpFlags) -> bool {
    flags.any(TCP_SYN) && !flags.any(TCP_ACK | TCP_FIN | TCP_RST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_written_by_name_and_read_back() {
        let flags = TcpFlags(TCP_SYN | TCP_ACK | 0x80);
        assert_eq!(Vec::from(flags), ["syn", "ack", "cwr"]);
        assert_eq!(TcpFlags::from(Vec::from(flags)), flags);
        assert_eq!(TcpFlags::from(vec!["quux".to_owned()]), TcpFlags(0));
    }

    #[test]
    fn a_handshake_out_of_order_is_none() {
        let whole = Handshake::between(100, 300, 700);
        assert_eq!(whole.map(|handshake| handshake.whole()), Some(Duration::from_nanos(600)));
        assert_eq!(whole.map(|handshake| handshake.destination), Some(Duration::from_nanos(200)));
        assert_eq!(Handshake::between(100, 99, 700), None);
        assert_eq!(Handshake::between(100, 300, 299), None);
    }
}
