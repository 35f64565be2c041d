//! Programs run to their end, and programs that run until they are dropped.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdout, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

use crate::wait;

/// Held while a child is made. `tun-tap` opens its descriptor without `O_CLOEXEC`; whoever opens one so holds this until
/// the flag is set, or a child of another test would inherit the tap and keep it alive.
static FORKING: Mutex<()> = Mutex::new(());

/// Keeps every thread of this process from making a child.
pub(crate) fn no_children() -> MutexGuard<'static, ()> {
    FORKING.lock().unwrap_or_else(PoisonError::into_inner)
}

fn spawn(command: &mut Command) -> Result<Child> {
    let forking = no_children();
    let child = command.spawn().with_context(|| format!("cannot run {command:?}"));
    drop(forking);
    child
}

/// A command from words separated by blanks; no quoting, no shell.
pub fn words(line: &str) -> Command {
    let mut words = line.split_whitespace();
    let mut command = Command::new(words.next().unwrap_or_default());
    command.args(words);
    command
}

/// Runs a command to its end, whatever its exit code.
pub fn output(command: &mut Command) -> Result<Output> {
    let child = spawn(command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()))?;
    Ok(child.wait_with_output()?)
}

/// Runs a command that must succeed; its standard output.
pub fn text(command: &mut Command) -> Result<String> {
    let output = output(command)?;
    ensure!(
        output.status.success(),
        "{command:?} ended with {}: {}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs a line of words that must succeed; its standard output.
pub fn run(line: &str) -> Result<String> {
    text(&mut words(line))
}

/// Runs a command that must succeed, with `input` on its standard input.
pub fn feed(command: &mut Command, input: &[u8]) -> Result<String> {
    let mut child = spawn(command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()))?;
    child.stdin.take().context("no standard input")?.write_all(input)?;
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// What a child prints, line by line, read as it comes so that the child never waits for us.
pub(crate) fn lines_of(output: ChildStdout) -> Receiver<String> {
    let (lines, received) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
            if lines.send(String::from_utf8_lossy(&line).trim_end().to_owned()).is_err() {
                break;
            }
        }
    });
    received
}

/// A child that is killed, by its process id, when it is dropped.
#[derive(Debug)]
pub struct Running(Child);

impl Running {
    /// Starts a command.
    pub fn start(command: &mut Command) -> Result<Self> {
        spawn(command).map(Self)
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.0.id()
    }

    /// The child itself, for its pipes.
    pub fn child(&mut self) -> &mut Child {
        &mut self.0
    }

    /// Whether it has ended, and how.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.0.try_wait()?)
    }

    /// Sends a signal by number name as `rustix` knows it.
    pub fn signal(&self, signal: rustix::process::Signal) -> Result<()> {
        let pid = i32::try_from(self.0.id()).ok().and_then(rustix::process::Pid::from_raw).context("no such pid")?;
        Ok(rustix::process::kill_process(pid, signal)?)
    }

    /// Waits for its end.
    pub fn wait(&mut self, deadline: Duration) -> Result<ExitStatus> {
        wait::until("the end of a child", deadline, || self.ended())
    }

    /// Waits for its end, which must be a success; what it wrote to a piped standard output.
    pub fn finish(mut self, deadline: Duration) -> Result<String> {
        use std::io::Read as _;
        // The pipe is read to its end first: a child blocked on a full pipe would never end.
        let mut text = String::new();
        if let Some(mut pipe) = self.0.stdout.take() {
            pipe.read_to_string(&mut text)?;
        }
        let status = self.wait(deadline)?;
        if !status.success() {
            let mut complaint = String::new();
            if let Some(mut pipe) = self.0.stderr.take() {
                pipe.read_to_string(&mut complaint)?;
            }
            bail!("child ended with {status}: {text}{complaint}");
        }
        Ok(text)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.0.try_wait().is_ok_and(|ended| ended.is_none()) {
            let gone = self.0.kill().and_then(|()| self.0.wait());
            assert!(gone.is_ok() || thread::panicking(), "{gone:?}");
        }
    }
}
