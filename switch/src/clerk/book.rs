//! The register on disk: `names.json` in the state directory, written whole beside itself and renamed.
//!
//! JSON and not a database: it is read once, at the start, and never larger than the register's bounds (some MB). Writing takes at most a
//! hundredth of the thread's time, whatever guests do, and happens only when something has changed. A daemon that is killed loses what
//! it heard since the last time: seconds. It is not synced: what a power failure loses is heard again.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::names::{Register, Saved};

/// Name of the file in the state directory.
const FILE_NAME: &str = "names.json";
/// What cannot be understood is moved there.
const ASIDE_NAME: &str = "names.json.corrupt";
/// Between two times of writing at least.
const PAUSE: Duration = Duration::from_secs(2);
/// And so many times as long as writing took.
const PAUSE_FACTOR: u32 = 100;

/// The file, and when it may be written again.
#[derive(Debug)]
pub(super) struct Book {
    path: PathBuf,
    due: Instant,
    has_failed: bool,
}

impl Book {
    pub(super) fn new(state_dir: &Path) -> Self {
        Self { path: state_dir.join(FILE_NAME), due: Instant::now() + PAUSE, has_failed: false }
    }

    /// What was written; nothing when there is nothing, or nothing that can be understood.
    pub(super) fn read(&self) -> Option<Saved> {
        let path = self.path.display();
        let text = match fs::read(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => {
                tracing::warn!(%path, %error, "what is known of names cannot be read; it begins anew");
                return None;
            }
        };
        let reason = match serde_json::from_slice::<Saved>(&text) {
            Ok(saved) if saved.is_known() => return Some(saved),
            Ok(_) => "written by another version".to_owned(),
            Err(error) => error.to_string(),
        };
        let aside = self.path.with_file_name(ASIDE_NAME);
        let moved = fs::rename(&self.path, &aside);
        let aside = aside.display();
        tracing::warn!(%path, %aside, ?moved, reason, "what is known of names cannot be understood; it is moved aside and begins anew");
        None
    }

    /// Whether it may be written.
    pub(super) fn is_due(&self) -> bool {
        self.due <= Instant::now()
    }

    /// Writes it; whether it could be.
    pub(super) fn write(&mut self, register: &Register) -> bool {
        let began = Instant::now();
        let written = self.replace(&register.save());
        self.due = Instant::now() + PAUSE.max(began.elapsed() * PAUSE_FACTOR);
        if let Err(error) = &written
            && !self.has_failed
        {
            let path = self.path.display();
            tracing::warn!(%path, %error, "what is known of names cannot be written; this is tried again");
        }
        self.has_failed = written.is_err();
        !self.has_failed
    }

    fn replace(&self, saved: &Saved) -> io::Result<()> {
        let text = serde_json::to_vec(saved)?;
        let beside = self.path.with_extension("json.new");
        fs::write(&beside, text)?;
        fs::rename(&beside, &self.path)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use jiff::Timestamp;

    use super::*;
    use crate::names::Limits;

    fn register() -> Register {
        let secs = Duration::from_secs;
        Register::new(Limits { window: secs(60), dns_timeout: secs(5), dormant_after: secs(60), bindings_max: 100 })
    }

    #[test]
    fn what_is_written_is_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let mut book = Book::new(dir.path());
        assert_eq!(book.read(), None);
        let mut register = register();
        let mac = "02:00:00:00:00:01".parse().unwrap();
        register.see(mac, &"a".into(), None, Timestamp::UNIX_EPOCH).unwrap();
        assert!(book.write(&register) && !book.is_due());
        assert_eq!(book.read(), Some(register.save()));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left beside it");
    }

    #[test]
    fn what_cannot_be_understood_is_moved_aside() {
        let dir = tempfile::tempdir().unwrap();
        let book = Book::new(dir.path());
        for text in ["", "{\"version\":1", "{\"version\":2,\"bindings\":[],\"stations\":[],\"ports\":{}}", "[]"] {
            fs::write(dir.path().join(FILE_NAME), text).unwrap();
            assert_eq!(book.read(), None);
            assert!(!dir.path().join(FILE_NAME).exists());
            assert_eq!(fs::read_to_string(dir.path().join(ASIDE_NAME)).unwrap(), text);
        }
    }

    #[test]
    fn where_nothing_can_be_written_it_is_tried_again() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("missing");
        let mut book = Book::new(&place);
        assert!(!book.write(&register()));
        fs::create_dir(&place).unwrap();
        assert!(book.write(&register()));
    }
}
