//! What is measured: routes, works on them, and who takes part. Pure data; [`super::run`] walks through it.

use super::bed::Route;
use super::figure::{Load, Size, Vary, Work};
use super::systems::Kind::{
    self, Bridge, BridgeStock, BridgeTcpdump, Ovs, OvsIpfix, OvsTso, Vde, Weft, WeftForwarding, WeftSmallTable,
    WeftUserspace,
};

/// Stations, and what is measured with them; each switch is started once for all of it.
pub struct Group {
    /// Its name, which those of its cases begin with, and the plot's.
    pub name: &'static str,
    /// In words.
    pub what: &'static str,
    /// Which stations.
    pub route: Route,
    /// What is measured.
    pub cases: &'static [Case],
}

/// One thing to measure, and for whom.
pub struct Case {
    /// Its name.
    pub name: &'static str,
    /// In words.
    pub what: &'static str,
    /// What is done.
    pub work: Work,
    /// Who takes part.
    pub systems: &'static [Kind],
}

const fn case(name: &'static str, what: &'static str, work: Work, systems: &'static [Kind]) -> Case {
    Case { name, what, work, systems }
}

/// At most so many frames under way: fewer than any queue on the way holds. The shortest is that of the packet sockets that
/// Open vSwitch reads (`net.core.rmem_default`): some 270 small frames, 90 large ones.
const WINDOW: Load = Load::Window(128);
/// The same for large frames.
const NARROW: Load = Load::Window(64);

const fn stream(size: Size, load: Load) -> Work {
    Work::Stream(size, load, Vary::Nothing)
}

const fn known(stations: u32) -> Work {
    Work::Stream(Size::Bytes(60), WINDOW, Vary::Known(stations))
}

/// Switches whose work is done inside the sender's write.
const IN_KERNEL: &[Kind] = &[Bridge, Weft, WeftForwarding];
/// Everyone.
const ALL: &[Kind] = &[Bridge, Weft, WeftForwarding, WeftUserspace, Ovs, OvsTso, Vde];
/// Everyone who has a way of his own.
const EACH: &[Kind] = &[Bridge, Weft, WeftUserspace, Ovs, Vde];
/// Those whose ports take super-frames and have room for some; the packet sockets of Open vSwitch hold two.
const WITH_GSO: &[Kind] = &[Bridge, Weft, WeftForwarding, WeftUserspace];

/// Everything, in order.
pub const PLAN: &[Group] = &[
    Group {
        name: "tap",
        what: "tap to tap",
        route: Route::Taps,
        cases: &[
            case(
                "tap-write-60",
                "60-byte frames, CPU of the write",
                Work::Write(Size::Bytes(60)),
                &[Bridge, BridgeStock, Weft, WeftForwarding],
            ),
            case("tap-write-1514", "1514-byte frames, CPU of the write", Work::Write(Size::Bytes(1514)), IN_KERNEL),
            case("tap-write-gso", "64 KiB GSO frames, CPU of the write", Work::Write(Size::Gso), IN_KERNEL),
            case("tap-60", "60-byte frames, at most 128 under way", stream(Size::Bytes(60), WINDOW), ALL),
            case("tap-128", "128-byte frames, at most 128 under way", stream(Size::Bytes(128), WINDOW), EACH),
            case("tap-512", "512-byte frames, at most 128 under way", stream(Size::Bytes(512), WINDOW), EACH),
            case("tap-1514", "1514-byte frames, at most 64 under way", stream(Size::Bytes(1514), NARROW), ALL),
            case("tap-imix", "simple IMIX, at most 64 under way", stream(Size::Imix, NARROW), EACH),
            case("tap-gso", "64 KiB GSO frames, at most 32 under way", stream(Size::Gso, Load::Window(32)), WITH_GSO),
            case(
                "tap-lossfree",
                "60-byte frames, highest rate without loss",
                stream(Size::Bytes(60), Load::Search),
                EACH,
            ),
            case(
                "tap-overload",
                "60-byte frames, as fast as can be written",
                stream(Size::Bytes(60), Load::Overload),
                ALL,
            ),
            case("tap-rr", "60-byte frame, there and back", Work::TapRoundTrip, ALL),
            case(
                "tap-stations",
                "60-byte frames, each from a new station",
                Work::Stream(Size::Bytes(60), WINDOW, Vary::Station),
                EACH,
            ),
            case(
                "tap-flows",
                "60-byte frames, each of a new flow",
                Work::Stream(Size::Bytes(60), WINDOW, Vary::Flow),
                &[Bridge, Weft, WeftForwarding, WeftUserspace, Ovs, Vde],
            ),
        ],
    },
    Group {
        name: "stations",
        what: "tap to tap, many stations behind the first",
        route: Route::Taps,
        cases: &[
            case("stations-10", "60-byte frames of 10 stations in turn", known(10), EACH),
            case("stations-1k", "60-byte frames of 1,000 stations in turn", known(1_000), EACH),
            case("stations-100k", "60-byte frames of 100,000 stations in turn", known(100_000), EACH),
        ],
    },
    Group {
        name: "observing",
        what: "tap to tap, observed",
        route: Route::Taps,
        cases: &[
            case("observing-rr", "60-byte frame, there and back", Work::TapRoundTrip, &[Weft, WeftForwarding]),
            case("observing-full", "write, 300,000 flows offered", Work::WriteFlows, &[WeftSmallTable, WeftForwarding]),
            case(
                "observing-peers",
                "60-byte frames, at most 128 under way",
                stream(Size::Bytes(60), WINDOW),
                &[Weft, WeftForwarding, Bridge, BridgeTcpdump, Ovs, OvsIpfix],
            ),
        ],
    },
    Group {
        name: "guest",
        what: "guest to guest on taps, each with a network stack",
        route: Route::Guests,
        cases: &[
            case("guest-bulk", "bulk TCP", Work::Bulk, ALL),
            case("guest-rr", "TCP, one byte there and back", Work::TcpRoundTrip, EACH),
        ],
    },
    Group {
        name: "container",
        what: "container to container",
        route: Route::Containers,
        cases: &[
            case(
                "container-rr",
                "TCP, one byte there and back",
                Work::TcpRoundTrip,
                &[Bridge, BridgeStock, Weft, WeftForwarding, WeftUserspace, Ovs, Vde],
            ),
            case(
                "container-sockperf",
                "UDP, 64 bytes there and back (sockperf)",
                Work::Sockperf,
                &[Bridge, Weft, Ovs, Vde],
            ),
            case("container-bulk", "bulk TCP", Work::Bulk, ALL),
            case("container-udp", "64-byte UDP", Work::Datagrams, ALL),
        ],
    },
    Group {
        name: "mixed",
        what: "guest on a tap to container",
        route: Route::Mixed,
        cases: &[
            case("mixed-rr", "TCP, one byte there and back", Work::TcpRoundTrip, EACH),
            case("mixed-bulk", "bulk TCP", Work::Bulk, &[Bridge, Weft, WeftUserspace, Ovs, OvsTso, Vde]),
            case("mixed-udp", "64-byte UDP", Work::Datagrams, EACH),
        ],
    },
    Group {
        name: "flood8",
        what: "one tap to all of 8",
        route: Route::ToAll(8),
        cases: &[case("flood8-60", "60-byte broadcasts", stream(Size::Bytes(60), Load::Window(64)), EACH)],
    },
    Group {
        name: "flood64",
        what: "one tap to all of 64",
        route: Route::ToAll(64),
        cases: &[case("flood64-60", "60-byte broadcasts", stream(Size::Bytes(60), Load::Window(64)), EACH)],
    },
    Group {
        name: "many",
        what: "8 taps to one",
        route: Route::FromMany(8),
        cases: &[case("many-60", "60-byte frames, at most 128 under way", stream(Size::Bytes(60), WINDOW), EACH)],
    },
];
