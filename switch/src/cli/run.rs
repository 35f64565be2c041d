//! `weft run`: the daemon.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::{Global, log, read_config};
use crate::config::{
    Config, DatapathChoice, FilePath, Hook, LogConfig, LogFormat, LogLevel, Metrics, Names, OnStop, Runtime, STATE_DIR,
    state_dir,
};
use crate::daemon;

/// Run the switch in the foreground
#[derive(Args, Debug)]
pub(super) struct Options {
    /// The configuration; without it the switch starts with the defaults and the ports that commands made
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Who decides about a frame
    #[arg(long, value_name = "DATAPATH", hide_possible_values = true)]
    #[arg(help = "Who decides about a frame: auto, kernel or userspace [default: auto]")]
    datapath: Option<DatapathChoice>,
    /// Where metrics and health are served, or off [default: 127.0.0.1:9798]
    #[arg(long, value_name = "ADDRESS:PORT")]
    metrics: Option<Metrics>,
    /// Write records of conversations to this file, a JSON object per line
    #[arg(long, value_name = "PATH", value_parser = file_path)]
    flow_log: Option<FilePath>,
    /// Where instances keep their state, each in a directory of its name
    #[arg(long, value_name = "DIR", default_value = STATE_DIR)]
    state_dir: PathBuf,
    /// What SIGTERM leaves behind
    #[arg(long, value_enum, default_value_t, hide_possible_values = true, value_name = "WHAT")]
    #[arg(help = "What SIGTERM leaves behind: remove (nothing of ours) or keep (established traffic goes on)")]
    on_stop: OnStop,
    /// How much is logged: error, warn, info, debug or trace
    #[arg(long, value_enum, default_value_t, hide_possible_values = true, value_name = "LEVEL")]
    log_level: LogLevel,
    /// How it is logged: text or json
    #[arg(long, value_enum, default_value_t, hide_possible_values = true, value_name = "FORMAT")]
    log_format: LogFormat,
    /// How programs are attached to netdevs
    #[arg(long, value_enum, default_value_t, hide = true)]
    hook: Hook,
}

pub(super) fn run(global: &Global, options: Options) -> anyhow::Result<()> {
    let config = match &options.config {
        Some(path) => read_config(path)?,
        None => Config::default(),
    };
    log::init(options.log_level, options.log_format);
    daemon::run(&runtime(global, options, config))
}

/// The command line over the file over the defaults.
pub(super) fn runtime(global: &Global, options: Options, config: Config) -> Runtime {
    let Config { file, ports, mirrors } = config;
    let state_dir = state_dir(&options.state_dir, &global.name);
    Runtime {
        name: global.name.clone(),
        socket: global.socket(),
        datapath: options.datapath.unwrap_or(file.switch.datapath).into(),
        hook: options.hook,
        metrics: options.metrics.unwrap_or(file.metrics.listen).0,
        history: file.history.history(&state_dir),
        state_dir,
        on_stop: options.on_stop,
        ports,
        mirrors,
        aging: Duration::from_secs(file.switch.aging_secs.get().into()),
        stations_max: file.switch.stations_max.get() as usize,
        flows: file.flows.flows(),
        flow_log: flow_log(file.flows.log(), options.flow_log.as_ref()),
        names: Names::of(&file.names, &file.events),
        recorder: file.capture.recorder.recorder(),
        config_path: options.config,
    }
}

/// The command line says where; how much is kept, the file.
fn flow_log(file: Option<LogConfig>, typed: Option<&FilePath>) -> Option<LogConfig> {
    let Some(path) = typed.map(|typed| typed.as_path().to_owned()) else { return file };
    Some(file.map_or_else(|| LogConfig::at(path.clone()), |log| LogConfig { path: path.clone(), ..log }))
}

/// A path as it is typed: from where the command is run.
fn file_path(typed: &str) -> Result<FilePath, String> {
    match std::path::absolute(typed).map(PathBuf::into_os_string) {
        Ok(path) => path.to_string_lossy().parse(),
        Err(_) => typed.parse(),
    }
}
