//! A segment file: its name and its header.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::disk::write_whole;
use crate::identity::is_node;
use crate::mapping::Mapping;
use crate::{Disk, SpoolError};

/// Bytes of the header.
pub(crate) const HEADER: usize = 128;
const MAGIC: &[u8; 8] = b"wmspool\0";
const VERSION: u16 = 1;
const NODE_AT: usize = 32;
const NODE_MAX: usize = 64;
const CRC_AT: usize = HEADER - 4;

/// Whose records a segment holds, and from which sequence on.
///
/// Layout, little-endian: magic (8), version u16, zero (4), node length u16, epoch u64, first sequence u64, node (64),
/// zero, CRC-32 of all before it (4, at the end).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) node: String,
    pub(crate) epoch: u64,
    pub(crate) first_seq: u64,
}

impl Header {
    pub(crate) fn encode(&self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..10].copy_from_slice(&VERSION.to_le_bytes());
        let node = &self.node.as_bytes()[..self.node.len().min(NODE_MAX)];
        bytes[14] = node.len() as u8;
        bytes[16..24].copy_from_slice(&self.epoch.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.first_seq.to_le_bytes());
        bytes[NODE_AT..NODE_AT + node.len()].copy_from_slice(node);
        let crc = crc32fast::hash(&bytes[..CRC_AT]);
        bytes[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// The header, or what is wrong with it.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, String> {
        let bytes: &[u8; HEADER] = bytes.first_chunk().ok_or("the header is cut off")?;
        if &bytes[..8] != MAGIC {
            return Err("not a spool segment".to_owned());
        }
        let version = u16::from_le_bytes([bytes[8], bytes[9]]);
        if version != VERSION {
            return Err(format!("segment version {version} is of a newer wasmeter"));
        }
        if crc32fast::hash(&bytes[..CRC_AT]).to_le_bytes() != bytes[CRC_AT..] {
            return Err("the header does not match its checksum".to_owned());
        }
        let number = |at: usize| {
            bytes[at..].first_chunk().map(|b| u64::from_le_bytes(*b)).ok_or("the header is cut off")
        };
        let node = bytes.get(NODE_AT..NODE_AT + usize::from(bytes[14]).min(NODE_MAX)).unwrap_or_default();
        let node = String::from_utf8_lossy(node).into_owned();
        if !is_node(&node) {
            return Err("the header names no node".to_owned());
        }
        Ok(Self { node, epoch: number(16)?, first_seq: number(24)? })
    }
}

/// Name of a segment file; names sort as their records do.
pub(crate) fn path(dir: &Path, epoch: u64, first_seq: u64) -> PathBuf {
    dir.join(format!("{epoch:016x}-{first_seq:016x}.seg"))
}

/// Epoch and first sequence in a file name; `None` if it names no segment.
pub(crate) fn parse_name(path: &Path) -> Option<(u64, u64)> {
    let (epoch, first) = path.file_name()?.to_str()?.strip_suffix(".seg")?.split_once('-')?;
    let number = |s: &str| (s.len() == 16).then(|| u64::from_str_radix(s, 16).ok()).flatten();
    Some((number(epoch)?, number(first)?))
}

/// Creates the file with its header, and reserves what it shall hold where that can be relied on. A failure leaves no file
/// behind.
pub(crate) fn create(
    disk: &dyn Disk,
    path: &Path,
    header: &Header,
    bytes: u64,
) -> Result<(File, Option<Mapping>), SpoolError> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create_new(true).mode(0o600);
    let file = options.open(path).map_err(SpoolError::io("create", path))?;
    let made = write_whole(disk, &file, &header.encode(), 0).and_then(|()| {
        let reserved = disk.reserve(&file, bytes)?;
        reserved.then(|| Mapping::new(&file, bytes)).transpose()
    });
    match made {
        Ok(mapping) => Ok((file, mapping)),
        Err(e) => {
            // The name must be free for the next try; if even that fails, recovery removes the file without records.
            let _ = std::fs::remove_file(path);
            Err(SpoolError::io("write", path)(e))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_and_name_round_trip() {
        let header = Header { node: "n-1".into(), epoch: 7, first_seq: 9 };
        let bytes = header.encode();
        assert_eq!(Header::decode(&bytes).unwrap(), header);
        for i in 0..HEADER {
            let mut bad = bytes;
            bad[i] ^= 1;
            assert!(Header::decode(&bad).is_err(), "byte {i}");
        }
        assert!(Header::decode(&bytes[..100]).is_err());
        assert_eq!(parse_name(&path(Path::new("/x"), 7, 9)), Some((7, 9)));
        assert_eq!(parse_name(Path::new("/x/7-9.seg")), None);
    }
}
