use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use crate::SpoolError;
use crate::atomic::replace;

/// How long a predecessor that is being reaped may still hold the lock.
const LOCK_WAIT: Duration = Duration::from_secs(2);

/// Takes the spool's lock; it is free again when the file is closed.
pub(crate) fn lock(dir: &Path) -> Result<File, SpoolError> {
    let path = dir.join("lock");
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    let file = options.open(&path).map_err(SpoolError::io("open", &path))?;
    let until = Instant::now() + LOCK_WAIT;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if Instant::now() < until => {
                thread::sleep(Duration::from_millis(10));
            }
            Err(TryLockError::WouldBlock) => return Err(SpoolError::InUse(dir.to_owned())),
            Err(TryLockError::Error(e)) => return Err(SpoolError::io("lock", &path)(e)),
        }
    }
}

/// The spool's name: kept from its first opening on.
pub(crate) fn node(dir: &Path, wanted: Option<&str>) -> Result<String, SpoolError> {
    let path = dir.join("node");
    let damaged = |reason: String| SpoolError::Damaged { path: path.clone(), reason };
    if let Some(kept) = read(&path)? {
        if !is_node(&kept) {
            return Err(damaged("holds no node name: restore it from a backup".to_owned()));
        }
        if let Some(wanted) = wanted.filter(|w| *w != kept) {
            return Err(damaged(format!(
                "says {kept:?}, but {wanted:?} was asked for: use one spool a node"
            )));
        }
        return Ok(kept);
    }
    let name = wanted.map_or_else(|| uuid::Uuid::now_v7().simple().to_string(), str::to_owned);
    if !is_node(&name) {
        return Err(damaged(format!("cannot be {name:?}: use 1 to 64 of a-z, 0-9 and '-'")));
    }
    replace(&path, name.as_bytes()).map_err(SpoolError::io("write", &path))?;
    Ok(name)
}

/// Takes a new epoch, durably, before anything is written under it.
///
/// It follows the last one and the epochs of segments, and is at least the clock's milliseconds: a data directory
/// that was restored from a backup must not use an epoch again that billing has booked already.
pub(crate) fn next_epoch(dir: &Path, seen: u64) -> Result<u64, SpoolError> {
    let path = dir.join("epoch");
    let last = match read(&path)? {
        None => 0,
        Some(text) => text.parse().map_err(|_| SpoolError::Damaged {
            path: path.clone(),
            reason: "holds no number: restore it from a backup".to_owned(),
        })?,
    };
    let epoch = last.max(seen).saturating_add(1).max(wasmeter_types::unix_ns() / 1_000_000);
    replace(&path, epoch.to_string().as_bytes()).map_err(SpoolError::io("write", &path))?;
    Ok(epoch)
}

fn read(path: &Path) -> Result<Option<String>, SpoolError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text.trim().to_owned())),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(SpoolError::io("read", path)(e)),
    }
}

pub(crate) fn is_node(s: &str) -> bool {
    (1..=64).contains(&s.len())
        && s.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epochs_only_grow_and_the_name_stays() {
        let dir = tempfile::tempdir().unwrap();
        let name = node(dir.path(), None).unwrap();
        assert_eq!(node(dir.path(), None).unwrap(), name);
        assert!(node(dir.path(), Some("other")).is_err());
        let far = u64::MAX / 2;
        assert_eq!(next_epoch(dir.path(), far).unwrap(), far + 1);
        assert_eq!(next_epoch(dir.path(), 0).unwrap(), far + 2);
        fs::write(dir.path().join("epoch"), "x").unwrap();
        assert!(next_epoch(dir.path(), 0).is_err());
    }

    #[test]
    fn one_process_a_spool() {
        let dir = tempfile::tempdir().unwrap();
        let held = lock(dir.path()).unwrap();
        assert!(matches!(lock(dir.path()), Err(SpoolError::InUse(_))));
        drop(held);
        lock(dir.path()).unwrap();
    }
}
