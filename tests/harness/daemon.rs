//! The real daemon, started and taken away again.

use std::fs::{self, File};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;

use crate::cli::Cli;
use crate::command::Running;
use crate::{Arena, wait};

/// How the switch forwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Verdicts cached in the kernel.
    Kernel,
    /// Every frame decided by the brain.
    Userspace,
    /// Verdicts cached, programs attached the way of kernels before 6.6.
    Clsact,
}

impl Mode {
    /// Every mode.
    pub const ALL: [Self; 3] = [Self::Kernel, Self::Userspace, Self::Clsact];

    fn arguments(self) -> &'static [&'static str] {
        match self {
            Self::Kernel => &["--datapath", "kernel"],
            Self::Userspace => &["--datapath", "userspace"],
            Self::Clsact => &["--datapath", "kernel", "--hook", "clsact"],
        }
    }
}

/// A daemon of an instance, killed when dropped. [`Daemon::stop`] is the orderly end, with its assertions.
#[derive(Debug)]
pub struct Daemon {
    cli: Cli,
    name: String,
    arguments: Vec<String>,
    netdevs_before: Vec<String>,
    running: Option<Running>,
    log: PathBuf,
}

impl Daemon {
    /// Starts the instance `weft0` and waits until it answers.
    pub fn start(arena: &Arena, mode: Mode) -> Result<Self> {
        Self::start_with(arena, "weft0", mode, &[])
    }

    /// Starts an instance with further options of `weft run`.
    pub fn start_with(arena: &Arena, name: &str, mode: Mode, options: &[&str]) -> Result<Self> {
        let mut daemon = Self {
            cli: Cli::new(name)?,
            name: name.to_owned(),
            arguments: mode.arguments().iter().chain(options).map(ToString::to_string).collect(),
            netdevs_before: arena.netdevs()?,
            running: None,
            log: PathBuf::from(format!("/run/{name}.log")),
        };
        daemon.launch()?;
        Ok(daemon)
    }

    /// The command line for this instance.
    pub fn cli(&self) -> &Cli {
        &self.cli
    }

    /// Its control socket.
    pub fn socket(&self) -> PathBuf {
        PathBuf::from(format!("/run/weft/{}.sock", self.name))
    }

    /// Where it pins programs and maps.
    pub fn pins(&self) -> PathBuf {
        Path::new("/sys/fs/bpf/weft").join(&self.name)
    }

    /// Its state directory.
    pub fn state(&self) -> PathBuf {
        Path::new("/var/lib/weft").join(&self.name)
    }

    /// Its process id.
    pub fn pid(&self) -> Result<u32> {
        Ok(self.running.as_ref().context("not running")?.pid())
    }

    /// What it logged so far, over all its lives.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Its resident memory in KiB.
    pub fn resident_kib(&self) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid()?))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        Ok(line.trim().trim_end_matches(" kB").parse()?)
    }

    /// Starts the process (again) without waiting for its readiness.
    pub fn spawn(&self) -> Result<Running> {
        let log = File::options().create(true).append(true).open(&self.log)?;
        let mut command = Command::new(self.cli.binary());
        command.arg("--name").arg(&self.name).arg("run").args(&self.arguments);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).env("RUST_BACKTRACE", "1");
        Running::start(&mut command)
    }

    /// Starts the process after [`Self::kill`] or [`Self::terminate`] and waits until it answers.
    pub fn launch(&mut self) -> Result<()> {
        let mut running = self.spawn()?;
        let ready = wait::until_true("the daemon answers", wait::SOON, || {
            if let Some(status) = running.ended()? {
                anyhow::bail!("the daemon ended with {status} before it was ready:\n{}", self.log());
            }
            let listens = UnixStream::connect(self.socket()).is_ok();
            Ok(listens && self.cli.output("port list")?.status.success())
        });
        self.running = Some(running);
        ready.with_context(|| self.log())
    }

    /// Kills it as the kernel's out-of-memory killer would.
    pub fn kill(&mut self) -> Result<()> {
        let mut running = self.running.take().context("not running")?;
        running.signal(Signal::KILL)?;
        running.wait(wait::SOON).map(drop)
    }

    /// Asks it to read its configuration again.
    pub fn hang_up(&self) -> Result<()> {
        self.running.as_ref().context("not running")?.signal(Signal::HUP)
    }

    /// Ends it with SIGTERM; it must end well.
    pub fn terminate(&mut self) -> Result<()> {
        let mut running = self.running.take().context("not running")?;
        running.signal(Signal::TERM)?;
        let status = running.wait(wait::SOON)?;
        ensure!(status.success(), "SIGTERM: {status}\n{}", self.log());
        Ok(())
    }

    /// Waits for an end that somebody else brought about; it must be a good one.
    pub fn await_end(&mut self) -> Result<()> {
        let status = self.running.take().context("not running")?.wait(wait::SOON)?;
        ensure!(status.success(), "{status}\n{}", self.log());
        Ok(())
    }

    /// Checks the books: `weft ledger --settle`, and that no frame was dropped as `other`.
    pub fn settle(&self) -> Result<()> {
        let output = self.cli.output("ledger --settle")?;
        ensure!(
            output.status.success(),
            "the ledger does not balance:\n{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        for port in self.cli.ports()? {
            ensure!(port.drops.get("other").copied().unwrap_or(0) == 0, "{} dropped for reasons unforeseen", port.name);
        }
        Ok(())
    }

    /// The orderly end: the books balance, SIGTERM, and nothing of the instance is left.
    pub fn stop(mut self, arena: &Arena) -> Result<()> {
        self.settle()?;
        self.terminate()?;
        self.assert_gone(arena)
    }

    /// Asserts that neither socket, pins, punt tap nor veth of the instance is left, and that nothing panicked.
    pub fn assert_gone(&self, arena: &Arena) -> Result<()> {
        ensure!(!self.log().contains("panicked at"), "a thread panicked:\n{}", self.log());
        ensure!(!self.socket().exists(), "the socket was left behind");
        ensure!(!self.pins().exists(), "pins were left behind in {}", self.pins().display());
        ensure!(!arena.has_netdev(&self.name), "the punt tap was left behind");
        let mut ours = arena.netdevs()?;
        ours.retain(|netdev| !self.netdevs_before.contains(netdev) && netdev.starts_with("wv"));
        ensure!(ours.is_empty(), "veths were left behind: {ours:?}");
        Ok(())
    }

    /// Waits until a port is in a state.
    pub fn until_state(&self, port: &str, state: &str, deadline: Duration) -> Result<()> {
        wait::until_true(&format!("port {port} is {state}"), deadline, || {
            Ok(self.cli.ports()?.iter().any(|found| found.name == port && found.state == state))
        })
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if std::thread::panicking() || self.running.is_some() {
            eprintln!("---- log of {} ----\n{}", self.name, self.log());
        }
    }
}
