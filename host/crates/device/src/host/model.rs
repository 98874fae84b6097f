//! The model's bytes on their way to a worker: a private copy that nobody can change any more, checked
//! against the hash that the catalog knows.

use std::{
    fs::File,
    io::{self, Read, Write},
};

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use sha2::{Digest, Sha256};

/// A sealed copy of `file` and its size.
pub(super) fn sealed_copy(mut file: File, sha256: &[u8; 32], max: u64) -> io::Result<(File, u64)> {
    let size = file.metadata()?.len();
    if size == 0 || size > max {
        let message = format!("the model file has {size} bytes, the limit is {max}");
        return Err(io::Error::new(io::ErrorKind::InvalidData, message));
    }
    let mut copy = File::from(memfd_create("model", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?);
    let mut hash = Sha256::new();
    let mut chunk = vec![0; 1 << 20];
    let mut copied = 0u64;
    loop {
        let len = match file.read(&mut chunk) {
            Ok(0) => break,
            Ok(len) => len,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        copied += len as u64;
        if copied > size {
            break;
        }
        hash.update(&chunk[..len]);
        copy.write_all(&chunk[..len])?;
    }
    if copied != size || hash.finalize().as_slice() != sha256 {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "the model file does not have its recorded sha-256",
        ));
    }
    fcntl_add_seals(&copy, SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE | SealFlags::SEAL)?;
    Ok((copy, size))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(bytes: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        io::Seek::rewind(&mut file).unwrap();
        file
    }

    #[test]
    fn the_copy_is_checked_and_sealed() {
        let hash: [u8; 32] = Sha256::digest(b"model").into();
        let (mut copy, size) = sealed_copy(file(b"model"), &hash, 100).unwrap();
        assert_eq!(size, 5);
        assert!(copy.write_all(b"x").is_err() && copy.set_len(0).is_err());
        assert!(sealed_copy(file(b"other"), &hash, 100).unwrap_err().to_string().contains("sha-256"));
        assert!(sealed_copy(file(b"model"), &hash, 4).unwrap_err().to_string().contains("limit"));
        assert!(sealed_copy(file(b""), &hash, 4).is_err());
    }
}
