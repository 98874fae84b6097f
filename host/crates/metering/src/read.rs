//! Records back from a segment, in order.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use wasmeter_usage::UsageRecord;
use wasmeter_usage::wire::{MAX_BATCH, MAX_FRAME};

use crate::frame::{At, MAX_RECORD, PREFIX, at};
use crate::segment::HEADER;

/// Bytes of JSON in one batch. A quarter of the frame: a record that another build wrote may become longer here.
const BATCH_BYTES: u64 = (MAX_FRAME / 4) as u64;

/// A place in a segment.
pub(crate) struct Cursor {
    path: PathBuf,
    file: File,
    offset: u64,
    /// Sequence of the record at `offset`.
    next_seq: u64,
}

/// Records that follow each other.
pub(crate) struct Batch {
    pub(crate) first_seq: u64,
    pub(crate) records: Vec<UsageRecord>,
}

impl Cursor {
    /// Opens a segment at its first record.
    pub(crate) fn open(path: &Path, first_seq: u64) -> io::Result<Self> {
        let file = File::open(path)?;
        Ok(Self { path: path.to_owned(), file, offset: HEADER as u64, next_seq: first_seq })
    }

    pub(crate) fn is_at(&self, path: &Path, seq: u64) -> bool {
        self.next_seq == seq && self.path == path
    }

    /// Whether a read up to `end` is small: then it was just written and is in the page cache.
    pub(crate) fn is_near(&self, end: u64) -> bool {
        end.saturating_sub(self.offset) <= 64 << 10
    }

    /// Records from `from` on, as many as a batch holds, none beyond `end`.
    ///
    /// # Errors
    /// The file's; `InvalidData` for what recovery has not vouched for.
    pub(crate) fn batch(&mut self, from: u64, end: u64) -> io::Result<Batch> {
        let mut batch = Batch { first_seq: from, records: Vec::new() };
        while batch.records.is_empty() && self.offset < end {
            let most = BATCH_BYTES.max((MAX_RECORD + PREFIX) as u64);
            let mut bytes =
                vec![0; usize::try_from((end - self.offset).min(most)).map_err(io::Error::other)?];
            self.file.read_exact_at(&mut bytes, self.offset)?;
            let mut used = 0;
            while batch.records.len() < MAX_BATCH {
                let At::Frame { json, next } = at(&bytes, used) else { break };
                if self.next_seq >= from {
                    match serde_json::from_slice(json) {
                        Ok(record) => batch.records.push(record),
                        // What is before it goes first; the next read begins with it.
                        Err(_) if !batch.records.is_empty() => break,
                        Err(e) => {
                            let message = format!("record {} is not readable: {e}", self.next_seq);
                            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
                        }
                    }
                }
                self.next_seq += 1;
                used = next;
            }
            if used == 0 {
                let message = format!("no record at offset {} of {}", self.offset, self.path.display());
                return Err(io::Error::new(io::ErrorKind::InvalidData, message));
            }
            self.offset += used as u64;
        }
        Ok(batch)
    }
}
