//! Where a capture is written: a stream, or files that are bounded in size, in number and by the space that must stay free.
//!
//! **Invariant.** Only whole blocks are in a file, whatever happens: what a write left half done is cut off. So every file can be
//! read, also that of a disk that became full or of a capture that was killed.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// A capture is its owner's alone.
const MODE: u32 = 0o600;
/// How often the free space is asked for, in bytes written.
const LOOK_BYTES: u64 = 256 << 10;

/// Files to write to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// The file; with rotation, what its name begins and ends with: `a.pcapng` becomes `a_00001.pcapng`.
    pub path: PathBuf,
    /// Begin another file before one becomes larger.
    pub rotate_bytes: Option<u64>,
    /// Keep so many files: the oldest goes when another is begun.
    pub files_max: Option<u32>,
    /// End before all that is kept becomes larger.
    pub bytes_max: u64,
    /// End before less is free on the file system.
    pub free_min: u64,
}

/// Where to write.
pub enum Output {
    /// A pipe, a socket, anything that takes bytes: flushed after each batch.
    Stream(Box<dyn Write + Send>),
    /// Files.
    Files(Files),
}

/// Why nothing more is written.
#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    /// The file cannot be made.
    #[error("cannot write {}: {source}; name a file in a directory that exists and that you may write to", path.display())]
    Open {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A write failed.
    #[error("{}: {source}; the capture ends there, what was written before can be read", path.display())]
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Nobody reads what is written.
    #[error("whoever reads the capture has gone")]
    BrokenPipe,
}

/// Why a capture is to end, though nothing failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Enough {
    /// As many bytes as there may be.
    Quota,
    /// The file system has no more space to give.
    Free,
}

/// An output that is open.
pub(super) struct Sink {
    target: Target,
    /// Bytes in the current file, whole blocks only.
    size: u64,
    /// Bytes in all files that are kept, the current one too.
    kept: u64,
    /// Bytes written in all.
    written: u64,
    /// The free space is asked for again when so many are written, or about to be.
    look_at: u64,
}

enum Target {
    Stream(Box<dyn Write + Send>),
    Files { files: Files, file: File, path: PathBuf, is_regular: bool, number: u32, sizes: Vec<(PathBuf, u64)> },
}

impl Sink {
    /// Opens the first file.
    pub(super) fn open(output: Output) -> Result<Self, OutputError> {
        let target = match output {
            Output::Stream(stream) => Target::Stream(stream),
            Output::Files(files) => {
                let number = 1;
                let path = name(&files, number);
                let (file, is_regular) = make(&path)?;
                Target::Files { files, file, path, is_regular, number, sizes: Vec::new() }
            }
        };
        Ok(Self { target, size: 0, kept: 0, written: 0, look_at: 0 })
    }

    /// Whether the next block belongs into another file.
    pub(super) fn is_full(&self, waiting: usize, block: usize) -> bool {
        let Target::Files { files, is_regular: true, .. } = &self.target else { return false };
        files.rotate_bytes.is_some_and(|max| self.size + (waiting + block) as u64 > max)
    }

    /// Whether the capture has to end before the next block.
    pub(super) fn enough(&mut self, waiting: usize, block: usize) -> Option<Enough> {
        let Target::Files { files, path, is_regular: true, .. } = &self.target else { return None };
        if self.kept + (waiting + block) as u64 > files.bytes_max {
            return Some(Enough::Quota);
        }
        if self.written + (waiting as u64) < self.look_at {
            return None;
        }
        self.look_at = self.written + waiting as u64 + LOOK_BYTES;
        let space = rustix::fs::statvfs(path).map(|space| space.f_bavail.saturating_mul(space.f_frsize));
        // Who cannot say how much there is has no say.
        let free = space.unwrap_or(u64::MAX).saturating_sub((waiting + block) as u64);
        (free < files.free_min.max(1)).then_some(Enough::Free)
    }

    /// Writes whole blocks.
    pub(super) fn write(&mut self, blocks: &[u8]) -> Result<(), OutputError> {
        match &mut self.target {
            Target::Stream(stream) => stream.write_all(blocks).and_then(|()| stream.flush()).map_err(|source| {
                if source.kind() == ErrorKind::BrokenPipe {
                    OutputError::BrokenPipe
                } else {
                    OutputError::Write { path: PathBuf::from("-"), source }
                }
            })?,
            Target::Files { file, path, is_regular, .. } => {
                if let Err(source) = file.write_all(blocks) {
                    if *is_regular {
                        cut(file, path, self.size);
                    }
                    return Err(match source.kind() {
                        ErrorKind::BrokenPipe => OutputError::BrokenPipe,
                        _ => OutputError::Write { path: path.clone(), source },
                    });
                }
            }
        }
        self.size += blocks.len() as u64;
        self.kept += blocks.len() as u64;
        self.written += blocks.len() as u64;
        Ok(())
    }

    /// Ends the current file and begins the next one.
    pub(super) fn rotate(&mut self) -> Result<(), OutputError> {
        let Target::Files { files, file, path, is_regular, number, sizes } = &mut self.target else { return Ok(()) };
        sizes.push((path.clone(), self.size));
        *number += 1;
        let next = name(files, *number);
        (*file, *is_regular) = make(&next)?;
        *path = next;
        self.size = 0;
        let kept_max = usize::try_from(files.files_max.unwrap_or(u32::MAX)).unwrap_or(usize::MAX);
        while sizes.len() >= kept_max.max(1) {
            let (oldest, size) = sizes.remove(0);
            self.kept -= size;
            if let Err(error) = fs::remove_file(&oldest) {
                tracing::debug!(path = %oldest.display(), %error, "an old file of the capture was gone already");
            }
        }
        Ok(())
    }

    /// How many files there were.
    pub(super) fn files(&self) -> u32 {
        match &self.target {
            Target::Stream(_) => 0,
            Target::Files { number, .. } => *number,
        }
    }
}

/// Takes back what a write left half done; what cannot be taken back is at the end, and a reader stops there.
fn cut(file: &File, path: &Path, size: u64) {
    if let Err(error) = file.set_len(size) {
        tracing::warn!(path = %path.display(), %error, "the last block of the capture is cut short");
    }
}

fn make(path: &Path) -> Result<(File, bool), OutputError> {
    let failed = |source| OutputError::Open { path: path.to_owned(), source };
    let file = OpenOptions::new().write(true).create(true).truncate(true).mode(MODE).open(path).map_err(failed)?;
    let is_regular = file.metadata().map_err(failed)?.is_file();
    Ok((file, is_regular))
}

/// The file of this number.
fn name(files: &Files, number: u32) -> PathBuf {
    if files.rotate_bytes.is_none() {
        return files.path.clone();
    }
    let stem = files.path.file_stem().unwrap_or_default().to_string_lossy();
    let extension = files.path.extension().map_or_else(String::new, |end| format!(".{}", end.to_string_lossy()));
    files.path.with_file_name(format!("{stem}_{number:05}{extension}"))
}
