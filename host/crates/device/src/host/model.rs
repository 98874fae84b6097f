//! The model's bytes on their way to a worker: a private copy that nobody can change any more, checked
//! against the hash that the catalog knows.

use std::{
    fs::File,
    io::{self, Read, Write},
};

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use sha2::{Digest, Sha256};
use wasmeter_inference::IrBundle;

/// A sealed copy of `file` and its size. `sha256` is that of the file, or of the head of an IR's bundle, whose parts
/// have their digests in the head.
pub(super) fn sealed_copy(mut file: File, sha256: &[u8; 32], max: u64) -> io::Result<(File, u64)> {
    let size = file.metadata()?.len();
    if size == 0 || size > max {
        let message = format!("the model file has {size} bytes, the limit is {max}");
        return Err(io::Error::new(io::ErrorKind::InvalidData, message));
    }
    let mut copy = File::from(memfd_create("model", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?);
    let mut start = Vec::with_capacity(IrBundle::HEAD);
    (&mut file).take(IrBundle::HEAD as u64).read_to_end(&mut start)?;
    copy.write_all(&start)?;
    let right = match start.first_chunk().and_then(IrBundle::parse) {
        Some(IrBundle { xml, weights }) => {
            let rest = size.saturating_sub((IrBundle::HEAD as u64).saturating_add(weights.bytes));
            digest(Sha256::new_with_prefix(&start)) == *sha256
                && hashed(&mut file, &mut copy, weights.bytes, Sha256::new())?
                    == (weights.bytes, weights.sha256)
                && hashed(&mut file, &mut copy, rest + 1, Sha256::new())? == (xml.bytes, xml.sha256)
        }
        None => {
            let rest = size - start.len() as u64;
            // One byte more than there should be: a file that grows meanwhile is another one.
            hashed(&mut file, &mut copy, rest + 1, Sha256::new_with_prefix(&start))? == (rest, *sha256)
        }
    };
    if !right {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "the model file does not have its recorded sha-256",
        ));
    }
    fcntl_add_seals(&copy, SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE | SealFlags::SEAL)?;
    Ok((copy, size))
}

/// Copies at most `most` bytes; says how many there were, and the hash that goes on with them.
fn hashed(from: &mut File, to: &mut File, most: u64, mut hash: Sha256) -> io::Result<(u64, [u8; 32])> {
    let mut from = from.take(most);
    let mut chunk = vec![0; 1 << 20];
    let mut copied = 0u64;
    loop {
        let len = match from.read(&mut chunk) {
            Ok(0) => return Ok((copied, digest(hash))),
            Ok(len) => len,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        copied += len as u64;
        hash.update(&chunk[..len]);
        to.write_all(&chunk[..len])?;
    }
}

fn digest(hash: Sha256) -> [u8; 32] {
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    use wasmeter_inference::BundlePart;

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

    #[test]
    fn the_head_of_a_bundle_vouches_for_both_parts() {
        let part =
            |bytes: &[u8]| BundlePart { sha256: Sha256::digest(bytes).into(), bytes: bytes.len() as u64 };
        let bundle = IrBundle { xml: part(b"<net/>"), weights: part(b"weights") };
        let hash: [u8; 32] = Sha256::digest(bundle.head()).into();
        let mut whole = Vec::new();
        bundle.write(&mut whole, &b"<net/>"[..], &b"weights"[..]).unwrap();
        let (copy, size) = sealed_copy(file(&whole), &hash, 1000).unwrap();
        assert_eq!(size, whole.len() as u64);
        assert_eq!(copy.metadata().unwrap().len(), size);
        for at in [8, 30, IrBundle::HEAD, whole.len() - 1] {
            let mut other = whole.clone();
            other[at] ^= 1;
            assert!(sealed_copy(file(&other), &hash, 1000).is_err(), "byte {at} was changed");
        }
        assert!(sealed_copy(file(&whole[..whole.len() - 1]), &hash, 1000).is_err());
        assert!(sealed_copy(file(&[&whole[..], b"x"].concat()), &hash, 1000).is_err());
    }
}
