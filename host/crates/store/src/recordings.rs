use std::collections::HashMap;
use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use async_trait::async_trait;
use aws_lc_rs::aead::{AES_256_GCM, Aad, Nonce, RandomizedNonceKey};
use rusqlite::{Connection, OptionalExtension as _, params};
use tokio::sync::oneshot;
use wasmeter_catalog::{Recorded, RecordingError, RecordingStore};
use wasmeter_types::{InvocationId, TenantName, unix_ns};

use crate::event_log::OpenError;
use crate::migrate::migrate;

/// Every version of the file's form, from the first on; entries are only ever added.
const MIGRATIONS: &[&str] = &[
    // 1
    "CREATE TABLE recording (
        id INTEGER PRIMARY KEY AUTOINCREMENT, tenant TEXT NOT NULL, invocation TEXT NOT NULL UNIQUE,
        at_ns INTEGER NOT NULL, nonce BLOB NOT NULL, sealed BLOB NOT NULL
    ) STRICT;
    CREATE INDEX recording_by_tenant ON recording (tenant, id);
    CREATE INDEX recording_by_age ON recording (at_ns)",
];

/// Orders that may wait for the thread, and bytes in them.
const ORDERS: usize = 4096;
const WAITING: usize = 64 << 20;
/// Orders of one transaction.
const BATCH: usize = 256;
/// How often what is too old is looked for when nothing else happens.
const SWEEP: Duration = Duration::from_secs(60);

/// What the operator decides about recordings.
#[derive(Clone, Copy, Debug)]
pub struct RecordingOptions {
    /// Bytes of one tenant; the oldest make room for new ones.
    pub tenant_total: u64,
    /// How long one is kept.
    pub keep: Duration,
}

impl Default for RecordingOptions {
    fn default() -> Self {
        Self { tenant_total: 64 << 20, keep: Duration::from_secs(7 * 24 * 3600) }
    }
}

/// Recordings in one SQLite file, each sealed with AES-256-GCM for its tenant and call, since they hold what callers
/// sent. One thread does all of it, in the order that it is asked. Cheap to clone.
#[derive(Clone)]
pub struct SqliteRecordingStore {
    orders: SyncSender<Order>,
    waiting: Arc<AtomicUsize>,
}

type Answer<T> = oneshot::Sender<Result<T, RecordingError>>;

enum Order {
    Keep(TenantName, InvocationId, Vec<u8>),
    Get(TenantName, InvocationId, Answer<Option<Vec<u8>>>),
    Recorded(TenantName, Answer<Recorded>),
    Forget(TenantName, Answer<()>),
}

/// Answers when its transaction has ended, with why it was not committed if so.
type Committed = Box<dyn FnOnce(Option<&rusqlite::Error>)>;

fn committed<T: 'static>(answer: Answer<T>, result: Result<T, RecordingError>) -> Committed {
    // Who asked may have ended.
    Box::new(move |failed| drop(answer.send(failed.map_or(result, |error| Err(io(error))))))
}

struct Worker {
    connection: Connection,
    key: RandomizedNonceKey,
    options: RecordingOptions,
    /// Whether a tenant still has its calls recorded.
    is_on: Box<dyn Fn(&str) -> bool + Send>,
    /// Bytes of each tenant.
    held: HashMap<String, u64>,
    waiting: Arc<AtomicUsize>,
}

impl SqliteRecordingStore {
    /// Opens the file, creates it (mode 0600) or brings it to this build's version. `is_on` says who has calls recorded:
    /// what others have in the file is removed, and a tenant that is first switched off there and then forgotten here
    /// leaves nothing, whatever call of its ends meanwhile. Blocking.
    ///
    /// # Errors
    /// Names the file and why: not accessible, damaged, of a newer version, or no thread can be started.
    pub fn open(
        path: &Path,
        key: &[u8; 32],
        options: RecordingOptions,
        is_on: impl Fn(&str) -> bool + Send + 'static,
    ) -> Result<Self, OpenError> {
        let fail = |reason: String| OpenError::new("recordings", path, reason);
        let mut file = OpenOptions::new();
        file.read(true).write(true).create(true).truncate(false).mode(0o600);
        file.open(path).map_err(|e| fail(e.to_string()))?;
        let mut connection = Connection::open(path).map_err(|e| fail(e.to_string()))?;
        let configured = connection
            .busy_timeout(Duration::from_secs(5))
            .and_then(|()| connection.pragma_update(None, "journal_mode", "WAL"))
            .and_then(|()| connection.pragma_update(None, "synchronous", "NORMAL"))
            .and_then(|()| connection.pragma_update(None, "secure_delete", true));
        configured.map_err(|e| fail(e.to_string()))?;
        migrate(&mut connection, MIGRATIONS).map_err(|e| fail(e.to_string()))?;
        let key = RandomizedNonceKey::new(&AES_256_GCM, key).map_err(|_| fail("no cipher".to_owned()))?;
        let waiting = Arc::new(AtomicUsize::new(0));
        let held = held(&connection).map_err(|e| fail(e.to_string()))?;
        let (is_on, counter) = (Box::new(is_on), waiting.clone());
        let mut worker = Worker { connection, key, options, is_on, held, waiting: counter };
        let gone: Vec<String> =
            worker.held.keys().filter(|tenant| !(worker.is_on)(tenant)).cloned().collect();
        for tenant in gone {
            worker.forget(&tenant).map_err(|e| fail(e.to_string()))?;
        }
        let (orders, taken) = sync_channel(ORDERS);
        let thread = std::thread::Builder::new().name("recordings".to_owned());
        thread.spawn(move || worker.run(&taken)).map_err(|e| fail(e.to_string()))?;
        Ok(Self { orders, waiting })
    }

    async fn ask<T>(&self, order: impl FnOnce(Answer<T>) -> Order) -> Result<T, RecordingError> {
        let (answer, answered) = oneshot::channel();
        self.orders.try_send(order(answer)).map_err(|_| io("the thread is behind or gone"))?;
        answered.await.map_err(|_| io("it was not done; the host's log says why"))?
    }
}

fn io(error: impl std::fmt::Display) -> RecordingError {
    RecordingError::Io(error.to_string())
}

fn held(connection: &Connection) -> rusqlite::Result<HashMap<String, u64>> {
    let mut select =
        connection.prepare("SELECT tenant, sum(length(sealed)) FROM recording GROUP BY tenant")?;
    let rows = select.query_map([], |row| Ok((row.get(0)?, row.get::<_, i64>(1)?.cast_unsigned())))?;
    rows.collect()
}

/// SQLite's integers are signed; no clock comes near the difference.
fn signed(ns: u64) -> i64 {
    i64::try_from(ns).unwrap_or(i64::MAX)
}

/// What a sealed recording is bound to: moved to another tenant or call, it does not open.
fn context(tenant: &str, invocation: &InvocationId) -> Aad<Vec<u8>> {
    Aad::from(format!("wasmeter recording 1\n{tenant}\n{invocation}").into_bytes())
}

impl Worker {
    fn run(mut self, orders: &Receiver<Order>) {
        loop {
            let first = match orders.recv_timeout(SWEEP) {
                Ok(order) => Some(order),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            if let Err(error) = self.batch(first, orders) {
                tracing::error!(%error, "recordings were not kept");
                // What the transaction held is gone, and what was counted of it.
                self.held = held(&self.connection).unwrap_or_default();
            }
        }
    }

    /// What waits, in one transaction. Who asked hears of it when it is committed.
    fn batch(&mut self, first: Option<Order>, orders: &Receiver<Order>) -> rusqlite::Result<()> {
        let mut answers = Vec::new();
        let mut done = self.connection.execute_batch("BEGIN IMMEDIATE").and_then(|()| self.sweep());
        for order in first.into_iter().chain(orders.try_iter()).take(BATCH) {
            if let Order::Keep(_, _, bytes) = &order {
                self.waiting.fetch_sub(bytes.len(), Ordering::Relaxed);
            }
            done = done.and_then(|()| self.obey(order, &mut answers));
        }
        let end = if done.is_ok() { "COMMIT" } else { "ROLLBACK" };
        let done = done.and(self.connection.execute_batch(end));
        for answer in answers {
            answer(done.as_ref().err());
        }
        done
    }

    fn obey(&mut self, order: Order, answers: &mut Vec<Committed>) -> rusqlite::Result<()> {
        match order {
            Order::Keep(tenant, invocation, bytes) if (self.is_on)(tenant.as_str()) => {
                self.keep(tenant.as_str(), invocation, bytes)?;
            }
            Order::Keep(..) => {}
            Order::Get(tenant, invocation, answer) => {
                answers.push(committed(answer, self.get(tenant.as_str(), invocation)));
            }
            Order::Recorded(tenant, answer) => {
                answers.push(committed(answer, self.recorded(tenant.as_str()).map_err(io)));
            }
            Order::Forget(tenant, answer) => {
                answers.push(committed(answer, self.forget(tenant.as_str()).map_err(io)));
            }
        }
        Ok(())
    }

    fn keep(&mut self, tenant: &str, invocation: InvocationId, mut bytes: Vec<u8>) -> rusqlite::Result<()> {
        let Ok(nonce) = self.key.seal_in_place_append_tag(context(tenant, &invocation), &mut bytes) else {
            return Ok(());
        };
        let size = bytes.len() as u64;
        if size > self.options.tenant_total {
            return Ok(());
        }
        let nonce: &[u8; 12] = nonce.as_ref();
        self.connection
            .prepare_cached(
                "INSERT INTO recording (tenant, invocation, at_ns, nonce, sealed) VALUES (?1, ?2, ?3, ?4, ?5)",
            )?
            .execute(params![tenant, invocation.to_string(), signed(unix_ns()), nonce, bytes])?;
        let held = self.held.entry(tenant.to_owned()).or_default();
        *held += size;
        while *held > self.options.tenant_total {
            let gone: Option<i64> = self
                .connection
                .prepare_cached(
                    "DELETE FROM recording WHERE id = (SELECT min(id) FROM recording WHERE tenant = ?1)
                     RETURNING length(sealed)",
                )?
                .query_row([tenant], |row| row.get(0))
                .optional()?;
            let Some(gone) = gone else { break };
            *held = held.saturating_sub(gone.cast_unsigned());
        }
        Ok(())
    }

    /// When what was kept before it is too old.
    fn oldest(&self) -> i64 {
        signed(unix_ns()).saturating_sub(i64::try_from(self.options.keep.as_nanos()).unwrap_or(i64::MAX))
    }

    /// Removes some of what is too old.
    fn sweep(&mut self) -> rusqlite::Result<()> {
        let oldest = self.oldest();
        let mut delete = self.connection.prepare_cached(
            "DELETE FROM recording WHERE id IN (SELECT id FROM recording WHERE at_ns < ?1 LIMIT 256)
             RETURNING tenant, length(sealed)",
        )?;
        let mut rows = delete.query([oldest])?;
        while let Some(row) = rows.next()? {
            let (tenant, gone): (String, i64) = (row.get(0)?, row.get(1)?);
            let held = self.held.entry(tenant).or_default();
            *held = held.saturating_sub(gone.cast_unsigned());
        }
        Ok(())
    }

    fn get(&self, tenant: &str, invocation: InvocationId) -> Result<Option<Vec<u8>>, RecordingError> {
        let found = self
            .connection
            .prepare_cached(
                "SELECT nonce, sealed FROM recording WHERE invocation = ?1 AND tenant = ?2 AND at_ns >= ?3",
            )
            .and_then(|mut select| {
                let key = params![invocation.to_string(), tenant, self.oldest()];
                select
                    .query_row(key, |row| Ok((row.get::<_, [u8; 12]>(0)?, row.get::<_, Vec<u8>>(1)?)))
                    .optional()
            });
        let Some((nonce, mut bytes)) = found.map_err(io)? else { return Ok(None) };
        let nonce = Nonce::assume_unique_for_key(nonce);
        let opened = self.key.open_in_place(nonce, context(tenant, &invocation), &mut bytes).map(|p| p.len());
        bytes.truncate(opened.map_err(|_| RecordingError::Damaged(invocation))?);
        Ok(Some(bytes))
    }

    fn recorded(&self, tenant: &str) -> rusqlite::Result<Recorded> {
        let mut select =
            self.connection.prepare_cached("SELECT count(*) FROM recording WHERE tenant = ?1")?;
        let calls: i64 = select.query_row([tenant], |row| row.get(0))?;
        let bytes = self.held.get(tenant).copied().unwrap_or_default();
        Ok(Recorded { calls: calls.cast_unsigned(), bytes })
    }

    fn forget(&mut self, tenant: &str) -> rusqlite::Result<()> {
        self.connection.execute("DELETE FROM recording WHERE tenant = ?1", [tenant])?;
        self.held.remove(tenant);
        Ok(())
    }
}

#[async_trait]
impl RecordingStore for SqliteRecordingStore {
    fn keep(&self, tenant: &TenantName, invocation: InvocationId, recording: Vec<u8>) -> bool {
        let size = recording.len();
        if self.waiting.fetch_add(size, Ordering::Relaxed).saturating_add(size) > WAITING
            || self.orders.try_send(Order::Keep(tenant.clone(), invocation, recording)).is_err()
        {
            self.waiting.fetch_sub(size, Ordering::Relaxed);
            return false;
        }
        true
    }

    async fn get(
        &self,
        tenant: &TenantName,
        invocation: InvocationId,
    ) -> Result<Option<Vec<u8>>, RecordingError> {
        self.ask(|answer| Order::Get(tenant.clone(), invocation, answer)).await
    }

    async fn recorded(&self, tenant: &TenantName) -> Result<Recorded, RecordingError> {
        self.ask(|answer| Order::Recorded(tenant.clone(), answer)).await
    }

    async fn forget(&self, tenant: &TenantName) -> Result<(), RecordingError> {
        self.ask(|answer| Order::Forget(tenant.clone(), answer)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(path: &Path, options: RecordingOptions) -> SqliteRecordingStore {
        SqliteRecordingStore::open(path, &[7; 32], options, |tenant| tenant != "off").unwrap()
    }

    fn tenants() -> (TenantName, TenantName) {
        ("dev".parse().unwrap(), "off".parse().unwrap())
    }

    #[tokio::test]
    async fn a_recording_is_kept_sealed_for_its_tenant() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("recordings.sqlite");
        let ((dev, off), id) = (tenants(), InvocationId::new());
        let store = open(&path, RecordingOptions::default());
        assert!(store.keep(&dev, id, b"what the caller sent".to_vec()));
        assert!(store.keep(&off, InvocationId::new(), b"another's".to_vec()));
        assert_eq!(store.get(&dev, id).await.unwrap().unwrap(), b"what the caller sent");
        assert_eq!(store.get(&off, id).await.unwrap(), None);
        assert_eq!(store.get(&dev, InvocationId::new()).await.unwrap(), None);
        assert_eq!(
            store.recorded(&off).await.unwrap(),
            Recorded::default(),
            "a call that ended after the switch"
        );
        drop(store);
        for file in std::fs::read_dir(dir.path()).unwrap() {
            let bytes = std::fs::read(file.unwrap().path()).unwrap();
            assert!(!bytes.windows(6).any(|w| w == b"caller"), "in the clear on disk");
        }
        let store = open(&path, RecordingOptions::default());
        assert_eq!(store.get(&dev, id).await.unwrap().unwrap(), b"what the caller sent");
        let other =
            SqliteRecordingStore::open(&path, &[8; 32], RecordingOptions::default(), |_| true).unwrap();
        assert!(matches!(other.get(&dev, id).await, Err(RecordingError::Damaged(_))));
        let off =
            SqliteRecordingStore::open(&path, &[7; 32], RecordingOptions::default(), |_| false).unwrap();
        assert_eq!(
            off.recorded(&dev).await.unwrap(),
            Recorded::default(),
            "switched off and not yet forgotten"
        );
        assert!(store.keep(&dev, id, b"again".to_vec()));
        store.forget(&dev).await.unwrap();
        assert_eq!(store.get(&dev, id).await.unwrap(), None);
    }

    #[tokio::test]
    async fn the_oldest_make_room_and_the_old_go() {
        let dir = tempfile::tempdir().unwrap();
        let (dev, _) = tenants();
        let options = RecordingOptions { tenant_total: 3 * 116, ..RecordingOptions::default() };
        let store = open(&dir.path().join("a.sqlite"), options);
        let ids: Vec<_> = (0..5).map(|_| InvocationId::new()).collect();
        ids.iter().for_each(|id| assert!(store.keep(&dev, *id, vec![1; 100])));
        assert_eq!(store.recorded(&dev).await.unwrap(), Recorded { calls: 3, bytes: 3 * 116 });
        assert_eq!(store.get(&dev, ids[1]).await.unwrap(), None);
        assert!(store.get(&dev, ids[2]).await.unwrap().is_some());

        let options = RecordingOptions { keep: Duration::ZERO, ..RecordingOptions::default() };
        let store = open(&dir.path().join("b.sqlite"), options);
        assert!(store.keep(&dev, ids[0], vec![1; 100]));
        assert_eq!(store.get(&dev, ids[0]).await.unwrap(), None);
        assert_eq!(store.recorded(&dev).await.unwrap(), Recorded::default());
    }
}
