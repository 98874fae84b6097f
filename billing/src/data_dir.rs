use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::fs::{FlockOperation, flock};

/// How long a restart waits for its predecessor to let go.
const WAIT: Duration = Duration::from_secs(10);

/// The data directory, ours alone as long as this lives.
pub(crate) struct DataDir {
    path: PathBuf,
    _lock: File,
}

/// The ledger's file in a data directory.
pub(crate) fn ledger_path(data: &Path) -> PathBuf {
    data.join("ledger.sqlite")
}

impl DataDir {
    /// Makes the directory (mode 0700) where it is missing, and takes its lock, for which it waits up to ten seconds.
    pub(crate) fn open(path: &Path) -> anyhow::Result<Self> {
        let shown = path.display();
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .with_context(|| format!("cannot create data directory {shown}"))?;
        let mode =
            path.metadata().with_context(|| format!("cannot read {shown}"))?.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            bail!(
                "data directory {shown} is open to others (mode {mode:03o}); run chmod 700 on it or name another"
            );
        }
        // A file of its own: the directory may carry another program's lock.
        let file = path.join("ledger.lock");
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&file)
            .with_context(|| format!("cannot open {}", file.display()))?;
        let deadline = Instant::now() + WAIT;
        loop {
            match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => break,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock && Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(50));
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    bail!("another wasmeter-billing holds data directory {shown}; stop it first")
                }
                Err(e) => return Err(e).with_context(|| format!("cannot lock {}", file.display())),
            }
        }
        Ok(Self { path: path.to_owned(), _lock: lock })
    }

    pub(crate) fn ledger(&self) -> PathBuf {
        ledger_path(&self.path)
    }
}
