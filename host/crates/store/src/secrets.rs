use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use async_trait::async_trait;
use aws_lc_rs::aead::{AES_256_GCM, Aad, Nonce, RandomizedNonceKey};
use rusqlite::{Connection, params};
use tokio::task::spawn_blocking;
use wasmeter_catalog::{SecretEntry, SecretError, SecretStore, SecretValue};
use wasmeter_types::{SecretName, TenantName, unix_ns};

use crate::event_log::OpenError;
use crate::migrate::migrate;

/// Every version of the file's form, from the first on; entries are only ever added.
const MIGRATIONS: &[&str] = &[
    // 1
    "CREATE TABLE secret (
        tenant TEXT NOT NULL, name TEXT NOT NULL, updated_ns INTEGER NOT NULL,
        nonce BLOB NOT NULL, sealed BLOB NOT NULL,
        PRIMARY KEY (tenant, name)
    ) STRICT, WITHOUT ROWID",
];

/// Secrets of one tenant.
const MOST: usize = 100;

/// Secrets in one SQLite file, each sealed with AES-256-GCM for its tenant and name. What is sealed is also in memory,
/// so that no call reads the disk; it is opened for who asks. Cheap to clone.
#[derive(Clone)]
pub struct SqliteSecretStore {
    inner: Arc<Inner>,
}

struct Inner {
    connection: Mutex<Connection>,
    key: RandomizedNonceKey,
    tenants: RwLock<BTreeMap<TenantName, BTreeMap<SecretName, Sealed>>>,
}

#[derive(Clone)]
struct Sealed {
    updated_ns: u64,
    nonce: [u8; 12],
    /// With the tag at its end.
    bytes: Vec<u8>,
}

impl SqliteSecretStore {
    /// Opens the file, creates it (mode 0600) or brings it to this build's version, and opens every secret in it once, so
    /// that a wrong key shows at the start. Those of tenants that are not there are removed: a crash may have left them.
    /// Blocking.
    ///
    /// # Errors
    /// Names the file and why: not accessible, damaged, of a newer version, or sealed with another key.
    pub fn open(path: &Path, key: &[u8; 32], is_there: impl Fn(&str) -> bool) -> Result<Self, OpenError> {
        let fail = |reason: String| OpenError::new("secrets", path, reason);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        options.open(path).map_err(|e| fail(e.to_string()))?;
        let mut connection = Connection::open(path).map_err(|e| fail(e.to_string()))?;
        let configured = connection
            .busy_timeout(Duration::from_secs(5))
            .and_then(|()| connection.pragma_update(None, "journal_mode", "WAL"))
            .and_then(|()| connection.pragma_update(None, "synchronous", "FULL"))
            // What was removed must not stay readable to who finds the key later.
            .and_then(|()| connection.pragma_update(None, "secure_delete", true));
        configured.map_err(|e| fail(e.to_string()))?;
        migrate(&mut connection, MIGRATIONS).map_err(|e| fail(e.to_string()))?;
        let key = RandomizedNonceKey::new(&AES_256_GCM, key).map_err(|_| fail("no cipher".to_owned()))?;
        let mut tenants = read_all(&connection).map_err(|e| fail(e.to_string()))?;
        for (tenant, _) in tenants.extract_if(.., |tenant, _| !is_there(tenant.as_str())) {
            connection
                .execute("DELETE FROM secret WHERE tenant = ?1", [tenant.as_str()])
                .map_err(|e| fail(e.to_string()))?;
        }
        for (tenant, secrets) in &tenants {
            for (name, sealed) in secrets {
                unseal(&key, tenant, name, sealed).map_err(|e| {
                    fail(format!(
                        "{e}: restore keys/secrets.key, or remove the file and set the secrets anew"
                    ))
                })?;
            }
        }
        let connection = Mutex::new(connection);
        Ok(Self { inner: Arc::new(Inner { connection, key, tenants: RwLock::new(tenants) }) })
    }

    /// Changes the file and then the memory, one change at a time, away from the async workers.
    async fn change<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner, &Connection) -> Result<T, SecretError> + Send + 'static,
    ) -> Result<T, SecretError> {
        let inner = self.inner.clone();
        let work = move || work(&inner, &inner.connection.lock().unwrap_or_else(PoisonError::into_inner));
        spawn_blocking(work).await.map_err(io)?
    }
}

fn io(error: impl std::fmt::Display) -> SecretError {
    SecretError::Io(error.to_string())
}

fn read_all(
    connection: &Connection,
) -> Result<BTreeMap<TenantName, BTreeMap<SecretName, Sealed>>, Box<dyn std::error::Error>> {
    let mut select = connection.prepare("SELECT tenant, name, updated_ns, nonce, sealed FROM secret")?;
    let mut rows = select.query([])?;
    let mut tenants: BTreeMap<_, BTreeMap<_, _>> = BTreeMap::new();
    while let Some(row) = rows.next()? {
        let (tenant, name): (String, String) = (row.get(0)?, row.get(1)?);
        let updated_ns = u64::try_from(row.get::<_, i64>(2)?)?;
        let sealed = Sealed { updated_ns, nonce: row.get(3)?, bytes: row.get(4)? };
        tenants.entry(tenant.parse()?).or_default().insert(name.parse()?, sealed);
    }
    Ok(tenants)
}

/// What a sealed value is bound to: moved to another tenant or name, it does not open.
fn context(tenant: &TenantName, name: &SecretName) -> Aad<Vec<u8>> {
    Aad::from(format!("wasmeter secret 1\n{tenant}\n{name}").into_bytes())
}

fn unseal(
    key: &RandomizedNonceKey,
    tenant: &TenantName,
    name: &SecretName,
    sealed: &Sealed,
) -> Result<SecretValue, SecretError> {
    let mut bytes = sealed.bytes.clone();
    let nonce = Nonce::assume_unique_for_key(sealed.nonce);
    let opened = key.open_in_place(nonce, context(tenant, name), &mut bytes).map(|plain| plain.len());
    let damaged = |_| SecretError::Damaged { tenant: tenant.clone(), name: name.clone() };
    bytes.truncate(opened.map_err(damaged)?);
    Ok(SecretValue::new(bytes))
}

impl Inner {
    fn put(
        &self,
        connection: &Connection,
        tenant: TenantName,
        name: SecretName,
        value: SecretValue,
    ) -> Result<bool, SecretError> {
        let known = |tenants: &BTreeMap<_, BTreeMap<_, _>>| {
            tenants.get(&tenant).map_or((0, false), |secrets| (secrets.len(), secrets.contains_key(&name)))
        };
        let (held, replaced) = known(&self.tenants.read().unwrap_or_else(PoisonError::into_inner));
        if held >= MOST && !replaced {
            return Err(SecretError::Full(held));
        }
        let mut bytes = value.into_bytes();
        let nonce = self.key.seal_in_place_append_tag(context(&tenant, &name), &mut bytes).map_err(io)?;
        let sealed = Sealed { updated_ns: unix_ns(), nonce: *nonce.as_ref(), bytes };
        connection
            .execute(
                "INSERT INTO secret (tenant, name, updated_ns, nonce, sealed) VALUES (?1, ?2, ?3, ?4, ?5)
                 ON CONFLICT (tenant, name) DO UPDATE
                 SET updated_ns = excluded.updated_ns, nonce = excluded.nonce, sealed = excluded.sealed",
                params![
                    tenant.as_str(),
                    name.as_str(),
                    i64::try_from(sealed.updated_ns).map_err(io)?,
                    sealed.nonce,
                    sealed.bytes
                ],
            )
            .map_err(io)?;
        let mut tenants = self.tenants.write().unwrap_or_else(PoisonError::into_inner);
        tenants.entry(tenant).or_default().insert(name, sealed);
        Ok(!replaced)
    }
}

#[async_trait]
impl SecretStore for SqliteSecretStore {
    async fn put(
        &self,
        tenant: &TenantName,
        name: &SecretName,
        value: SecretValue,
    ) -> Result<bool, SecretError> {
        let (tenant, name) = (tenant.clone(), name.clone());
        self.change(move |inner, connection| inner.put(connection, tenant, name, value)).await
    }

    async fn delete(&self, tenant: &TenantName, name: &SecretName) -> Result<bool, SecretError> {
        let (tenant, name) = (tenant.clone(), name.clone());
        self.change(move |inner, connection| {
            connection
                .execute(
                    "DELETE FROM secret WHERE tenant = ?1 AND name = ?2",
                    params![tenant.as_str(), name.as_str()],
                )
                .map_err(io)?;
            let mut tenants = inner.tenants.write().unwrap_or_else(PoisonError::into_inner);
            Ok(tenants.get_mut(&tenant).is_some_and(|secrets| secrets.remove(&name).is_some()))
        })
        .await
    }

    async fn forget(&self, tenant: &TenantName) -> Result<(), SecretError> {
        let tenant = tenant.clone();
        self.change(move |inner, connection| {
            connection
                .execute("DELETE FROM secret WHERE tenant = ?1", params![tenant.as_str()])
                .map_err(io)?;
            inner.tenants.write().unwrap_or_else(PoisonError::into_inner).remove(&tenant);
            Ok(())
        })
        .await
    }

    fn list(&self, tenant: &TenantName) -> Vec<SecretEntry> {
        let tenants = self.inner.tenants.read().unwrap_or_else(PoisonError::into_inner);
        let Some(secrets) = tenants.get(tenant) else { return Vec::new() };
        secrets.iter().map(|(name, s)| SecretEntry { name: name.clone(), updated_ns: s.updated_ns }).collect()
    }

    fn get(&self, tenant: &TenantName, name: &str) -> Result<Option<SecretValue>, SecretError> {
        let tenants = self.inner.tenants.read().unwrap_or_else(PoisonError::into_inner);
        let Some((name, sealed)) = tenants.get(tenant).and_then(|secrets| secrets.get_key_value(name)) else {
            return Ok(None);
        };
        let (name, sealed) = (name.clone(), sealed.clone());
        drop(tenants);
        unseal(&self.inner.key, tenant, &name, &sealed).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> (TenantName, SecretName, SecretValue) {
        ("dev".parse().unwrap(), "api-key".parse().unwrap(), SecretValue::new(b"hunter2-hunter2".to_vec()))
    }

    #[tokio::test]
    async fn a_secret_is_kept_sealed_and_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secrets.sqlite");
        let (tenant, name, value) = names();
        let store = SqliteSecretStore::open(&path, &[7; 32], |_| true).unwrap();
        assert!(store.put(&tenant, &name, SecretValue::new(b"first".to_vec())).await.unwrap());
        assert!(!store.put(&tenant, &name, value.clone()).await.unwrap());
        assert_eq!(store.get(&tenant, "api-key").unwrap(), Some(value.clone()));
        let other: TenantName = "other".parse().unwrap();
        assert_eq!(store.get(&other, "api-key").unwrap(), None);
        drop(store);
        for file in std::fs::read_dir(dir.path()).unwrap() {
            let bytes = std::fs::read(file.unwrap().path()).unwrap();
            assert!(!bytes.windows(7).any(|w| w == b"hunter2"), "in the clear on disk");
        }
        let store = SqliteSecretStore::open(&path, &[7; 32], |_| true).unwrap();
        assert_eq!(store.get(&tenant, "api-key").unwrap(), Some(value));
        assert_eq!(store.list(&tenant).len(), 1);
        assert!(store.delete(&tenant, &name).await.unwrap());
        assert!(!store.delete(&tenant, &name).await.unwrap());
        assert_eq!(store.get(&tenant, "api-key").unwrap(), None);
    }

    #[tokio::test]
    async fn another_key_or_a_moved_row_does_not_open() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secrets.sqlite");
        let (tenant, name, value) = names();
        let store = SqliteSecretStore::open(&path, &[7; 32], |_| true).unwrap();
        store.put(&tenant, &name, value).await.unwrap();
        drop(store);
        let error = SqliteSecretStore::open(&path, &[8; 32], |_| true).err().unwrap().to_string();
        assert!(error.contains("keys/secrets.key") && !error.contains("hunter2"), "{error}");
        Connection::open(&path).unwrap().execute("UPDATE secret SET tenant = 'other'", []).unwrap();
        let error = SqliteSecretStore::open(&path, &[7; 32], |_| true).err().unwrap().to_string();
        assert!(error.contains("api-key of other"), "{error}");
    }

    #[tokio::test]
    async fn a_tenant_has_so_many_and_takes_them_along() {
        let dir = tempfile::tempdir().unwrap();
        let store = SqliteSecretStore::open(&dir.path().join("s.sqlite"), &[7; 32], |_| true).unwrap();
        let (tenant, name, value) = names();
        for n in 0..MOST {
            store.put(&tenant, &format!("s{n}").parse().unwrap(), value.clone()).await.unwrap();
        }
        assert!(matches!(store.put(&tenant, &name, value.clone()).await, Err(SecretError::Full(MOST))));
        store.put(&tenant, &"s0".parse().unwrap(), value.clone()).await.unwrap();
        let other: TenantName = "other".parse().unwrap();
        store.put(&other, &name, value).await.unwrap();
        store.forget(&tenant).await.unwrap();
        assert_eq!((store.list(&tenant).len(), store.list(&other).len()), (0, 1));
        drop(store);
        let path = dir.path().join("s.sqlite");
        let store = SqliteSecretStore::open(&path, &[7; 32], |tenant| tenant == "dev").unwrap();
        assert_eq!(store.get(&other, "api-key").unwrap(), None);
    }
}
