//! The file's tables, and how an older file becomes a present one.

use rusqlite::Connection;

/// The layout this version writes.
pub(super) const VERSION: i64 = 4;

const TABLES: &str = "
CREATE TABLE meta (
    name TEXT PRIMARY KEY,
    value INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- One row a company. Documents are JSON.
CREATE TABLE company (
    id TEXT PRIMARY KEY,
    applied BLOB,
    draft BLOB,
    standing BLOB
) STRICT, WITHOUT ROWID;

-- One row a mailbox. `state` and `intent` are the turn's documents; `due` is in microseconds since 1970.
CREATE TABLE mailbox (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    company TEXT NOT NULL,
    extension TEXT NOT NULL,
    retired INTEGER NOT NULL DEFAULT 0,
    due INTEGER,
    urgency INTEGER NOT NULL DEFAULT 0,
    intent BLOB,
    state BLOB NOT NULL DEFAULT x''
) STRICT;
CREATE UNIQUE INDEX mailbox_of_extension ON mailbox (company, extension);

CREATE TABLE spent_ticket (
    ticket TEXT PRIMARY KEY,
    expires INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
";

/// Since layout 3. Times are in microseconds since 1970.
const TRAIL: &str = "
CREATE TABLE trail (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    at INTEGER NOT NULL,
    who TEXT NOT NULL,
    what TEXT NOT NULL,
    company TEXT,
    outcome TEXT NOT NULL
) STRICT;

CREATE TABLE job (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    document BLOB NOT NULL
) STRICT;

-- Mailboxes that a job is not done with.
CREATE TABLE job_mailbox (
    job TEXT NOT NULL,
    mailbox INTEGER NOT NULL,
    PRIMARY KEY (job, mailbox)
) STRICT, WITHOUT ROWID;
";

/// Since layout 4. What is there already has the first revision.
const REVISIONS: &str = "
ALTER TABLE company ADD COLUMN revision INTEGER NOT NULL DEFAULT 0;
UPDATE company SET revision = 1;
INSERT INTO meta (name, value) VALUES ('revision', 1);
ALTER TABLE job ADD COLUMN version INTEGER NOT NULL DEFAULT 0;
ALTER TABLE job ADD COLUMN cancelled INTEGER NOT NULL DEFAULT 0;
";

/// Pages that the writer keeps: the working set of the log and of the mailboxes that have turns now.
pub(super) const WRITER_CACHE_KIB: i64 = 2_048;

/// Pages that a reader keeps: the inner ones. Rows are in the system's cache, one copy away.
pub(super) const READER_CACHE_KIB: i64 = 512;

/// Sets the connection up: WAL, and a commit is on disk when it returns.
pub(super) fn configure(connection: &Connection, cache_kib: i64) -> rusqlite::Result<()> {
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    connection.pragma_update(None, "cache_size", -cache_kib)?;
    connection.busy_timeout(std::time::Duration::from_secs(2))?;
    connection.set_prepared_statement_cache_capacity(32);
    Ok(())
}

/// Makes or checks the tables; the error text names versions.
pub(super) fn prepare(connection: &mut Connection) -> Result<(), SchemaError> {
    let version: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if version > VERSION {
        return Err(SchemaError::Newer { found: version });
    }
    let steps = match version {
        0 => &[TABLES, TRAIL, REVISIONS][..],
        // Marks went to a log of their own. What waited here is covered by the complete reads that a start asks for.
        1 => &["DROP TABLE mark_log", TRAIL, REVISIONS],
        2 => &[TRAIL, REVISIONS],
        3 => &[REVISIONS],
        _ => return Ok(()),
    };
    let transaction = connection.transaction()?;
    for step in steps {
        transaction.execute_batch(step)?;
    }
    transaction.pragma_update(None, "user_version", VERSION)?;
    transaction.commit()?;
    Ok(())
}

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    /// A later version wrote it.
    #[error(
        "the store file has layout {found}, this version knows layouts up to {VERSION}: use the newer version"
    )]
    Newer {
        /// Its layout.
        found: i64,
    },
    /// SQLite says no.
    #[error("the store file could not be prepared")]
    Sqlite(#[from] rusqlite::Error),
}

/// Counts the starts of the service on this file: the upper half of every generation.
pub(super) fn next_epoch(connection: &Connection) -> rusqlite::Result<u32> {
    connection.query_row(
        "INSERT INTO meta (name, value) VALUES ('epoch', 1)
         ON CONFLICT (name) DO UPDATE SET value = value + 1 RETURNING value",
        [],
        |row| row.get(0),
    )
}

/// The last revision that any company, or the list of jobs, got.
pub(super) fn revision(connection: &Connection) -> rusqlite::Result<u64> {
    let value = connection
        .query_row("SELECT value FROM meta WHERE name = 'revision'", [], |row| row.get::<_, i64>(0))?;
    Ok(value.cast_unsigned())
}

/// The next one.
pub(super) fn next_revision(connection: &Connection) -> rusqlite::Result<u64> {
    connection
        .prepare_cached("UPDATE meta SET value = value + 1 WHERE name = 'revision' RETURNING value")?
        .query_row([], |row| row.get::<_, i64>(0))
        .map(i64::cast_unsigned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_the_layout_before_gets_its_first_revisions() {
        let mut connection = Connection::open_in_memory().unwrap();
        connection.execute_batch(&format!("{TABLES}{TRAIL} PRAGMA user_version = 3")).unwrap();
        let rows = "INSERT INTO company (id, applied) VALUES ('acme', x'7b7d'), ('beta', x'7b7d');
                    INSERT INTO job (id, document) VALUES ('job', x'7b7d')";
        connection.execute_batch(rows).unwrap();
        prepare(&mut connection).unwrap();
        let number = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap();
        assert_eq!(number("SELECT count(*) FROM company WHERE revision = 1"), 2);
        assert_eq!(number("SELECT version + cancelled FROM job"), 0);
        assert_eq!((revision(&connection).unwrap(), next_revision(&connection).unwrap()), (1, 2));
        assert_eq!(number("PRAGMA user_version"), VERSION);
        prepare(&mut connection).unwrap();
        assert_eq!(revision(&connection).unwrap(), 2, "nothing is done twice");
    }
}
