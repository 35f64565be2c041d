//! (the lead's: this stands in for it)

use std::time::Duration;

use crate::api::Control;
pub use crate::api::ControlError;
use crate::api::schema::{Diff, DropInfo, LedgerReport, PortInfo, StationInfo, Status};
use crate::config;
use crate::port::spec::{Mac, PortName, PortSpec};

/// Answers the API.
#[derive(Clone, Debug)]
pub struct Handle;

fn not_yet<T>() -> Result<T, ControlError> {
    Err(ControlError::Failed("not built yet".to_owned()))
}

impl Control for Handle {
    async fn ports(&self) -> Vec<PortInfo> {
        Vec::new()
    }
    async fn port(&self, _: &PortName) -> Result<PortInfo, ControlError> {
        not_yet()
    }
    async fn add_port(&self, _: PortSpec, _: bool, _: bool) -> Result<PortInfo, ControlError> {
        not_yet()
    }
    async fn remove_port(&self, _: &PortName, _: bool) -> Result<(), ControlError> {
        not_yet()
    }
    async fn apply(&self, _: Vec<PortSpec>, _: bool, _: bool) -> Result<Diff, ControlError> {
        not_yet()
    }
    async fn export(&self) -> config::File {
        config::File::default()
    }
    async fn stations(&self) -> Vec<StationInfo> {
        Vec::new()
    }
    async fn add_station(&self, _: PortName, _: Mac) -> Result<(), ControlError> {
        not_yet()
    }
    async fn remove_station(&self, _: Mac) -> Result<(), ControlError> {
        not_yet()
    }
    async fn flush(&self, _: Option<PortName>) -> Result<u64, ControlError> {
        not_yet()
    }
    async fn ledger(&self, _: Option<Duration>) -> LedgerReport {
        LedgerReport { holds: true, quiet: true, laws: Vec::new() }
    }
    async fn drops(&self) -> Vec<DropInfo> {
        Vec::new()
    }
    async fn status(&self) -> Status {
        Status {
            name: String::new(),
            pid: 0,
            version: String::new(),
            datapath: String::new(),
            hook: String::new(),
            uptime_secs: 0,
            ready: false,
            config: None,
            ports: 0,
            stations: 0,
        }
    }
    fn is_ready(&self) -> bool {
        false
    }
}
