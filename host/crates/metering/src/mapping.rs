//! The segment that is being written, in memory: a record is copied into the page cache without a system call, which would
//! cost more than the rest of the record. What is there survives the death of the process like what `write` leaves.

use std::fs::File;
use std::io;
use std::ptr::{self, NonNull};

use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// A shared, writable mapping of the beginning of a file whose blocks are reserved. It must not be shortened meanwhile: who
/// does so lets go of the mapping first.
pub(crate) struct Mapping {
    start: NonNull<u8>,
    size: usize,
}

#[allow(unsafe_code, reason = "raw pointers are not Send by themselves")]
// SAFETY: a mapping belongs to the process and not to a thread, and writing to it takes `&mut self`.
unsafe impl Send for Mapping {}

impl Mapping {
    /// Maps the first bytes of the file.
    #[allow(unsafe_code, reason = "mapping memory")]
    pub(crate) fn new(file: &File, bytes: u64) -> io::Result<Self> {
        let size = usize::try_from(bytes).map_err(io::Error::other)?;
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a fresh shared mapping at an address of the kernel's choice touches no memory of ours.
        let start = unsafe { mmap(ptr::null_mut(), size, protection, MapFlags::SHARED, file, 0) }?;
        Ok(Self { start: NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?, size })
    }

    /// Copies the bytes to this place; false, and nothing is done, where they do not fit.
    #[must_use]
    pub(crate) fn write(&mut self, bytes: &[u8], at: u64) -> bool {
        let Ok(at) = usize::try_from(at) else { return false };
        if at.checked_add(bytes.len()).is_none_or(|end| end > self.size) {
            return false;
        }
        #[allow(unsafe_code, reason = "the bytes are a file's, which other processes may map too")]
        // SAFETY: the range was checked against the mapping, which lives as long as `self`; `bytes` is memory of ours and
        // does not overlap it, since no reference into the mapping is ever made.
        unsafe {
            ptr::copy_nonoverlapping(bytes.as_ptr(), self.start.as_ptr().add(at), bytes.len());
        }
        true
    }
}

impl Drop for Mapping {
    #[allow(unsafe_code, reason = "unmapping memory")]
    fn drop(&mut self) {
        // SAFETY: made by `new` with this size, and no pointer into it outlives `self`.
        let _ = unsafe { munmap(self.start.as_ptr().cast(), self.size) };
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;

    #[test]
    fn what_is_written_is_in_the_file_and_nothing_beyond_the_mapping() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(8192).unwrap();
        let mut mapping = Mapping::new(&file, 4096).unwrap();
        assert!(mapping.write(b"here", 4092));
        assert!(!mapping.write(b"here", 4093));
        assert!(!mapping.write(b"x", u64::MAX));
        drop(mapping);
        let mut found = [0; 8];
        file.read_exact_at(&mut found, 4090).unwrap();
        assert_eq!(&found, b"\0\0here\0\0");
    }
}
