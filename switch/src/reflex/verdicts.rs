//! The verdict cache as the brain sees it: it installs, takes back, and looks what was used.

use std::collections;
use std::os::fd::{AsFd, OwnedFd};

use aya::maps::{HashMap, MapData, MapError};
use switch_common::{PairKey, PairVerdict};

use super::error::ReflexError;
use super::sys;

/// Pairs read per system call.
const CHUNK: usize = 4096;

/// Why a verdict was not installed.
#[derive(Debug, thiserror::Error)]
pub enum VerdictError {
    /// There is no room: make some, or leave the pair to the brain.
    #[error("the verdict map is full")]
    Full,
    /// Something else.
    #[error("the verdict map cannot be used")]
    Map(#[from] MapError),
}

/// The map `VERDICTS`. One owner: the loop. Each operation is a system call.
#[derive(Debug)]
pub struct VerdictMap {
    map: HashMap<MapData, PairKey, PairVerdict>,
    fd: OwnedFd,
}

impl VerdictMap {
    pub(super) fn new(map: HashMap<MapData, PairKey, PairVerdict>, fd: OwnedFd) -> Self {
        Self { map, fd }
    }

    /// The map itself, for a program of a test's own.
    #[cfg(test)]
    pub(super) fn fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Installs or replaces a pair's verdict, whole: `last_seen_jiffies` too. Its `key` is set here.
    ///
    /// # Errors
    /// [`VerdictError::Full`] when there is no room.
    pub fn insert(&mut self, key: &PairKey, verdict: &PairVerdict) -> Result<(), VerdictError> {
        let verdict = PairVerdict { key: *key, ..*verdict };
        self.map.insert(*key, verdict, 0).map_err(|error| match &error {
            MapError::SyscallError(call)
                if matches!(call.io_error.raw_os_error(), Some(libc::E2BIG | libc::ENOMEM)) =>
            {
                VerdictError::Full
            }
            _ => error.into(),
        })
    }

    /// Makes a pair's element repeat another key, as one does that is reused.
    #[cfg(test)]
    pub(super) fn disguise(&mut self, key: &PairKey, other: &PairKey) {
        let verdict = self.map.get(key, 0).expect("the pair is installed");
        self.map.insert(*key, PairVerdict { key: *other, ..verdict }, 0).expect("it is replaced");
    }

    /// Takes a pair's verdict back; `false` when there was none.
    ///
    /// # Errors
    /// The kernel's.
    pub fn remove(&mut self, key: &PairKey) -> Result<bool, VerdictError> {
        match self.map.remove(key) {
            Ok(()) => Ok(true),
            Err(error) if is_missing(&error) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// A pair's verdict as it is now.
    ///
    /// # Errors
    /// The kernel's.
    pub fn get(&self, key: &PairKey) -> Result<Option<PairVerdict>, VerdictError> {
        match self.map.get(key, 0) {
            Ok(verdict) => Ok(Some(verdict)),
            Err(error) if is_missing(&error) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Appends all pairs to `into`, read in batches.
    ///
    /// # Errors
    /// The kernel's.
    pub fn dump(&self, into: &mut Vec<(PairKey, PairVerdict)>) -> Result<(), ReflexError> {
        sys::lookup_all::<PairKey, PairVerdict>(self.fd.as_fd(), CHUNK, 1, |key, verdicts| {
            into.extend(verdicts.first().map(|verdict| (*key, *verdict)));
        })
        .map_err(ReflexError::map("VERDICTS"))
    }

    /// Takes all verdicts back.
    ///
    /// # Errors
    /// The kernel's.
    pub fn clear(&mut self) -> Result<(), ReflexError> {
        let mut pairs = Vec::new();
        self.dump(&mut pairs)?;
        for (key, _) in pairs {
            self.remove(&key).map_err(ReflexError::map("VERDICTS"))?;
        }
        Ok(())
    }
}

/// The same map for who only wants to know what was decided.
#[derive(Debug)]
pub struct PairReader(OwnedFd);

impl PairReader {
    pub(super) fn new(fd: OwnedFd) -> Self {
        Self(fd)
    }

    /// What was decided of these pairs; those without a verdict are not among them. A few are looked up one by one, many are chosen
    /// from all that there are, read in batches.
    ///
    /// # Errors
    /// The kernel's.
    pub fn of(&self, keys: &[PairKey]) -> Result<collections::HashMap<PairKey, PairVerdict>, ReflexError> {
        const FEW: usize = 64;
        if keys.len() > FEW {
            return self.all();
        }
        let mut pairs = collections::HashMap::new();
        for key in keys {
            let found = sys::lookup(self.0.as_fd(), key).map_err(ReflexError::map("VERDICTS"))?;
            pairs.extend(found.map(|verdict| (*key, verdict)));
        }
        Ok(pairs)
    }

    fn all(&self) -> Result<collections::HashMap<PairKey, PairVerdict>, ReflexError> {
        let mut pairs = collections::HashMap::new();
        sys::lookup_all::<PairKey, PairVerdict>(self.0.as_fd(), CHUNK, 1, |key, verdicts| {
            pairs.extend(verdicts.first().map(|verdict| (*key, *verdict)));
        })
        .map_err(ReflexError::map("VERDICTS"))?;
        Ok(pairs)
    }
}

fn is_missing(error: &MapError) -> bool {
    match error {
        MapError::KeyNotFound => true,
        MapError::SyscallError(call) => call.io_error.raw_os_error() == Some(libc::ENOENT),
        _ => false,
    }
}
