//! The configuration: what a file may say ([`mod@file`]), which values it takes ([`values`]), and what the program runs on
//! ([`runtime`]).
//!
//! Pure: text in, values out. Every refusal names line and column and says what would be right. One description serves
//! the file, the command line and the API ([`PortTable`]), so a port that one of them takes is a port that all take.

mod capture_table;
mod file;
mod flow_table;
mod history_table;
mod mirror_table;
mod names_table;
mod port_table;
mod runtime;
mod values;

pub use capture_table::{CaptureTable, RecorderTable};
pub use file::{Config, ConfigError, File, MetricsTable, SwitchTable};
pub use flow_table::{FlowsTable, LogTable};
pub use history_table::{Age, HistoryTable};
pub use mirror_table::MirrorTable;
pub use names_table::{EventsTable, Names, NamesTable};
pub use port_table::{Fault, FloodRate, Mtu, PortTable, StationLimit, placed};
pub use runtime::{
    AGING_SECS, Datapath, DatapathChoice, Flows, HistoryConfig, Hook, LogConfig, LogFormat, LogLevel, METRICS_LISTEN,
    Metrics, NAME, OnStop, Recorder, Runtime, STATE_DIR, STATIONS_MAX, socket_path, state_dir,
};
pub use values::{Bounded, Cidr, FilePath, Netns, StationMac};

#[cfg(test)]
mod tests;
