//! Records back from a segment, in order.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use serde::de::IgnoredAny;
use wasmeter_usage::wire::MAX_FRAME;

use crate::frame::{At, MAX_RECORD, PREFIX, at};
use crate::segment::HEADER;

/// Bytes of JSON in one batch. A quarter of the frame: a record that another build wrote may become longer here.
const BATCH_BYTES: u64 = (MAX_FRAME / 4) as u64;
/// Bytes of a record, for how much is read at one time.
const LIKELY: u64 = 512;

/// A place in a segment.
pub(crate) struct Cursor {
    path: PathBuf,
    file: File,
    offset: u64,
    /// Sequence of the record at `offset`.
    next_seq: u64,
}

/// Records that follow each other, as they lie in the segment: nothing on the way to billing reads them, and what billing
/// makes of each is its business.
pub(crate) struct Batch {
    pub(crate) first_seq: u64,
    pub(crate) count: u64,
    /// Their JSON, with commas between.
    pub(crate) records: Vec<u8>,
    /// The first of them.
    first: usize,
}

/// The part of a record that says how old it is.
#[derive(serde::Deserialize)]
struct End {
    end_ns: u64,
}

impl Batch {
    /// When the first one's invocation ended; `None` if there is none.
    pub(crate) fn oldest_ns(&self) -> Option<u64> {
        serde_json::from_slice::<End>(self.records.get(..self.first)?).ok().map(|e| e.end_ns)
    }
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

    /// Records from `from` on, at most `limit` and what a frame holds, none beyond `end`. With `careful`, none that is no JSON, which
    /// would take the others of its frame with it.
    ///
    /// # Errors
    /// The file's; `InvalidData` for what recovery has not vouched for.
    pub(crate) fn batch(&mut self, from: u64, end: u64, limit: u64, careful: bool) -> io::Result<Batch> {
        let mut batch = Batch { first_seq: from, count: 0, records: Vec::new(), first: 0 };
        let largest = (MAX_RECORD + PREFIX) as u64;
        let mut most = BATCH_BYTES.min(limit.saturating_mul(LIKELY));
        while batch.count == 0 && self.offset < end {
            let mut bytes =
                vec![0; usize::try_from((end - self.offset).min(most)).map_err(io::Error::other)?];
            self.file.read_exact_at(&mut bytes, self.offset)?;
            batch.records.reserve(bytes.len());
            let mut used = 0;
            while batch.count < limit {
                let At::Frame { json, next } = at(&bytes, used) else { break };
                if self.next_seq >= from {
                    if careful && let Err(e) = serde_json::from_slice::<IgnoredAny>(json) {
                        // What is before it goes first; the next read begins with it.
                        if batch.count > 0 {
                            break;
                        }
                        let message = format!("record {} is not readable: {e}", self.next_seq);
                        return Err(io::Error::new(io::ErrorKind::InvalidData, message));
                    }
                    batch.push(json);
                }
                self.next_seq += 1;
                used = next;
            }
            if used == 0 {
                if most < largest && most < end - self.offset {
                    // The record may be larger than what was read.
                    most = largest;
                    continue;
                }
                let message = format!("no record at offset {} of {}", self.offset, self.path.display());
                return Err(io::Error::new(io::ErrorKind::InvalidData, message));
            }
            self.offset += used as u64;
        }
        Ok(batch)
    }
}

impl Batch {
    fn push(&mut self, json: &[u8]) {
        if self.count == 0 {
            self.first = json.len();
        } else {
            self.records.push(b',');
        }
        self.records.extend_from_slice(json);
        self.count += 1;
    }
}
