//! What lies in the maps of frames that say who is who: DNS, DHCP, ARP and neighbour discovery.
//!
//! | map | kind | key → value | written by | read by |
//! |---|---|---|---|---|
//! | `HEARD` | ring buffer, [`HEARD_BYTES`] | [`Heard`] | reflex | the clerk |
//! | `HEARD_COUNTS` | array, `PORT_SLOTS` | port id → [`HeardCounts`] | reflex (atomic) | control |
//!
//! Whether a flow's frames are of interest is found once, when the flow is opened ([`is_telling`]), and kept as a mark of it.

use crate::flow::{FlowTail, KIND_IPV4, KIND_IPV6, KIND_LINK};
use crate::wire::PROTOCOL_UDP;

/// Size of the ring buffer.
pub const HEARD_BYTES: usize = 1 << 20;
/// Bytes kept of a frame.
pub const HEARD_BYTES_MAX: usize = 384;

const ETHERTYPE_ARP: u16 = 0x0806;
const PROTOCOL_ICMPV6: u8 = 58;

/// Whether frames of a flow say who is who: ARP; UDP from or to port 53 (DNS), 67, 68 (DHCP), 546 or 547 (DHCP for IPv6); `ICMPv6` of the
/// types 133 to 137 (neighbour discovery). Fragments have no ports, so they do not.
#[inline(always)]
pub const fn is_telling(tail: &FlowTail) -> bool {
    let FlowTail { source_port, destination_port, protocol, kind, .. } = *tail;
    match kind {
        KIND_LINK => source_port == ETHERTYPE_ARP,
        KIND_IPV4 | KIND_IPV6 if protocol == PROTOCOL_UDP => is_port(source_port) || is_port(destination_port),
        KIND_IPV6 => protocol == PROTOCOL_ICMPV6 && source_port >= 133 && source_port <= 137,
        _ => false,
    }
}

#[inline(always)]
const fn is_port(port: u16) -> bool {
    matches!(port, 53 | 67 | 68 | 546 | 547)
}

/// How much a port told. Produced = limited + lost + delivered + what still waits in the ring.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HeardCounts {
    /// The port's token bucket, as a theoretical arrival time.
    pub tat_ns: u64,
    /// Frames of interest.
    pub produced: u64,
    /// Of these: those that the token bucket refused.
    pub limited: u64,
    /// Of these: those that found the ring full.
    pub lost: u64,
}

/// The beginning of one frame.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heard {
    /// When: `bpf_ktime_get_ns`, the monotonic clock.
    pub time_ns: u64,
    /// Length of the frame in bytes, tags included.
    pub length: u32,
    /// Id of the port it came in by.
    pub port: u16,
    /// How many of `bytes` there are; what is behind them is undefined.
    pub captured: u16,
    /// The frame's first bytes, its tags included.
    pub bytes: [u8; HEARD_BYTES_MAX],
}

const _: () = {
    assert!(size_of::<HeardCounts>() == 32);
    assert!(size_of::<Heard>() == 16 + HEARD_BYTES_MAX);
};

#[cfg(feature = "user")]
mod pod {
    #![expect(unsafe_code, reason = "`aya::Pod` is an unsafe trait: the type must be plain data without padding")]
    use super::HeardCounts;

    // SAFETY: `repr(C)`, integers only; the size asserted above equals the sum of the fields, so there is no padding.
    unsafe impl aya::Pod for HeardCounts {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::{KIND_CUT, KIND_FRAGMENT};

    #[test]
    fn who_is_who_is_told_by_these_and_no_others() {
        let tail = |kind, protocol, source_port, destination_port| {
            is_telling(&FlowTail { source_port, destination_port, protocol, kind, inner: 0 })
        };
        for kind in [KIND_IPV4, KIND_IPV6] {
            for port in [53, 67, 68, 546, 547] {
                assert!(tail(kind, 17, port, 40_000) && tail(kind, 17, 40_000, port) && !tail(kind, 6, port, port));
                assert!(!tail(kind | KIND_FRAGMENT, 17, port, port) && !tail(kind | KIND_CUT, 17, port, port));
            }
            for port in [52, 54, 66, 69, 545, 548, 5353] {
                assert!(!tail(kind, 17, port, port));
            }
        }
        for kind in 0..=255 {
            assert_eq!(tail(KIND_IPV6, 58, kind, 0), (133..=137).contains(&kind));
            assert!(!tail(KIND_IPV4, 58, kind, 0) && !tail(KIND_IPV4, 1, kind, 0));
        }
        assert!(tail(KIND_LINK, 0, 0x0806, 0) && !tail(KIND_LINK, 0, 0x88b5, 0) && !tail(KIND_IPV4, 0, 0x0806, 0));
    }
}
