//! The file: opened or made, written in transactions, moved aside when it is not what it should be.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use rusqlite::{Connection, ErrorCode, OpenFlags, Transaction, params, params_from_iter};

use super::names::Words;
use super::{Bases, DropTotal, EventRow, rows};
use crate::api::schema::Side;
use crate::flow::Record;

/// The layout's version.
pub(super) const VERSION: i64 = 1;
/// What the file's header says that this is: "Weft".
const APPLICATION: i64 = 0x5765_6674;
/// Files that were moved aside and are kept.
const ASIDE_MAX: usize = 3;
/// How long a lock of somebody who looks into the file is waited for.
const BUSY: Duration = Duration::from_secs(1);
/// Bytes of a page: a walk along a table reads fewer, larger ones.
pub(super) const PAGE_BYTES: u64 = 8192;

const SCHEMA: &str = "
    CREATE TABLE name (number INTEGER PRIMARY KEY, word TEXT NOT NULL UNIQUE) STRICT;
    CREATE TABLE shape (number INTEGER PRIMARY KEY, word TEXT NOT NULL UNIQUE) STRICT;
    CREATE TABLE flow (
        ended INTEGER NOT NULL, number INTEGER NOT NULL, from_port INTEGER, to_port INTEGER,
        verdict INTEGER NOT NULL, drop_reason INTEGER, source_address ANY, destination_address ANY,
        source_mac INTEGER, destination_mac INTEGER, source_l4 INTEGER, destination_l4 INTEGER,
        network INTEGER, transport INTEGER, vlan INTEGER, inner_vlan INTEGER,
        PRIMARY KEY (ended, number)) STRICT, WITHOUT ROWID;
    CREATE TABLE record (number INTEGER PRIMARY KEY, shape INTEGER NOT NULL, body TEXT NOT NULL) STRICT;
    CREATE TABLE dropped (
        number INTEGER PRIMARY KEY, began INTEGER NOT NULL, ended INTEGER NOT NULL,
        port INTEGER NOT NULL, side INTEGER NOT NULL, reason INTEGER NOT NULL,
        frames INTEGER NOT NULL, bytes INTEGER NOT NULL) STRICT;
    CREATE INDEX dropped_ended ON dropped (ended);
    CREATE TABLE drop_total (
        port TEXT NOT NULL, side INTEGER NOT NULL, reason TEXT NOT NULL, frames INTEGER NOT NULL, bytes INTEGER NOT NULL,
        PRIMARY KEY (port, side, reason)) STRICT, WITHOUT ROWID;
    CREATE TABLE looked (at INTEGER NOT NULL) STRICT;
    CREATE TABLE event (
        number INTEGER PRIMARY KEY, time INTEGER NOT NULL, kind INTEGER NOT NULL, port INTEGER, json TEXT NOT NULL) STRICT;
    CREATE INDEX event_time ON event (time);
";

/// Why a file could not be opened.
#[derive(Debug, thiserror::Error)]
pub(super) enum OpenError {
    /// The file cannot be made or read.
    #[error("{0}")]
    File(#[from] io::Error),
    /// The database's.
    #[error("{0}")]
    Database(#[from] rusqlite::Error),
    /// It has another layout.
    #[error("its layout is version {0}")]
    Version(i64),
}

impl OpenError {
    /// What its name is to say once it is moved aside; nothing when another try may do.
    pub(super) fn aside(&self) -> Option<String> {
        match self {
            Self::Database(error) if is_malformed(error) => Some("corrupt".to_owned()),
            Self::Version(version) => Some(format!("version-{version}")),
            Self::File(_) | Self::Database(_) => None,
        }
    }
}

/// Whether the file is no database, or a broken one.
pub(super) fn is_malformed(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
}

/// What a batch is made of.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) records: Vec<(u64, std::sync::Arc<Record>)>,
    pub(super) events: Vec<EventRow>,
    pub(super) drops: Vec<(Timestamp, Vec<DropTotal>)>,
}

impl Batch {
    /// Records and events in it.
    pub(super) fn len(&self) -> usize {
        self.records.len() + self.events.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0 && self.drops.is_empty()
    }

    pub(super) fn clear(&mut self) {
        self.records.clear();
        self.events.clear();
        self.drops.clear();
    }
}

type DropKey = (String, i64, String);

/// What drops were counted at the last look, and when that was.
#[derive(Clone, Debug, Default)]
pub(super) struct Looked {
    totals: HashMap<DropKey, (u64, u64)>,
    at: Option<i64>,
}

impl Looked {
    /// Nothing, from this time on.
    pub(super) fn since(time: Timestamp) -> Self {
        Self { totals: HashMap::new(), at: Some(time.as_microsecond()) }
    }
}

/// The file, open.
#[derive(Debug)]
pub(super) struct Store {
    pub(super) db: Connection,
    path: PathBuf,
    /// Which file it was when it was opened.
    is: (u64, u64),
    names: Words,
    shapes: Words,
}

impl Store {
    /// Opens the file, or makes it.
    pub(super) fn open(path: &Path, max_bytes: u64) -> Result<Self, OpenError> {
        // Readable by its group, as the flow log is. SQLite gives its log the same mode.
        let file = fs::OpenOptions::new().create(true).append(true).mode(0o640).open(path)?.metadata()?;
        if !file.is_file() {
            return Err(io::Error::other("not a regular file").into());
        }
        let flags =
            OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_NOFOLLOW;
        let db = Connection::open_with_flags(path, flags)?;
        db.busy_timeout(BUSY)?;
        db.execute_batch(&format!("PRAGMA page_size = {PAGE_BYTES}; PRAGMA auto_vacuum = INCREMENTAL"))?;
        let application: i64 = db.pragma_query_value(None, "application_id", |row| row.get(0))?;
        let version: i64 = db.pragma_query_value(None, "user_version", |row| row.get(0))?;
        let tables: i64 = db.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
        let is_new = tables == 0;
        if !is_new && (application, version) != (APPLICATION, VERSION) {
            return Err(OpenError::Version(version));
        }
        let log_pages = (max_bytes / 16 / PAGE_BYTES).clamp(64, 1024);
        db.execute_batch(&format!(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA wal_autocheckpoint = {log_pages};
             PRAGMA journal_size_limit = {}; PRAGMA temp_store = MEMORY; PRAGMA max_page_count = {}",
            log_pages * PAGE_BYTES,
            max_bytes / PAGE_BYTES,
        ))?;
        db.set_prepared_statement_cache_capacity(32);
        if is_new {
            let made = format!(
                "BEGIN; {SCHEMA} PRAGMA application_id = {APPLICATION}; PRAGMA user_version = {VERSION}; COMMIT"
            );
            db.execute_batch(&made)?;
        }
        let store = Self {
            db,
            path: path.to_owned(),
            is: (file.dev(), file.ino()),
            names: Words::of("name"),
            shapes: Words::of("shape"),
        };
        // A look at both ends of each table finds what is badly broken.
        store.last_number()?;
        store.ends()?;
        store.looked()?;
        Ok(store)
    }

    /// Whether the name still is this file's.
    pub(super) fn is_there(&self) -> bool {
        fs::symlink_metadata(&self.path).is_ok_and(|there| (there.dev(), there.ino()) == self.is)
    }

    /// The highest number that a record has.
    pub(super) fn last_number(&self) -> rusqlite::Result<Option<u64>> {
        let last: Option<i64> = self.db.query_row("SELECT max(number) FROM record", [], |row| row.get(0))?;
        Ok(last.map(i64::cast_unsigned))
    }

    /// The first and the last end of a record.
    pub(super) fn ends(&self) -> rusqlite::Result<(Option<Timestamp>, Option<Timestamp>)> {
        let end = |which| {
            let asked = format!("SELECT {which}(ended) FROM flow");
            self.db.query_row(&asked, [], |row| row.get::<_, Option<i64>>(0)).map(|end| end.and_then(time))
        };
        Ok((end("min")?, end("max")?))
    }

    /// The last number of an event, and when the last one happened.
    pub(super) fn last_event(&self) -> rusqlite::Result<(Option<u64>, Option<Timestamp>)> {
        self.db.query_row("SELECT max(number), max(time) FROM event", [], |row| {
            let (number, at): (Option<i64>, Option<i64>) = (row.get(0)?, row.get(1)?);
            Ok((number.map(i64::cast_unsigned), at.and_then(time)))
        })
    }

    /// What an earlier daemon had counted of drops when it last looked.
    pub(super) fn looked(&self) -> rusqlite::Result<Looked> {
        let at = self.db.query_row("SELECT max(at) FROM looked", [], |row| row.get(0))?;
        let mut query = self.db.prepare("SELECT port, side, reason, frames, bytes FROM drop_total")?;
        let read = query.query_map([], |row| {
            let (frames, bytes): (i64, i64) = (row.get(3)?, row.get(4)?);
            Ok(((row.get(0)?, row.get(1)?, row.get(2)?), (frames.cast_unsigned(), bytes.cast_unsigned())))
        })?;
        Ok(Looked { totals: read.collect::<Result<_, _>>()?, at })
    }

    /// Whether nothing is found wrong in the whole file.
    pub(super) fn is_sound(&self) -> bool {
        let checked: rusqlite::Result<String> = self.db.query_row("PRAGMA quick_check(1)", [], |row| row.get(0));
        checked.is_ok_and(|found| found == "ok")
    }

    /// Writes a batch, all of it or nothing. `base`: the numbers of this daemon's first ones.
    pub(super) fn write(&mut self, batch: &Batch, base: Bases, looked: &mut Looked) -> rusqlite::Result<()> {
        let written = self.try_write(batch, base, looked);
        if written.is_err() {
            self.names.forget();
            self.shapes.forget();
        }
        *looked = written?;
        Ok(())
    }

    fn try_write(&mut self, batch: &Batch, base: Bases, looked: &Looked) -> rusqlite::Result<Looked> {
        let Self { db, names, shapes, .. } = self;
        let tx = db.transaction()?;
        {
            let mut flow = tx.prepare_cached("INSERT INTO flow VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)")?;
            let mut body = tx.prepare_cached("INSERT INTO record (number, shape, body) VALUES (?, ?, ?)")?;
            for (number, record) in &batch.records {
                let number = base.records + number;
                flow.execute(params_from_iter(rows::columns(number, record, |word| names.number(&tx, word))?))?;
                let (shape, values) = rows::folded(record);
                body.execute(params![number.cast_signed(), shapes.number(&tx, &shape)?, values])?;
            }
            let mut event =
                tx.prepare_cached("INSERT INTO event (number, time, kind, port, json) VALUES (?, ?, ?, ?, ?)")?;
            for EventRow { number, time, kind, port, json } in &batch.events {
                let number = (base.events + number).cast_signed();
                let port = port.as_deref().map(|port| names.number(&tx, port)).transpose()?;
                event.execute(params![number, time.as_microsecond(), names.number(&tx, kind)?, port, json])?;
            }
        }
        let mut looked = looked.clone();
        for (time, totals) in &batch.drops {
            looked = look(&tx, names, time.as_microsecond(), totals, &looked)?;
        }
        tx.commit()?;
        Ok(looked)
    }
}

/// Writes what was dropped since the look before. Where there was none, what was counted belongs to a time that nobody knows: it is
/// where counting begins.
fn look(
    tx: &Transaction<'_>,
    names: &mut Words,
    at: i64,
    totals: &[DropTotal],
    before: &Looked,
) -> rusqlite::Result<Looked> {
    let mut now = Looked { totals: HashMap::with_capacity(totals.len()), at: Some(at) };
    let mut insert = tx.prepare_cached(
        "INSERT INTO dropped (began, ended, port, side, reason, frames, bytes) VALUES (?, ?, ?, ?, ?, ?, ?)",
    )?;
    let mut keep = tx.prepare_cached("INSERT INTO drop_total VALUES (?, ?, ?, ?, ?)")?;
    tx.execute("DELETE FROM drop_total", [])?;
    tx.execute("DELETE FROM looked", [])?;
    tx.execute("INSERT INTO looked VALUES (?)", [at])?;
    for DropTotal { port, side, reason, frames, bytes } in totals {
        let side = side_number(*side);
        keep.execute(params![port, side, reason, frames.cast_signed(), bytes.cast_signed()])?;
        let key = (port.clone(), side, reason.clone());
        let (old_frames, old_bytes) = before.totals.get(&key).copied().unwrap_or_default();
        // Less than before: the port was removed and made again, and counts from 0.
        let (old_frames, old_bytes) = if *frames < old_frames { (0, 0) } else { (old_frames, old_bytes) };
        if let Some(began) = before.at
            && *frames > old_frames
        {
            let (port, reason) = (names.number(tx, port)?, names.number(tx, reason)?);
            let (frames, bytes) = (frames - old_frames, bytes.saturating_sub(old_bytes));
            insert.execute(params![began, at, port, side, reason, frames.cast_signed(), bytes.cast_signed()])?;
        }
        now.totals.insert(key, (*frames, *bytes));
    }
    Ok(now)
}

/// A side as a number.
pub(super) fn side_number(side: Side) -> i64 {
    match side {
        Side::Ingress => 0,
        Side::Egress => 1,
        Side::Kernel => 2,
    }
}

/// The side that a number stands for.
pub(super) fn side_of(number: i64) -> Side {
    match number {
        0 => Side::Ingress,
        1 => Side::Egress,
        _ => Side::Kernel,
    }
}

/// A time that was kept in microseconds.
pub(super) fn time(micros: i64) -> Option<Timestamp> {
    Timestamp::from_microsecond(micros).ok()
}

/// Moves a file aside with its logs, and forgets the oldest of those that were moved before.
pub(super) fn set_aside(path: &Path, why: &str, now: Timestamp) -> io::Result<PathBuf> {
    let beside = |suffix: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        PathBuf::from(name)
    };
    let stamp = now.strftime("%Y%m%dT%H%M%S.%fZ");
    let aside = format!(".{why}-{stamp}");
    // The log first: were it left, SQLite would take it for the new file's.
    for part in ["-wal", "-shm", ""] {
        match fs::rename(beside(part), beside(&format!("{aside}{part}"))) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    forget_oldest(path)?;
    Ok(beside(&aside))
}

fn forget_oldest(path: &Path) -> io::Result<()> {
    let (Some(dir), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str())) else {
        return Ok(());
    };
    let is_ours = |file: &str| {
        let rest = file.strip_prefix(name).unwrap_or_default();
        rest.starts_with(".corrupt-") || rest.starts_with(".version-")
    };
    let mut found: Vec<(String, String)> = Vec::new();
    for entry in fs::read_dir(dir)? {
        let file = entry?.file_name().to_string_lossy().into_owned();
        // In the order of the times in their names.
        if let Some((_, stamp)) = file.rsplit_once(['-']).filter(|_| is_ours(&file) && file.ends_with('Z')) {
            found.push((stamp.to_owned(), file));
        }
    }
    found.sort();
    let surplus = found.len().saturating_sub(ASIDE_MAX);
    for (_, file) in found.iter().take(surplus) {
        for part in ["", "-wal", "-shm"] {
            match fs::remove_file(dir.join(format!("{file}{part}"))) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
    }
    Ok(())
}
