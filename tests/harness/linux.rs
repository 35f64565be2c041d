//! A Linux guest on KVM, run by `vmm-harness`: a kernel, and a user space of one busybox that obeys one script.
//!
//! KVM alone does not say that it runs a whole Linux (it may be an emulator of a part of the processor), so such a kernel
//! must be named: `WEFT_GUEST_KERNEL` is a folder with `vmlinuz` and `modules/`, where `order` lists what is loaded. Guest
//! `n` is on the tap and the port `m<n>`, as a micro guest would be, and has its address; the guest's console is read only.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, TryRecvError};
use std::{env, fs};

use anyhow::{Context as _, Result, bail};

use crate::command::{self, Running};
use crate::guest::{self, Kernel};
use crate::{cli, frames, wait};

/// The variable that names the folder of the kernel.
pub const KERNEL: &str = "WEFT_GUEST_KERNEL";
/// Begins what the guest's script says to the test: a name and words.
const SAYS: &str = "weft-says ";

/// The kernel for guests on KVM.
pub fn kernel() -> Result<Kernel> {
    let folder = PathBuf::from(env::var_os(KERNEL).with_context(|| format!("{KERNEL} is not set"))?);
    let modules = folder.join("modules");
    let order = fs::read_to_string(modules.join("order")).with_context(|| modules.display().to_string())?;
    Ok(Kernel { image: folder.join("vmlinuz"), modules: order.lines().map(|name| modules.join(name)).collect() })
}

/// A running guest, killed when dropped.
#[derive(Debug)]
pub struct LinuxGuest {
    monitor: Running,
    console: Receiver<String>,
    said: Vec<String>,
    facts: BTreeMap<String, String>,
}

impl LinuxGuest {
    /// Boots guest `number`, whose script finds its own address and its peer's in `$own`, `$own6`, `$peer` and `$peer6`,
    /// and tells the test with `say NAME WORDS`.
    pub fn boot(kernel: &Kernel, number: u8, peer: u8, script: &str) -> Result<Self> {
        let initrd =
            guest::initramfs(kernel, &format!("linux{number}"), &[], &format!("say() {{ echo {SAYS}$*; }}\n{script}"))?;
        let mac = frames::station(number.into());
        // What the kernel does not know is in the environment of its first process.
        let addresses =
            format!("own=198.18.0.{number} own6=2001:db8::{number:x} peer=198.18.0.{peer} peer6=2001:db8::{peer:x}");
        let mut monitor = Command::new(cli::built("vmm-harness")?);
        monitor.args(["run", "--guest", "linux", "--tap", &format!("m{number}"), "--mac", &mac.to_string()]);
        monitor.arg("--kernel").arg(&kernel.image).arg("--initrd").arg(initrd);
        monitor.args(["--cmdline", &format!("console=ttyS0 quiet panic=-1 reboot=a mitigations=off {addresses}")]);
        monitor.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut monitor = Running::start(&mut monitor)?;
        let console = command::lines_of(monitor.child().stdout.take().context("a monitor without console")?);
        Ok(Self { monitor, console, said: Vec::new(), facts: BTreeMap::new() })
    }

    /// The last words that the guest said under this name, if it has by now.
    pub fn said(&mut self, name: &str) -> Result<Option<&str>> {
        loop {
            match self.console.try_recv() {
                Ok(line) => {
                    if let Some((name, words)) = line.strip_prefix(SAYS).and_then(|fact| fact.split_once(' ')) {
                        self.facts.insert(name.to_owned(), words.trim().to_owned());
                    }
                    self.said.push(line);
                }
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => bail!("the guest ended:\n{}", self.said.join("\n")),
            }
        }
        Ok(self.facts.get(name).map(String::as_str))
    }

    /// Waits for the words under this name.
    pub fn hear(&mut self, name: &str) -> Result<String> {
        let heard =
            wait::until(&format!("word of {name}"), wait::LATER, || Ok(self.said(name)?.map(ToOwned::to_owned)));
        heard.with_context(|| self.said.join("\n"))
    }

    /// Kills the guest with its monitor, as an operator's SIGKILL does.
    pub fn kill(mut self) -> Result<()> {
        self.monitor.signal(rustix::process::Signal::KILL)?;
        self.monitor.wait(wait::SOON).map(drop)
    }
}
