use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use rusqlite::{Connection, TransactionBehavior, params};
use tokio::task::spawn_blocking;
use wasmeter_catalog::{Event, EventLog, LogError};
use wasmeter_types::unix_ns;

use crate::migrate::migrate;

/// Every version of the file's form, from the first on; entries are only ever added.
const MIGRATIONS: &[&str] = &[
    // 1
    "CREATE TABLE event (seq INTEGER PRIMARY KEY, at_ns INTEGER NOT NULL, body TEXT NOT NULL) STRICT",
];

/// A database cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("{what} database {}: {reason}", path.display())]
pub struct OpenError {
    what: &'static str,
    path: PathBuf,
    reason: String,
}

impl OpenError {
    pub(crate) fn new(what: &'static str, path: &Path, reason: String) -> Self {
        Self { what, path: path.to_owned(), reason }
    }
}

/// The catalog's events in one SQLite file, in write-ahead mode and flushed at each commit. Cheap to clone.
#[derive(Clone)]
pub struct SqliteEventLog {
    connection: Arc<Mutex<Connection>>,
}

impl SqliteEventLog {
    /// Opens the file, creates it (mode 0600) or brings it to this build's version. Blocking.
    ///
    /// # Errors
    /// Names the file and why: not accessible, damaged, or of a newer version.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        let fail = |reason: String| OpenError::new("catalog", path, reason);
        // SQLite gives its side files the mode of the main file, so that this one must be private first.
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        options.open(path).map_err(|e| fail(e.to_string()))?;
        let mut connection = Connection::open(path).map_err(|e| fail(e.to_string()))?;
        configure(&connection).map_err(|e| fail(e.to_string()))?;
        migrate(&mut connection, MIGRATIONS).map_err(|e| fail(e.to_string()))?;
        Ok(Self { connection: Arc::new(Mutex::new(connection)) })
    }

    /// Runs blocking work away from the async workers.
    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Connection) -> Result<T, LogError> + Send + 'static,
    ) -> Result<T, LogError> {
        let connection = self.connection.clone();
        // A panic inside rolled its transaction back, so that the connection is good.
        let work = move || work(&mut connection.lock().unwrap_or_else(PoisonError::into_inner));
        spawn_blocking(work).await.map_err(io)?
    }
}

fn configure(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(Duration::from_secs(5))?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")
}

fn io(error: impl std::fmt::Display) -> LogError {
    LogError::Io(error.to_string())
}

/// SQLite's integers are signed; a sequence never comes near the difference.
fn signed(seq: u64) -> Result<i64, LogError> {
    i64::try_from(seq).map_err(|_| LogError::Io(format!("event {seq} is beyond any real one")))
}

fn read_after(connection: &Connection, seq: u64) -> Result<Vec<(u64, Event)>, LogError> {
    let mut select =
        connection.prepare_cached("SELECT seq, body FROM event WHERE seq > ?1 ORDER BY seq").map_err(io)?;
    let rows = select
        .query_map([signed(seq)?], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?)))
        .map_err(io)?;
    let mut events = Vec::new();
    for (expected, row) in (seq + 1..).zip(rows) {
        let (found, body) = row.map_err(io)?;
        if u64::try_from(found) != Ok(expected) {
            let reason = format!("it is missing, event {found} follows");
            return Err(LogError::Unreadable { seq: expected, reason });
        }
        let unreadable = |e: serde_json::Error| LogError::Unreadable { seq: expected, reason: e.to_string() };
        events.push((expected, serde_json::from_str(&body).map_err(unreadable)?));
    }
    Ok(events)
}

fn append(connection: &mut Connection, seq: u64, body: &str) -> Result<(), LogError> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(io)?;
    let last: i64 =
        transaction.query_row("SELECT coalesce(max(seq), 0) FROM event", [], |row| row.get(0)).map_err(io)?;
    let new = signed(seq)?;
    if new <= last {
        return Err(LogError::Conflict(seq));
    }
    if new > last + 1 {
        return Err(LogError::Io(format!("event {seq} would leave a gap after event {last}")));
    }
    transaction
        .execute(
            "INSERT INTO event (seq, at_ns, body) VALUES (?1, ?2, ?3)",
            params![new, signed(unix_ns())?, body],
        )
        .map_err(io)?;
    transaction.commit().map_err(io)
}

#[async_trait]
impl EventLog for SqliteEventLog {
    async fn read_after(&self, seq: u64) -> Result<Vec<(u64, Event)>, LogError> {
        self.run(move |connection| read_after(connection, seq)).await
    }

    async fn append(&self, seq: u64, event: &Event) -> Result<(), LogError> {
        let body = serde_json::to_string(event).map_err(io)?;
        self.run(move |connection| append(connection, seq, &body)).await
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use wasmeter_catalog::Catalog;

    use super::*;

    fn event(n: u64) -> Event {
        Event::TenantPut { tenant: format!("t{n}").parse().unwrap(), at_ns: n }
    }

    #[tokio::test]
    async fn keeps_events_in_order_and_refuses_what_is_taken_or_leaves_a_gap() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("catalog.sqlite");
        let log = SqliteEventLog::open(&path).unwrap();
        for n in 1..=3 {
            log.append(n, &event(n)).await.unwrap();
        }
        assert!(matches!(log.append(3, &event(9)).await, Err(LogError::Conflict(3))));
        assert!(matches!(log.append(0, &event(9)).await, Err(LogError::Conflict(0))));
        assert!(matches!(log.append(5, &event(9)).await, Err(LogError::Io(_))));
        // Another node on the same file.
        let other = SqliteEventLog::open(&path).unwrap();
        assert!(matches!(other.append(3, &event(9)).await, Err(LogError::Conflict(3))));
        other.append(4, &event(4)).await.unwrap();
        assert!(matches!(log.append(4, &event(9)).await, Err(LogError::Conflict(4))));
        drop((log, other));
        let log = SqliteEventLog::open(&path).unwrap();
        assert_eq!(log.read_after(2).await.unwrap(), [(3, event(3)), (4, event(4))]);
        assert!(log.read_after(4).await.unwrap().is_empty());
        for entry in std::fs::read_dir(dir.path()).unwrap() {
            let entry = entry.unwrap();
            assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o077, 0, "{:?}", entry.path());
        }
    }

    #[tokio::test]
    async fn of_many_writers_one_gets_each_number() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("catalog.sqlite");
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..8 {
            let log = SqliteEventLog::open(&path).unwrap();
            tasks.spawn(async move { log.append(1, &event(1)).await.is_ok() });
        }
        assert_eq!(tasks.join_all().await.into_iter().filter(|won| *won).count(), 1);
    }

    #[tokio::test]
    async fn a_missing_or_foreign_event_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("catalog.sqlite");
        let log = SqliteEventLog::open(&path).unwrap();
        for n in 1..=3 {
            log.append(n, &event(n)).await.unwrap();
        }
        let db = Connection::open(&path).unwrap();
        db.execute("UPDATE event SET body = '{\"event\":\"from_the_future\"}' WHERE seq = 3", []).unwrap();
        assert!(matches!(log.read_after(0).await, Err(LogError::Unreadable { seq: 3, .. })));
        db.execute("DELETE FROM event WHERE seq = 2", []).unwrap();
        assert!(matches!(log.read_after(0).await, Err(LogError::Unreadable { seq: 2, .. })));
    }

    /// A file as version 1 made it, written out here so that later changes of the code cannot change it.
    #[tokio::test]
    async fn a_file_of_version_1_still_opens() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("catalog.sqlite");
        let db = Connection::open(&path).unwrap();
        db.execute_batch(
            r#"PRAGMA journal_mode = WAL;
            CREATE TABLE event (seq INTEGER PRIMARY KEY, at_ns INTEGER NOT NULL, body TEXT NOT NULL) STRICT;
            INSERT INTO event VALUES (1, 1790000000000000000, '{"event":"tenant_put","tenant":"dev","at_ns":7}');
            PRAGMA user_version = 1;"#,
        )
        .unwrap();
        drop(db);
        let log = SqliteEventLog::open(&path).unwrap();
        let catalog = Catalog::open(Box::new(log)).await.unwrap();
        assert_eq!(catalog.snapshot().tenants["dev"].created_ns, 7);
        catalog.put_tenant("other".parse().unwrap()).await.unwrap();
        drop(catalog);
        let db = Connection::open(&path).unwrap();
        db.pragma_update(None, "user_version", 99).unwrap();
        let error = SqliteEventLog::open(&path).err().unwrap().to_string();
        assert!(error.contains("99") && error.contains("newer"), "{error}");
    }

    #[test]
    fn what_is_no_database_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("catalog.sqlite");
        std::fs::write(&path, "x".repeat(8192)).unwrap();
        assert!(SqliteEventLog::open(&path).is_err());
    }
}
