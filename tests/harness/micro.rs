//! A micro guest: a bare-metal virtual machine on a port's tap, run by `vmm-harness`.
//!
//! Guest `n` is the port `m<n>` on the tap of the same name, the station `02:00:00:00:00:n`, and has the addresses that a
//! container of that number would have.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{ChildStdout, Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::cli::Refusal;
use crate::command::{self, Running, words};
use crate::{Daemon, cli, frames, wait};

/// A running guest, killed when dropped.
#[derive(Debug)]
pub struct Micro {
    monitor: Running,
    console: BufReader<ChildStdout>,
}

/// What a guest that has ended said, and what its monitor counted.
#[derive(Clone, Debug)]
pub struct Report {
    /// The guest's last line.
    pub guest: Value,
    /// The monitor's.
    pub monitor: Value,
}

impl Report {
    /// A number that the guest reported.
    pub fn guest(&self, name: &str) -> Option<u64> {
        self.guest.get(name)?.as_u64()
    }

    /// A number that the monitor counted.
    pub fn monitor(&self, name: &str) -> Option<u64> {
        self.monitor.get(name)?.as_u64()
    }
}

/// Makes the port for guest `number`; `options` are those of `weft port add`.
pub fn port(daemon: &Daemon, number: u8, options: &str) -> Result<()> {
    daemon.cli().run(&format!("port add m{number} --tap m{number} {options}")).map(drop)
}

/// A guest that must not come to life: `vmm-harness run` with these options, behind the words of `prefix` (as `setpriv …`).
pub fn refused(prefix: &str, options: &[&str]) -> Result<Refusal> {
    let monitor = cli::built("vmm-harness")?;
    let mut command = words(&format!("{prefix} {} run", monitor.display()));
    let output = command::output(command.args(options))?;
    ensure!(output.stdout.is_empty(), "{options:?}: the guest spoke: {output:?}");
    let code = output.status.code().context("killed by a signal")?;
    Ok(Refusal { code, message: String::from_utf8_lossy(&output.stderr).into_owned() })
}

impl Micro {
    /// Boots guest `number` on its port, with further options of `vmm-harness run`.
    pub fn boot(number: u8, options: &str) -> Result<Self> {
        let mac = frames::station(number.into());
        let line =
            format!("run --tap m{number} --mac {mac} --ip 198.18.0.{number} --ip6 2001:db8::{number:x} {options}");
        let mut command = Command::new(cli::built("vmm-harness")?);
        command.args(line.split_whitespace());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut monitor = Running::start(&mut command)?;
        let console = BufReader::new(monitor.child().stdout.take().context("a monitor without console")?);
        Ok(Self { monitor, console })
    }

    /// An echo guest, once it and its port are ready.
    pub fn echo(daemon: &Daemon, number: u8) -> Result<Self> {
        let mut guest = Self::boot(number, "--guest echo")?;
        let said = guest.line()?;
        ensure!(said.get("ready") == Some(&Value::Bool(true)), "{said}");
        daemon.until_state(&format!("m{number}"), "up", wait::SOON)?;
        Ok(guest)
    }

    /// The next line of the console.
    fn line(&mut self) -> Result<Value> {
        let mut line = String::new();
        self.console.read_line(&mut line)?;
        serde_json::from_str(&line).with_context(|| format!("the guest said {line:?}{}", self.complaint()))
    }

    /// Whether the guest has ended.
    pub fn ended(&mut self) -> Result<bool> {
        Ok(self.monitor.ended()?.is_some())
    }

    /// Waits for the guest's own end, which must be a good one.
    pub fn finish(mut self) -> Result<Report> {
        let guest = self.line()?;
        let status = self.monitor.wait(wait::LATER)?;
        let complaint = self.complaint();
        ensure!(status.success(), "{guest}: {status}: {complaint}");
        let monitor = serde_json::from_str(&complaint).with_context(|| format!("the monitor said {complaint:?}"))?;
        Ok(Report { guest, monitor })
    }

    /// Kills the guest with its monitor, as an operator's SIGKILL does.
    pub fn kill(mut self) -> Result<()> {
        self.monitor.signal(rustix::process::Signal::KILL)?;
        self.monitor.wait(wait::SOON).map(drop)
    }

    /// What the monitor wrote to standard error; it has ended or is about to.
    fn complaint(&mut self) -> String {
        let mut text = String::new();
        if let Some(mut pipe) = self.monitor.child().stderr.take() {
            // What cannot be read is not part of an explanation.
            pipe.read_to_string(&mut text).unwrap_or_default();
        }
        text
    }
}
