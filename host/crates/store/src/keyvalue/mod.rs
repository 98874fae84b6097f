mod accounts;
mod apply;
mod read;
mod room;
mod write;

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::Duration;

use async_trait::async_trait;
use rusqlite::Connection;
use tokio::sync::oneshot;
use wasmeter_catalog::{Author, Change, KeyPage, KeyValueError, KeyValueStore, Space};
use wasmeter_types::{FunctionName, TenantName};

use crate::event_log::OpenError;
use crate::migrate::migrate;
use read::Read;
use room::{Room, Taken};
use write::{Work, Write, Writer};

/// Every version of the file's form, from the first on; entries are only ever added.
const MIGRATIONS: &[&str] = &[
    // 1: a doomed space belongs to nobody any more; its pairs go little by little.
    "CREATE TABLE space (
        id INTEGER PRIMARY KEY, tenant TEXT NOT NULL, function TEXT NOT NULL, bucket TEXT NOT NULL,
        doomed INTEGER NOT NULL DEFAULT 0
    ) STRICT;
    CREATE UNIQUE INDEX space_by_name ON space (tenant, function, bucket) WHERE doomed = 0;
    CREATE TABLE pair (
        id INTEGER PRIMARY KEY AUTOINCREMENT, space INTEGER NOT NULL, key TEXT NOT NULL, value BLOB NOT NULL,
        UNIQUE (space, key)
    ) STRICT;
    CREATE INDEX pair_by_space ON pair (space)",
];

/// Threads that read.
const READERS: usize = 2;

/// What the operator decides about pairs.
#[derive(Clone, Copy, Debug)]
pub struct KeyValueOptions {
    /// Bytes of keys and values of one tenant, in all its functions.
    pub tenant_total: u64,
    /// Whether a change is flushed to the disk before it is answered; else it survives the death of this process alone.
    pub power: bool,
}

impl Default for KeyValueOptions {
    fn default() -> Self {
        Self { tenant_total: 1 << 30, power: false }
    }
}

/// Pairs in one SQLite file. A thread writes, what waits together in one transaction; others read. Cheap to clone.
#[derive(Clone)]
pub struct SqliteKeyValueStore {
    inner: Arc<Inner>,
}

struct Inner {
    writer: SyncSender<Write>,
    readers: Vec<SyncSender<Read>>,
    next: AtomicUsize,
    room: Room,
}

impl SqliteKeyValueStore {
    /// Opens the file, creates it (mode 0600) or brings it to this build's version. Pairs of functions that are not there
    /// are removed: a crash may have left them. Blocking.
    ///
    /// # Errors
    /// Names the file and why: not accessible, damaged, of a newer version, or no thread can be started.
    pub fn open(
        path: &Path,
        options: KeyValueOptions,
        is_there: impl Fn(&str, &str) -> bool,
    ) -> Result<Self, OpenError> {
        let fail = |reason: String| OpenError::new("key-value", path, reason);
        let mut file = OpenOptions::new();
        file.read(true).write(true).create(true).truncate(false).mode(0o600);
        file.open(path).map_err(|e| fail(e.to_string()))?;
        let mut connection = connect(path).map_err(|e| fail(e.to_string()))?;
        let synchronous = if options.power { "FULL" } else { "NORMAL" };
        connection.pragma_update(None, "synchronous", synchronous).map_err(|e| fail(e.to_string()))?;
        migrate(&mut connection, MIGRATIONS).map_err(|e| fail(e.to_string()))?;
        let writer =
            Writer::new(connection, options.tenant_total, is_there).map_err(|e| fail(e.to_string()))?;
        // As many as the room admits, so that no sender meets a full channel.
        let (sender, commands) = sync_channel(room::COMMANDS);
        thread("kv-write", move || writer.run(&commands)).map_err(|e| fail(e.to_string()))?;
        let mut readers = Vec::new();
        for _ in 0..READERS {
            let connection = connect(path).map_err(|e| fail(e.to_string()))?;
            connection.pragma_update(None, "query_only", true).map_err(|e| fail(e.to_string()))?;
            let (sender, questions) = sync_channel(room::COMMANDS);
            thread("kv-read", move || read::run(connection, &questions)).map_err(|e| fail(e.to_string()))?;
            readers.push(sender);
        }
        let inner = Inner { writer: sender, readers, next: AtomicUsize::new(0), room: Room::default() };
        Ok(Self { inner: Arc::new(inner) })
    }

    async fn write<T: Send + 'static>(
        &self,
        taken: Taken,
        work: impl FnOnce(oneshot::Sender<Result<T, KeyValueError>>) -> Work,
    ) -> Result<T, KeyValueError> {
        let (answer, answered) = oneshot::channel();
        let write = Write { work: work(answer), taken };
        self.inner.writer.try_send(write).map_err(|_| gone("the writer"))?;
        answered.await.map_err(|_| gone("the writer"))?
    }

    async fn read<T: Send + 'static>(
        &self,
        tenant: &TenantName,
        question: impl FnOnce(&mut Connection) -> rusqlite::Result<Result<T, KeyValueError>> + Send + 'static,
    ) -> Result<T, KeyValueError> {
        let taken = self.inner.room.take(tenant, 0).await;
        let (answer, answered) = oneshot::channel();
        let read: Read = Box::new(move |connection| {
            let found = question(connection).unwrap_or_else(|error| {
                tracing::error!(%error, "pairs cannot be read");
                Err(KeyValueError::Failed)
            });
            // Who asked may have ended.
            let _ = answer.send(found);
            drop(taken);
        });
        let next = self.inner.next.fetch_add(1, Ordering::Relaxed) % self.inner.readers.len();
        self.inner.readers[next].try_send(read).map_err(|_| gone("a reader"))?;
        answered.await.map_err(|_| gone("a reader"))?
    }
}

fn gone(what: &'static str) -> KeyValueError {
    tracing::error!(what, "a thread of the key-value store is gone");
    KeyValueError::Failed
}

fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open(path)?;
    connection.busy_timeout(Duration::from_secs(5))?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    Ok(connection)
}

fn thread(name: &str, work: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
    std::thread::Builder::new().name(name.to_owned()).spawn(work).map(drop)
}

#[async_trait]
impl KeyValueStore for SqliteKeyValueStore {
    async fn get(
        &self,
        space: &Space,
        keys: Vec<String>,
        most: u64,
    ) -> Result<Vec<Option<Vec<u8>>>, KeyValueError> {
        let asked = space.clone();
        self.read(&space.tenant, move |connection| read::get(connection, &asked, &keys, most)).await
    }

    async fn exists(&self, space: &Space, key: String) -> Result<bool, KeyValueError> {
        let asked = space.clone();
        self.read(&space.tenant, move |connection| read::exists(connection, &asked, &key).map(Ok)).await
    }

    async fn keys(&self, space: &Space, from: u64) -> Result<KeyPage, KeyValueError> {
        let asked = space.clone();
        self.read(&space.tenant, move |connection| read::keys(connection, &asked, from).map(Ok)).await
    }

    async fn change(
        &self,
        space: &Space,
        author: Author,
        change: Change,
    ) -> Result<Option<u64>, KeyValueError> {
        let bytes = match &change {
            Change::Set(pairs) => pairs.iter().map(|(key, value)| key.len() + value.len()).sum(),
            Change::Delete(keys) => keys.iter().map(String::len).sum(),
            Change::Increment(key, _) => key.len(),
        };
        let taken = self.inner.room.take(&space.tenant, bytes).await;
        self.write(taken, |answer| Work::Change { space: space.clone(), author, change, answer }).await
    }

    async fn forget(
        &self,
        tenant: &TenantName,
        function: &FunctionName,
        until_ns: u64,
    ) -> Result<(), KeyValueError> {
        let taken = self.inner.room.take(tenant, 0).await;
        let (tenant, function) = (tenant.clone(), function.clone());
        self.write(taken, |answer| Work::Forget { tenant, function, until_ns, answer }).await
    }
}

#[cfg(test)]
mod tests;
