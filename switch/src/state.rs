//! What outlives the daemon on disk: which ports there were, under which ids, and how to undo them.
//!
//! One JSON file, `state.json` in the instance's state directory. It is written beside itself, synced and renamed, so a
//! reader finds the old or the new, never half of one. A file that cannot be understood is never overwritten: it may be
//! the only note of what has to be undone.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::mirror::MirrorSpec;
use crate::port::spec::{Mac, PortName, PortSpec};

/// Version of the format.
pub const STATE_VERSION: u32 = 1;
/// Name of the file in the state directory.
const FILE_NAME: &str = "state.json";
/// Where the kernel says which boot this is.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// Why the state could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// Not to be read or written.
    #[error("{}: {source}; check that the directory exists and that root may write to it, or give --state-dir", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Not ours, or damaged.
    #[error(
        "{}: {reason}; it is left as it is. Restore it from a backup, or move it away to start without the ports that \
         commands made",
        path.display()
    )]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Written by a newer Weft.
    #[error(
        "{}: written by a newer weft (format {found}, this one knows {STATE_VERSION}); it is left as it is. Run that \
         version, or move the file away to start without the ports that commands made",
        path.display()
    )]
    Future {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u32,
    },
}

/// A port that was attached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedPort {
    /// Its number.
    pub id: u16,
    /// What was asked for.
    pub spec: PortSpec,
    /// What to undo on the host, as `port::attach` wrote it; absent while it was not attached.
    #[serde(default)]
    pub restore: Option<serde_json::Value>,
}

/// The whole file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateFile {
    /// [`STATE_VERSION`].
    pub version: u32,
    /// The boot it was written in: ports of origin `command` end with it, and so does what there was to undo.
    pub boot_id: String,
    /// Ports that are attached or waited for.
    pub ports: Vec<SavedPort>,
    /// Every name that ever had an id, so that it gets the same one again.
    pub names: BTreeMap<PortName, u16>,
    /// Stations that an operator pinned, and the port each lives behind.
    #[serde(default)]
    pub stations: BTreeMap<Mac, PortName>,
    /// Mirrors.
    #[serde(default)]
    pub mirrors: Vec<SavedMirror>,
}

/// A mirror that runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedMirror {
    /// The bit that the kernel half knows it by.
    pub bit: u8,
    /// What was asked for.
    pub spec: MirrorSpec,
}

impl StateFile {
    /// Nothing yet, in this boot.
    pub fn new(boot_id: String) -> Self {
        Self {
            version: STATE_VERSION,
            boot_id,
            ports: Vec::new(),
            names: BTreeMap::new(),
            stations: BTreeMap::new(),
            mirrors: Vec::new(),
        }
    }
}

/// Which boot this is.
pub fn boot_id() -> Result<String, StateError> {
    let text = fs::read_to_string(BOOT_ID).map_err(|source| StateError::Io { path: BOOT_ID.into(), source })?;
    Ok(text.trim().to_owned())
}

/// Where an instance's state is kept.
#[derive(Clone, Debug)]
pub struct Store {
    dir: PathBuf,
}

impl Store {
    /// The state in this directory, which need not exist yet.
    pub fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned() }
    }

    /// The file.
    pub fn path(&self) -> PathBuf {
        self.dir.join(FILE_NAME)
    }

    /// What was saved; `None` when nothing was.
    pub fn load(&self) -> Result<Option<StateFile>, StateError> {
        /// The part that every version has.
        #[derive(Deserialize)]
        struct Versioned {
            version: u32,
        }

        let path = self.path();
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(StateError::Io { path, source }),
        };
        let corrupt = |reason: String| StateError::Corrupt { path: path.clone(), reason };
        let Versioned { version } =
            serde_json::from_slice(&bytes).map_err(|e| corrupt(format!("not a state file ({e})")))?;
        if version > STATE_VERSION {
            return Err(StateError::Future { path, found: version });
        }
        let state: StateFile = serde_json::from_slice(&bytes).map_err(|e| corrupt(e.to_string()))?;
        check(&state).map_err(corrupt)?;
        Ok(Some(state))
    }

    /// Writes it, wholly or not at all; on return it is on the disk.
    pub fn save(&self, state: &StateFile) -> Result<(), StateError> {
        let path = self.path();
        let io_error = |path: &Path| {
            let path = path.to_owned();
            move |source| StateError::Io { path, source }
        };
        let text = serde_json::to_vec_pretty(state)
            .map_err(|e| StateError::Io { path: path.clone(), source: io::Error::other(e) })?;
        fs::create_dir_all(&self.dir).map_err(io_error(&self.dir))?;
        let beside = self.dir.join(format!("{FILE_NAME}.new"));
        let mut file = fs::File::create(&beside).map_err(io_error(&beside))?;
        file.write_all(&text).map_err(io_error(&beside))?;
        file.sync_all().map_err(io_error(&beside))?;
        fs::rename(&beside, &path).map_err(io_error(&path))?;
        fs::File::open(&self.dir).and_then(|dir| dir.sync_all()).map_err(io_error(&self.dir))
    }

    /// Forgets everything: the instance was taken away.
    pub fn remove(&self) -> Result<(), StateError> {
        let path = self.path();
        match fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => Err(StateError::Io { path, source }),
            _ => Ok(()),
        }
    }
}

/// Refuses what serde cannot: ids out of range or used twice.
fn check(state: &StateFile) -> Result<(), String> {
    let mut owners: BTreeMap<u16, &PortName> = BTreeMap::new();
    let saved = state.ports.iter().map(|port| (&port.spec.name, port.id));
    for (name, id) in state.names.iter().map(|(name, id)| (name, *id)).chain(saved) {
        if switch_common::PortId::new(id).is_none() {
            return Err(format!("port '{name}' has the id {id}, which is not from 1 to 4094"));
        }
        if let Some(other) = owners.insert(id, name)
            && other != name
        {
            return Err(format!("ports '{other}' and '{name}' have the same id {id}"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::config::Config;

    fn state() -> StateFile {
        let text = "[[port]]\nname = \"a\"\nnetns = \"n\"\naddresses = [\"198.18.0.1/24\"]\n\
                    [[port]]\nname = \"b\"\nnetdev = \"x\"\nrole = \"uplink\"\n";
        let specs = Config::parse(Path::new("test"), text).unwrap().ports;
        let mut state = StateFile::new(boot_id().unwrap());
        for (id, spec) in (1..).zip(specs) {
            state.names.insert(spec.name.clone(), id);
            state.ports.push(SavedPort { id, spec, restore: Some(serde_json::json!({ "promiscuous": true })) });
        }
        state.names.insert("gone".parse().unwrap(), 4094);
        state
    }

    #[test]
    fn what_is_saved_is_loaded_again() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::new(&dir.path().join("weft0"));
        assert_eq!(store.load().unwrap(), None, "nothing was saved yet");
        store.save(&state()).unwrap();
        assert_eq!(store.load().unwrap(), Some(state()));
        let files: Vec<_> = fs::read_dir(dir.path().join("weft0")).unwrap().map(|f| f.unwrap().file_name()).collect();
        assert_eq!(files, [FILE_NAME], "nothing is left beside it");
        store.remove().unwrap();
        store.remove().unwrap();
        assert_eq!(store.load().unwrap(), None);
    }

    #[test]
    fn a_state_that_cannot_be_understood_is_named_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::new(dir.path());
        let whole = serde_json::to_string(&state()).unwrap();
        let cut = whole.get(..whole.len() / 2).unwrap();
        let same_id = whole.replace("\"b\":2", "\"b\":1");
        let zero_id = whole.replace("\"id\":1,", "\"id\":0,");
        assert!(same_id != whole && zero_id != whole);
        for (text, words) in [
            ("", "not a state file"),
            ("garbage", "not a state file"),
            ("{}", "missing field `version`"),
            ("{\"version\":1}", "missing field `boot_id`"),
            (cut, "not a state file"),
            (&same_id, "have the same id 1"),
            (&zero_id, "the id 0, which is not from 1 to 4094"),
            ("{\"version\":2,\"news\":[]}", "written by a newer weft (format 2, this one knows 1)"),
        ] {
            fs::write(store.path(), text).unwrap();
            let told = store.load().unwrap_err().to_string();
            assert!(told.starts_with(&store.path().display().to_string()) && told.contains(words), "{text}: {told}");
            assert!(told.contains("it is left as it is"), "{told}");
            assert_eq!(fs::read_to_string(store.path()).unwrap(), text);
        }
    }

    #[test]
    fn a_directory_that_cannot_be_written_is_named() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("file"), "").unwrap();
        let told = Store::new(&dir.path().join("file/weft0")).save(&state()).unwrap_err().to_string();
        assert!(told.contains("file/weft0") && told.contains("--state-dir"), "{told}");
    }
}
