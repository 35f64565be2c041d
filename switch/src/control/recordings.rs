//! Recordings: what the recorder writes by itself when something happens, into the state directory.
//!
//! ```text
//! every second: counters ─▶ trigger? ─▶ a second more, so that the end of it is there, too ─▶ recordings/TIME-TRIGGER.pcapng
//! ```
//!
//! **Bounded**: one recording in [`PAUSE`] at most, so many files, so many bytes together; the oldest go. None is written when less
//! than [`FREE_MIN`] is free.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use super::Handle;
use crate::api::Control as _;
use crate::capture::client::write;
use crate::capture::output::{Files, Output};
use crate::capture::trigger::{Signs, sprung};
use crate::config::Recorder;

/// How often counters are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long after a trigger the recording is made.
const AFTERMATH: Duration = Duration::from_secs(1);
/// From one recording to the next one at least.
const PAUSE: Duration = Duration::from_mins(1);
/// What a recording leaves free on the file system.
const FREE_MIN: u64 = 64 << 20;

/// Looks for triggers until the daemon ends.
pub async fn watch(handle: Handle, set: Recorder, state_dir: PathBuf) {
    let folder = state_dir.join("recordings");
    let mut look = interval(LOOK_EVERY);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut before: Option<Signs> = None;
    let mut last: Option<Instant> = None;
    loop {
        look.tick().await;
        let Ok(sample) = handle.sample().await else { continue };
        let now = Signs::of(&sample);
        let trigger = before.as_ref().and_then(|before| sprung(set.triggers, before, &now));
        before = Some(now);
        let Some(trigger) = trigger else { continue };
        if last.is_some_and(|last| last.elapsed() < PAUSE) {
            tracing::debug!(trigger, "no recording: the last one is not a minute old");
            continue;
        }
        last = Some(Instant::now());
        sleep(AFTERMATH).await;
        match record(&handle, &folder, &trigger, &set).await {
            Ok(path) => tracing::warn!(trigger, path = %path.display(), "recorded"),
            Err(error) => tracing::error!(trigger, error = %format!("{error:#}"), "not recorded"),
        }
    }
}

/// Makes a recording, and room for it.
async fn record(handle: &Handle, folder: &Path, trigger: &str, set: &Recorder) -> anyhow::Result<PathBuf> {
    if let Err(error) = fs::DirBuilder::new().mode(0o700).create(folder)
        && error.kind() != io::ErrorKind::AlreadyExists
    {
        return Err(error.into());
    }
    let kept = make_room(folder, set)?;
    let time = Timestamp::now().strftime("%Y%m%dT%H%M%S%.3fZ");
    let path = folder.join(format!("{time}-{trigger}.pcapng"));
    let files = Files {
        path: path.clone(),
        rotate_bytes: None,
        files_max: None,
        bytes_max: set.files_bytes_max.saturating_sub(kept),
        free_min: FREE_MIN,
    };
    let feed = handle.recall_for(trigger).await?;
    write(feed, Output::Files(files)).await?;
    Ok(path)
}

/// Removes the oldest recordings until there is room for another one; says how large the others are together.
fn make_room(folder: &Path, set: &Recorder) -> io::Result<u64> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().ends_with(".pcapng") {
            files.push((entry.path(), entry.metadata()?.len()));
        }
    }
    // Their names begin with their times.
    files.sort();
    let mut kept: u64 = files.iter().map(|(_, bytes)| bytes).sum();
    let mut left = files.len();
    for (path, bytes) in files {
        // A file of its own size again, or there would be no room for what comes.
        if left < set.files_max as usize && kept + bytes.max(1 << 20) <= set.files_bytes_max {
            break;
        }
        fs::remove_file(path)?;
        kept -= bytes;
        left -= 1;
    }
    Ok(kept)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn the_oldest_recordings_make_room_for_the_next_one() {
        let dir = tempfile::tempdir().unwrap();
        for number in 0..10 {
            fs::write(dir.path().join(format!("2026010{number}T-x.pcapng")), vec![0; 1000]).unwrap();
        }
        fs::write(dir.path().join("notes.txt"), "mine").unwrap();
        let set = |files_max, files_bytes_max| Recorder { files_max, files_bytes_max, ..Recorder::default() };
        assert_eq!(make_room(dir.path(), &set(5, 1 << 30)).unwrap(), 4000);
        let names = || {
            let mut names: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|it| it.unwrap().file_name()).collect();
            names.sort();
            names
        };
        assert_eq!(names().len(), 5);
        assert!(
            names().iter().any(|name| name == "20260109T-x.pcapng") && names().iter().any(|name| name == "notes.txt")
        );
        assert_eq!(make_room(dir.path(), &set(5, (1 << 20) + 2500)).unwrap(), 2000);
        assert_eq!(names().len(), 3);
    }
}
