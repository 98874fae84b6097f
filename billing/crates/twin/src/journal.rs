use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde_json::Value;

/// The file does not grow beyond this; the twin then refuses changes.
const MAX_BYTES: u64 = 4 << 30;
/// No change is larger.
const MAX_LINE: u64 = 64 << 20;

/// An append-only file of changes, one line each: CRC-32 of the JSON in eight hex digits, a space, the JSON. A line is
/// handed to the kernel before the answer that it is about leaves, so the death of the process loses nothing that was
/// acknowledged. A line that a death cut off is cut away at the next start; a damaged line before the last is refused.
#[derive(Debug)]
pub(crate) struct Journal {
    file: File,
    path: PathBuf,
    bytes: u64,
}

/// Why a journal cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum JournalError {
    #[error("cannot use journal {}: {error}", path.display())]
    Io { path: PathBuf, error: io::Error },
    #[error("journal {} is damaged at byte {at}: {why}; take a copy of it, then remove the data directory", path.display())]
    Damaged { path: PathBuf, at: u64, why: String },
}

impl Journal {
    /// Opens or makes the file and gives each change in it to `apply`.
    pub(crate) fn open(
        path: &Path,
        mut apply: impl FnMut(Value) -> Result<(), String>,
    ) -> Result<Self, JournalError> {
        let fail = |error| JournalError::Io { path: path.to_owned(), error };
        let damaged = |at, why| JournalError::Damaged { path: path.to_owned(), at, why };
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .mode(0o600)
            .open(path)
            .map_err(fail)?;
        let length = file.metadata().map_err(fail)?.len();
        let mut reader = BufReader::with_capacity(1 << 20, &file);
        let mut at = 0;
        let mut line = Vec::new();
        loop {
            line.clear();
            let read = (&mut reader).take(MAX_LINE + 32).read_until(b'\n', &mut line).map_err(fail)? as u64;
            if read == 0 {
                break;
            }
            let last = at + read == length;
            match parse(&line) {
                Ok(change) => apply(change).map_err(|why| damaged(at, why))?,
                // Only the last line can have been cut off.
                Err(why) if last => {
                    tracing::warn!(at, why, "the journal's last line was cut off and is dropped");
                    file.set_len(at).map_err(fail)?;
                    break;
                }
                Err(why) => return Err(damaged(at, why.to_owned())),
            }
            at += read;
        }
        let mut file = file;
        file.seek(SeekFrom::Start(at)).map_err(fail)?;
        Ok(Self { file, path: path.to_owned(), bytes: at })
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Appends one change. On an error nothing of it stays.
    pub(crate) fn append(&mut self, change: &Value) -> io::Result<()> {
        let line = encode(change)?;
        if self.bytes + line.len() as u64 > MAX_BYTES {
            return Err(io::Error::new(io::ErrorKind::StorageFull, "the journal has reached its limit"));
        }
        if let Err(error) = self.file.write_all(&line) {
            self.file.set_len(self.bytes)?;
            self.file.seek(SeekFrom::Start(self.bytes))?;
            return Err(error);
        }
        self.bytes += line.len() as u64;
        Ok(())
    }

    /// Replaces the file by one with just these changes, in one step.
    pub(crate) fn compact(&mut self, changes: impl Iterator<Item = Value>) -> io::Result<()> {
        let fresh = self.path.with_extension("new");
        let file =
            OpenOptions::new().create(true).truncate(true).read(true).write(true).mode(0o600).open(&fresh)?;
        let mut writer = BufWriter::with_capacity(1 << 20, file);
        let mut bytes = 0;
        for change in changes {
            let line = encode(&change)?;
            bytes += line.len() as u64;
            writer.write_all(&line)?;
        }
        let file = writer.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.sync_all()?;
        std::fs::rename(&fresh, &self.path)?;
        (self.file, self.bytes) = (file, bytes);
        Ok(())
    }
}

fn encode(change: &Value) -> io::Result<Vec<u8>> {
    let json = serde_json::to_vec(change)?;
    if json.len() as u64 > MAX_LINE {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a change is too large"));
    }
    let mut line = format!("{:08x} ", crc32fast::hash(&json)).into_bytes();
    line.extend_from_slice(&json);
    line.push(b'\n');
    Ok(line)
}

fn parse(line: &[u8]) -> Result<Value, &'static str> {
    let line = line.strip_suffix(b"\n").ok_or("it has no end")?;
    let (sum, json) = line.split_at_checked(9).ok_or("it is too short")?;
    let sum = std::str::from_utf8(&sum[..8]).ok().and_then(|s| u32::from_str_radix(s, 16).ok());
    if sum != Some(crc32fast::hash(json)) {
        return Err("its checksum does not fit");
    }
    serde_json::from_slice(json).map_err(|_| "it is no JSON")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(path: &Path) -> Result<Vec<Value>, JournalError> {
        let mut all = Vec::new();
        Journal::open(path, |change| {
            all.push(change);
            Ok(())
        })?;
        Ok(all)
    }

    #[test]
    fn a_cut_at_any_byte_loses_only_what_it_cut() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        let mut journal = Journal::open(&path, |_| Ok(())).unwrap();
        let mut ends = vec![0];
        for n in 0..5 {
            journal.append(&json!({"n": n, "text": "line\nbreak"})).unwrap();
            ends.push(journal.bytes());
        }
        drop(journal);
        let whole = std::fs::read(&path).unwrap();
        for cut in 0..=whole.len() {
            std::fs::write(&path, &whole[..cut]).unwrap();
            let kept = ends.iter().filter(|end| **end > 0 && **end <= cut as u64).count();
            assert_eq!(read(&path).unwrap().len(), kept, "cut at {cut}");
            // And what is appended after a cut is read again.
            let mut journal = Journal::open(&path, |_| Ok(())).unwrap();
            journal.append(&json!("more")).unwrap();
            assert_eq!(read(&path).unwrap().len(), kept + 1, "cut at {cut}");
        }
    }

    #[test]
    fn damage_before_the_end_is_refused_and_compaction_keeps_what_it_is_given() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        let mut journal = Journal::open(&path, |_| Ok(())).unwrap();
        for n in 0..3 {
            journal.append(&json!(n)).unwrap();
        }
        journal.compact([json!(7), json!(8)].into_iter()).unwrap();
        journal.append(&json!(9)).unwrap();
        assert_eq!(read(&path).unwrap(), [json!(7), json!(8), json!(9)]);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[9] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        assert!(matches!(read(&path), Err(JournalError::Damaged { at: 0, .. })));
    }
}
