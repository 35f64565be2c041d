//! What the user typed: one file per subcommand, each with its options and what it does.
//!
//! Commands other than `run` and `check` ask the daemon ([`crate::api::client`]). Results go to stdout, everything else to
//! stderr. Exit codes: 0 done, 1 failed, 2 wrong usage, 3 no daemon, 4 not found, 5 exists already.

mod apply;
#[cfg(test)]
mod asks;
mod capture;
mod check;
mod demo;
mod doctor;
mod down;
mod drops;
mod events;
mod explain;
mod export;
mod extcap;
mod fdb;
mod filters;
mod flows;
mod generate;
mod ledger;
mod log;
mod mirror;
mod output;
mod port;
mod run;
#[cfg(test)]
mod tests;
pub mod top;
mod who;

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{Args, CommandFactory, Parser, Subcommand};

use crate::api::ControlError;
use crate::api::client::{Client, ClientError};
use crate::config::{Config, ConfigError, NAME, socket_path};
use crate::port::spec::IfName;
use output::Format;

/// An intra-host virtual network switch that shows what it does.
#[derive(Debug, Parser)]
#[command(name = "weft", version, color = clap::ColorChoice::Never, max_term_width = 100)]
#[command(arg_required_else_help = true, disable_help_subcommand = true)]
#[command(after_help = "Exit codes: 0 done, 1 failed, 2 wrong usage, 3 no daemon, 4 not found, 5 exists already.")]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// What every command takes.
#[derive(Args, Debug)]
#[command(next_help_heading = "Global options")]
struct Global {
    /// The instance
    #[arg(long, global = true, value_name = "NAME", default_value = NAME)]
    name: IfName,
    /// The daemon's socket [default: /run/weft/NAME.sock]
    #[arg(long, global = true, value_name = "PATH", env = "WEFT_SOCKET", hide_env_values = true)]
    socket: Option<PathBuf>,
    /// How results are printed
    #[arg(short, long, global = true, value_name = "FORMAT", default_value = "table", hide_possible_values = true)]
    #[arg(help = "How results are printed: table, wide, json or jsonl; flows also as hubble")]
    output: Format,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(run::Options),
    Down(down::Options),
    Check(check::Options),
    Apply(apply::Options),
    Export(export::Options),
    #[command(subcommand)]
    Port(port::Command),
    #[command(subcommand)]
    Mirror(mirror::Command),
    Fdb(fdb::Options),
    Flows(flows::Options),
    Ledger(ledger::Options),
    Drops(drops::Options),
    Events(events::Options),
    Who(who::Options),
    Top(top::Options),
    Extcap(extcap::Options),
    Explain(explain::Options),
    Capture(capture::Options),
    Doctor(doctor::Options),
    Demo(demo::Options),
    #[command(subcommand, hide = true)]
    Generate(generate::Command),
}

impl Cli {
    /// What concerns an option and a command at once.
    fn is_sensible(&self) -> Result<(), clap::Error> {
        if self.global.output == Format::Hubble && !matches!(self.command, Command::Flows(_)) {
            let message = "only flows has the format hubble; use table, wide, json or jsonl";
            return Err(Self::command().error(ErrorKind::ArgumentConflict, message));
        }
        if self.global.output != Format::Table && matches!(self.command, Command::Top(_)) {
            let message = "top draws on a terminal; for a script use port list, flows, drops or fdb";
            return Err(Self::command().error(ErrorKind::ArgumentConflict, message));
        }
        Ok(())
    }
}

impl Global {
    fn socket(&self) -> PathBuf {
        self.socket.clone().unwrap_or_else(|| socket_path(&self.name))
    }

    fn client(&self) -> Client {
        Client::new(&self.socket())
    }
}

/// Parses the command line and runs it.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse_from(typed(std::env::args_os())) {
        Ok(cli) => cli,
        Err(e) => return usage(&e),
    };
    if let Err(e) = cli.is_sensible() {
        return usage(&e);
    }
    match dispatch(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) if is_broken_pipe(&e) => ExitCode::SUCCESS,
        Err(e) => {
            output::complain(&message(&e));
            ExitCode::from(exit_code(&e))
        }
    }
}

/// What was typed; Wireshark calls us by another name.
fn typed(mut words: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let own = words.next();
    let is_link = own.as_ref().is_some_and(|own| Path::new(own).file_name().is_some_and(|name| name == extcap::LINK));
    let command = is_link.then(|| OsString::from("extcap"));
    own.into_iter().chain(command).chain(words).collect()
}

fn dispatch(cli: Cli) -> anyhow::Result<()> {
    let global = cli.global;
    match cli.command {
        Command::Run(options) => run::run(&global, options),
        Command::Down(options) => down::run(&global, &options),
        Command::Check(options) => check::run(&global, &options),
        Command::Apply(options) => wait_for(apply::run(&global, &options)),
        Command::Export(_) => wait_for(export::run(&global)),
        Command::Port(command) => wait_for(port::run(&global, command)),
        Command::Mirror(command) => wait_for(mirror::run(&global, command)),
        Command::Fdb(options) => wait_for(fdb::run(&global, options)),
        Command::Flows(options) => wait_for(flows::run(&global, &options)),
        Command::Ledger(options) => wait_for(ledger::run(&global, &options)),
        Command::Drops(options) => wait_for(drops::run(&global, &options)),
        Command::Events(options) => wait_for(events::run(&global, &options)),
        Command::Who(options) => wait_for(who::run(&global, &options)),
        Command::Top(options) => wait_for(top::run(&global, options)),
        Command::Extcap(options) => wait_for(extcap::run(&global, options)),
        Command::Explain(options) => wait_for(explain::run(&global, &options)),
        Command::Capture(options) => wait_for(capture::run(&global, options)),
        Command::Doctor(_) => doctor::run(&global),
        Command::Demo(options) => demo::run(&options),
        Command::Generate(command) => generate::run(Cli::command(), &command),
    }
}

/// Runs one question to its answer.
fn wait_for(question: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(question)
}

/// Help and version are answers; everything else that clap says is a wrong usage.
fn usage(error: &clap::Error) -> ExitCode {
    let text = error.to_string();
    if error.use_stderr() {
        output::complain(
            text.strip_prefix("error: ").unwrap_or("what is to be done? One of the commands below").trim_end(),
        );
        if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
            output::explain(&text);
        }
        return ExitCode::from(2);
    }
    match output::print(&text) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// An error with its causes, less those that its message tells already.
fn message(error: &anyhow::Error) -> String {
    error.chain().map(ToString::to_string).fold(String::new(), |said, cause| match said.as_str() {
        "" => cause,
        text if text.contains(&cause) => said,
        text => format!("{text}: {cause}"),
    })
}

fn exit_code(error: &anyhow::Error) -> u8 {
    if let Some(ControlError::NotFound(_)) = error.downcast_ref() {
        return 4;
    }
    if error.is::<top::Usage>() || error.is::<top::screen::NoScreen>() {
        return 2;
    }
    match error.downcast_ref::<ClientError>() {
        Some(ClientError::Unreachable { .. } | ClientError::Gone { .. } | ClientError::Vanished { .. }) => 3,
        Some(ClientError::Refused { status: 404, .. }) => 4,
        Some(ClientError::Refused { status: 409, .. }) => 5,
        Some(ClientError::Forbidden { .. } | ClientError::Refused { .. } | ClientError::Garbled(_)) | None => 1,
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe)
}

/// Reads a configuration file and checks it.
fn read_config(path: &Path) -> Result<Config, ConfigError> {
    let text =
        std::fs::read_to_string(path).map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })?;
    Config::parse(path, &text)
}
