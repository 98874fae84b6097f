//! Files that only their owner may read.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// Begins the names of files that are being written; what a crash leaves of them is removed at the next start.
pub(crate) const TEMPORARY: &str = ".tmp-";

/// Replaces the file durably, mode 0600: a reader sees the old content or the new, also after a power cut.
///
/// # Errors
/// Those of the file system; the old content is then still there.
pub fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = temporary_beside(path);
    let written = write_new(&temporary, bytes).and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        // The error that matters is the first one.
        let _ = fs::remove_file(&temporary);
    }
    written?;
    sync_dir(parent(path))
}

/// The secret in the file, or `len` new random bytes that are then kept there, mode 0600.
///
/// # Errors
/// Those of the file system; `InvalidData` if the file has another length, `PermissionDenied` if others can read it.
pub fn read_or_create_secret(path: &Path, len: usize) -> io::Result<Vec<u8>> {
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(no_follow());
    let mut file = match options.open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            let mut secret = vec![0; len];
            getrandom::fill(&mut secret).map_err(io::Error::other)?;
            write_private(path, &secret)?;
            return Ok(secret);
        }
        Err(e) => return Err(e),
    };
    let metadata = file.metadata()?;
    if metadata.permissions().mode() & 0o077 != 0 {
        let message =
            format!("{} can be read by others: chmod 600 it, or replace the secret", path.display());
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, message));
    }
    if metadata.len() != len as u64 {
        let message = format!("{} has {} bytes, not {len}: restore it", path.display(), metadata.len());
        return Err(io::Error::new(io::ErrorKind::InvalidData, message));
    }
    let mut secret = Vec::with_capacity(len);
    file.read_to_end(&mut secret)?;
    Ok(secret)
}

/// A new name in the same directory, so that the rename is atomic.
pub(crate) fn temporary_beside(path: &Path) -> PathBuf {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let next = NEXT.fetch_add(1, Ordering::Relaxed);
    parent(path).join(format!("{TEMPORARY}{}-{next}", std::process::id()))
}

/// Writes a new file of mode 0600 durably.
pub(crate) fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Makes creations, renames and removals in the directory durable.
pub(crate) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

pub(crate) fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// The open(2) flag that refuses a symbolic link. (`O_CLOEXEC` is the standard library's default.)
pub(crate) fn no_follow() -> i32 {
    rustix::fs::OFlags::NOFOLLOW.bits().cast_signed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_stays_and_is_private() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        let secret = read_or_create_secret(&path, 32).unwrap();
        assert_eq!(secret.len(), 32);
        assert_eq!(read_or_create_secret(&path, 32).unwrap(), secret);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(read_or_create_secret(&path, 64).unwrap_err().kind(), io::ErrorKind::InvalidData);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert_eq!(read_or_create_secret(&path, 32).unwrap_err().kind(), io::ErrorKind::PermissionDenied);
        let other = read_or_create_secret(&dir.path().join("other"), 32).unwrap();
        assert_ne!(other, secret);
    }

    #[test]
    fn a_replaced_file_is_private_whatever_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        fs::write(&path, "old").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        write_private(&path, b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
