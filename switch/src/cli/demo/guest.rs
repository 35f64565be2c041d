//! The demo's Linux guest: QEMU on a tap that the switch made.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::Result;

use super::stage::Running;

/// The guest's address on the wire; the only source its port allows.
pub(super) const MAC: &str = "52:54:00:77:00:0d";

/// A guest that ends with its guard.
pub(super) struct Guest {
    _running: Running,
}

impl Guest {
    /// Boots it; `None` when there is no QEMU.
    pub(super) fn boot(tap: &str, kernel: &Path, initrd: &Path, address: &str, kvm: bool) -> Result<Option<Self>> {
        let mut command = Command::new("qemu-system-x86_64");
        command.args(["-accel", if kvm { "kvm" } else { "tcg" }]);
        command.args(["-m", "192", "-display", "none", "-monitor", "none", "-serial", "null", "-no-reboot"]);
        command.arg("-kernel").arg(kernel).arg("-initrd").arg(initrd);
        command.args(["-append", &format!("console=ttyS0 quiet panic=-1 weft.address={address}")]);
        command.args(["-netdev", &format!("tap,id=net0,ifname={tap},script=no,downscript=no")]);
        // No boot ROM: the guest does not boot from the network, and the ROM is a package of its own.
        command.args(["-device", &format!("virtio-net-pci,netdev=net0,mac={MAC},romfile=")]);
        if Command::new("qemu-system-x86_64").arg("-version").stdout(Stdio::null()).status().is_err() {
            return Ok(None);
        }
        Ok(Some(Self { _running: Running::start(&mut command)? }))
    }
}
