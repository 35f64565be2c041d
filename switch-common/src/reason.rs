//! Why a frame did not arrive: a closed list, documented here and nowhere else.

/// On whose account a drop is booked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Way {
    /// Refused at the port it came in on: none of it went anywhere.
    Ingress = 0,
    /// One copy refused at the port it was to leave by.
    Egress = 1,
}

macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $name:ident = $number:literal, $label:literal;)+) => {
        /// Why a frame (or one copy of it) was dropped. The number is part of the map layout.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum DropReason {
            $($(#[doc = $doc])+ $name = $number,)+
        }

        impl DropReason {
            /// Every reason, in the order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$name),+];

            /// The reason with this number.
            pub const fn from_number(number: u8) -> Option<Self> {
                match number {
                    $($number => Some(Self::$name),)+
                    _ => None,
                }
            }

            /// The label in metrics, records and tables.
            pub const fn label(self) -> &'static str {
                match self {
                    $(Self::$name => $label,)+
                }
            }

            /// One sentence for an operator.
            pub const fn describe(self) -> &'static str {
                match self {
                    $(Self::$name => concat!($($doc),+),)+
                }
            }
        }
    };
}

reasons! {
    /// Shorter than an Ethernet header, or a VLAN tag cut short.
    Malformed = 1, "malformed";
    /// Longer than the egress port's MTU allows (for a super-frame: one of its wire frames).
    TooBig = 2, "too_big";
    /// A guest's offload request that no honest driver makes: a segment size below the minimum, or segmentation of
    /// something that is neither TCP nor UDP.
    BadOffload = 3, "bad_offload";
    /// The source is a group address or all zeros, which no station has.
    GroupSource = 4, "group_source";
    /// The source is not one of the addresses this port is allowed to use.
    SpoofedSource = 5, "spoofed_source";
    /// Sent to 01:80:C2:00:00:00–0F, which a bridge never forwards.
    ReservedAddress = 6, "reserved_address";
    /// The destination lives behind the port the frame came in on.
    Hairpin = 7, "hairpin";
    /// There is no other port that could take the frame.
    NoEgress = 8, "no_egress";
    /// The port (ingress, or the one the destination lives behind) is down.
    PortDown = 9, "port_down";
    /// The port has as many stations as it may have, all of them static.
    StationLimit = 10, "station_limit";
    /// The port has caused more flooding than its bucket allows.
    FloodLimited = 11, "flood_limited";
    /// The port has sent more frames to unknown stations than the brain takes from one port.
    PuntLimited = 12, "punt_limited";
    /// The egress port went away between the decision and the delivery.
    EgressGone = 13, "egress_gone";
    /// No brain was there to decide: the daemon was dead or starting.
    BrainAbsent = 14, "brain_absent";
    /// The kernel refused the brain's copy.
    InjectFailed = 15, "inject_failed";
    /// Something this list does not foresee; stays 0, or it is a defect.
    Other = 16, "other";
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;

    #[test]
    fn numbers_and_labels_are_unique_and_fit_the_table() {
        let mut labels = std::collections::BTreeSet::new();
        for reason in DropReason::ALL {
            assert_eq!(DropReason::from_number(*reason as u8), Some(*reason));
            assert!((*reason as usize) < crate::REASON_SLOTS);
            assert!(labels.insert(reason.label()), "{} twice", reason.label());
        }
        assert_eq!(DropReason::from_number(0), None);
    }
}
