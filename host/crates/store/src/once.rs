use std::collections::HashMap;
use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};
use tokio::task::spawn_blocking;
use wasmeter_admission::{Claimed, KeptAnswer, OnceError, OnceKey, OnceStore};
use wasmeter_types::{InvocationId, unix_ns};

use crate::event_log::OpenError;
use crate::migrate::migrate;

/// Every version of the file's form, from the first on; entries are only ever added.
const MIGRATIONS: &[&str] = &[
    // 1
    "CREATE TABLE once (
        tenant TEXT NOT NULL, scope TEXT NOT NULL, key TEXT NOT NULL,
        fingerprint BLOB NOT NULL, invocation TEXT NOT NULL, expires_ns INTEGER NOT NULL,
        answer BLOB, answer_expires_ns INTEGER,
        PRIMARY KEY (tenant, scope, key)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX once_by_expiry ON once (expires_ns)",
];

/// Life of a key.
const LIFE: Duration = Duration::from_secs(24 * 3600);
/// Expired keys that one claim removes, so that no claim pays for a whole day.
const SWEEP: u32 = 64;

/// Bounds of what one tenant may have in the file.
#[derive(Clone, Copy)]
struct Bounds {
    keys: u32,
    answer_bytes: u64,
}

const BOUNDS: Bounds = Bounds { keys: 100_000, answer_bytes: 64 << 20 };

/// Idempotency keys in one SQLite file. Cheap to clone.
#[derive(Clone)]
pub struct SqliteOnceStore {
    inner: Arc<Mutex<Inner>>,
}

struct Inner {
    connection: Connection,
    /// Of each tenant: keys and bytes of answers. Counting the rows at each claim would grow with them.
    held: HashMap<String, (u32, u64)>,
    bounds: Bounds,
}

impl SqliteOnceStore {
    /// Opens the file, creates it (mode 0600) or brings it to this build's version. Blocking.
    ///
    /// # Errors
    /// Names the file and why: not accessible, damaged, or of a newer version.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        let fail = |reason: String| OpenError::new("idempotency", path, reason);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        options.open(path).map_err(|e| fail(e.to_string()))?;
        let mut connection = Connection::open(path).map_err(|e| fail(e.to_string()))?;
        let configured = connection
            .busy_timeout(Duration::from_secs(5))
            .and_then(|()| connection.pragma_update(None, "journal_mode", "WAL"))
            // Written, not flushed: what a power cut takes is the latest keys, and a call that is then repeated runs
            // twice. A flush at each trigger would cost milliseconds.
            .and_then(|()| connection.pragma_update(None, "synchronous", "NORMAL"));
        configured.map_err(|e| fail(e.to_string()))?;
        migrate(&mut connection, MIGRATIONS).map_err(|e| fail(e.to_string()))?;
        let held = held(&connection).map_err(|e| fail(e.to_string()))?;
        Ok(Self { inner: Arc::new(Mutex::new(Inner { connection, held, bounds: BOUNDS })) })
    }

    /// Runs blocking work away from the async workers.
    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Inner) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, OnceError> {
        let inner = self.inner.clone();
        // A panic inside rolled its transaction back, so that the connection is good.
        let work = move || work(&mut inner.lock().unwrap_or_else(PoisonError::into_inner));
        let done = spawn_blocking(work).await.map_err(|e| OnceError(e.to_string()))?;
        done.map_err(|e| OnceError(e.to_string()))
    }
}

fn held(connection: &Connection) -> rusqlite::Result<HashMap<String, (u32, u64)>> {
    let mut select = connection
        .prepare("SELECT tenant, count(*), coalesce(sum(length(answer)), 0) FROM once GROUP BY tenant")?;
    let rows = select.query_map([], |row| Ok((row.get(0)?, (row.get(1)?, row.get::<_, i64>(2)? as u64))))?;
    rows.collect()
}

/// SQLite's integers are signed; no clock comes near the difference.
fn now() -> i64 {
    i64::try_from(unix_ns()).unwrap_or(i64::MAX)
}

fn after(time: Duration) -> i64 {
    now().saturating_add(i64::try_from(time.as_nanos()).unwrap_or(i64::MAX))
}

struct Row {
    fingerprint: Vec<u8>,
    invocation: String,
    answer: Option<Vec<u8>>,
}

impl Inner {
    fn claim(&mut self, key: &OnceKey, fingerprint: [u8; 32], id: InvocationId) -> rusqlite::Result<Claimed> {
        let now = now();
        self.sweep(now)?;
        if let Some(row) = self.find(key, now)? {
            if row.fingerprint != fingerprint {
                return Ok(Claimed::Other);
            }
            let Ok(first) = row.invocation.parse() else {
                return Err(rusqlite::Error::InvalidColumnName("invocation".to_owned()));
            };
            return Ok(Claimed::Repeated { first, answer: row.answer.and_then(|bytes| unpack(&bytes)) });
        }
        let (keys, bytes) = self.held.get(key.tenant.as_str()).copied().unwrap_or_default();
        if keys >= self.bounds.keys {
            return Ok(Claimed::Full);
        }
        let mut insert = self.connection.prepare_cached(
            "INSERT INTO once (tenant, scope, key, fingerprint, invocation, expires_ns)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )?;
        let tenant = key.tenant.as_str();
        insert.execute(params![tenant, key.scope, key.key, fingerprint, id.to_string(), after(LIFE)])?;
        self.held.insert(tenant.to_owned(), (keys + 1, bytes));
        Ok(Claimed::First)
    }

    fn find(&mut self, key: &OnceKey, now: i64) -> rusqlite::Result<Option<Row>> {
        let mut select = self.connection.prepare_cached(
            "SELECT fingerprint, invocation, CASE WHEN answer_expires_ns > ?4 THEN answer END, expires_ns
             FROM once WHERE tenant = ?1 AND scope = ?2 AND key = ?3",
        )?;
        let row = select
            .query_row(params![key.tenant.as_str(), key.scope, key.key, now], |row| {
                let found = Row { fingerprint: row.get(0)?, invocation: row.get(1)?, answer: row.get(2)? };
                Ok((found, row.get::<_, i64>(3)?))
            })
            .optional()?;
        drop(select);
        match row {
            Some((row, expires)) if expires > now => Ok(Some(row)),
            Some(_) => {
                self.remove(key)?;
                Ok(None)
            }
            None => Ok(None),
        }
    }

    fn keep(&mut self, key: &OnceKey, packed: &[u8], time: Duration) -> rusqlite::Result<()> {
        let tenant = key.tenant.as_str();
        let (keys, bytes) = self.held.get(tenant).copied().unwrap_or_default();
        let total = bytes.saturating_add(packed.len() as u64);
        if total > self.bounds.answer_bytes {
            return Ok(());
        }
        let changed = self
            .connection
            .prepare_cached(
                "UPDATE once SET answer = ?4, answer_expires_ns = ?5
             WHERE tenant = ?1 AND scope = ?2 AND key = ?3 AND answer IS NULL",
            )?
            .execute(params![tenant, key.scope, key.key, packed, after(time)])?;
        if changed == 1 {
            self.held.insert(tenant.to_owned(), (keys, total));
        }
        Ok(())
    }

    fn remove(&mut self, key: &OnceKey) -> rusqlite::Result<()> {
        let gone: Option<i64> = self
            .connection
            .prepare_cached(
                "DELETE FROM once WHERE tenant = ?1 AND scope = ?2 AND key = ?3
                 RETURNING coalesce(length(answer), 0)",
            )?
            .query_row(params![key.tenant.as_str(), key.scope, key.key], |row| row.get(0))
            .optional()?;
        if let Some(bytes) = gone {
            self.forget(key.tenant.as_str(), bytes);
        }
        Ok(())
    }

    /// Removes some of what has expired.
    fn sweep(&mut self, now: i64) -> rusqlite::Result<()> {
        let mut select = self.connection.prepare_cached(
            "SELECT tenant, scope, key, coalesce(length(answer), 0) FROM once
             WHERE expires_ns <= ?1 ORDER BY expires_ns LIMIT ?2",
        )?;
        let rows = select.query_map(params![now, SWEEP], |row| {
            let key: (String, String, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
            Ok((key, row.get(3)?))
        })?;
        let rows: Vec<((String, String, String), i64)> = rows.collect::<rusqlite::Result<_>>()?;
        drop(select);
        if rows.is_empty() {
            return Ok(());
        }
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        for ((tenant, scope, key), _) in &rows {
            transaction
                .prepare_cached("DELETE FROM once WHERE tenant = ?1 AND scope = ?2 AND key = ?3")?
                .execute(params![tenant, scope, key])?;
        }
        transaction.commit()?;
        for ((tenant, ..), bytes) in &rows {
            self.forget(tenant, *bytes);
        }
        Ok(())
    }

    fn forget(&mut self, tenant: &str, answer_bytes: i64) {
        let Some((keys, bytes)) = self.held.get_mut(tenant) else { return };
        *keys = keys.saturating_sub(1);
        *bytes = bytes.saturating_sub(u64::try_from(answer_bytes).unwrap_or(0));
        if *keys == 0 {
            self.held.remove(tenant);
        }
    }
}

/// `status`, the headers as lines of `name: value`, an empty line, the body.
fn pack(answer: &KeptAnswer) -> Vec<u8> {
    let mut bytes = answer.status.as_str().as_bytes().to_vec();
    bytes.push(b'\n');
    for (name, value) in &answer.headers {
        bytes.extend_from_slice(name.as_str().as_bytes());
        bytes.extend_from_slice(b": ");
        // A header's value has no line end (RFC 9110, section 5.5).
        bytes.extend_from_slice(value.as_bytes());
        bytes.push(b'\n');
    }
    bytes.push(b'\n');
    bytes.extend_from_slice(&answer.body);
    bytes
}

fn unpack(bytes: &[u8]) -> Option<KeptAnswer> {
    let line = |bytes: &mut &[u8]| {
        let end = bytes.iter().position(|b| *b == b'\n')?;
        let line = bytes[..end].to_vec();
        *bytes = &bytes[end + 1..];
        Some(line)
    };
    let mut rest = bytes;
    let status = StatusCode::from_bytes(&line(&mut rest)?).ok()?;
    let mut headers = HeaderMap::new();
    loop {
        let header = line(&mut rest)?;
        if header.is_empty() {
            return Some(KeptAnswer { status, headers, body: rest.to_vec() });
        }
        let colon = header.windows(2).position(|pair| pair == b": ")?;
        let name = HeaderName::from_bytes(&header[..colon]).ok()?;
        headers.append(name, HeaderValue::from_bytes(&header[colon + 2..]).ok()?);
    }
}

#[async_trait]
impl OnceStore for SqliteOnceStore {
    async fn claim(
        &self,
        key: &OnceKey,
        fingerprint: [u8; 32],
        id: InvocationId,
    ) -> Result<Claimed, OnceError> {
        let key = key.clone();
        self.run(move |inner| inner.claim(&key, fingerprint, id)).await
    }

    async fn keep(&self, key: &OnceKey, answer: KeptAnswer, time: Duration) -> Result<(), OnceError> {
        let key = key.clone();
        self.run(move |inner| inner.keep(&key, &pack(&answer), time)).await
    }

    async fn release(&self, key: &OnceKey) -> Result<(), OnceError> {
        let key = key.clone();
        self.run(move |inner| inner.remove(&key)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(tenant: &str, key: &str) -> OnceKey {
        OnceKey { tenant: tenant.parse().unwrap(), scope: "fn/f".to_owned(), key: key.to_owned() }
    }

    fn answer() -> KeptAnswer {
        let mut headers = HeaderMap::new();
        headers.append("x-a", HeaderValue::from_static("1: 2"));
        headers.append("x-a", HeaderValue::from_bytes(b"\xff").unwrap());
        KeptAnswer { status: StatusCode::CREATED, headers, body: b"\n\nbody\n".to_vec() }
    }

    async fn first(store: &SqliteOnceStore, key: &OnceKey, fingerprint: u8) -> Option<bool> {
        match store.claim(key, [fingerprint; 32], InvocationId::new()).await.unwrap() {
            Claimed::First => Some(true),
            Claimed::Repeated { .. } => Some(false),
            Claimed::Other | Claimed::Full => None,
        }
    }

    #[tokio::test]
    async fn a_key_is_taken_once_and_survives_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("once.sqlite");
        let store = SqliteOnceStore::open(&path).unwrap();
        let id = InvocationId::new();
        let (a, b) = (key("a", "k"), key("b", "k"));
        assert!(matches!(store.claim(&a, [1; 32], id).await.unwrap(), Claimed::First));
        assert_eq!(first(&store, &b, 1).await, Some(true), "another tenant's key is another key");
        assert_eq!(first(&store, &a, 2).await, None, "other content");
        drop(store);
        let store = SqliteOnceStore::open(&path).unwrap();
        match store.claim(&a, [1; 32], InvocationId::new()).await.unwrap() {
            Claimed::Repeated { first, answer: None } => assert_eq!(first, id),
            other => panic!("{other:?}"),
        }
        store.keep(&a, answer(), Duration::from_secs(60)).await.unwrap();
        match store.claim(&a, [1; 32], InvocationId::new()).await.unwrap() {
            Claimed::Repeated { answer: Some(kept), .. } => assert_eq!(kept, answer()),
            other => panic!("{other:?}"),
        }
        store.release(&a).await.unwrap();
        assert_eq!(first(&store, &a, 2).await, Some(true));
    }

    #[tokio::test]
    async fn keys_and_answers_are_bounded_and_expire() {
        let dir = tempfile::tempdir().unwrap();
        let store = SqliteOnceStore::open(&dir.path().join("once.sqlite")).unwrap();
        store.inner.lock().unwrap().bounds = Bounds { keys: 2, answer_bytes: 100 };
        for name in ["1", "2"] {
            assert_eq!(first(&store, &key("a", name), 0).await, Some(true));
        }
        assert!(matches!(
            store.claim(&key("a", "3"), [0; 32], InvocationId::new()).await.unwrap(),
            Claimed::Full
        ));
        assert_eq!(first(&store, &key("b", "3"), 0).await, Some(true), "the bound is each tenant's own");
        store.keep(&key("a", "1"), answer(), Duration::ZERO).await.unwrap();
        let again = store.claim(&key("a", "1"), [0; 32], InvocationId::new()).await.unwrap();
        assert!(
            matches!(again, Claimed::Repeated { answer: None, .. }),
            "the answer's time is over: {again:?}"
        );
        let large = KeptAnswer { body: vec![0; 100], ..answer() };
        store.keep(&key("a", "2"), large, Duration::from_secs(60)).await.unwrap();
        let again = store.claim(&key("a", "2"), [0; 32], InvocationId::new()).await.unwrap();
        assert!(matches!(again, Claimed::Repeated { answer: None, .. }), "no room for the answer: {again:?}");
        store.inner.lock().unwrap().connection.execute("UPDATE once SET expires_ns = 1", []).unwrap();
        assert_eq!(first(&store, &key("a", "3"), 0).await, Some(true), "what has expired makes room");
        assert_eq!(store.inner.lock().unwrap().held["a"], (1, 0));
        assert!(!store.inner.lock().unwrap().held.contains_key("b"));
    }

    #[tokio::test]
    async fn of_many_claims_one_is_first() {
        let dir = tempfile::tempdir().unwrap();
        let store = SqliteOnceStore::open(&dir.path().join("once.sqlite")).unwrap();
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..16 {
            let store = store.clone();
            tasks.spawn(async move { first(&store, &key("a", "k"), 0).await == Some(true) });
        }
        assert_eq!(tasks.join_all().await.into_iter().filter(|won| *won).count(), 1);
    }

    /// A file as version 1 made it, written out here so that later changes of the code cannot change it.
    #[tokio::test]
    async fn a_file_of_version_1_still_opens() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("once.sqlite");
        let db = Connection::open(&path).unwrap();
        db.execute_batch(
            "CREATE TABLE once (tenant TEXT NOT NULL, scope TEXT NOT NULL, key TEXT NOT NULL,
                fingerprint BLOB NOT NULL, invocation TEXT NOT NULL, expires_ns INTEGER NOT NULL,
                answer BLOB, answer_expires_ns INTEGER, PRIMARY KEY (tenant, scope, key)) STRICT, WITHOUT ROWID;
             CREATE INDEX once_by_expiry ON once (expires_ns);
             INSERT INTO once VALUES ('a', 'fn/f', 'k', zeroblob(32), '01890a5d-ac96-774b-bcce-b302099a8057',
                9000000000000000000, CAST('200' || char(10) || 'x-a: 1' || char(10) || char(10) || 'hi' AS BLOB),
                9000000000000000000);
             PRAGMA user_version = 1;",
        )
        .unwrap();
        drop(db);
        let store = SqliteOnceStore::open(&path).unwrap();
        match store.claim(&key("a", "k"), [0; 32], InvocationId::new()).await.unwrap() {
            Claimed::Repeated { first, answer: Some(kept) } => {
                assert_eq!(first.to_string(), "01890a5d-ac96-774b-bcce-b302099a8057");
                assert_eq!((kept.status.as_u16(), kept.body.as_slice()), (200, b"hi".as_slice()));
            }
            other => panic!("{other:?}"),
        }
    }
}
