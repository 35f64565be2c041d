//! One daemon per instance: a file under `/run/weft` that the living one holds locked, with its process id in it.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use rustix::fs::{FlockOperation, flock};

use crate::port::IfName;

/// Held as long as the daemon lives.
#[derive(Debug)]
pub(super) struct Lock {
    file: File,
    path: PathBuf,
}

fn path(name: &IfName) -> PathBuf {
    PathBuf::from(format!("/run/weft/{name}.pid"))
}

/// Takes the instance's lock.
///
/// # Errors
/// Another daemon has it: the message names its process.
pub(super) fn take(name: &IfName) -> Result<Lock> {
    let path = path(name);
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir).with_context(|| format!("cannot make {}; run weft as root", dir.display()))?;
    }
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .with_context(|| format!("cannot open {}; run weft as root", path.display()))?;
    if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        let mut pid = String::new();
        file.read_to_string(&mut pid)?;
        bail!(
            "a daemon of the instance '{name}' is running already (process {}); stop it, or choose another --name",
            pid.trim()
        );
    }
    // A daemon that ended just now has removed the file: then this lock is nobody's business.
    if fs::metadata(&path).map(|now| now.ino()).ok() != Some(file.metadata()?.ino()) {
        bail!("a daemon of the instance '{name}' is just ending; start this one again");
    }
    file.set_len(0)?;
    file.write_all(format!("{}\n", std::process::id()).as_bytes())?;
    Ok(Lock { file, path })
}

/// The process of the living daemon of an instance, if there is one.
pub(super) fn holder(name: &IfName) -> Result<Option<i32>> {
    let path = path(name);
    let mut file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("cannot open {}; run weft as root", path.display())),
    };
    if flock(&file, FlockOperation::NonBlockingLockShared).is_ok() {
        return Ok(None);
    }
    let mut pid = String::new();
    file.read_to_string(&mut pid)?;
    pid.trim().parse().map(Some).with_context(|| format!("{} names no process", path.display()))
}

impl Lock {
    /// Tells the service manager, if there is one, that the switch forwards.
    pub(super) fn say_ready(&mut self) -> Result<()> {
        self.file.flush()?;
        sd_notify::notify(&[sd_notify::NotifyState::Ready]).context("cannot tell the service manager")
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Removed while it is still locked, so that nobody takes a file that is about to vanish for a dead daemon's.
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::debug!(path = %self.path.display(), %error, "lock file not removed");
        }
    }
}
