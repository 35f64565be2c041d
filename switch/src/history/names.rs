//! Words that come again and again (ports, protocols, reasons, the fields of a record) are written once and numbered.

use std::collections::HashMap;

use rusqlite::{Connection, OptionalExtension as _};

/// The numbers of words in one table, `name` or `shape`, as far as they were asked for.
#[derive(Debug)]
pub(super) struct Words {
    table: &'static str,
    known: HashMap<String, i64>,
}

impl Words {
    pub(super) fn of(table: &'static str) -> Self {
        Self { table, known: HashMap::new() }
    }

    /// A word's number; one that is new gets the next.
    pub(super) fn number(&mut self, db: &Connection, word: &str) -> rusqlite::Result<i64> {
        if let Some(number) = self.known.get(word) {
            return Ok(*number);
        }
        let number = if let Some(number) = self.find(db, word)? {
            number
        } else {
            db.prepare_cached(&format!("INSERT INTO {} (word) VALUES (?1)", self.table))?.execute([word])?;
            db.last_insert_rowid()
        };
        self.known.insert(word.to_owned(), number);
        Ok(number)
    }

    /// A word's number, if it has one.
    pub(super) fn find(&self, db: &Connection, word: &str) -> rusqlite::Result<Option<i64>> {
        let mut query = db.prepare_cached(&format!("SELECT number FROM {} WHERE word = ?1", self.table))?;
        query.query_row([word], |row| row.get(0)).optional()
    }

    /// Forgets all of them: what was written of them was taken back.
    pub(super) fn forget(&mut self) {
        self.known.clear();
    }
}
