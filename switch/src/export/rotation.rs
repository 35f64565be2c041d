//! A file of lines that never becomes larger than it may: when the next line does not fit, the file is renamed and a new one
//! begun.
//!
//! ```text
//! flows.jsonl ─▶ flows.jsonl.1 ─▶ flows.jsonl.2 ─▶ … ─▶ flows.jsonl.N ─▶ gone
//! ```
//!
//! **Invariants.** A file holds whole lines only: what a write left half done is cut off, and what an earlier daemon left
//! half done is ended by a newline before anything is appended. A crash between two renames leaves a gap in the numbers,
//! which the next rotation fills; no line is lost by it.
//!
//! **Who else may touch it.** Before each write the file is looked up by its name. If somebody removed, moved or replaced it, a
//! new one is begun; what was in the old one is theirs. The file is locked (`flock`), so two switches cannot take one file.
//!
//! **What survives.** A line is with the kernel when `append` returns, so a killed daemon loses none. It is made to
//! last (`fdatasync`) when its file is full and when the log ends; a host that loses power may lose what the kernel had not
//! written back, on most systems that of the last 30 seconds.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::io::Errno;

use crate::config::LogConfig;

/// Readable by its group, so that a collector needs no more than that.
const MODE: u32 = 0o640;

/// What of a piece of text was written.
#[derive(Debug)]
pub(crate) struct Appended {
    /// Whole lines that are in the file.
    pub(crate) lines: u64,
    /// Why not all.
    pub(crate) error: Option<io::Error>,
}

/// The file that is written, and where its forerunners are.
#[derive(Debug)]
pub(crate) struct RotatingFile {
    config: LogConfig,
    /// Nothing after a failure: the next line opens it anew.
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    file: File,
    size: u64,
}

impl RotatingFile {
    /// Opens or makes the file. That there is no space is no error: there may be, later.
    pub(crate) fn open(config: &LogConfig) -> io::Result<Self> {
        let open = match Open::at(&config.path) {
            Ok(open) => Some(open),
            Err(error) if is_full(&error) => None,
            Err(error) => return Err(error),
        };
        Ok(Self { config: config.clone(), open })
    }

    /// Appends whole lines, each with its newline.
    pub(crate) fn append(&mut self, text: &[u8]) -> Appended {
        let mut appended = Appended { lines: 0, error: None };
        if let Err(error) = self.append_counting(text, &mut appended.lines) {
            // Opened anew next time, and put right then if it could not be now.
            self.open = None;
            appended.error = Some(error);
        }
        appended
    }

    fn append_counting(&mut self, mut text: &[u8], lines: &mut u64) -> io::Result<()> {
        while !text.is_empty() {
            let size = self.current()?.size;
            let (mut part, mut rest) = text.split_at(whole_lines(text, self.config.max_bytes.saturating_sub(size)));
            if part.is_empty() && size > 0 {
                self.rotate()?;
                continue;
            }
            if part.is_empty() {
                // A line that fits no file has one of its own.
                (part, rest) = text.split_at(first_line(text));
            }
            self.current()?.write(part, lines)?;
            text = rest;
        }
        Ok(())
    }

    /// Makes what was written last.
    pub(crate) fn sync(&self) -> io::Result<()> {
        self.open.as_ref().map_or(Ok(()), |open| open.file.sync_data())
    }

    /// The file that has the name now.
    fn current(&mut self) -> io::Result<&mut Open> {
        let open = match self.open.take() {
            Some(open) if open.is_at(&self.config.path)? => Open { size: open.file.metadata()?.len(), ..open },
            _ => Open::at(&self.config.path)?,
        };
        Ok(self.open.insert(open))
    }

    /// Every file takes the next number, and the oldest goes.
    fn rotate(&mut self) -> io::Result<()> {
        if let Err(error) = self.sync() {
            tracing::warn!(%error, path = %self.config.path.display(), "a full file of the flow log may not last");
        }
        self.open = None;
        let is_free = |number: &u32| fs::symlink_metadata(self.numbered(*number)).is_err();
        let last = (1..self.config.files).find(is_free).unwrap_or(self.config.files);
        for number in (1..last).rev() {
            fs::rename(self.numbered(number), self.numbered(number + 1))?;
        }
        fs::rename(&self.config.path, self.numbered(1))
    }

    fn numbered(&self, number: u32) -> PathBuf {
        let mut path = self.config.path.clone().into_os_string();
        path.push(format!(".{number}"));
        path.into()
    }
}

impl Open {
    fn at(path: &Path) -> io::Result<Self> {
        // A fifo or a terminal must not block, and a link must not lead elsewhere.
        let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
        let mut options = OpenOptions::new();
        options.read(true).append(true).custom_flags(i32::try_from(flags.bits()).unwrap_or_default());
        let file = match options.open(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let file = options.create_new(true).mode(MODE).open(path)?;
                // Whatever the umask is.
                file.set_permissions(Permissions::from_mode(MODE))?;
                file
            }
            outcome => outcome?,
        };
        let found = file.metadata()?;
        if !found.is_file() {
            return Err(io::Error::other("not a regular file"));
        }
        // A file system that knows no locks has no say.
        if flock(&file, FlockOperation::NonBlockingLockExclusive) == Err(Errno::WOULDBLOCK) {
            return Err(io::Error::other("another process writes it"));
        }
        let mut open = Self { file, size: found.len() };
        open.end_line()?;
        Ok(open)
    }

    /// Ends the line that an earlier daemon left half written.
    fn end_line(&mut self) -> io::Result<()> {
        let Some(last) = self.size.checked_sub(1) else { return Ok(()) };
        let mut byte = [0];
        self.file.read_exact_at(&mut byte, last)?;
        if byte != *b"\n" {
            self.file.write_all(b"\n")?;
            self.size += 1;
        }
        Ok(())
    }

    fn is_at(&self, path: &Path) -> io::Result<bool> {
        let ours = self.file.metadata()?;
        Ok(fs::symlink_metadata(path).is_ok_and(|there| (there.dev(), there.ino()) == (ours.dev(), ours.ino())))
    }

    /// Writes lines and counts them; of a line that does not come through nothing is left.
    fn write(&mut self, text: &[u8], lines: &mut u64) -> io::Result<()> {
        let mut written = 0;
        let mut outcome = Ok(());
        while let Some(rest) = text.get(written..).filter(|rest| !rest.is_empty()) {
            match self.file.write(rest) {
                Ok(0) => outcome = Err(ErrorKind::WriteZero.into()),
                Ok(count) => written += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => outcome = Err(error),
            }
            if outcome.is_err() {
                break;
            }
        }
        let whole = whole_lines(text.get(..written).unwrap_or(text), u64::MAX);
        *lines += count_lines(text.get(..whole).unwrap_or(text));
        if whole < written {
            self.file.set_len(self.size + whole as u64)?;
        }
        self.size += whole as u64;
        outcome
    }
}

/// Whether there is no room, which may change by itself.
fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
}

/// How many bytes the whole lines have that fit.
fn whole_lines(text: &[u8], room: u64) -> usize {
    let within = usize::try_from(room).unwrap_or(usize::MAX).min(text.len());
    text.get(..within).unwrap_or(text).iter().rposition(|byte| *byte == b'\n').map_or(0, |newline| newline + 1)
}

/// How many bytes the first line has.
fn first_line(text: &[u8]) -> usize {
    text.iter().position(|byte| *byte == b'\n').map_or(text.len(), |newline| newline + 1)
}

fn count_lines(text: &[u8]) -> u64 {
    text.split(|byte| *byte == b'\n').skip(1).count() as u64
}
