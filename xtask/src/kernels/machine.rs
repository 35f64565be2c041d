//! One boot under QEMU's own processor (TCG), watched over the serial console.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::package::Kernel;
use crate::shell;

/// Programs at the same addresses each time: QEMU translates code by where it is seen, and would do so anew for each
/// process. That is a factor of ten for short commands, of which the tests call thousands.
/// Nor does the kernel write to memory that it only hands out, or count whose it is.
const CMDLINE: &str =
    "console=ttyS0 loglevel=3 panic=-1 mitigations=off nokaslr norandmaps init_on_alloc=0 cgroup.memory=nokmem";
/// All that TCG can do, and SVM for guests of the guest; but for string moves byte by byte, which a kernel and a libc take
/// for fast where the processor says so, and which TCG is slow at.
const PROCESSOR: &str = "max,+svm,+npt,-erms";
/// A machine's processors take turns on one of this one's. With a thread for each, QEMU may translate what another processor is about to
/// write over, and keep it: a kernel that patches itself (a tail call, a tracepoint) then dies of a breakpoint that it took back long
/// ago. Nor is it slower where as many machines run as there are processors, for nothing has to be kept apart.
const ACCELERATOR: &str = "tcg,thread=single";
/// A guest that says nothing new for so long hangs.
const SILENCE_MAX: Duration = Duration::from_mins(5);
/// Longest life of a guest.
const LIFE_MAX: Duration = Duration::from_mins(30);

/// QEMU, killed by its process id when dropped.
struct Machine(Child);

impl Drop for Machine {
    fn drop(&mut self) {
        // It may have ended by itself, which is the rule.
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// Boots, and gives each line of the console to `line` until the guest is off.
pub fn boot(kernel: &Kernel, initrd: &Path, processors: u32, mut line: impl FnMut(&str)) -> Result<()> {
    let mut command = shell::command("qemu-system-x86_64");
    command.args(["-machine", "q35", "-accel", ACCELERATOR, "-cpu", PROCESSOR, "-m", "2G"]);
    command.args(["-smp", &processors.to_string()]);
    command.args(["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-serial", "stdio"]);
    command.arg("-kernel").arg(&kernel.image).arg("-initrd").arg(initrd);
    command.args(["-append", CMDLINE]);
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut machine = Machine(command.spawn().context("cannot start qemu-system-x86_64")?);
    let console = machine.0.stdout.take().context("QEMU has no output")?;
    let (lines, said) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(console).split(b'\n').map_while(Result::ok) {
            if lines.send(String::from_utf8_lossy(&line).trim_end().to_owned()).is_err() {
                break;
            }
        }
    });
    let end = Instant::now() + LIFE_MAX;
    loop {
        match said.recv_timeout(SILENCE_MAX.min(end.saturating_duration_since(Instant::now()))) {
            Ok(text) => line(&text),
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => bail!("the guest with {} hangs", kernel.release),
        }
    }
    let status = machine.0.wait()?;
    if !status.success() {
        bail!("QEMU ended with {status}");
    }
    Ok(())
}
