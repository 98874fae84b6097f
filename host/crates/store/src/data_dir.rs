use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use crate::private::{no_follow, write_private};
use crate::socket::billing_socket;

/// Between two attempts to take the lock.
const POLL: Duration = Duration::from_millis(20);

/// A data directory that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// Another process uses it.
    #[error(
        "the data directory {} is in use by {}: stop it, or name another directory with --data",
        path.display(), pid.map_or_else(|| "another process".to_owned(), |p| format!("process {p}"))
    )]
    InUse {
        /// The directory.
        path: PathBuf,
        /// Whose it is, as that process wrote it.
        pid: Option<u32>,
    },
    /// Others may enter it, and it does not look like ours to close.
    #[error(
        "{} can be entered by others and holds files that are not wasmeter's: name an empty directory, or chmod 700 it",
        .0.display()
    )]
    Open(PathBuf),
    /// A file operation failed.
    #[error("data directory: cannot {what} {}: {source}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
}

impl DataDirError {
    fn io<'a>(what: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> Self + use<'a> {
        move |source| Self::Io { what, path: path.to_owned(), source }
    }
}

/// The directory with everything that a single machine keeps. This process is its only user while the value lives.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    socket: PathBuf,
    _lock: File,
}

impl DataDir {
    /// Opens the directory, creates it (mode 0700, ignored by git) if need be, and takes its lock; waits up to `wait`
    /// for a predecessor that is still ending. Blocking.
    ///
    /// # Errors
    /// `InUse`, `Open`, `Io`.
    pub fn open(path: &Path, wait: Duration) -> Result<Self, DataDirError> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(DataDirError::io("create", path))?;
        // Children start in other working directories: only an absolute path means the same to them.
        let path = path.canonicalize().map_err(DataDirError::io("find", path))?;
        close_to_others(&path)?;
        let lock = lock(&path, wait)?;
        let ignore = path.join(".gitignore");
        if !ignore.exists() {
            write_private(&ignore, b"*\n").map_err(DataDirError::io("write", &ignore))?;
        }
        let socket = billing_socket(&path).map_err(DataDirError::io("place a socket for", &path))?;
        let dir = Self { path, socket, _lock: lock };
        for part in [dir.blobs(), dir.artifacts(), dir.spool(), dir.ledger(), dir.keys()] {
            match DirBuilder::new().mode(0o700).create(&part) {
                Err(e) if e.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(DataDirError::io("create", &part)(e));
                }
                _ => {}
            }
            set_private(&part)?;
        }
        Ok(dir)
    }

    /// The directory, absolute.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The catalog's database.
    #[must_use]
    pub fn catalog(&self) -> PathBuf {
        self.path.join("catalog.sqlite")
    }

    /// The database of idempotency keys.
    #[must_use]
    pub fn idempotency(&self) -> PathBuf {
        self.path.join("idempotency.sqlite")
    }

    /// The database of secrets.
    #[must_use]
    pub fn secrets(&self) -> PathBuf {
        self.path.join("secrets.sqlite")
    }

    /// The database of what functions keep.
    #[must_use]
    pub fn keyvalue(&self) -> PathBuf {
        self.path.join("keyvalue.sqlite")
    }

    /// The database of recorded calls.
    #[must_use]
    pub fn recordings(&self) -> PathBuf {
        self.path.join("recordings.sqlite")
    }

    /// Directory of the blobs.
    #[must_use]
    pub fn blobs(&self) -> PathBuf {
        self.path.join("blobs")
    }

    /// Directory of compiled artifacts: a cache.
    #[must_use]
    pub fn artifacts(&self) -> PathBuf {
        self.path.join("artifacts")
    }

    /// Directory of the usage spool.
    #[must_use]
    pub fn spool(&self) -> PathBuf {
        self.path.join("spool")
    }

    /// Directory of billing's ledger.
    #[must_use]
    pub fn ledger(&self) -> PathBuf {
        self.path.join("ledger")
    }

    /// Directory of keys.
    #[must_use]
    pub fn keys(&self) -> PathBuf {
        self.path.join("keys")
    }

    /// Billing's socket: short enough for a socket address, so not always in the directory.
    #[must_use]
    pub fn billing_socket(&self) -> &Path {
        &self.socket
    }

    /// File of the tenant `dev`'s token.
    #[must_use]
    pub fn dev_token(&self) -> PathBuf {
        self.path.join("dev-token")
    }

    /// File of the operator's token.
    #[must_use]
    pub fn operator_token(&self) -> PathBuf {
        self.path.join("operator-token")
    }
}

/// Makes sure that nobody else may enter. A directory with other people's files is not closed on them: a mistyped
/// `--data /tmp` must not break the machine.
fn close_to_others(path: &Path) -> Result<(), DataDirError> {
    let mode = fs::metadata(path).map_err(DataDirError::io("read", path))?.permissions().mode();
    if mode & 0o077 == 0 {
        return Ok(());
    }
    let empty = fs::read_dir(path).map_err(DataDirError::io("list", path))?.next().is_none();
    if !empty && !path.join("lock").exists() {
        return Err(DataDirError::Open(path.to_owned()));
    }
    set_private(path)
}

fn set_private(path: &Path) -> Result<(), DataDirError> {
    fs::set_permissions(path, fs::Permissions::from_mode(0o700)).map_err(DataDirError::io("chmod 700", path))
}

/// Takes the lock and writes this process's id into it.
fn lock(dir: &Path, wait: Duration) -> Result<File, DataDirError> {
    let path = dir.join("lock");
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600).custom_flags(no_follow());
    let mut file = options.open(&path).map_err(DataDirError::io("open", &path))?;
    let until = Instant::now() + wait;
    loop {
        match file.try_lock() {
            Ok(()) => break,
            Err(TryLockError::WouldBlock) if Instant::now() < until => thread::sleep(POLL),
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                // Only for the message: without it, it names no process.
                let _ = (&file).take(32).read_to_string(&mut holder);
                return Err(DataDirError::InUse { path: dir.to_owned(), pid: holder.trim().parse().ok() });
            }
            Err(TryLockError::Error(e)) => return Err(DataDirError::io("lock", &path)(e)),
        }
    }
    let written = file.set_len(0).and_then(|()| file.rewind());
    let written = written.and_then(|()| writeln!(file, "{}", std::process::id()));
    written.map_err(DataDirError::io("write", &path))?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn is_private_and_ignored_by_git() {
        let base = tempfile::tempdir().unwrap();
        let path = base.path().join("a/.wasmeter");
        let dir = DataDir::open(&path, Duration::ZERO).unwrap();
        assert_eq!(mode(&path), 0o700);
        assert_eq!(mode(&dir.keys()), 0o700);
        assert_eq!(fs::read_to_string(path.join(".gitignore")).unwrap(), "*\n");
        drop(dir);
        // Loosened later: closed again.
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        DataDir::open(&path, Duration::ZERO).unwrap();
        assert_eq!(mode(&path), 0o700);
    }

    #[test]
    fn does_not_close_a_directory_of_others() {
        let base = tempfile::tempdir().unwrap();
        fs::set_permissions(base.path(), fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(base.path().join("letter"), "x").unwrap();
        assert!(matches!(DataDir::open(base.path(), Duration::ZERO), Err(DataDirError::Open(_))));
        assert_eq!(mode(base.path()), 0o755);
        assert!(!base.path().join("lock").exists());
    }

    #[test]
    fn names_the_holder_and_waits_for_it() {
        let base = tempfile::tempdir().unwrap();
        let held = DataDir::open(base.path(), Duration::ZERO).unwrap();
        let error = DataDir::open(base.path(), Duration::from_millis(30)).unwrap_err().to_string();
        assert!(error.contains(&format!("process {}", std::process::id())), "{error}");
        let path = base.path().to_owned();
        let next = thread::spawn(move || DataDir::open(&path, Duration::from_secs(30)).map(drop));
        drop(held);
        next.join().unwrap().unwrap();
    }
}
