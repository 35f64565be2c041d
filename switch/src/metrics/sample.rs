//! What a scrape tells, as plain data: collected by control in few system calls, before anything is encoded.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use switch_common::{DropCell, Tally};

use super::process::Process;
use crate::api::schema::Side;
use crate::events::EventCounts;
use crate::observer::Seen;
use crate::reflex::HeardSums;

/// Everything at one time.
#[derive(Clone, Debug, Default)]
pub struct Sample {
    /// The instance.
    pub name: String,
    /// `kernel` or `userspace`.
    pub datapath: String,
    /// `tcx` or `clsact`.
    pub hook: String,
    /// The ports.
    pub ports: Vec<PortSample>,
    /// Drops of frames that belong to no port.
    pub strangers: Vec<DropSample>,
    /// What flows told, since the daemon began.
    pub seen: Arc<Seen>,
    /// What happened, since the daemon began.
    pub events: EventCounts,
    /// What the clerk knows.
    pub clerk: Arc<crate::clerk::Seen>,
    /// The mirrors.
    pub mirrors: Vec<MirrorSample>,
    /// Observations that were lost.
    pub lost: Vec<(Stage, u64)>,
    /// Stations that are known.
    pub stations: u64,
    /// Stations that turned up on another port.
    pub station_moves: u64,
    /// How full tables are.
    pub maps: Vec<MapSample>,
    /// The programs in the kernel.
    pub programs: Vec<ProgramSample>,
    /// Threads that observe, and whether they run.
    pub threads: Vec<(&'static str, bool)>,
    /// The daemon as a process.
    pub process: Process,
    /// How long it took to collect this.
    pub took: Duration,
}

/// A port and what it counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PortSample {
    /// Its number.
    pub id: u16,
    /// Its name.
    pub name: String,
    /// How it is attached.
    pub kind: &'static str,
    /// `guest` or `uplink`.
    pub role: &'static str,
    /// `file` or `command`.
    pub origin: &'static str,
    /// Its interface on the host.
    pub netdev: String,
    /// Whether it is up.
    pub is_up: bool,
    /// What the guest sent.
    pub ingress: Tally,
    /// What the guest was given.
    pub egress: Tally,
    /// Frames without a flow for lack of room.
    pub overflow_frames: u64,
    /// Frames without a flow for lack of an IP header.
    pub unparsable_frames: u64,
    /// Frames flooded.
    pub flood_frames: u64,
    /// Frames handed to the brain.
    pub punted_frames: u64,
    /// Frames that say who is who.
    pub heard: HeardSums,
    /// What did not arrive.
    pub drops: Vec<DropSample>,
}

/// Frames that did not arrive, for one reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DropSample {
    /// Which side refused.
    pub side: Side,
    /// Why: a word of our list of reasons, or of the kernel's.
    pub reason: Cow<'static, str>,
    /// How much.
    pub cell: DropCell,
}

/// Where observations can be lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stage {
    /// Frames on their way to the brain.
    Punt,
    /// Records for the flow log.
    FlowLog,
    /// Records for who follows.
    Follow,
    /// Samples of dropped frames.
    Evidence,
    /// Reads of the flow table.
    Sweep,
    /// Events, on their way from the loop or for who follows.
    Events,
    /// Frames that say who is who.
    Names,
    /// Notes of which flows the user-space half dropped frames.
    Notes,
    /// Records and events for the history.
    History,
    /// Copies for mirrors.
    Mirror,
}

impl Stage {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Punt,
        Self::FlowLog,
        Self::Follow,
        Self::Evidence,
        Self::Sweep,
        Self::Notes,
        Self::History,
        Self::Events,
        Self::Names,
        Self::Mirror,
    ];

    /// The label in metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Punt => "punt",
            Self::FlowLog => "flow_log",
            Self::Follow => "follow",
            Self::Evidence => "evidence",
            Self::Sweep => "sweep",
            Self::Events => "events",
            Self::Names => "names",
            Self::Notes => "notes",
            Self::History => "history",
            Self::Mirror => "mirror",
        }
    }
}

/// A mirror.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MirrorSample {
    /// Its name.
    pub name: String,
    /// Whether its ports and its target are there.
    pub is_up: bool,
    /// What its target was given.
    pub delivered: Tally,
    /// Frames that its target did not take, or that the kernel dropped there.
    pub lost_frames: u64,
}

/// How full a table is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapSample {
    /// Which.
    pub map: &'static str,
    /// Entries in use.
    pub entries: u64,
    /// Entries there is room for.
    pub entries_max: u64,
}

/// A program in the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProgramSample {
    /// Its name in our object.
    pub name: String,
    /// How often it ran, as far as the kernel counted.
    pub runs: u64,
    /// How long.
    pub run_time: Duration,
}
