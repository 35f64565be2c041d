//! What the demo stands on: the daemon, namespaces, and the commands it is set up with.

use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::LinkNameSpaceType;

/// Where the demo's daemon keeps its state: gone with the next boot in any case.
const STATE: &str = "/run/weft-demo";
/// How long anything of the demo may take to come or to go.
const PATIENCE: Duration = Duration::from_secs(20);

/// The folder of one demo.
fn folder(name: &str) -> PathBuf {
    PathBuf::from(STATE).join(name)
}

/// A program that runs beside us; ended with the guard. It is in a process group of its own: Ctrl-C is for us alone.
pub(super) struct Running(Child);

impl Running {
    /// Starts it.
    pub(super) fn start(command: &mut Command) -> Result<Self> {
        let child = command.stdin(Stdio::null()).process_group(0).spawn();
        child.map(Self).with_context(|| format!("cannot start {}", command.get_program().display()))
    }

    /// Its process id.
    pub(super) fn id(&self) -> u32 {
        self.0.id()
    }

    /// Fails if it has ended by itself.
    pub(super) fn check(&mut self) -> Result<()> {
        match self.0.try_wait()? {
            Some(status) => bail!("it ended with {status}"),
            None => Ok(()),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // An error means that it is gone already, which is what is wanted.
        let asked = kill_process(Pid::from_child(&self.0), Signal::TERM).is_ok();
        let ended = asked && until(PATIENCE, || Ok(self.0.try_wait()?.map(drop))).is_ok();
        if !ended && self.0.kill().is_ok() {
            drop(self.0.wait());
        }
    }
}

/// The daemon.
pub(super) struct Stage {
    running: Option<Running>,
    binary: PathBuf,
    name: String,
}

impl Stage {
    /// Removes what a killed demo of this name left behind.
    pub(super) fn clear(name: &str) -> Result<()> {
        let binary = std::env::current_exe().context("where is our own binary?")?;
        super::guest::clear(&folder(name));
        if PathBuf::from(format!("/sys/class/net/{name}")).exists() {
            output(Command::new(binary).args(["--name", name, "down", "--state-dir", STATE]))
                .context("an earlier demo does not go away")?;
        }
        // A tap that was there before is left alone by every later daemon, so it has to go here.
        for tap in ["g", "m"].map(|guest| format!("{name}-{guest}")) {
            if PathBuf::from(format!("/sys/class/net/{tap}")).exists() {
                output(Command::new("ip").args(["link", "del", &tap]))?;
            }
        }
        for namespace in ["blue", "green"].map(|end| format!("{name}-{end}")) {
            if PathBuf::from(format!("/run/netns/{namespace}")).exists() {
                output(Command::new("ip").args(["netns", "del", &namespace]))?;
            }
        }
        Ok(())
    }

    /// Starts the daemon and waits until it answers.
    pub(super) fn set(name: &str, datapath: &str) -> Result<Self> {
        let binary = std::env::current_exe().context("where is our own binary?")?;
        let mut stage = Self { running: None, binary, name: name.to_owned() };
        let mut command = Command::new(&stage.binary);
        command.args(["--name", name, "run", "--datapath", datapath, "--on-stop", "remove", "--log-level", "warn"]);
        command.args(["--metrics", "off", "--state-dir", STATE]);
        super::say(&format!("  $ weft --name {name} run --datapath {datapath} --on-stop remove"))?;
        let mut running = Running::start(&mut command)?;
        let ask = |what: &str| output(Command::new(&stage.binary).args(["--name", name]).args(what.split(' ')));
        until(PATIENCE, || {
            running.check().context("the daemon did not stay; its words are above")?;
            Ok(ask("port list").ok())
        })
        .context("the daemon does not answer")?;
        stage.running = Some(running);
        Ok(stage)
    }

    /// Shows a command, runs it, and shows what it printed. Words are separated by spaces.
    pub(super) fn weft(&self, line: &str) -> Result<()> {
        let text = self.quietly(line)?;
        text.lines().try_for_each(|line| super::say(&format!("    {line}")))
    }

    /// Shows a command, runs it, and answers with what it printed.
    pub(super) fn quietly(&self, line: &str) -> Result<String> {
        super::say(&format!("  $ weft --name {} {line}", self.name))?;
        output(Command::new(&self.binary).args(["--name", &self.name]).args(line.split(' ')))
    }

    /// Where the demo may leave files until it ends.
    pub(super) fn folder(&self) -> PathBuf {
        folder(&self.name)
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        drop(self.running.take());
        drop(std::fs::remove_dir_all(self.folder()));
        // It stays while another demo uses it.
        drop(std::fs::remove_dir(STATE));
    }
}

/// A network namespace that goes with its guard: all there is to a container, as far as a switch is concerned.
pub(super) struct Namespace {
    name: String,
}

impl Namespace {
    /// Makes it.
    pub(super) fn new(name: &str) -> Result<Self> {
        output(Command::new("ip").args(["netns", "add", name]))?;
        let namespace = Self { name: name.to_owned() };
        output(Command::new("ip").args(["-n", name, "link", "set", "lo", "up"]))?;
        Ok(namespace)
    }

    /// Its name, as `--netns` takes it.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Moves the calling thread into it for good.
    pub(super) fn enter(&self) -> Result<()> {
        let path = format!("/run/netns/{}", self.name);
        let file = File::open(&path).with_context(|| path.clone())?;
        rustix::thread::move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
            .with_context(|| format!("cannot enter {path}"))
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // Nobody is left to be told; the next demo removes what stays.
        drop(output(Command::new("ip").args(["netns", "del", &self.name])));
    }
}

/// Does something in a thread of its own: inside the namespace, or where we are.
pub(super) fn within<T: Send>(namespace: Option<&Namespace>, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    thread::scope(|scope| {
        let inside = scope.spawn(|| {
            namespace.map_or(Ok(()), Namespace::enter)?;
            work()
        });
        inside.join().unwrap_or_else(|_| bail!("a thread of the demo panicked"))
    })
}

/// Runs a program and answers with what it printed; its errors are part of ours.
pub(super) fn output(command: &mut Command) -> Result<String> {
    let name = command.get_program().to_owned();
    let words: Vec<&OsStr> = command.get_args().collect();
    let line = words.iter().fold(name.display().to_string(), |line, word| format!("{line} {}", word.display()));
    let done = command.stdin(Stdio::null()).output().with_context(|| format!("cannot start `{line}`"))?;
    if !done.status.success() {
        bail!("`{line}` ended with {}: {}", done.status, String::from_utf8_lossy(&done.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&done.stdout).into_owned())
}

/// Waits for an answer, with a deadline.
pub(super) fn until<T>(patience: Duration, mut ask: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(answer) = ask()? {
            return Ok(answer);
        }
        if Instant::now() > deadline {
            bail!("nothing within {patience:?}");
        }
        thread::sleep(Duration::from_millis(10));
    }
}
