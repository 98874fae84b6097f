//! The way of records from the spool to billing.

use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use wasmeter_types::unix_ns;
use wasmeter_usage::wire::{self, Call, MAX_BATCH, Reply};

use crate::read::{Batch, Cursor};
use crate::recover::Leftover;
use crate::{BillingClient, BillingError, Spool, segment};

/// Between two attempts at the same batch: doubles from the first to the second.
const RETRY: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(250));
/// Billing may be away this long (a start, a restart) before a person should look.
const AWAY: Duration = Duration::from_secs(10);
/// Between two batches that are not full: each costs billing a flush of its disk, and both sides a wake-up of theirs, which
/// a record in each would pay for alone.
const PACE: Duration = Duration::from_millis(200);
/// Records of a batch that does not press: what does, such as a lease, waits in billing for one of them at most.
const PATIENT: u64 = 1024;
/// Records behind a batch from which on batches are as large as a frame holds, and say that they press; or an eighth of the
/// spool, if that is less.
const PRESSING: u64 = 1 << 16;
/// Bytes of room that a frame leaves for the next one: those of a batch that does not press.
const FRAME: usize = 2 << 20;
/// Between two attempts where spool and ledger contradict each other.
const STUCK: Duration = Duration::from_secs(10);

/// Ships a spool to billing; one a spool.
pub struct Shipper {
    spool: Spool,
    client: BillingClient,
    progress: watch::Sender<Progress>,
    cursor: Option<Cursor>,
    /// The last frame, for its room.
    frame: Vec<u8>,
    retry: Duration,
    away_since: Option<Instant>,
    warned: bool,
    /// Billing could not read a batch: the next ones are looked at before they go.
    careful: bool,
}

/// How far a [`Shipper`] has got. Cheap to clone; it keeps the spool open.
#[derive(Clone)]
pub struct ShipperHandle {
    spool: Spool,
    progress: watch::Receiver<Progress>,
}

/// The time was over before everything was booked. What is left ships at the next start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{records} usage records are not booked yet; they stay in the spool and ship at the next start")]
pub struct Unshipped {
    /// Records of this epoch and earlier ones.
    pub records: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Progress {
    backlog_done: bool,
    acked: u64,
}

/// Records of one epoch.
struct Lane {
    node: String,
    epoch: u64,
    /// Of an earlier epoch, ascending; `None` is the current epoch.
    leftovers: Option<Vec<Leftover>>,
}

/// The part of a segment that holds the next record.
struct Part {
    path: PathBuf,
    first_seq: u64,
    end: u64,
}

/// Spool and ledger contradict each other, or the spool is damaged: waiting does not help.
#[derive(Debug, thiserror::Error)]
enum Stuck {
    #[error("billing has {acked} as its last, but the spool begins at {first}: the ledger was set back")]
    Missing { acked: u64, first: u64 },
    #[error(
        "billing has {acked} as its last, but only {sent} were sent: another spool uses the same node and epoch"
    )]
    Beyond { acked: u64, sent: u64 },
    #[error("spool segment {}: {error}", path.display())]
    Unreadable { path: PathBuf, error: std::io::Error },
}

impl ShipperHandle {
    /// Waits until everything that was appended before this call is booked.
    ///
    /// # Errors
    /// [`Unshipped`] after `time`, or when the shipper has ended.
    pub async fn flush(&self, time: Duration) -> Result<(), Unshipped> {
        let target = self.spool.last_seq();
        let _hurry = self.spool.shared().hurry();
        let mut progress = self.progress.clone();
        match timeout(time, progress.wait_for(|p| p.backlog_done && p.acked >= target)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(Unshipped { records: self.spool.unshipped() }),
        }
    }
}

impl Shipper {
    /// A shipper of this spool.
    #[must_use]
    pub fn new(spool: Spool, client: BillingClient) -> Self {
        Self {
            spool,
            client,
            progress: watch::Sender::new(Progress::default()),
            cursor: None,
            frame: Vec::new(),
            retry: RETRY.0,
            away_since: None,
            warned: false,
            careful: false,
        }
    }

    /// The handle.
    #[must_use]
    pub fn handle(&self) -> ShipperHandle {
        ShipperHandle { spool: self.spool.clone(), progress: self.progress.subscribe() }
    }

    /// Ships until `shutdown`: first what earlier epochs left, then the current one as it grows. Stopping in the
    /// middle of a call is harmless, since billing drops what it has already.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let _ = shutdown.run_until_cancelled(self.ship()).await;
    }

    async fn ship(&mut self) {
        let mut backlog = self.spool.shared().take_backlog().into_iter().peekable();
        while let Some(first) = backlog.next() {
            let (node, epoch) = (first.header.node.clone(), first.header.epoch);
            let mut leftovers = vec![first];
            while let Some(more) = backlog.next_if(|l| l.header.node == node && l.header.epoch == epoch) {
                leftovers.push(more);
            }
            let mut lane = Lane { node, epoch, leftovers: Some(leftovers) };
            let result = self.ship_lane(&mut lane).await;
            if let Err(stuck) = &result {
                tracing::error!(node = lane.node, epoch, error = %stuck,
                    "usage records of an earlier epoch cannot be booked: they are kept as .damaged");
            }
            self.settle(&mut lane, u64::MAX, result.is_err()).await;
        }
        self.progress.send_modify(|p| p.backlog_done = true);
        let (node, epoch) = (self.spool.node().to_owned(), self.spool.epoch());
        let mut lane = Lane { node, epoch, leftovers: None };
        loop {
            if let Err(stuck) = self.ship_lane(&mut lane).await {
                tracing::error!(node = lane.node, epoch, error = %stuck, "usage records cannot be booked");
                sleep(STUCK).await;
            }
        }
    }

    /// Ships a lane: an earlier epoch to its end, the current one for ever.
    async fn ship_lane(&mut self, lane: &mut Lane) -> Result<(), Stuck> {
        let mut acked = self.high_water(lane).await;
        self.cursor = None;
        loop {
            self.check(lane, acked)?;
            self.settle(lane, acked, false).await;
            let Some(part) = self.next_part(lane, acked) else {
                if lane.leftovers.is_some() {
                    return Ok(());
                }
                self.spool.shared().appended.notified().await;
                continue;
            };
            if part.first_seq > acked + 1 {
                return Err(Stuck::Missing { acked, first: part.first_seq });
            }
            let sent_at = Instant::now();
            let batch = self.read(part, acked + 1).await?;
            if batch.count == 0 {
                continue;
            }
            let first_seq = batch.first_seq;
            let last = first_seq + batch.count - 1;
            let pressing = self.pressing(batch.count);
            let frame = &mut self.frame;
            let made =
                wire::encode_append(frame, &lane.node, lane.epoch, first_seq, pressing, &batch.records);
            let answer = match made {
                Ok(()) => self.client.call_encoded(&self.frame).await,
                Err(error) => Err(error.into()),
            };
            if self.frame.capacity() > FRAME {
                self.frame = Vec::new();
            }
            match answer {
                Ok(Reply::Acked { acked_seq }) if acked_seq > last => {
                    return Err(Stuck::Beyond { acked: acked_seq, sent: last });
                }
                Ok(Reply::Acked { acked_seq }) if acked_seq >= first_seq => {
                    acked = acked_seq;
                    self.answered();
                    self.careful = false;
                    if let Some(oldest) = batch.oldest_ns() {
                        metrics::histogram!("wasmeter_spool_ship_seconds")
                            .record(Duration::from_nanos(unix_ns().saturating_sub(oldest)));
                    }
                    if lane.leftovers.is_none() {
                        self.rest(acked, sent_at).await;
                    }
                }
                Err(BillingError::Refused { code, .. }) if code == "malformed" && !self.careful => {
                    self.careful = true;
                    acked = self.high_water(lane).await;
                    self.cursor = None;
                }
                // Nothing was booked. Where billing stands decides what is sent next.
                answer => {
                    self.failed(answer).await;
                    acked = self.high_water(lane).await;
                }
            }
        }
    }

    /// Lets records gather for the next batch, unless there are enough for one or somebody waits for them.
    async fn rest(&self, acked: u64, since: Instant) {
        let shared = self.spool.shared();
        if self.spool.last_seq().saturating_sub(acked) < PATIENT {
            let hurried = async {
                while !shared.is_hurried() {
                    shared.hurried.notified().await;
                }
            };
            let _ = tokio::time::timeout_at(since + PACE, hurried).await;
        }
    }

    /// Whether more waits behind a batch than should.
    fn pressing(&self, sent: u64) -> bool {
        let shared = self.spool.shared();
        let full = self.spool.bytes() > shared.options.max_bytes / 8;
        full || shared.unshipped().saturating_sub(sent) > PRESSING
    }

    /// What this process has not sent cannot have been booked; an earlier epoch's end may be lost to a power cut.
    fn check(&self, lane: &Lane, acked: u64) -> Result<(), Stuck> {
        let sent = self.spool.last_seq();
        if lane.leftovers.is_none() && acked > sent { Err(Stuck::Beyond { acked, sent }) } else { Ok(()) }
    }

    fn next_part(&self, lane: &Lane, acked: u64) -> Option<Part> {
        match &lane.leftovers {
            Some(leftovers) => leftovers.iter().find(|l| l.last_seq > acked).map(|l| Part {
                path: l.path.clone(),
                first_seq: l.header.first_seq,
                end: l.end,
            }),
            None => self.spool.shared().unshipped_piece(acked).map(|p| Part {
                path: segment::path(&self.spool.shared().dir, lane.epoch, p.first_seq),
                first_seq: p.first_seq,
                end: p.end,
            }),
        }
    }

    async fn read(&mut self, part: Part, from: u64) -> Result<Batch, Stuck> {
        let cursor = self.cursor.take().filter(|c| c.is_at(&part.path, from));
        let path = part.path.clone();
        let near = cursor.as_ref().is_some_and(|c| c.is_near(part.end));
        let careful = self.careful;
        let limit = if self.pressing(0) { MAX_BATCH as u64 } else { PATIENT };
        let read = move || {
            let mut cursor = match cursor {
                Some(cursor) => cursor,
                None => Cursor::open(&part.path, part.first_seq)?,
            };
            cursor.batch(from, part.end, limit, careful).map(|batch| (cursor, batch))
        };
        // What was just written is in the page cache: reading it costs less than a hand-over to another thread.
        let done =
            if near { read() } else { spawn_blocking(read).await.map_err(std::io::Error::other).flatten() };
        let (cursor, batch) = done.map_err(|error| Stuck::Unreadable { path, error })?;
        self.cursor = Some(cursor);
        Ok(batch)
    }

    /// Removes segments that are booked wholly; `keep` leaves those that are not as `.damaged`.
    async fn settle(&mut self, lane: &mut Lane, acked: u64, keep: bool) {
        let spool = self.spool.clone();
        let Some(leftovers) = &mut lane.leftovers else {
            spool.shared().note_acked(acked);
            self.progress.send_if_modified(|p| std::mem::replace(&mut p.acked, acked) != acked);
            if spool.shared().has_booked_segment(acked) {
                run_blocking(move || spool.shared().truncate(acked)).await;
            }
            return;
        };
        let booked = leftovers.iter().take_while(|l| l.last_seq <= acked).count();
        if booked == 0 {
            return;
        }
        let booked: Vec<_> = leftovers.drain(..booked).collect();
        run_blocking(move || {
            for leftover in booked {
                spool.shared().forget(&leftover, keep || leftover.damaged);
            }
        })
        .await;
    }

    /// Asks until billing answers.
    async fn high_water(&mut self, lane: &Lane) -> u64 {
        loop {
            let call = Call::HighWater { node: lane.node.clone(), epoch: lane.epoch };
            match self.client.call(call).await {
                Ok(Reply::Acked { acked_seq }) => {
                    self.answered();
                    return acked_seq;
                }
                answer => self.failed(answer).await,
            }
        }
    }

    fn answered(&mut self) {
        self.retry = RETRY.0;
        self.away_since = None;
        if std::mem::take(&mut self.warned) {
            tracing::info!("billing is back: usage is being booked");
        }
    }

    /// Says what went wrong, once, and waits a little longer each time.
    async fn failed(&mut self, answer: Result<Reply, BillingError>) {
        let since = *self.away_since.get_or_insert_with(Instant::now);
        match answer {
            Err(BillingError::Unavailable(reason)) => {
                if !self.warned && since.elapsed() >= AWAY {
                    self.warned = true;
                    tracing::warn!(
                        reason,
                        "billing has been away: usage stays in the spool until it is back"
                    );
                }
            }
            // Every restart of a batch may meet it: where billing stands is asked next.
            Err(BillingError::Refused { code, .. }) if code == "gap" => {}
            Err(error) => {
                if !std::mem::replace(&mut self.warned, true) {
                    tracing::error!(%error, "billing takes no usage: it stays in the spool");
                }
            }
            Ok(_) => {
                if !std::mem::replace(&mut self.warned, true) {
                    tracing::error!(
                        "billing answered usage with something else: run host and billing of one version"
                    );
                }
            }
        }
        sleep(self.retry).await;
        self.retry = (self.retry * 2).min(RETRY.1);
    }
}

async fn run_blocking(work: impl FnOnce() + Send + 'static) {
    if spawn_blocking(work).await.is_err() {
        tracing::error!("tidying up the usage spool failed");
    }
}
