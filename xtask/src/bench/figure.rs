//! What is measured: sizes, loads and works as values, and what a slice of one comes to.

use serde::{Deserialize, Serialize};

/// Lengths of frames, from the destination address on, without check sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// All of one length.
    Bytes(u16),
    /// 7 of 60, 4 of 570, 1 of 1514 (RFC 6985's simple mix, less its check sequences).
    Imix,
    /// 64 KiB of TCP, to be segmented by the device.
    Gso,
}

/// How much is offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Load {
    /// As fast as possible with at most so many frames under way: nothing is lost for want of room.
    Window(u32),
    /// As fast as possible, whatever becomes of it.
    Overload,
    /// The highest rate at which nothing is lost, by bisection.
    Search,
}

/// What tells one frame of a stream from the next, beside its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Vary {
    /// Nothing.
    Nothing,
    /// Each comes from a station that nobody has heard of.
    Station,
    /// Each is of another UDP flow.
    Flow,
    /// Each comes from the next of so many stations that are known.
    Known(u32),
}

/// What is done in a slice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// One thread writes a burst that fits the target's ring, then drains it.
    Write(Size),
    /// The same, each frame of another of 300,000 flows.
    WriteFlows,
    /// One thread writes, another reads.
    Stream(Size, Load, Vary),
    /// One 60-byte frame back and forth, both ends asleep until it comes.
    TapRoundTrip,
    /// One byte back and forth over TCP.
    TcpRoundTrip,
    /// `sockperf ping-pong`, UDP, 64 bytes.
    Sockperf,
    /// One TCP stream, by iperf3.
    Bulk,
    /// 18-byte UDP datagrams as fast as possible.
    Datagrams,
}

/// A figure of a slice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Figure {
    /// CPU time of the sender's write.
    WriteCost,
    /// Frames that arrived where they should.
    Rate,
    /// CPU time of all who take part per frame that arrived.
    CpuPerFrame,
    /// Frames that did not arrive, of those written.
    Lost,
    /// Time between a frame's write and its read, the middle.
    DelayP50,
    /// Half of all round trips are shorter.
    TripP50,
    /// 99 % of all round trips are shorter.
    TripP99,
    /// Payload of TCP.
    Bulk,
    /// CPU time of all who take part per KiB that arrived.
    CpuPerKib,
}

impl Figure {
    /// What it is counted in.
    pub const fn unit(self) -> &'static str {
        match self {
            Self::WriteCost | Self::CpuPerFrame => "ns",
            Self::Rate => "k/s",
            Self::Lost => "%",
            Self::DelayP50 | Self::TripP50 | Self::TripP99 => "µs",
            Self::Bulk => "Gb/s",
            Self::CpuPerKib => "ns/KiB",
        }
    }

    /// Whether more of it is better.
    pub const fn more_is_better(self) -> bool {
        matches!(self, Self::Rate | Self::Bulk)
    }

    /// What it is called in tables and plots.
    pub const fn label(self) -> &'static str {
        match self {
            Self::WriteCost => "write, CPU per frame",
            Self::Rate => "frames",
            Self::CpuPerFrame => "CPU per frame",
            Self::Lost => "lost",
            Self::DelayP50 => "delay p50",
            Self::TripP50 => "round trip p50",
            Self::TripP99 => "round trip p99",
            Self::Bulk => "TCP",
            Self::CpuPerKib => "CPU per KiB",
        }
    }
}

/// What became of the frames of a stream; `sent` counts a flooded frame once for each that should see it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Written, times those who should receive them.
    pub sent: u64,
    /// Arrived for the first time where they should.
    pub received: u64,
    /// Arrived nowhere.
    pub lost: u64,
    /// Arrived again.
    pub duplicated: u64,
    /// Arrived after one that the same station had sent later.
    pub reordered: u64,
    /// Arrived where they should not.
    pub misdelivered: u64,
}

impl Counts {
    /// Adds another's.
    pub fn add(&mut self, other: Self) {
        self.sent += other.sent;
        self.received += other.received;
        self.lost += other.lost;
        self.duplicated += other.duplicated;
        self.reordered += other.reordered;
        self.misdelivered += other.misdelivered;
    }
}

/// What a slice came to.
#[derive(Clone, Debug, Default)]
pub struct Slice {
    /// Its figures.
    pub figures: Vec<(Figure, f64)>,
    /// Its frames, where they were counted one by one.
    pub counts: Option<Counts>,
}

impl Slice {
    /// Without frames that were counted.
    pub fn of(figures: impl Into<Vec<(Figure, f64)>>) -> Self {
        Self { figures: figures.into(), counts: None }
    }
}
