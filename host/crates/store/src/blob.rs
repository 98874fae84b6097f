use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Seek};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use sha2::{Digest as _, Sha256};
use tokio::task::spawn_blocking;
use wasmeter_catalog::{BlobError, BlobKey, BlobStore};
use wasmeter_types::Digest;

use crate::private::{TEMPORARY, no_follow, parent, sync_dir, temporary_beside, write_new};

/// Blobs as files `<owner>/<kind>/<2 hex digits>/<digest>`; directories 0700, files 0600. Cheap to clone.
#[derive(Clone, Debug)]
pub struct FsBlobStore {
    root: Arc<Path>,
}

impl FsBlobStore {
    /// Opens the store in the directory, which is created if need be. What crashes left half-written is removed;
    /// so no other process may use the directory. Blocking.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn open(dir: &Path) -> io::Result<Self> {
        create_dirs(dir)?;
        remove_temporary(dir, 3)?;
        Ok(Self { root: dir.into() })
    }

    fn path(&self, key: &BlobKey) -> Result<PathBuf, BlobError> {
        // Owners come from validated names. It is checked again, since this is where a name becomes a path.
        let byte_ok = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        let owner = key.owner.as_str();
        let name_ok = (1..=64).contains(&owner.len()) && owner.bytes().all(byte_ok);
        if !name_ok && owner != "_operator" {
            let message = format!("owner {:?} is not a name", owner.chars().take(64).collect::<String>());
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message).into());
        }
        let digest = key.id.to_string();
        Ok(self.root.join(owner).join(key.kind.as_str()).join(&digest[..2]).join(digest))
    }

    async fn run<T: Send + 'static>(
        &self,
        key: &BlobKey,
        work: impl FnOnce(&Self, &BlobKey) -> Result<T, BlobError> + Send + 'static,
    ) -> Result<T, BlobError> {
        let (store, key) = (self.clone(), key.clone());
        spawn_blocking(move || work(&store, &key)).await.map_err(io::Error::other)?
    }

    fn put_blocking(&self, key: &BlobKey, bytes: &[u8]) -> Result<(), BlobError> {
        if Digest::of(bytes) != key.id {
            return Err(BlobError::Damaged(key.clone()));
        }
        let path = self.path(key)?;
        // What is there already and in order stays: a reader may have it mapped.
        if self.open(key).is_ok() {
            return Ok(());
        }
        let dir = parent(&path);
        create_dirs(dir)?;
        let temporary = temporary_beside(&path);
        let written = write_new(&temporary, bytes).and_then(|()| fs::rename(&temporary, &path));
        if written.is_err() {
            // The error that matters is the first one.
            let _ = fs::remove_file(&temporary);
        }
        written?;
        // Also the directories above may be new.
        for dir in dir.ancestors().take_while(|d| d.starts_with(&self.root)) {
            sync_dir(dir)?;
        }
        Ok(())
    }

    fn get_blocking(&self, key: &BlobKey) -> Result<Vec<u8>, BlobError> {
        let mut bytes = Vec::new();
        self.file(key)?.read_to_end(&mut bytes)?;
        if Digest::of(&bytes) != key.id {
            return Err(BlobError::Damaged(key.clone()));
        }
        Ok(bytes)
    }

    fn delete_blocking(&self, key: &BlobKey) -> Result<(), BlobError> {
        let path = self.path(key)?;
        match fs::remove_file(&path) {
            Ok(()) => Ok(sync_dir(parent(&path))?),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(e) => Err(e.into()),
        }
    }

    fn file(&self, key: &BlobKey) -> Result<File, BlobError> {
        let file = OpenOptions::new().read(true).custom_flags(no_follow()).open(self.path(key)?);
        file.map_err(|e| match e.kind() {
            io::ErrorKind::NotFound => BlobError::Missing(key.clone()),
            _ => e.into(),
        })
    }
}

#[async_trait]
impl BlobStore for FsBlobStore {
    async fn put(&self, key: &BlobKey, bytes: Vec<u8>) -> Result<(), BlobError> {
        self.run(key, move |store, key| store.put_blocking(key, &bytes)).await
    }

    async fn get(&self, key: &BlobKey) -> Result<Vec<u8>, BlobError> {
        self.run(key, Self::get_blocking).await
    }

    /// Reads the file once to check its digest: a damaged model would answer wrongly without a sound.
    fn open(&self, key: &BlobKey) -> Result<File, BlobError> {
        let mut file = self.file(key)?;
        let mut hash = Sha256::new();
        let mut chunk = vec![0; 128 << 10];
        loop {
            match file.read(&mut chunk)? {
                0 => break,
                n => hash.update(&chunk[..n]),
            }
        }
        if hex::encode(hash.finalize()) != key.id.to_string() {
            return Err(BlobError::Damaged(key.clone()));
        }
        file.rewind()?;
        Ok(file)
    }

    async fn delete(&self, key: &BlobKey) -> Result<(), BlobError> {
        self.run(key, Self::delete_blocking).await
    }
}

fn create_dirs(dir: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

fn remove_temporary(dir: &Path, depth: u32) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        // Of the entry itself, not of what a link points to.
        if entry.file_type()?.is_dir() {
            if depth > 0 {
                remove_temporary(&entry.path(), depth - 1)?;
            }
        } else if entry.file_name().as_encoded_bytes().starts_with(TEMPORARY.as_bytes()) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use wasmeter_catalog::BlobKind;

    use super::*;

    fn key(owner: &str, bytes: &[u8]) -> BlobKey {
        BlobKey { owner: owner.into(), kind: BlobKind::Model, id: Digest::of(bytes) }
    }

    fn modes(dir: &Path) {
        for entry in fs::read_dir(dir).unwrap() {
            let entry = entry.unwrap();
            let metadata = entry.metadata().unwrap();
            assert_eq!(metadata.permissions().mode() & 0o077, 0, "{:?}", entry.path());
            if metadata.is_dir() {
                modes(&entry.path());
            }
        }
    }

    #[tokio::test]
    async fn gives_back_what_was_put() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("blobs");
        let store = FsBlobStore::open(&root).unwrap();
        let k = key("dev", b"bytes");
        assert!(matches!(store.get(&k).await, Err(BlobError::Missing(_))));
        assert!(matches!(store.put(&k, b"other".to_vec()).await, Err(BlobError::Damaged(_))));
        store.put(&k, b"bytes".to_vec()).await.unwrap();
        store.put(&k, b"bytes".to_vec()).await.unwrap();
        // The same bytes of another owner are another blob.
        assert!(matches!(store.get(&key("_operator", b"bytes")).await, Err(BlobError::Missing(_))));
        let store = FsBlobStore::open(&root).unwrap();
        assert_eq!(store.get(&k).await.unwrap(), b"bytes");
        let mut file = store.open(&k).unwrap();
        let mut read = String::new();
        file.read_to_string(&mut read).unwrap();
        assert_eq!(read, "bytes");
        assert!(io::Write::write(&mut file, b"x").is_err());
        modes(&root);
        store.delete(&k).await.unwrap();
        store.delete(&k).await.unwrap();
        assert!(matches!(store.open(&k), Err(BlobError::Missing(_))));
    }

    #[tokio::test]
    async fn damage_is_seen_and_a_new_put_repairs_it() {
        let dir = tempfile::tempdir().unwrap();
        let store = FsBlobStore::open(dir.path()).unwrap();
        let k = key("dev", b"bytes");
        store.put(&k, b"bytes".to_vec()).await.unwrap();
        fs::write(store.path(&k).unwrap(), b"bytez").unwrap();
        assert!(matches!(store.get(&k).await, Err(BlobError::Damaged(_))));
        assert!(matches!(store.open(&k), Err(BlobError::Damaged(_))));
        store.put(&k, b"bytes".to_vec()).await.unwrap();
        assert_eq!(store.get(&k).await.unwrap(), b"bytes");
    }

    #[tokio::test]
    async fn no_name_or_link_leads_out() {
        let dir = tempfile::tempdir().unwrap();
        let store = FsBlobStore::open(&dir.path().join("blobs")).unwrap();
        for bad in ["", "..", ".", "a/b", "../x", "A", "_operator2", "a\0b", &"x".repeat(65)] {
            assert!(
                matches!(store.put(&key(bad, b"x"), b"x".to_vec()).await, Err(BlobError::Io(_))),
                "{bad:?}"
            );
        }
        let k = key("dev", b"secret");
        let outside = dir.path().join("outside");
        fs::write(&outside, b"secret").unwrap();
        let path = store.path(&k).unwrap();
        fs::create_dir_all(parent(&path)).unwrap();
        std::os::unix::fs::symlink(&outside, &path).unwrap();
        assert!(matches!(store.get(&k).await, Err(BlobError::Io(_))));
        assert!(store.open(&k).is_err());
    }

    #[tokio::test]
    async fn opening_removes_what_a_crash_left() {
        let dir = tempfile::tempdir().unwrap();
        let store = FsBlobStore::open(dir.path()).unwrap();
        let k = key("dev", b"bytes");
        store.put(&k, b"bytes".to_vec()).await.unwrap();
        let left = parent(&store.path(&k).unwrap()).join(format!("{TEMPORARY}1-1"));
        fs::write(&left, b"byt").unwrap();
        let store = FsBlobStore::open(dir.path()).unwrap();
        assert!(!left.exists());
        assert_eq!(store.get(&k).await.unwrap(), b"bytes");
    }

    #[tokio::test]
    async fn many_puts_of_one_blob_agree() {
        let dir = tempfile::tempdir().unwrap();
        let store = FsBlobStore::open(dir.path()).unwrap();
        let bytes = vec![7; 1 << 20];
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..8 {
            let (store, bytes) = (store.clone(), bytes.clone());
            tasks.spawn(async move { store.put(&key("dev", &bytes), bytes).await.is_ok() });
        }
        assert!(tasks.join_all().await.into_iter().all(|ok| ok));
        assert_eq!(store.get(&key("dev", &bytes)).await.unwrap(), bytes);
    }
}
