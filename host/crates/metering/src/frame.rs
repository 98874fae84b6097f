//! One record on disk: `{length u32, crc32 u32, JSON}`, little-endian; the CRC covers the length and the JSON.

use std::cell::RefCell;

use wasmeter_usage::UsageRecord;

use crate::SpoolError;

/// Bytes before the JSON.
pub(crate) const PREFIX: usize = 8;

/// No record is larger than this: far above any real one, and far below what a batch may hold.
pub(crate) const MAX_RECORD: usize = 1 << 20;

/// Room for a frame that a thread keeps: far above nearly every record.
const KEPT: usize = 16 << 10;

/// What is at one place of a segment.
pub(crate) enum At<'a> {
    /// A whole frame, and where the next one begins.
    Frame { json: &'a [u8], next: usize },
    /// The end, exactly.
    End,
    /// Something else.
    Bad,
}

/// Makes the frame of a record and hands it on; its room is the thread's, and is used again.
pub(crate) fn encoded<T>(
    record: &UsageRecord,
    then: impl FnOnce(&[u8]) -> Result<T, SpoolError>,
) -> Result<T, SpoolError> {
    thread_local! {
        static ROOM: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    }
    let mut frame = ROOM.take();
    let done = encode(record, &mut frame).and_then(|()| then(&frame));
    if frame.capacity() <= KEPT {
        ROOM.set(frame);
    }
    done
}

fn encode(record: &UsageRecord, frame: &mut Vec<u8>) -> Result<(), SpoolError> {
    frame.clear();
    frame.extend_from_slice(&[0; PREFIX]);
    serde_json::to_writer(&mut *frame, record)?;
    let bytes = frame.len() - PREFIX;
    let too_large = SpoolError::TooLarge { bytes, max: MAX_RECORD };
    let length = match u32::try_from(bytes) {
        Ok(length) if bytes <= MAX_RECORD => length.to_le_bytes(),
        _ => return Err(too_large),
    };
    let crc = checksum(length, &frame[PREFIX..]);
    frame[..4].copy_from_slice(&length);
    frame[4..PREFIX].copy_from_slice(&crc.to_le_bytes());
    Ok(())
}

pub(crate) fn at(bytes: &[u8], offset: usize) -> At<'_> {
    let rest = bytes.get(offset..).unwrap_or_default();
    if rest.is_empty() {
        return At::End;
    }
    let Some((&length, rest)) = rest.split_first_chunk::<4>() else { return At::Bad };
    let Some((&crc, rest)) = rest.split_first_chunk::<4>() else { return At::Bad };
    let size = u32::from_le_bytes(length) as usize;
    // An empty frame would let a run of zeros pass for records.
    if size == 0 || size > MAX_RECORD {
        return At::Bad;
    }
    match rest.get(..size) {
        Some(json) if json[0] == b'{' && checksum(length, json) == u32::from_le_bytes(crc) => {
            At::Frame { json, next: offset + PREFIX + size }
        }
        _ => At::Bad,
    }
}

/// Whether a whole frame begins anywhere from `offset` on.
pub(crate) fn any_after(bytes: &[u8], offset: usize) -> bool {
    (offset..bytes.len()).any(|o| matches!(at(bytes, o), At::Frame { .. }))
}

fn checksum(length: [u8; 4], json: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&length);
    crc.update(json);
    crc.finalize()
}
