//! The file: TOML, nothing in it that is not known, and a position for every refusal.

use std::collections::HashMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use toml::Spanned;

use super::capture_table::{CaptureTable, RecorderTable};
use super::flow_table::FlowsTable;
use super::history_table::HistoryTable;
use super::mirror_table::MirrorTable;
use super::names_table::{EventsTable, NamesTable};
use super::port_table::{Fault, PortTable};
use super::runtime::{AGING_SECS, DatapathChoice, Metrics, Runtime, STATIONS_MAX};
use super::values::Bounded;
use crate::mirror::MirrorSpec;
use crate::port::spec::{Attachment, Origin, PortSpec};

/// How long a station may be remembered, in seconds (IEEE 802.1Q-2022, table 8-6, but shorter for tests).
type AgingSecs = Bounded<1, 1_000_000>;
/// How many stations may be remembered.
type StationsMax = Bounded<1, 1_048_576>;

/// Why a configuration was refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It could not be read.
    #[error("{}: {source}; name a configuration file that can be read", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Something in it is wrong.
    #[error("{}:{line}:{column}: {message}", path.display())]
    Wrong {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The column in characters, from 1.
        column: usize,
        /// What is wrong and what would be right.
        message: String,
    },
}

/// The whole file.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct File {
    /// The switch itself.
    pub switch: SwitchTable,
    /// Where it is observed.
    pub metrics: MetricsTable,
    /// What is kept of flows.
    pub flows: FlowsTable,
    /// What is kept of who is who.
    pub names: NamesTable,
    /// What is told of events.
    pub events: EventsTable,
    /// What is kept of the past.
    pub history: HistoryTable,
    /// Captures.
    pub capture: CaptureTable,
    /// Its ports.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub port: Vec<PortTable>,
    /// Its mirrors.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mirror: Vec<MirrorTable>,
}

/// `[switch]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SwitchTable {
    /// Who decides about a frame.
    pub datapath: DatapathChoice,
    /// How long a silent station is remembered, in seconds.
    pub aging_secs: AgingSecs,
    /// Stations remembered at most, over all ports.
    pub stations_max: StationsMax,
}

impl Default for SwitchTable {
    fn default() -> Self {
        Self {
            datapath: DatapathChoice::default(),
            aging_secs: AgingSecs::fixed(AGING_SECS),
            stations_max: StationsMax::fixed(STATIONS_MAX),
        }
    }
}

/// `[metrics]`
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MetricsTable {
    /// Address and port, or `off`.
    pub listen: Metrics,
}

/// A file that was read and checked.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Config {
    /// What it says.
    pub file: File,
    /// The ports it asks for.
    pub ports: Vec<PortSpec>,
    /// The mirrors it asks for.
    pub mirrors: Vec<MirrorSpec>,
}

impl Config {
    /// Reads and checks a configuration. `path` is only named in errors.
    pub fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        let wrong = |fault: Fault| {
            let (line, column) = position(text, &fault.span);
            ConfigError::Wrong { path: path.to_owned(), line, column, message: fault.message }
        };
        let file: File = toml::from_str(text).map_err(|e| wrong(fault_of(&e)))?;
        file.flows.check().map_err(wrong)?;
        let ports = file.ports(text).map_err(wrong)?;
        let mirrors = file.mirrors(text).map_err(wrong)?;
        Ok(Self { file, ports, mirrors })
    }
}

impl File {
    /// What runs, as a file that would make it run again.
    pub fn describe(runtime: &Runtime, ports: &[PortSpec], mirrors: &[MirrorSpec]) -> Result<Self, String> {
        let secs = i64::try_from(runtime.aging.as_secs()).unwrap_or(i64::MAX);
        let stations = i64::try_from(runtime.stations_max).unwrap_or(i64::MAX);
        let (names, events) = runtime.names.describe()?;
        Ok(Self {
            switch: SwitchTable {
                datapath: runtime.datapath.into(),
                aging_secs: AgingSecs::try_from(secs)?,
                stations_max: StationsMax::try_from(stations)?,
            },
            metrics: MetricsTable { listen: Metrics(runtime.metrics) },
            flows: FlowsTable::describe(&runtime.flows, runtime.flow_log.as_ref())?,
            names,
            events,
            history: HistoryTable::describe(runtime.history.as_ref())?,
            capture: CaptureTable { recorder: RecorderTable::describe(&runtime.recorder)? },
            port: ports.iter().map(PortTable::try_from).collect::<Result<_, _>>()?,
            mirror: mirrors.iter().map(MirrorTable::from).collect(),
        })
    }

    /// The file's text.
    pub fn to_toml(&self) -> Result<String, toml::ser::Error> {
        toml::to_string(self)
    }

    /// The mirrors, if no two of them have the same name.
    fn mirrors(&self, text: &str) -> Result<Vec<MirrorSpec>, Fault> {
        let mut names: HashMap<String, Range<usize>> = HashMap::new();
        let mut specs = Vec::with_capacity(self.mirror.len());
        for table in &self.mirror {
            let spec = table.spec()?;
            if let Some(first) = names.insert(spec.name.to_string(), table.name.span()) {
                let (line, _) = position(text, &first);
                let message = format!(
                    "a second mirror '{}'; the first is in line {line}, give one of them another name",
                    spec.name
                );
                return Err(Fault::new(table.name.span(), message));
            }
            specs.push(spec);
        }
        Ok(specs)
    }

    /// The ports, if no two of them want the same name or the same interface.
    fn ports(&self, text: &str) -> Result<Vec<PortSpec>, Fault> {
        let mut names: HashMap<String, Range<usize>> = HashMap::new();
        let mut places: HashMap<String, Range<usize>> = HashMap::new();
        let mut specs = Vec::with_capacity(self.port.len());
        for table in &self.port {
            let spec = table.spec(Origin::File)?;
            if let Some(first) = names.insert(spec.name.to_string(), table.name.span()) {
                let (line, _) = position(text, &first);
                let message = format!(
                    "a second port '{}'; the first is in line {line}, give one of them another name",
                    spec.name
                );
                return Err(Fault::new(table.name.span(), message));
            }
            let (place, span) = place_of(&spec.attachment, table);
            if let Some(first) = places.insert(place.clone(), span.clone()) {
                let (line, _) = position(text, &first);
                let message = format!("{place} is a port already in line {line}; one interface is one port");
                return Err(Fault::new(span, message));
            }
            specs.push(spec);
        }
        Ok(specs)
    }
}

/// What only one port can have, and where the file says it.
fn place_of(attachment: &Attachment, table: &PortTable) -> (String, Range<usize>) {
    fn span<T>(value: Option<&Spanned<T>>) -> Option<Range<usize>> {
        value.map(Spanned::span)
    }
    let (place, span) = match attachment {
        Attachment::Netdev { netdev, .. } => (format!("interface '{netdev}'"), span(table.netdev.as_ref())),
        Attachment::Tap { tap, .. } => (format!("interface '{tap}'"), span(table.tap.as_ref())),
        Attachment::Netns { netns, ifname, .. } => {
            (format!("interface '{ifname}' in namespace '{netns}'"), span(table.netns.as_ref()))
        }
        Attachment::Host { ifname, .. } => {
            (format!("interface '{ifname}'"), span(table.ifname.as_ref()).or_else(|| span(table.host.as_ref())))
        }
    };
    (place, span.unwrap_or_else(|| table.name.span()))
}

fn fault_of(error: &toml::de::Error) -> Fault {
    Fault::new(error.span().unwrap_or(0..0), error.message().trim().replace('\n', "; "))
}

/// Line and column of a byte offset, both from 1; the column counts characters.
fn position(text: &str, span: &Range<usize>) -> (usize, usize) {
    let before = text.get(..span.start).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let start = before.rfind('\n').map_or(0, |newline| newline + 1);
    let column = before.get(start..).unwrap_or_default().chars().count() + 1;
    (line, column)
}
