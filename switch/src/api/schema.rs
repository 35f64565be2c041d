//! What the API says: the replies and requests as data, documented once for server, client and `/openapi.json`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use switch_common::Tally;
use utoipa::{IntoParams, ToSchema};

use crate::history::HistoryStatus;
use crate::mirror::{MirrorSpec, Source};
use crate::port::spec::{IfName, Mac, Origin, PortName, PortSpec, PortState, Role};

/// Frames and what they weigh.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Traffic {
    /// Frames; a super-frame (segmentation offload) counts once.
    pub frames: u64,
    /// Frames as a wire would have carried them.
    pub wire_frames: u64,
    /// Bytes from the destination address on, tags included, FCS not; a super-frame counts once.
    pub bytes: u64,
    /// Bytes as a wire would have carried them.
    pub wire_bytes: u64,
}

impl From<Tally> for Traffic {
    fn from(tally: Tally) -> Self {
        Self {
            frames: tally.frames,
            wire_frames: tally.wire_frames(),
            bytes: tally.bytes,
            wire_bytes: tally.wire_bytes(),
        }
    }
}

/// A port as it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PortInfo {
    /// Its name.
    #[schema(value_type = String)]
    pub name: PortName,
    /// Its number, 1 to 4094, kept across restarts.
    pub id: u16,
    /// `netdev`, `tap`, `netns` or `host`.
    pub kind: String,
    /// What lives behind it.
    pub role: Role,
    /// Who asked for it.
    pub origin: Origin,
    /// The interface on the host.
    pub netdev: String,
    /// Its index; absent while the interface does not exist.
    pub ifindex: Option<u32>,
    /// What the interface is doing.
    pub state: PortState,
    /// Why, when it is not up and there is more to say than the state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// Its MTU; absent while the interface does not exist.
    pub mtu: Option<u32>,
    /// The only sources allowed; empty: any, learnt.
    #[schema(value_type = Vec<String>)]
    pub macs: Vec<Mac>,
    /// Words of the operator's own.
    pub labels: BTreeMap<String, String>,
    /// What came in by this port: what the guest transmitted.
    pub ingress: Traffic,
    /// What was handed to this port: what the guest was given to receive.
    pub egress: Traffic,
    /// Frames that did not arrive, by reason; ingress and egress together.
    pub drops: BTreeMap<String, u64>,
}

/// A station: an address and the port it lives behind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StationInfo {
    /// Its address.
    #[schema(value_type = String)]
    pub mac: Mac,
    /// VLAN of the filtering database; 0 until VLANs are built.
    pub vlan: u16,
    /// The port.
    #[schema(value_type = String)]
    pub port: PortName,
    /// Pinned by an operator: neither aged nor moved.
    #[serde(rename = "static")]
    pub is_static: bool,
    /// Seconds since it was last seen.
    pub age_secs: u64,
    /// How often it changed ports.
    pub moves: u32,
}

/// Whether a mirror has all that it needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum MirrorState {
    /// Its ports and its target are there.
    Up,
    /// Something is missing, and waited for.
    Waiting,
}

/// A mirror. `matched` is `delivered` plus `lost`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MirrorInfo {
    /// Its name.
    #[schema(value_type = String)]
    pub name: PortName,
    /// Whose frames: `PORT`, `PORT:ingress` or `PORT:egress`.
    #[schema(value_type = Vec<String>)]
    pub from: Vec<Source>,
    /// Only those that match this tcpdump expression.
    pub filter: Option<String>,
    /// Copies are cut to so many bytes.
    pub snaplen: Option<u32>,
    /// The netdev that gets the copies.
    #[schema(value_type = String)]
    pub to: IfName,
    /// Its interface index, while it is there.
    pub ifindex: Option<u32>,
    /// Who asked for the mirror.
    pub origin: Origin,
    /// Whether it has all that it needs.
    pub state: MirrorState,
    /// What is missing.
    pub problem: Option<String>,
    /// Frames that the mirror wanted.
    pub matched: Traffic,
    /// Of these: copies handed to the target.
    pub delivered: Traffic,
    /// Of these: copies that the target did not take.
    pub lost: Traffic,
    /// Copies that the kernel dropped behind that, at the target, whose queue was full.
    pub target_dropped_frames: u64,
}

/// Which side of a port refused a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// As it came in.
    Ingress,
    /// As a copy for this port.
    Egress,
    /// The kernel, on the way to or from this port.
    Kernel,
}

impl Side {
    /// The word that JSON and tables have for it.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
            Self::Kernel => "kernel",
        }
    }
}

/// Frames that did not arrive: of one port, for one reason. Totals since the counters began; in `follow`, what was
/// dropped since the line before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DropInfo {
    /// The port's name; empty for frames that belong to no port.
    pub port: String,
    /// Which side refused.
    pub side: Side,
    /// Why: the label of a drop reason.
    pub reason: String,
    /// Why, in a sentence.
    pub description: String,
    /// Frames; a super-frame counts once.
    pub frames: u64,
    /// Bytes.
    pub bytes: u64,
    /// In `follow`: the beginnings of some of these frames, at most one a second from each half of the switch.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub evidence: Vec<Sample>,
}

/// The beginning of a frame that did not arrive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Sample {
    /// When, by RFC 3339 in UTC.
    pub time: String,
    /// Length of the frame in bytes, tags included.
    pub length: u32,
    /// Its first bytes, 128 at most, tags included; two hexadecimal digits each.
    pub bytes: String,
}

/// One law of the ledger and whether it holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LawReport {
    /// `L1` to `L8`.
    pub law: String,
    /// About what: a port, or the switch.
    pub what: String,
    /// The one side.
    pub left: u64,
    /// The other side.
    pub right: u64,
    /// Whether they agree.
    pub holds: bool,
    /// What explains a difference, or is worth knowing.
    #[serde(default)]
    pub note: Option<String>,
}

/// The ledger: in = out + dropped + unobserved, law by law.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LedgerReport {
    /// Whether every law holds.
    pub holds: bool,
    /// Whether the switch was quiet, so that the laws were checked for equality; else as t0 ≤ t1 ≤ t2.
    pub quiet: bool,
    /// The laws.
    pub laws: Vec<LawReport>,
}

/// A port that changes, and in what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Change {
    /// The port.
    #[schema(value_type = String)]
    pub name: PortName,
    /// What changes, as `key: before → after`.
    pub what: Vec<String>,
}

/// What is to be, all of it together.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Intent {
    /// The ports of origin `file`.
    pub ports: Vec<PortSpec>,
    /// The mirrors of origin `file`.
    pub mirrors: Vec<MirrorSpec>,
}

/// What an `apply` changes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Applied {
    /// Ports.
    #[serde(flatten)]
    pub ports: Diff,
    /// Mirrors.
    pub mirrors: Diff,
}

/// What changes of ports, or of mirrors.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Diff {
    /// Those that are new.
    #[schema(value_type = Vec<String>)]
    pub add: Vec<PortName>,
    /// Those that change.
    pub change: Vec<Change>,
    /// Those that go.
    #[schema(value_type = Vec<String>)]
    pub remove: Vec<PortName>,
    /// Whether it was done, or only looked at.
    pub applied: bool,
}

impl Diff {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.add.is_empty() && self.change.is_empty() && self.remove.is_empty()
    }

    /// Whether one is new or changes.
    pub fn makes(&self, name: &PortName) -> bool {
        self.add.contains(name) || self.change.iter().any(|change| change.name == *name)
    }
}

/// The daemon itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Status {
    /// The instance.
    pub name: String,
    /// The daemon's process.
    pub pid: u32,
    /// Its version.
    pub version: String,
    /// `kernel` or `userspace`.
    pub datapath: String,
    /// `tcx` or `clsact`.
    pub hook: String,
    /// Seconds since it started.
    pub uptime_secs: u64,
    /// Whether it forwards.
    pub ready: bool,
    /// Its configuration file.
    #[serde(default)]
    pub config: Option<String>,
    /// Why frames that the kernel itself drops are not counted; absent when they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel_drops_problem: Option<String>,
    /// Why flows are not read any more; absent when they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observer_problem: Option<String>,
    /// How the history fares; absent when none is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub history: Option<HistoryStatus>,
    /// Ports it has.
    pub ports: u64,
    /// Stations it knows.
    pub stations: u64,
}

/// Why a request failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// What is wrong and what to do.
    pub error: String,
}

/// A static station to pin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewStation {
    /// Where it lives.
    #[schema(value_type = String)]
    pub port: PortName,
    /// Its address.
    #[schema(value_type = String)]
    pub mac: Mac,
}

/// How many stations were forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Flushed {
    /// That many.
    pub stations: u64,
}

/// How to add a port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub struct AddPort {
    /// An equal port that exists already is no error.
    pub may_exist: bool,
    /// A netdev that is missing is waited for, instead of refused.
    pub wait: bool,
}

/// How to remove a port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub struct RemovePort {
    /// A port that does not exist is no error.
    pub if_exists: bool,
}

/// How to apply.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub struct Apply {
    /// Say what would change and change nothing.
    pub dry_run: bool,
    /// Remove also the ports that commands made.
    pub prune: bool,
}

/// What to flush.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub struct Flush {
    /// Only the stations of this port.
    #[param(value_type = Option<String>)]
    pub port: Option<PortName>,
}

/// How to check the ledger.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub struct Settle {
    /// Wait for quiet, at most so many seconds.
    pub settle_secs: Option<u64>,
}

/// How to list drops.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub struct Follow {
    /// Go on: one JSON object per line for what is dropped from now on.
    pub follow: bool,
    /// From the history, by the minute: what was dropped since a time (RFC 3339), or since so long ago (`90s`, `5m`, `2h`, `1d`).
    pub since: Option<String>,
    /// From the history: what was dropped before a time, or before so long ago.
    pub until: Option<String>,
}

/// When.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub struct Who {
    /// Who it was at a time (RFC 3339), or so long ago (`90s`, `5m`, `2h`, `1d`).
    pub at: Option<String>,
}
