//! `weft down`: takes an instance away, whether its daemon lives or not.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::{lock, pins};
use crate::control::{ControlError, clear_away};
use crate::port::IfName;
use crate::port::attach::Host;
use crate::state::{self, Store};

/// How long a living daemon may take to end.
const END_WITHIN: Duration = Duration::from_secs(30);

/// Takes the instance away: a living daemon is ended, then every netdev, pin and tap of the instance goes.
///
/// # Errors
/// Something of it could not be taken away, or there was nothing.
pub fn down(name: &IfName, socket: &Path, state_dir: &Path) -> Result<()> {
    let lived = match lock::holder(name)? {
        Some(pid) => {
            end(pid)?;
            true
        }
        None => false,
    };
    // Nobody starts one while this one is taken away.
    let _lock = lock::take(name)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let cleared = runtime.block_on(clear(name, state_dir))?;
    match std::fs::remove_file(socket) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("cannot remove {}", socket.display()));
        }
        _ => {}
    }
    if !lived && !cleared {
        let nothing = format!("there is no instance '{name}' here, living or dead; name another with --name");
        return Err(ControlError::NotFound(nothing).into());
    }
    Ok(())
}

/// Ends a process and waits until it has.
fn end(pid: i32) -> Result<()> {
    let pid = Pid::from_raw(pid).context("not a process id")?;
    let process = match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(process) => process,
        Err(rustix::io::Errno::SRCH) => return Ok(()),
        Err(error) => return Err(error).with_context(|| format!("cannot reach process {}", pid.as_raw_nonzero())),
    };
    pidfd_send_signal(&process, Signal::TERM)
        .with_context(|| format!("cannot end process {}; run weft as root", pid.as_raw_nonzero()))?;
    let deadline = Instant::now() + END_WITHIN;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            bail!(
                "process {} does not end; end it by hand (kill -9), then call 'weft down' again",
                pid.as_raw_nonzero()
            );
        }
        let timeout = Timespec { tv_sec: i64::try_from(left.as_secs())?, tv_nsec: i64::from(left.subsec_nanos()) };
        match poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&timeout)) {
            Ok(0) | Err(rustix::io::Errno::INTR) => {}
            Ok(_) => return Ok(()),
            Err(error) => return Err(error).context("cannot wait for the process"),
        }
    }
}

/// Removes what is left without a daemon; says whether there was anything.
async fn clear(name: &IfName, state_dir: &Path) -> Result<bool> {
    let host = Host::connect()?;
    let store = Store::new(state_dir);
    let mut saved = store.load()?;
    let pins = pins(name);
    // After a reboot nothing of it is left, and its interface indices are other netdevs'.
    let same_boot = state::boot_id()?;
    let ports = saved.as_ref().filter(|saved| saved.boot_id == same_boot).map_or(&[][..], |saved| &saved.ports);
    let found = pins.exists() || !ports.is_empty() || host.look(name).await?.is_some_and(|tap| tap.tun.is_some());
    clear_away(&host, &pins, ports).await?;
    host.remove_punt_tap(name).await?;
    if let Some(saved) = &mut saved {
        saved.ports.clear();
        store.save(saved)?;
    }
    Ok(found)
}
