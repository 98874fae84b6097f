use std::collections::VecDeque;
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

use parking_lot::{Condvar, Mutex};
use tokio::sync::{Notify, watch};
use wasmeter_usage::UsageRecord;

use crate::flush::{Flushed, Flusher};
use crate::recover::recover;
use crate::segment::{HEADER, Header};
use crate::shared::{Piece, Shared, State};
use crate::{Durability, SpoolError, SpoolOptions, frame, identity, segment};

/// Usage records on disk, from the end of their invocation until billing has booked them. Cheap to clone; the last
/// clone flushes what is unflushed when it is dropped.
#[derive(Clone)]
pub struct Spool {
    // Dropped first: its thread ends before the lock on the directory is given back.
    _flusher: Arc<Flusher>,
    shared: Arc<Shared>,
}

impl Spool {
    /// Opens the spool in the directory, which is created if need be, under a new epoch.
    ///
    /// Blocking. What earlier epochs left is kept for the shipper; damage is logged, never dropped.
    ///
    /// # Errors
    /// `InUse`, `Damaged` for the spool's own small files, `Io`.
    pub fn open(dir: &Path, options: SpoolOptions) -> Result<Self, SpoolError> {
        DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(SpoolError::io("create", dir))?;
        let lock = identity::lock(dir)?;
        let node = identity::node(dir, options.node.as_deref())?;
        let backlog = recover(dir)?;
        let seen = backlog.iter().map(|l| l.header.epoch).max().unwrap_or(0);
        let epoch = identity::next_epoch(dir, seen)?;
        let first = segment::path(dir, epoch, 1);
        let header = Header { node: node.clone(), epoch, first_seq: 1 };
        let (file, mapping) = segment::create(&*options.disk, &first, &header, options.segment_bytes)?;
        options.disk.sync_file(&file).map_err(SpoolError::io("flush", &first))?;
        options.disk.sync_dir(dir).map_err(SpoolError::io("flush", dir))?;
        let bytes = backlog.iter().map(|l| l.bytes).sum::<u64>() + HEADER as u64;
        let state = State {
            active: Arc::new(file),
            mapping,
            pieces: VecDeque::from([Piece { first_seq: 1, last_seq: 0, end: HEADER as u64 }]),
            next_seq: 1,
            torn: false,
            unsynced: Vec::new(),
            dir_dirty: false,
            dirty_since: None,
            wanted: 0,
            stop: false,
            failed: None,
        };
        let shared = Arc::new(Shared {
            dir: dir.to_owned(),
            node,
            epoch,
            options,
            state: Mutex::new(state),
            wake: Condvar::new(),
            flushed: watch::Sender::new(Flushed::default()),
            appended: Notify::new(),
            hurried: Notify::new(),
            hurries: AtomicUsize::new(0),
            bytes: AtomicU64::new(bytes),
            last_seq: AtomicU64::new(0),
            acked: AtomicU64::new(0),
            backlog_records: AtomicU64::new(
                backlog.iter().map(|l| l.last_seq + 1 - l.header.first_seq).sum(),
            ),
            hold_until: AtomicU64::new(0),
            started: Instant::now(),
            backlog: Mutex::new(backlog),
            _lock: lock,
        });
        shared.gauge();
        let flusher = Flusher::start(shared.clone()).map_err(SpoolError::io("start the flusher of", dir))?;
        Ok(Self { _flusher: Arc::new(flusher), shared })
    }

    /// The spool's name, for billing.
    #[must_use]
    pub fn node(&self) -> &str {
        &self.shared.node
    }

    /// The epoch of this opening.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.shared.epoch
    }

    /// Sequence of the last record of this epoch; 0 if there is none.
    #[must_use]
    pub fn last_seq(&self) -> u64 {
        self.shared.last_seq.load(Ordering::Acquire)
    }

    /// Bytes on disk.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.shared.bytes.load(Ordering::Relaxed)
    }

    /// Records that are not booked yet, as far as is known, those of earlier epochs included.
    #[must_use]
    pub fn unshipped(&self) -> u64 {
        self.shared.unshipped()
    }

    /// Records of earlier epochs that are not booked yet.
    #[must_use]
    pub fn backlog(&self) -> u64 {
        self.shared.backlog_records.load(Ordering::Relaxed)
    }

    /// Whether new invocations may be admitted: there is room for their records, and the disk takes them. Some room
    /// is kept for those that run already. Costs two atomic loads.
    #[must_use]
    pub fn accepting(&self) -> bool {
        let shared = &*self.shared;
        let room =
            shared.bytes.load(Ordering::Relaxed) + shared.options.headroom() <= shared.options.max_bytes;
        let hold = shared.hold_until.load(Ordering::Relaxed);
        room && (hold == 0 || shared.millis() >= hold)
    }

    /// Writes the record; it survives the death of this process from now on. Returns its sequence.
    ///
    /// A copy, or one `write`, into the page cache under a short lock, so it may be called on an async worker.
    ///
    /// # Errors
    /// `Full`, `TooLarge`, `Io`, `Failed`. Nothing of the record is kept then.
    pub fn append(&self, record: &UsageRecord) -> Result<u64, SpoolError> {
        let shared = &*self.shared;
        let written = frame::encoded(record, |frame| {
            let mut state = shared.state.lock();
            let written = shared.write(&mut state, frame);
            match &written {
                Ok(seq) => shared.last_seq.store(*seq, Ordering::Release),
                Err(SpoolError::Io { .. }) => shared.hold(),
                Err(_) => {}
            }
            written
        });
        if written.is_ok() {
            shared.appended.notify_one();
        }
        written
    }

    /// Waits until the record is on the medium: until a flush that began after its write has ended.
    ///
    /// # Errors
    /// `Failed` if a flush failed.
    pub async fn durable(&self, seq: u64) -> Result<(), SpoolError> {
        self.shared.want(seq);
        let mut flushed = self.shared.flushed.subscribe();
        let reached = flushed.wait_for(|f| f.seq >= seq || f.failed).await;
        match reached.map(|f| f.seq >= seq) {
            Ok(true) => Ok(()),
            // The sender lives as long as `self`, so that a closed channel is a failed flush too.
            Ok(false) | Err(_) => Err(self.shared.failure()),
        }
    }

    /// Writes the record and waits for what the configured [`Durability`] asks.
    ///
    /// # Errors
    /// As [`Spool::append`] and [`Spool::durable`].
    pub async fn append_durably(&self, record: &UsageRecord) -> Result<u64, SpoolError> {
        let seq = self.append(record)?;
        if self.shared.options.durability == Durability::Power {
            self.durable(seq).await?;
        }
        Ok(seq)
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.shared
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use wasmeter_usage::{InvocationId, Outcome, RECORD_VERSION};

    use super::*;

    fn record() -> UsageRecord {
        UsageRecord {
            v: RECORD_VERSION,
            invocation: InvocationId::new(),
            tenant: "dev".into(),
            function: None,
            revision: None,
            outcome: Outcome::Ok,
            status: 200,
            fuel: 1,
            fuel_schedule: "s".into(),
            models: vec![],
            tokens_in: 0,
            tokens_out: 0,
            ingress_bytes: 0,
            egress_bytes: 0,
            start_ns: 0,
            end_ns: 0,
            price_book: "b".into(),
            draw: None,
        }
    }

    fn open(dir: &Path, flush_within: Duration) -> Spool {
        let durability = Durability::Power;
        let options =
            SpoolOptions { durability, flush_within, segment_bytes: 16 << 10, ..SpoolOptions::default() };
        Spool::open(dir, options).unwrap()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn those_who_wait_share_flushes() {
        let dir = tempfile::tempdir().unwrap();
        // Far away: only waiting can start a flush.
        let spool = open(dir.path(), Duration::from_secs(3600));
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..64 {
            let spool = spool.clone();
            tasks.spawn(async move {
                for _ in 0..10 {
                    let seq = spool.append_durably(&record()).await.unwrap();
                    assert!(spool.shared.flushed.borrow().seq >= seq);
                }
            });
        }
        tasks.join_all().await;
        let flushed = *spool.shared.flushed.borrow();
        assert_eq!(flushed.seq, 640);
        assert!(flushed.count <= 320, "{} flushes for 640 records", flushed.count);
    }

    #[tokio::test]
    async fn nobody_need_wait_for_a_flush_to_happen() {
        let dir = tempfile::tempdir().unwrap();
        let spool = open(dir.path(), Duration::from_millis(5));
        let seq = spool.append(&record()).unwrap();
        spool.shared.flushed.subscribe().wait_for(|f| f.seq >= seq).await.unwrap();
    }

    #[tokio::test]
    async fn after_a_failed_flush_nothing_is_taken_or_promised() {
        let dir = tempfile::tempdir().unwrap();
        let spool = open(dir.path(), Duration::from_secs(3600));
        let seq = spool.append(&record()).unwrap();
        spool.shared.fail(&mut spool.shared.state.lock(), "eio".into());
        assert!(!spool.accepting());
        assert!(matches!(spool.append(&record()), Err(SpoolError::Failed(r)) if r == "eio"));
        assert!(matches!(spool.durable(seq).await, Err(SpoolError::Failed(_))));
    }
}
