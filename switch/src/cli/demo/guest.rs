//! The demo's Linux guest: QEMU on a tap that the switch made.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use super::stage::Running;

/// The guest's address on the wire; the only source its port allows.
pub(super) const MAC: &str = "52:54:00:77:00:0d";

/// Where QEMU says which process it is, in the demo's folder.
const PIDFILE: &str = "qemu.pid";

/// Ends a guest that a killed demo left running.
pub(super) fn clear(folder: &Path) {
    let Ok(text) = fs::read_to_string(folder.join(PIDFILE)) else { return };
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

    /// Fails when QEMU has ended, with its last words.
    pub(super) fn check(&mut self) -> Result<()> {
        if let Err(ended) = self.running.check() {
            let words = fs::read_to_string(&self.log).unwrap_or_default();
            bail!("QEMU did not stay: {ended}: {}", words.trim());
        }
        Ok(())
    }
}
