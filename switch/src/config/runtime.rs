//! What the daemon runs on: the command line over the file over the defaults.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use super::names_table::Names;
use crate::capture::trigger::Triggers;
use crate::mirror::MirrorSpec;
use crate::port::spec::{IfName, PortSpec};

/// Name of the instance by default.
pub const NAME: &str = "weft0";
/// Where instances keep their state by default, each in a directory of its name.
pub const STATE_DIR: &str = "/var/lib/weft";
/// Where metrics are served by default.
pub const METRICS_LISTEN: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 9798));
/// How long a silent station is remembered by default, in seconds (IEEE 802.1Q-2022, table 8-6).
pub const AGING_SECS: u32 = 300;
/// Stations remembered at most by default, over all ports.
pub const STATIONS_MAX: u32 = 65_536;

/// Flows remembered at most by default, over IPv4 and no IP; over IPv6 half as many.
pub(super) const FLOWS_MAX: u32 = 262_144;
/// How long a silent flow is kept by default, in seconds.
pub(super) const FLOW_IDLE_SECS: u32 = 60;
/// How long a flow is kept by default once it was ended by FIN or RST, in seconds.
pub(super) const FLOW_CLOSED_SECS: u32 = 10;
/// How often a long conversation is recorded by default, in seconds.
pub(super) const FLOW_ACTIVE_SECS: u32 = 300;

/// How large a file of the flow log becomes by default, in MiB.
pub(super) const LOG_MAX_MIB: u32 = 64;
/// How many full files of the flow log are kept by default.
pub(super) const LOG_FILES: u32 = 8;

/// The history's file by default, in the state directory.
pub(super) const HISTORY_FILE: &str = "history.sqlite";
/// How old what is kept in the history becomes by default, in days.
pub(super) const HISTORY_MAX_AGE_DAYS: u64 = 30;
/// How large the history becomes by default, in MiB.
pub(super) const HISTORY_MAX_MIB: u32 = 1024;

/// The socket of an instance.
pub fn socket_path(name: &IfName) -> PathBuf {
    PathBuf::from(format!("/run/weft/{name}.sock"))
}

/// The state directory of an instance.
pub fn state_dir(base: &Path, name: &IfName) -> PathBuf {
    base.join(name.as_str())
}

/// Who decides about a frame, as asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum DatapathChoice {
    /// The kernel half, or a refusal that says why not
    #[default]
    Auto,
    /// Established traffic is forwarded by the kernel half
    Kernel,
    /// Every frame is decided in user space: for tests and comparison
    Userspace,
}

/// Who decides about a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Datapath {
    /// Verdicts are cached in the kernel.
    Kernel,
    /// No verdict is cached.
    Userspace,
}

impl From<DatapathChoice> for Datapath {
    fn from(choice: DatapathChoice) -> Self {
        match choice {
            DatapathChoice::Auto | DatapathChoice::Kernel => Self::Kernel,
            DatapathChoice::Userspace => Self::Userspace,
        }
    }
}

impl From<Datapath> for DatapathChoice {
    fn from(datapath: Datapath) -> Self {
        match datapath {
            Datapath::Kernel => Self::Kernel,
            Datapath::Userspace => Self::Userspace,
        }
    }
}

impl fmt::Display for Datapath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kernel => "kernel",
            Self::Userspace => "userspace",
        })
    }
}

/// How programs are attached to netdevs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Hook {
    /// TCX where the kernel has it, clsact otherwise
    #[default]
    Auto,
    /// TCX links (Linux 6.6)
    Tcx,
    /// A filter on the clsact qdisc
    Clsact,
}

/// What SIGTERM leaves behind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum OnStop {
    /// Nothing of ours: links, pins, veths and the punt tap go
    #[default]
    Remove,
    /// Everything: established traffic goes on, the next daemon adopts it
    Keep,
}

/// How much is logged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
#[expect(missing_docs, reason = "they say what they are, and their documentation would be printed in --help")]
pub enum LogLevel {
    Error,
    Warn,
    #[default]
    Info,
    Debug,
    Trace,
}

/// How it is logged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// A line for people
    #[default]
    Text,
    /// A JSON object per line
    Json,
}

/// Where metrics are served, if at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Metrics(pub Option<SocketAddr>);

impl Default for Metrics {
    fn default() -> Self {
        Self(Some(METRICS_LISTEN))
    }
}

impl FromStr for Metrics {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        if text == "off" {
            return Ok(Self(None));
        }
        let bad = |_| {
            format!("'{}' is not an address and port; write 127.0.0.1:9798, [::1]:9798 or off", text.escape_default())
        };
        text.parse().map(|address| Self(Some(address))).map_err(bad)
    }
}

impl TryFrom<String> for Metrics {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Metrics> for String {
    fn from(metrics: Metrics) -> Self {
        metrics.to_string()
    }
}

impl fmt::Display for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(address) => fmt::Display::fmt(&address, f),
            None => f.write_str("off"),
        }
    }
}

/// Everything the daemon is told at its start.
#[derive(Clone, Debug, PartialEq)]
pub struct Runtime {
    /// The instance; also the punt tap's name.
    pub name: IfName,
    /// The API's socket.
    pub socket: PathBuf,
    /// Who decides.
    pub datapath: Datapath,
    /// How programs are attached.
    pub hook: Hook,
    /// Where `/metrics` and health are served; nowhere when absent.
    pub metrics: Option<SocketAddr>,
    /// This instance's state directory.
    pub state_dir: PathBuf,
    /// What SIGTERM leaves behind.
    pub on_stop: OnStop,
    /// The ports of the file.
    pub ports: Vec<PortSpec>,
    /// The mirrors of the file.
    pub mirrors: Vec<MirrorSpec>,
    /// How long a silent station is remembered.
    pub aging: Duration,
    /// Stations remembered at most, over all ports.
    pub stations_max: usize,
    /// What of flows is kept, and how long.
    pub flows: Flows,
    /// Where records of conversations are written, if at all.
    pub flow_log: Option<LogConfig>,
    /// What is kept of who is who, and what is told of events.
    pub names: Names,
    /// Where what ended, was dropped and happened is kept, if at all.
    pub history: Option<HistoryConfig>,
    /// What is kept for a look back.
    pub recorder: Recorder,
    /// The file, to be read again at SIGHUP.
    pub config_path: Option<PathBuf>,
}

/// What of flows is kept, and how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flows {
    /// Whether they are accounted at all.
    pub enabled: bool,
    /// Flows at most over IPv4 and no IP; over IPv6 half as many.
    pub max: u32,
    /// Of these those that one port may have.
    pub per_port: u32,
    /// How long a silent flow is kept.
    pub idle: Duration,
    /// How long after FIN or RST.
    pub closed: Duration,
    /// How often a long conversation is recorded.
    pub active: Duration,
}

impl Default for Flows {
    fn default() -> Self {
        Self {
            enabled: true,
            max: FLOWS_MAX,
            per_port: Self::share(FLOWS_MAX),
            idle: Duration::from_secs(FLOW_IDLE_SECS.into()),
            closed: Duration::from_secs(FLOW_CLOSED_SECS.into()),
            active: Duration::from_secs(FLOW_ACTIVE_SECS.into()),
        }
    }
}

impl Flows {
    /// What one port may have of the table by default: a quarter, so that one guest cannot take it.
    pub const fn share(max: u32) -> u32 {
        if max < 4 { 1 } else { max / 4 }
    }
}

/// Where records of conversations are written, and how much of them is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogConfig {
    /// The file; the full ones are beside it, as `PATH.1` (the youngest) to `PATH.<files>`.
    pub path: PathBuf,
    /// No file becomes larger.
    pub max_bytes: u64,
    /// Full files kept, beside the one that is written.
    pub files: u32,
}

/// Where the history is kept, and how much of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistoryConfig {
    /// The file; `-wal` and `-shm` are beside it.
    pub path: PathBuf,
    /// What is older goes.
    pub max_age: Duration,
    /// The oldest goes when it would take more.
    pub max_bytes: u64,
}

impl LogConfig {
    /// A log at this place, with the default sizes.
    pub fn at(path: PathBuf) -> Self {
        Self { path, max_bytes: Self::bytes(LOG_MAX_MIB), files: LOG_FILES }
    }

    pub(super) const fn bytes(mib: u32) -> u64 {
        (mib as u64) << 20
    }
}

/// The flight recorder: what it keeps, and when it writes by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recorder {
    /// Whether it keeps anything.
    pub enabled: bool,
    /// What is older is forgotten.
    pub age_max: Duration,
    /// Memory of each port.
    pub bytes_per_port: usize,
    /// Bytes kept of a frame.
    pub snaplen: usize,
    /// When it writes.
    pub triggers: Triggers,
    /// Recordings that are kept.
    pub files_max: u32,
    /// How large they become together.
    pub files_bytes_max: u64,
}

impl Default for Recorder {
    fn default() -> Self {
        Self {
            enabled: false,
            age_max: Duration::from_mins(1),
            bytes_per_port: 1 << 20,
            snaplen: 128,
            triggers: Triggers { drops: 1000, resets: 200, moves: 1, violations: 1 },
            files_max: 16,
            files_bytes_max: 256 << 20,
        }
    }
}
