//! What a file says of flows: how many are kept and how long, and where their records are written.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use toml::Spanned;

use super::port_table::{Fault, placed};
use super::runtime::{
    FLOW_ACTIVE_SECS, FLOW_CLOSED_SECS, FLOW_IDLE_SECS, FLOWS_MAX, Flows, LOG_FILES, LOG_MAX_MIB, LogConfig,
};
use super::values::{Bounded, FilePath};

/// How many flows may be remembered.
type FlowsMax = Bounded<64, 16_777_216>;
/// How many of one port.
type FlowsPerPort = Bounded<1, 16_777_216>;
/// How long flows are kept, in seconds.
type FlowSecs = Bounded<1, 86_400>;
/// How large a file of the log may become, in MiB.
type LogMib = Bounded<1, 1_048_576>;
/// How many full files are kept.
type LogFiles = Bounded<1, 999>;

/// `[flows]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FlowsTable {
    /// Whether they are accounted at all.
    pub enabled: bool,
    /// Flows at most over IPv4 and no IP; over IPv6 half as many.
    pub max: FlowsMax,
    /// Of these those that one port may have; a quarter by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub per_port: Option<FlowsPerPort>,
    /// How long a silent flow is kept.
    pub idle_secs: FlowSecs,
    /// How long after FIN or RST.
    pub closed_secs: FlowSecs,
    /// How often a long conversation is recorded.
    pub active_secs: FlowSecs,
    /// Where records are written; nowhere by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log: Option<LogTable>,
}

/// `[flows.log]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogTable {
    /// The file.
    pub path: Spanned<FilePath>,
    /// How large it may become.
    #[serde(default = "log_max_mib")]
    pub max_mib: LogMib,
    /// How many full ones are kept.
    #[serde(default = "log_files")]
    pub files: LogFiles,
}

const fn log_max_mib() -> LogMib {
    LogMib::fixed(LOG_MAX_MIB)
}

const fn log_files() -> LogFiles {
    LogFiles::fixed(LOG_FILES)
}

impl Default for FlowsTable {
    fn default() -> Self {
        Self {
            enabled: true,
            max: FlowsMax::fixed(FLOWS_MAX),
            per_port: None,
            idle_secs: FlowSecs::fixed(FLOW_IDLE_SECS),
            closed_secs: FlowSecs::fixed(FLOW_CLOSED_SECS),
            active_secs: FlowSecs::fixed(FLOW_ACTIVE_SECS),
            log: None,
        }
    }
}

impl FlowsTable {
    /// What the daemon runs on.
    pub fn flows(&self) -> Flows {
        let secs = |value: FlowSecs| Duration::from_secs(u64::from(value.get()));
        Flows {
            enabled: self.enabled,
            max: self.max.get(),
            per_port: self.per_port.map_or(Flows::share(self.max.get()), Bounded::get),
            idle: secs(self.idle_secs),
            closed: secs(self.closed_secs),
            active: secs(self.active_secs),
        }
    }

    /// Where records are written, if at all.
    pub fn log(&self) -> Option<LogConfig> {
        self.log.as_ref().map(|log| LogConfig {
            path: log.path.get_ref().as_path().to_owned(),
            max_bytes: LogConfig::bytes(log.max_mib.get()),
            files: log.files.get(),
        })
    }

    pub(super) fn check(&self) -> Result<(), Fault> {
        match &self.log {
            Some(log) if !self.enabled => Err(Fault::new(
                log.path.span(),
                "there is nothing to log: [flows] says enabled = false; switch flows on, or take [flows.log] away",
            )),
            _ => Ok(()),
        }
    }

    pub(super) fn describe(flows: &Flows, log: Option<&LogConfig>) -> Result<Self, String> {
        let secs = |time: Duration| FlowSecs::try_from(i64::try_from(time.as_secs()).unwrap_or(i64::MAX));
        Ok(Self {
            enabled: flows.enabled,
            max: FlowsMax::try_from(i64::from(flows.max))?,
            per_port: Some(FlowsPerPort::try_from(i64::from(flows.per_port))?),
            idle_secs: secs(flows.idle)?,
            closed_secs: secs(flows.closed)?,
            active_secs: secs(flows.active)?,
            log: log.map(LogTable::describe).transpose()?,
        })
    }
}

impl LogTable {
    fn describe(log: &LogConfig) -> Result<Self, String> {
        let path = log.path.to_str().ok_or_else(|| format!("{} is no text", log.path.display()))?;
        Ok(Self {
            path: placed(path.parse()?),
            max_mib: LogMib::try_from(i64::try_from(log.max_bytes >> 20).unwrap_or(i64::MAX))?,
            files: LogFiles::try_from(i64::from(log.files))?,
        })
    }
}
