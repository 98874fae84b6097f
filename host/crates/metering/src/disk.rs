//! What the spool asks of the disk, so that tests can break it.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::fs::{FallocateFlags, fallocate, fstatfs};

/// File systems whose reserved blocks are really there when a mapping is written to: ext4, XFS, tmpfs (`statfs(2)`). Others
/// may find no room only then, which kills the process instead of failing a call.
const KEEPS_ITS_WORD: [i64; 3] = [0xef53, 0x5846_5342, 0x0102_1994];

/// The operations under a spool that can fail.
pub trait Disk: fmt::Debug + Send + Sync + 'static {
    /// Reserves a file's first bytes, so that nothing written there can find the disk full. Whether they may be written
    /// through a mapping; where not, each write is a call of [`Disk::write_at`].
    ///
    /// # Errors
    /// If there is no room.
    fn reserve(&self, file: &File, bytes: u64) -> io::Result<bool>;

    /// As `pwrite(2)`: may take less than it is given.
    ///
    /// # Errors
    /// The disk's.
    fn write_at(&self, file: &File, bytes: &[u8], at: u64) -> io::Result<usize>;

    /// On return, everything that was written to the file before is on the medium.
    ///
    /// # Errors
    /// The disk's.
    fn sync_file(&self, file: &File) -> io::Result<()>;

    /// On return, the names in the directory are on the medium.
    ///
    /// # Errors
    /// The disk's.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
}

/// The disk that there is.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealDisk;

impl Disk for RealDisk {
    fn reserve(&self, file: &File, bytes: u64) -> io::Result<bool> {
        let kind = fstatfs(file)?.f_type;
        if !KEEPS_ITS_WORD.contains(&kind) {
            return Ok(false);
        }
        match fallocate(file, FallocateFlags::empty(), 0, bytes) {
            Ok(()) => Ok(true),
            Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => Ok(false),
            Err(e) => Err(e.into()),
        }
    }

    fn write_at(&self, file: &File, bytes: &[u8], at: u64) -> io::Result<usize> {
        file.write_at(bytes, at)
    }

    fn sync_file(&self, file: &File) -> io::Result<()> {
        file.sync_data()
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }
}

/// Writes all of it at this place, in one call: a short one is a failure, so that no other writer can get in between.
pub(crate) fn write_whole(disk: &dyn Disk, file: &File, bytes: &[u8], at: u64) -> io::Result<()> {
    loop {
        match disk.write_at(file, bytes, at) {
            Ok(n) if n == bytes.len() => return Ok(()),
            Ok(n) => {
                let message = format!("only {n} of {} bytes were taken: the disk is full", bytes.len());
                return Err(io::Error::new(io::ErrorKind::StorageFull, message));
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}
