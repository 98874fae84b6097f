//! What earlier epochs left behind.

use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};

use crate::SpoolError;
use crate::frame::{At, any_after, at};
use crate::segment::{HEADER, Header, parse_name};

/// A segment of an earlier epoch, with the part of it that can be shipped.
#[derive(Clone, Debug)]
pub(crate) struct Leftover {
    pub(crate) path: PathBuf,
    pub(crate) header: Header,
    /// Last sequence that can be shipped; `first_seq - 1` if none.
    pub(crate) last_seq: u64,
    /// Where the readable part ends.
    pub(crate) end: u64,
    /// Size of the file.
    pub(crate) bytes: u64,
    /// It holds more than can be shipped: keep it for a person when the readable part is booked.
    pub(crate) damaged: bool,
}

/// What a segment's bytes hold.
#[derive(Debug, PartialEq, Eq)]
struct Content {
    records: u64,
    end: usize,
    /// Whole frames follow after the first bad place: not a torn tail.
    damaged: bool,
}

/// All segments in the directory, in the order of their records.
pub(crate) fn recover(dir: &Path) -> Result<Vec<Leftover>, SpoolError> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(dir).map_err(SpoolError::io("list", dir))? {
        let path = entry.map_err(SpoolError::io("list", dir))?.path();
        paths.extend(parse_name(&path).map(|name| (name, path)));
    }
    paths.sort();
    let mut found: Vec<Leftover> = Vec::new();
    for ((epoch, first_seq), path) in paths {
        let bytes = fs::read(&path).map_err(SpoolError::io("read", &path))?;
        let Some(mut segment) = read_segment(&path, &bytes, epoch, first_seq) else {
            if bytes.len() < HEADER {
                // The process died, or the disk was full, while the file was being made: no record was in it yet.
                fs::remove_file(&path).map_err(SpoolError::io("remove", &path))?;
            } else {
                keep_damaged(&path);
            }
            continue;
        };
        let before = found.last().filter(|f| f.header.epoch == epoch && f.header.node == segment.header.node);
        let expected = before.map_or(first_seq, |f| f.last_seq + 1);
        if first_seq != expected || before.is_some_and(|f| f.damaged) {
            tracing::error!(
                file = %path.display(), expected, found = first_seq,
                "records before this spool segment are missing: it is kept as .damaged and not booked"
            );
            segment.last_seq = first_seq - 1;
            segment.end = HEADER as u64;
            segment.damaged = true;
        }
        found.push(segment);
    }
    Ok(found)
}

/// `None` if the header is not that of a segment of this name.
fn read_segment(path: &Path, bytes: &[u8], epoch: u64, first_seq: u64) -> Option<Leftover> {
    let header = match Header::decode(bytes) {
        Ok(header) if header.epoch == epoch && header.first_seq == first_seq && first_seq > 0 => header,
        Ok(_) => {
            tracing::error!(file = %path.display(), "a spool segment has the name of another one");
            return None;
        }
        Err(_) if bytes.len() < HEADER => return None,
        Err(reason) => {
            tracing::error!(file = %path.display(), offset = 0, reason, "a spool segment is not readable");
            return None;
        }
    };
    let content = scan(bytes);
    let mut size = bytes.len();
    if content.damaged {
        tracing::error!(
            file = %path.display(), offset = content.end, records = content.records,
            "a spool segment is damaged: what is before the offset is booked, the file is kept as .damaged"
        );
    } else if bytes[content.end..].iter().all(|b| *b == 0) {
        // What was reserved and not used. If it cannot be given back now, it goes with the segment.
        let _ = OpenOptions::new().write(true).open(path).and_then(|f| f.set_len(content.end as u64));
        size = content.end;
    } else {
        // The write that a crash cut off: its answer never left, so nobody may be charged for it.
        tracing::info!(file = %path.display(), offset = content.end, "torn tail of a spool segment ignored");
    }
    Some(Leftover {
        path: path.to_owned(),
        last_seq: first_seq - 1 + content.records,
        end: content.end as u64,
        bytes: size as u64,
        damaged: content.damaged,
        header,
    })
}

fn scan(bytes: &[u8]) -> Content {
    let (mut records, mut end) = (0, HEADER);
    loop {
        match at(bytes, end) {
            At::Frame { next, .. } => {
                records += 1;
                end = next;
            }
            At::End => return Content { records, end, damaged: false },
            // Zeros at the end are no frames, and there may be megabytes of them.
            At::Bad => {
                let last = bytes.iter().rposition(|b| *b != 0).map_or(end, |last| last + 1);
                let damaged = any_after(&bytes[..last.max(end)], end + 1);
                return Content { records, end, damaged };
            }
        }
    }
}

/// Moves a segment out of the way of the spool, for a person to look at.
pub(crate) fn keep_damaged(path: &Path) {
    let mut name = path.as_os_str().to_owned();
    name.push(".damaged");
    if let Err(error) = fs::rename(path, &name) {
        tracing::error!(file = %path.display(), %error, "cannot rename a damaged spool segment");
    }
}
