//! The demo's guests, each on a tap that the switch made: Linux under QEMU where a kernel is given, and the micro guest of
//! `vmm-harness` where `/dev/kvm` is.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use super::stage::Running;

/// The Linux guest's address on the wire; the only source its port allows.
pub(super) const MAC: &str = "52:54:00:77:00:0d";
/// The micro guest's.
pub(super) const MICRO_MAC: &str = "52:54:00:77:00:0e";

/// Where it is written down which process QEMU is, in the demo's folder, and which the micro guest's monitor.
const PIDFILE: &str = "qemu.pid";
const MICRO_PIDFILE: &str = "micro.pid";

/// Ends the guests that a killed demo left running.
pub(super) fn clear(folder: &Path) {
    for file in [PIDFILE, MICRO_PIDFILE] {
        end(folder, file);
    }
}

fn end(folder: &Path, pidfile: &str) {
    let Ok(text) = fs::read_to_string(folder.join(pidfile)) else { return };
    let pid = text.trim();
    let command = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    // The number may be somebody else's by now.
    let is_ours = command.contains(&*folder.to_string_lossy());
    if let Some(pid) = pid.parse().ok().filter(|_| is_ours).and_then(Pid::from_raw)
        && let Err(error) = kill_process(pid, Signal::TERM)
    {
        tracing::warn!(%error, "an earlier demo's guest does not end");
    }
}

/// The program that runs a micro guest, or why there is none here.
pub(super) fn monitor() -> Result<PathBuf> {
    File::options().read(true).write(true).open("/dev/kvm").context("/dev/kvm")?;
    let monitor = std::env::current_exe()?.with_file_name("vmm-harness");
    if !monitor.is_file() {
        bail!("its monitor is not beside `weft`: use `cargo xtask demo`");
    }
    Ok(monitor)
}

/// A guest that ends with its guard.
pub(super) struct Guest {
    running: Running,
    log: PathBuf,
}

impl Guest {
    /// Boots it; `None` when there is no QEMU.
    pub(super) fn boot(
        tap: &str,
        kernel: &Path,
        initrd: &Path,
        address: &str,
        folder: &Path,
        kvm: bool,
    ) -> Result<Option<Self>> {
        let mut command = Command::new("qemu-system-x86_64");
        command.args(["-accel", if kvm { "kvm" } else { "tcg" }]);
        command.args(["-m", "192", "-display", "none", "-monitor", "none", "-serial", "null", "-no-reboot"]);
        command.arg("-kernel").arg(kernel).arg("-initrd").arg(initrd);
        command.args(["-append", &format!("console=ttyS0 quiet panic=-1 weft.address={address}")]);
        command.args(["-netdev", &format!("tap,id=net0,ifname={tap},script=no,downscript=no")]);
        // No boot ROM: the guest does not boot from the network, and the ROM is a package of its own.
        command.args(["-device", &format!("virtio-net-pci,netdev=net0,mac={MAC},romfile=")]);
        command.stdout(Stdio::null());
        if Command::new("qemu-system-x86_64").arg("-version").stdout(Stdio::null()).status().is_err() {
            return Ok(None);
        }
        command.arg("-pidfile").arg(folder.join(PIDFILE));
        let log = folder.join("qemu.log");
        command.stderr(File::create(&log).with_context(|| log.display().to_string())?);
        Ok(Some(Self { running: Running::start(&mut command)?, log }))
    }

    /// Boots a micro guest that answers pings.
    pub(super) fn boot_micro(monitor: &Path, tap: &str, address: &str, folder: &Path) -> Result<Self> {
        let mut command = Command::new(monitor);
        command.args(["run", "--guest", "echo", "--tap", tap, "--mac", MICRO_MAC, "--ip", address]);
        // By this its process is told from others of that name.
        command.arg("--console").arg(folder.join("micro.console"));
        let log = folder.join("micro.log");
        command.stderr(File::create(&log).with_context(|| log.display().to_string())?);
        let running = Running::start(&mut command)?;
        fs::write(folder.join(MICRO_PIDFILE), running.id().to_string())?;
        Ok(Self { running, log })
    }

    /// Fails when the guest's monitor has ended, with its last words.
    pub(super) fn check(&mut self) -> Result<()> {
        if let Err(ended) = self.running.check() {
            let words = fs::read_to_string(&self.log).unwrap_or_default();
            bail!("its monitor did not stay: {ended}: {}", words.trim());
        }
        Ok(())
    }
}
