//! Who captured what: a line of JSON when a capture starts, another when it ends, in the state directory.
//!
//! ```text
//! /var/lib/weft/NAME/audit.jsonl ─▶ audit.jsonl.1 ─▶ … ─▶ audit.jsonl.8 ─▶ gone
//! ```
//!
//! **Invariant.** A capture whose start cannot be written down does not start. Lines are made to last (`fdatasync`) before the
//! first frame is given out. Who asked is who the kernel says (peer credentials), not who they say.

use std::io;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::Serialize;

use super::request::Request;
use super::session::Given;
use super::stream::EndReason;
use crate::config::LogConfig;
use crate::export::{RotatingFile, plain};

/// No file becomes larger.
const FILE_BYTES_MAX: u64 = 8 << 20;
/// Full files kept, beside the one that is written.
const FILES: u32 = 8;

/// Who asks, as the kernel says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Peer {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Process, when it could be told.
    pub pid: Option<i32>,
}

/// A line.
#[derive(Serialize)]
struct Line<'a> {
    time: Timestamp,
    event: &'static str,
    capture: u64,
    #[serde(flatten)]
    peer: Option<Peer>,
    #[serde(flatten)]
    request: Option<&'a Request>,
    #[serde(skip_serializing_if = "Option::is_none")]
    trigger: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    #[serde(flatten)]
    given: Option<Sums>,
}

#[derive(Serialize)]
struct Sums {
    frames: u64,
    bytes: u64,
    lost: u64,
}

/// The log.
#[derive(Debug)]
pub struct Audit {
    file: Option<RotatingFile>,
    config: LogConfig,
}

impl Audit {
    /// The log of an instance with this state directory.
    pub fn new(state_dir: &Path) -> Self {
        let config = LogConfig { path: state_dir.join("audit.jsonl"), max_bytes: FILE_BYTES_MAX, files: FILES };
        Self { file: None, config }
    }

    /// Where it is.
    pub fn path(&self) -> &PathBuf {
        &self.config.path
    }

    /// Writes down that a capture starts.
    ///
    /// # Errors
    /// It could not be written down, so it must not start.
    pub fn start(&mut self, capture: u64, peer: Peer, request: &Request) -> Result<(), String> {
        self.write(&Line { peer: Some(peer), request: Some(request), ..Line::new("capture_start", capture) })
    }

    /// Writes down that the recorder wrote a file by itself.
    ///
    /// # Errors
    /// It could not be written down.
    pub fn recording(&mut self, capture: u64, trigger: &str) -> Result<(), String> {
        self.write(&Line { trigger: Some(trigger), ..Line::new("recording", capture) })
    }

    /// Writes down that a capture has ended.
    pub fn end(&mut self, capture: u64, reason: EndReason, given: Given) {
        let Given { frames, bytes, lost } = given;
        let line = Line {
            reason: Some(reason.label()),
            given: Some(Sums { frames, bytes, lost }),
            ..Line::new("capture_end", capture)
        };
        if let Err(error) = self.write(&line) {
            tracing::error!(
                capture,
                reason = reason.label(),
                frames,
                bytes,
                lost,
                error,
                "the end of a capture is not audited"
            );
        }
    }

    fn write(&mut self, line: &Line<'_>) -> Result<(), String> {
        let text = plain(serde_json::to_string(line).expect("strings and numbers are JSON"));
        self.append(text.as_bytes()).map_err(|error| {
            let path = self.config.path.display();
            format!("the audit log {path} cannot be written: {error}; no capture starts without it")
        })
    }

    fn append(&mut self, text: &[u8]) -> io::Result<()> {
        let file = match self.file.take() {
            Some(file) => file,
            None => RotatingFile::open(&self.config)?,
        };
        let file = self.file.insert(file);
        file.append(text).error.map_or(Ok(()), Err)?;
        file.sync()
    }
}

impl Line<'_> {
    fn new(event: &'static str, capture: u64) -> Self {
        Self {
            time: Timestamp::now(),
            event,
            capture,
            peer: None,
            request: None,
            trigger: None,
            reason: None,
            given: None,
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use std::fs;

    use serde_json::Value;

    use super::*;

    #[test]
    fn a_capture_is_written_down_at_its_start_and_at_its_end() {
        let dir = tempfile::tempdir().unwrap();
        let mut audit = Audit::new(dir.path());
        let request = Request { filter: Some("tcp port 80".into()), frames: Some(5), ..Request::default() };
        audit.start(7, Peer { uid: 1000, gid: 100, pid: Some(42) }, &request).unwrap();
        audit.end(7, EndReason::Frames, Given { frames: 5, bytes: 300, lost: 1 });
        let text = fs::read_to_string(audit.path()).unwrap();
        let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let [start, end] = lines.try_into().unwrap();
        for (field, value) in [("event", "capture_start".into()), ("uid", Value::from(1000)), ("pid", 42.into())] {
            assert_eq!(start.get(field), Some(&value));
        }
        assert_eq!(start.get("filter"), Some(&"tcp port 80".into()));
        assert_eq!(start.get("frames"), Some(&5.into()));
        for (field, value) in [("event", "capture_end".into()), ("reason", Value::from("frames")), ("lost", 1.into())] {
            assert_eq!(end.get(field), Some(&value));
        }
    }

    #[test]
    fn what_cannot_be_written_down_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let mut audit = Audit::new(&dir.path().join("missing"));
        let error = audit.start(1, Peer::default(), &Request::default()).unwrap_err();
        assert!(error.contains("no capture starts without it") && error.contains("audit.jsonl"), "{error}");
        fs::create_dir(dir.path().join("missing")).unwrap();
        assert_eq!(audit.start(1, Peer::default(), &Request::default()), Ok(()));
    }
}
