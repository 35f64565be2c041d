//! What is too old or too much goes, the oldest first, in portions that do not hold up the writing.

use std::time::Duration;

use jiff::Timestamp;
use rusqlite::params;

use super::store::{PAGE_BYTES, Store};

/// Rows that go at a time, of each table.
const PORTION: u64 = 20_000;
/// Pages that are given back to the file system at a time.
const GIVEN_BACK: u64 = 1024;
/// What a row of drops takes, and one of events; to bound how many there may be.
const DROP_BYTES: u64 = 64;
const EVENT_BYTES: u64 = 512;

impl Store {
    /// Bytes in use.
    pub(super) fn bytes(&self) -> rusqlite::Result<u64> {
        Ok(self.pragma("page_count")?.saturating_sub(self.pragma("freelist_count")?) * PAGE_BYTES)
    }

    fn pragma(&self, name: &str) -> rusqlite::Result<u64> {
        self.db.pragma_query_value(None, name, |row| row.get::<_, i64>(0)).map(i64::cast_unsigned)
    }

    /// Takes a portion of what is too old or too much; whether there may be more.
    pub(super) fn retain(&mut self, now: Timestamp, max_age: Duration, max_bytes: u64) -> rusqlite::Result<bool> {
        let oldest = now.checked_sub(max_age).unwrap_or(Timestamp::MIN).as_microsecond();
        let tx = self.db.transaction()?;
        let mut gone = delete_flows(&tx, "WHERE ended < ?1", oldest, PORTION)?;
        for (table, column, share) in
            [("dropped", "ended", max_bytes / 4 / DROP_BYTES), ("event", "time", max_bytes / 4 / EVENT_BYTES)]
        {
            let old = format!("SELECT number FROM {table} WHERE {column} < ?1 ORDER BY {column} LIMIT ?2");
            gone += tx.execute(
                &format!("DELETE FROM {table} WHERE number IN ({old})"),
                params![oldest, PORTION.cast_signed()],
            )? as u64;
            let surplus = format!("DELETE FROM {table} WHERE number <= (SELECT max(number) FROM {table}) - ?1");
            tx.execute(&surplus, [share.cast_signed()])?;
        }
        tx.commit()?;
        // An eighth is left to the log.
        let room = max_bytes - max_bytes / 8;
        let used = self.bytes()?;
        if used > room {
            gone += self.delete_share(used, used - room)?;
        }
        if self.pragma("page_count")? * PAGE_BYTES > max_bytes && self.pragma("freelist_count")? > 0 {
            let mut give_back = self.db.prepare(&format!("PRAGMA incremental_vacuum({GIVEN_BACK})"))?;
            // A page at each step.
            let mut pages = give_back.query([])?;
            while pages.next()?.is_some() {}
        }
        Ok(gone >= PORTION)
    }

    /// Deletes the oldest records: as many as make up the surplus, and a little more.
    fn delete_share(&mut self, used: u64, surplus: u64) -> rusqlite::Result<u64> {
        let (first, last): (Option<i64>, Option<i64>) = self.db.query_row(
            "SELECT (SELECT min(number) FROM record), (SELECT max(number) FROM record)",
            [],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )?;
        let rows = last.zip(first).map_or(0, |(last, first)| (last - first + 1).cast_unsigned());
        let share = u128::from(rows) * u128::from(surplus) / u128::from(used.max(1));
        let portion = u64::try_from(share).unwrap_or(PORTION) + rows / 64 + 1;
        let tx = self.db.transaction()?;
        let gone = delete_flows(&tx, "WHERE ended >= ?1", i64::MIN, portion.min(PORTION))?;
        tx.commit()?;
        Ok(gone)
    }
}

/// Deletes the oldest records of those that are meant.
fn delete_flows(tx: &rusqlite::Transaction<'_>, which: &str, bound: i64, portion: u64) -> rusqlite::Result<u64> {
    let oldest = |columns| format!("SELECT {columns} FROM flow {which} ORDER BY ended, number LIMIT ?2");
    let bounds = params![bound, portion.cast_signed()];
    tx.prepare_cached(&format!("DELETE FROM record WHERE number IN ({})", oldest("number")))?.execute(bounds)?;
    let flows = format!("DELETE FROM flow WHERE (ended, number) IN ({})", oldest("ended, number"));
    Ok(tx.prepare_cached(&flows)?.execute(bounds)? as u64)
}
