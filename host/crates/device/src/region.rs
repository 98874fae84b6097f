//! Shared memory: memfds that can neither shrink nor grow, mapped on both sides.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    ptr,
    ptr::NonNull,
};

use rustix::{
    fs::{FallocateFlags, MemfdFlags, SealFlags, fallocate, fcntl_add_seals, fstat, ftruncate, memfd_create},
    mm::{MapFlags, ProtFlags, mmap, munmap},
};

/// Where tensors begin: the width of a cache line and of the widest vector registers.
pub(crate) const ALIGN: u64 = 64;
/// Up to here writing zeros is cheaper than giving pages back and faulting them in again.
const WIPE_BY_HAND: u64 = 64 * 1024;

/// A mapped memfd of a fixed size.
pub(crate) struct Region {
    fd: OwnedFd,
    start: NonNull<u8>,
    size: usize,
    writable: bool,
}

// A mapping belongs to the process and not to a thread; all access goes through `&self` copies below, and
// the other process may change the bytes at any time anyway, so nothing here relies on exclusive access.
#[allow(unsafe_code, reason = "raw pointers are not Send by themselves")]
// SAFETY: see above.
unsafe impl Send for Region {}

impl Region {
    /// A new region, sparse and sealed in its size.
    pub(crate) fn create(name: &str, size: u64) -> io::Result<Self> {
        let fd = memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        ftruncate(&fd, size)?;
        fcntl_add_seals(&fd, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
        Self::map(fd, size, true)
    }

    /// Maps a region that the other side made; refuses one of another size.
    #[allow(unsafe_code, reason = "mapping memory")]
    pub(crate) fn map(fd: OwnedFd, size: u64, writable: bool) -> io::Result<Self> {
        let found = u64::try_from(fstat(&fd)?.st_size).unwrap_or(0);
        let bytes = usize::try_from(size).map_err(|_| io::ErrorKind::InvalidInput)?;
        if found != size || bytes == 0 {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "region has another size than announced"));
        }
        let protection = if writable { ProtFlags::READ | ProtFlags::WRITE } else { ProtFlags::READ };
        // SAFETY: a fresh shared mapping at an address of the kernel's choice touches no memory of ours. The
        // file cannot shrink under it: its size is sealed (regions), or all of it is (models).
        let start = unsafe { mmap(ptr::null_mut(), bytes, protection, MapFlags::SHARED, &fd, 0) }?;
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { fd, start, size: bytes, writable })
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    pub(crate) fn size(&self) -> u64 {
        self.size as u64
    }

    /// The address of `len` bytes at `offset`, if they lie inside.
    pub(crate) fn at(&self, offset: u64, len: usize) -> Option<NonNull<u8>> {
        let offset = usize::try_from(offset).ok()?;
        if offset.checked_add(len)? > self.size {
            return None;
        }
        #[allow(unsafe_code, reason = "pointer into the mapping")]
        // SAFETY: `offset` is at most `size`, so the result stays inside the mapping or one past its end.
        Some(unsafe { self.start.add(offset) })
    }

    /// Copies `data` to `offset`; false where it does not fit or the region is read-only.
    #[must_use]
    pub(crate) fn write(&self, offset: u64, data: &[u8]) -> bool {
        let Some(target) = self.at(offset, data.len()).filter(|_| self.writable) else { return false };
        #[allow(
            unsafe_code,
            reason = "the bytes are shared with another process, so there is no slice of them"
        )]
        // SAFETY: `at` checked the range; the mapping is writable and lives as long as `self`; `data` is our own
        // memory and cannot overlap a mapping that no reference points into.
        unsafe {
            ptr::copy_nonoverlapping(data.as_ptr(), target.as_ptr(), data.len());
        }
        true
    }

    /// Copies `len` bytes at `offset` out, once: what is looked at later cannot change any more.
    #[must_use]
    pub(crate) fn read(&self, offset: u64, len: usize) -> Option<Vec<u8>> {
        let source = self.at(offset, len)?;
        let mut data = Vec::with_capacity(len);
        #[allow(
            unsafe_code,
            reason = "the bytes are shared with another process, so there is no slice of them"
        )]
        // SAFETY: `at` checked the range and the mapping lives as long as `self`; `data` has room for `len`
        // bytes, which are initialised by the copy.
        unsafe {
            ptr::copy_nonoverlapping(source.as_ptr(), data.as_mut_ptr(), len);
            data.set_len(len);
        }
        Some(data)
    }

    /// All bytes as a slice. Only for files that are sealed against writing.
    #[allow(unsafe_code, reason = "a mapping as a slice")]
    pub(crate) fn sealed_bytes(&self) -> io::Result<&[u8]> {
        let seals = rustix::fs::fcntl_get_seals(&self.fd)?;
        if !seals.contains(SealFlags::WRITE | SealFlags::SHRINK) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "model file is not sealed"));
        }
        // SAFETY: the mapping has `size` bytes and lives as long as `self`; nobody can write or shrink the file.
        Ok(unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.size) })
    }

    /// Makes the first `used` bytes zero.
    pub(crate) fn wipe(&self, used: u64) -> io::Result<()> {
        if used > WIPE_BY_HAND {
            return self.give_back();
        }
        let len = usize::try_from(used).unwrap_or(self.size).min(self.size);
        if self.writable {
            #[allow(unsafe_code, reason = "the bytes are shared with another process")]
            // SAFETY: `len` bytes from the start lie inside the writable mapping.
            unsafe {
                ptr::write_bytes(self.start.as_ptr(), 0, len);
            }
        }
        Ok(())
    }

    /// Makes the bytes from `from` to `to` zero, as far as they lie inside.
    pub(crate) fn clear(&self, from: u64, to: u64) {
        let (from, to) = (from.min(self.size()), to.min(self.size()));
        let Some(len) = to.checked_sub(from).and_then(|len| usize::try_from(len).ok()) else { return };
        if let Some(start) = self.at(from, len).filter(|_| self.writable) {
            #[allow(unsafe_code, reason = "the bytes are shared with another process")]
            // SAFETY: `at` checked the range, and the mapping is writable.
            unsafe {
                ptr::write_bytes(start.as_ptr(), 0, len);
            }
        }
    }

    /// Gives all pages back to the system: the region reads as zeros again and costs nothing.
    pub(crate) fn give_back(&self) -> io::Result<()> {
        let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        Ok(fallocate(&self.fd, hole, 0, self.size())?)
    }
}

impl Drop for Region {
    #[allow(unsafe_code, reason = "unmapping memory")]
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `map` with this size, and no pointer into it outlives `self`.
        let _ = unsafe { munmap(self.start.as_ptr().cast(), self.size) };
    }
}

/// The next place for a tensor after `end`.
pub(crate) fn align_up(end: u64) -> Option<u64> {
    end.checked_next_multiple_of(ALIGN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_checked() {
        let region = Region::create("test", 4096).unwrap();
        assert!(region.write(4000, &[7; 96]));
        assert!(!region.write(4001, &[7; 96]));
        assert_eq!(region.read(4090, 6).unwrap(), [7; 6]);
        assert!(region.read(4090, 7).is_none() && region.read(u64::MAX, 1).is_none());
        assert!(region.read(4096, 0).is_some());
    }

    #[test]
    fn size_is_sealed_and_wiping_zeroes() {
        let region = Region::create("test", 1 << 20).unwrap();
        assert!(ftruncate(region.fd(), 10).is_err() && ftruncate(region.fd(), 1 << 21).is_err());
        for used in [100, 1 << 20] {
            assert!(region.write(0, &vec![1; usize::try_from(used).unwrap()]));
            region.wipe(used).unwrap();
            assert!(region.read(0, 1 << 20).unwrap().iter().all(|byte| *byte == 0));
        }
        assert!(region.sealed_bytes().is_err());
    }

    #[test]
    fn another_size_is_refused() {
        let region = Region::create("test", 4096).unwrap();
        let fd = region.fd().try_clone_to_owned().unwrap();
        assert!(Region::map(fd, 8192, false).is_err());
        let fd = region.fd().try_clone_to_owned().unwrap();
        let view = Region::map(fd, 4096, false).unwrap();
        assert!(!view.write(0, &[1]));
    }
}
