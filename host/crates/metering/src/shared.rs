//! The spool's state, shared by those who append, the flusher and the shipper.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use tokio::sync::{Notify, watch};

use crate::disk::write_whole;
use crate::flush::Flushed;
use crate::mapping::Mapping;
use crate::recover::{Leftover, keep_damaged};
use crate::segment::{HEADER, Header};
use crate::{SpoolError, SpoolOptions, segment};

/// After a failed write, admission waits this long before the disk is tried again.
const HOLD: Duration = Duration::from_secs(1);

pub(crate) struct Shared {
    pub(crate) dir: PathBuf,
    pub(crate) node: String,
    pub(crate) epoch: u64,
    pub(crate) options: SpoolOptions,
    pub(crate) state: Mutex<State>,
    /// Wakes the flusher.
    pub(crate) wake: Condvar,
    pub(crate) flushed: watch::Sender<Flushed>,
    /// Wakes the shipper.
    pub(crate) appended: Notify,
    /// Tells a shipper that rests that somebody waits.
    pub(crate) hurried: Notify,
    /// How many do.
    pub(crate) hurries: AtomicUsize,
    /// Bytes of all segments on disk, those of earlier epochs included.
    pub(crate) bytes: AtomicU64,
    pub(crate) last_seq: AtomicU64,
    pub(crate) acked: AtomicU64,
    /// Records of earlier epochs that are not booked.
    pub(crate) backlog_records: AtomicU64,
    /// Milliseconds after `started` until which no new work is accepted; `u64::MAX` for ever.
    pub(crate) hold_until: AtomicU64,
    pub(crate) started: Instant,
    pub(crate) backlog: Mutex<Vec<Leftover>>,
    pub(crate) _lock: File,
}

pub(crate) struct State {
    pub(crate) active: Arc<File>,
    /// Of the active segment, where its blocks are reserved; without it, each record is a write.
    pub(crate) mapping: Option<Mapping>,
    /// Segments of this epoch, ascending; the last one is being written.
    pub(crate) pieces: VecDeque<Piece>,
    pub(crate) next_seq: u64,
    /// The last write failed and may have left bytes after the active segment's end.
    pub(crate) torn: bool,
    /// Full segments that are not flushed yet.
    pub(crate) unsynced: Vec<Arc<File>>,
    /// A segment was created since the last flush.
    pub(crate) dir_dirty: bool,
    pub(crate) dirty_since: Option<Instant>,
    /// Highest sequence that somebody waits for.
    pub(crate) wanted: u64,
    pub(crate) stop: bool,
    pub(crate) failed: Option<String>,
}

/// A segment of the current epoch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Piece {
    pub(crate) first_seq: u64,
    /// Last whole record; `first_seq - 1` if none.
    pub(crate) last_seq: u64,
    /// Where the last whole record ends.
    pub(crate) end: u64,
}

impl State {
    /// Gives back what of the active segment is reserved and not used: it ends where its records do.
    fn trim(&mut self) {
        let (Some(_), Some(piece)) = (self.mapping.take(), self.pieces.back()) else { return };
        if let Err(error) = self.active.set_len(piece.end) {
            tracing::debug!(%error, "the end of a spool segment stays reserved");
        }
    }

    pub(crate) fn last_seq(&self) -> u64 {
        self.next_seq - 1
    }
}

impl Shared {
    pub(crate) fn write(&self, state: &mut State, frame: &[u8]) -> Result<u64, SpoolError> {
        if let Some(reason) = &state.failed {
            return Err(SpoolError::Failed(reason.clone()));
        }
        let size = frame.len() as u64;
        // The record may need a new segment.
        if self.bytes.load(Ordering::Relaxed) + size + HEADER as u64 > self.options.max_bytes {
            return Err(SpoolError::Full { max: self.options.max_bytes });
        }
        let Some(mut piece) = state.pieces.back().copied() else {
            return Err(SpoolError::Failed("no active segment".to_owned()));
        };
        if state.torn {
            self.cut(state, piece)?;
        }
        if piece.end + size > self.options.segment_bytes && piece.last_seq >= piece.first_seq {
            piece = self.rotate(state)?;
        }
        // A record that is larger than a segment goes beyond the mapping.
        let copied = state.mapping.as_mut().is_some_and(|m| m.write(frame, piece.end));
        if !copied && let Err(source) = write_whole(&*self.options.disk, &state.active, frame, piece.end) {
            state.torn = true;
            // If this fails too, the next append tries again before it writes.
            let _ = self.cut(state, piece);
            return Err(SpoolError::io("write", &self.path(piece))(source));
        }
        let seq = state.next_seq;
        state.next_seq += 1;
        if let Some(active) = state.pieces.back_mut() {
            active.last_seq = seq;
            active.end += size;
        }
        self.bytes.fetch_add(size, Ordering::Relaxed);
        if state.dirty_since.is_none() {
            state.dirty_since = Some(Instant::now());
            self.wake.notify_one();
        }
        Ok(seq)
    }

    /// Takes back what a failed write left after the last whole record.
    fn cut(&self, state: &mut State, piece: Piece) -> Result<(), SpoolError> {
        // Nothing may be mapped that is not there; the rest of this segment is written.
        state.mapping = None;
        state.active.set_len(piece.end).map_err(SpoolError::io("truncate", &self.path(piece)))?;
        state.torn = false;
        Ok(())
    }

    fn rotate(&self, state: &mut State) -> Result<Piece, SpoolError> {
        let first_seq = state.next_seq;
        let header = Header { node: self.node.clone(), epoch: self.epoch, first_seq };
        let path = segment::path(&self.dir, self.epoch, first_seq);
        let (file, mapping) =
            segment::create(&*self.options.disk, &path, &header, self.options.segment_bytes)?;
        state.trim();
        state.mapping = mapping;
        let full = std::mem::replace(&mut state.active, Arc::new(file));
        state.unsynced.push(full);
        state.dir_dirty = true;
        let piece = Piece { first_seq, last_seq: first_seq - 1, end: HEADER as u64 };
        state.pieces.push_back(piece);
        self.bytes.fetch_add(HEADER as u64, Ordering::Relaxed);
        Ok(piece)
    }

    fn path(&self, piece: Piece) -> PathBuf {
        segment::path(&self.dir, self.epoch, piece.first_seq)
    }

    pub(crate) fn millis(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    pub(crate) fn hold(&self) {
        let until = self.millis() + HOLD.as_millis() as u64;
        self.hold_until.fetch_max(until, Ordering::Relaxed);
    }

    /// A flush failed: no more work, and everybody who waits gets to know.
    pub(crate) fn fail(&self, state: &mut State, reason: String) {
        state.failed = Some(reason);
        self.hold_until.store(u64::MAX, Ordering::Relaxed);
        self.flushed.send_modify(|f| f.failed = true);
    }

    pub(crate) fn failure(&self) -> SpoolError {
        SpoolError::Failed(self.state.lock().failed.clone().unwrap_or_else(|| "the flusher ended".to_owned()))
    }

    /// Lets the flusher start at once if the record is not flushed yet.
    pub(crate) fn want(&self, seq: u64) {
        let mut state = self.state.lock();
        if seq > state.wanted {
            state.wanted = seq;
            self.wake.notify_one();
        }
    }

    /// The shipper does not rest until what is returned is dropped.
    pub(crate) fn hurry(&self) -> Hurry<'_> {
        self.hurries.fetch_add(1, Ordering::SeqCst);
        self.hurried.notify_one();
        Hurry(self)
    }

    pub(crate) fn is_hurried(&self) -> bool {
        self.hurries.load(Ordering::SeqCst) > 0
    }

    /// The segment of this epoch that holds the first record after `acked`.
    pub(crate) fn unshipped_piece(&self, acked: u64) -> Option<Piece> {
        self.state.lock().pieces.iter().find(|p| p.last_seq > acked).copied()
    }

    /// Whether [`Shared::truncate`] would remove anything.
    pub(crate) fn has_booked_segment(&self, acked: u64) -> bool {
        let state = self.state.lock();
        state.pieces.len() > 1 && state.pieces.front().is_some_and(|p| p.last_seq <= acked)
    }

    /// Forgets and removes full segments that are booked wholly. Blocking.
    pub(crate) fn truncate(&self, acked: u64) {
        loop {
            let piece = {
                let mut state = self.state.lock();
                match state.pieces.front().copied() {
                    Some(piece) if piece.last_seq <= acked && state.pieces.len() > 1 => {
                        state.pieces.pop_front()
                    }
                    _ => None,
                }
            };
            let Some(piece) = piece else { return };
            self.remove(&self.path(piece), piece.end);
        }
    }

    /// Removes a segment of an earlier epoch that is booked, or keeps it for a person as `.damaged`. Blocking.
    pub(crate) fn forget(&self, leftover: &Leftover, keep: bool) {
        if keep {
            keep_damaged(&leftover.path);
            self.bytes.fetch_sub(leftover.bytes, Ordering::Relaxed);
        } else {
            self.remove(&leftover.path, leftover.bytes);
        }
        let records = leftover.last_seq + 1 - leftover.header.first_seq;
        self.backlog_records.fetch_sub(records, Ordering::Relaxed);
    }

    pub(crate) fn note_acked(&self, acked: u64) {
        self.acked.store(acked, Ordering::Relaxed);
        self.gauge();
    }

    pub(crate) fn unshipped(&self) -> u64 {
        let live = self.last_seq.load(Ordering::Acquire).saturating_sub(self.acked.load(Ordering::Relaxed));
        live + self.backlog_records.load(Ordering::Relaxed)
    }

    /// Told by the flusher and the shipper, so that appending costs no metric.
    pub(crate) fn gauge(&self) {
        metrics::gauge!("wasmeter_spool_bytes").set(self.bytes.load(Ordering::Relaxed) as f64);
        metrics::gauge!("wasmeter_spool_unshipped_records").set(self.unshipped() as f64);
        metrics::counter!("wasmeter_spool_appended_total").absolute(self.last_seq.load(Ordering::Acquire));
    }

    /// Removes the file of booked records. Blocking.
    fn remove(&self, path: &Path, bytes: u64) {
        match fs::remove_file(path) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            // The next opening finds it, sees that it is booked, and tries again.
            Err(error) => {
                tracing::error!(file = %path.display(), %error, "cannot remove a booked spool segment")
            }
        }
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// What earlier epochs left; empty from the second call on.
    pub(crate) fn take_backlog(&self) -> Vec<Leftover> {
        std::mem::take(&mut *self.backlog.lock())
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.state.get_mut().trim();
    }
}

/// Somebody waits for the shipper.
pub(crate) struct Hurry<'a>(&'a Shared);

impl Drop for Hurry<'_> {
    fn drop(&mut self) {
        self.0.hurries.fetch_sub(1, Ordering::SeqCst);
    }
}
