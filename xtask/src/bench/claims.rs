//! What is promised of the figures: pure data, and how a promise is held against what was measured.

use super::figure::Figure::{self, Bulk, CpuPerFrame, Rate, TripP50, WriteCost};
use super::report::Bound::{self, AtLeast, AtMost};
use super::report::{Case, Row};
use super::statistics::{Ratio, median};
use super::systems::Kind::{
    self, Bridge, BridgeTcpdump, Ovs, OvsIpfix, OvsTso, Vde, Weft, WeftForwarding, WeftSmallTable, WeftUserspace,
};

/// A promise about two systems of one case.
pub struct Claim {
    name: &'static str,
    case: &'static str,
    figure: Figure,
    ours: Kind,
    against: Against,
    bound: Bound,
}

/// Whom a figure is compared with.
#[derive(Clone, Copy)]
enum Against {
    /// Each of them; what counts is the one that does best.
    Best(&'static [Kind]),
    /// What observing adds for us, over what it adds for another: ours without, theirs with, theirs without.
    Overhead(Kind, Kind, Kind),
}

const fn claim(
    name: &'static str,
    case: &'static str,
    figure: Figure,
    ours: Kind,
    theirs: &'static [Kind],
    bound: Bound,
) -> Claim {
    Claim { name, case, figure, ours, against: Against::Best(theirs), bound }
}

const fn overhead(name: &'static str, theirs: Kind, plain: Kind) -> Claim {
    let against = Against::Overhead(WeftForwarding, theirs, plain);
    Claim { name, case: "observing-peers", figure: CpuPerFrame, ours: Weft, against, bound: AtMost(0.2) }
}

const BRIDGE: &[Kind] = &[Bridge];
const OVS: &[Kind] = &[Ovs, OvsTso];
const USERSPACE: &[Kind] = &[Vde, Ovs, OvsTso];

/// Every promise.
pub const CLAIMS: &[Claim] = &[
    claim("bench:tap-60", "tap-write-60", WriteCost, Weft, BRIDGE, AtMost(0.95)),
    claim("bench:tap-60-forwarding", "tap-write-60", WriteCost, WeftForwarding, BRIDGE, AtMost(0.88)),
    claim("bench:tap-gso", "tap-write-gso", WriteCost, Weft, BRIDGE, AtMost(1.0)),
    claim("bench:tap-60-rate", "tap-60", Rate, Weft, BRIDGE, AtLeast(1.05)),
    claim("bench:tap-60-lossfree", "tap-lossfree", Rate, Weft, BRIDGE, AtLeast(1.05)),
    claim("bench:container-rr", "container-rr", TripP50, Weft, BRIDGE, AtMost(1.0)),
    claim("bench:container-udp", "container-udp", Rate, Weft, BRIDGE, AtLeast(1.05)),
    claim("bench:container-udp-cpu", "container-udp", CpuPerFrame, Weft, BRIDGE, AtMost(0.92)),
    claim("bench:container-bulk", "container-bulk", Bulk, Weft, BRIDGE, AtLeast(1.0)),
    claim("bench:guest-bulk", "guest-bulk", Bulk, Weft, BRIDGE, AtLeast(1.0)),
    claim("bench:flood-64", "flood64-60", Rate, Weft, BRIDGE, AtLeast(0.5)),
    claim("bench:ovs-tap-60", "tap-60", Rate, Weft, OVS, AtLeast(3.0)),
    claim("bench:ovs-container-udp", "container-udp", Rate, Weft, OVS, AtLeast(3.0)),
    claim("bench:ovs-mixed-udp", "mixed-udp", Rate, Weft, &[Ovs], AtLeast(3.0)),
    claim("bench:ovs-guest-bulk", "guest-bulk", Bulk, Weft, OVS, AtLeast(3.0)),
    claim("bench:ovs-container-bulk", "container-bulk", Bulk, Weft, OVS, AtLeast(3.0)),
    claim("bench:ovs-mixed-bulk", "mixed-bulk", Bulk, Weft, OVS, AtLeast(3.0)),
    claim("bench:userspace-60", "tap-60", Rate, WeftUserspace, USERSPACE, AtLeast(2.0)),
    claim("bench:userspace-bulk-vde", "guest-bulk", Bulk, WeftUserspace, &[Vde], AtLeast(10.0)),
    claim("bench:userspace-bulk-ovs", "guest-bulk", Bulk, WeftUserspace, OVS, AtLeast(1.5)),
    claim("bench:userspace-rr-peers", "tap-rr", TripP50, WeftUserspace, USERSPACE, AtMost(0.5)),
    claim("bench:userspace-bulk", "guest-bulk", Bulk, WeftUserspace, BRIDGE, AtLeast(0.5)),
    claim("bench:userspace-rr", "tap-rr", TripP50, WeftUserspace, BRIDGE, AtMost(2.0)),
    claim("bench:observing-60", "tap-write-60", WriteCost, Weft, &[WeftForwarding], AtMost(1.08)),
    claim("bench:observing-gso", "tap-write-gso", WriteCost, Weft, &[WeftForwarding], AtMost(1.02)),
    claim("bench:observing-rr", "observing-rr", TripP50, Weft, &[WeftForwarding], AtMost(1.05)),
    claim("bench:observing-full", "observing-full", WriteCost, WeftSmallTable, &[WeftForwarding], AtMost(1.18)),
    overhead("bench:observing-ipfix", OvsIpfix, Ovs),
    overhead("bench:observing-tcpdump", BridgeTcpdump, Bridge),
];

impl Claim {
    /// What was promised and what became of it; `None` when its case was not measured.
    pub fn held(&self, cases: &[Case]) -> Option<Row> {
        let case = cases.iter().find(|case| case.name == self.case)?;
        let samples = |kind: Kind| case.samples(kind, self.figure);
        let ratio = match self.against {
            Against::Best(peers) => {
                let of = |peer: &Kind| Some((*peer, Ratio::of(samples(self.ours)?, samples(*peer)?)?));
                let worst = |a: &(Kind, Ratio), b: &(Kind, Ratio)| a.1.median.total_cmp(&b.1.median);
                let ratios = peers.iter().filter_map(of);
                match self.bound {
                    AtMost(_) => ratios.max_by(worst),
                    AtLeast(_) => ratios.min_by(worst),
                }
            }
            Against::Overhead(plain, theirs, theirs_plain) => (|| {
                let ours = added(samples(self.ours)?, samples(plain)?);
                let other = added(samples(theirs)?, samples(theirs_plain)?);
                Some((theirs, Ratio::of(&ours, &other)?))
            })(),
        };
        let peer = match self.against {
            Against::Best(peers) => peers.first().copied(),
            Against::Overhead(_, theirs, _) => Some(theirs),
        };
        let against = ratio.as_ref().map(|(peer, _)| *peer).or(peer).map_or("nobody", Kind::label);
        let what = match self.against {
            Against::Best(_) => format!("{}, {}: {}", case.route, case.what, self.figure.label()),
            Against::Overhead(..) => format!("{}, {}: what observing adds to CPU per frame", case.route, case.what),
        };
        let missing = || "not measured; the table of the case says why".to_owned();
        let measured = ratio.as_ref().map(|(_, ratio)| ratio.clone()).ok_or_else(missing);
        let unit = if let Against::Overhead(..) = self.against { "×" } else { self.figure.unit() };
        Some(Row::ratio(self.name, what, unit, self.bound, [self.ours.label(), against], measured))
    }
}

/// The share that observing adds, by pair; what is lost in noise counts as nothing added.
fn added(with: &[f64], without: &[f64]) -> Vec<f64> {
    // A median over the run first: single pairs of a difference that is small would be mostly noise.
    let plain = median(without);
    with.iter().map(|with| ((with - plain) / plain).max(0.0)).collect()
}
