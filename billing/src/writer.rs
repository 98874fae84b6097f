use std::io;
use std::thread;

use tokio::sync::{mpsc, oneshot};
use wasmeter_ledger::{Batch, Committed, Ledger, Refusal};

use crate::now::now_ns;

/// Appends that wait while one commits. Each connection has at most one, so that this bounds a group as well.
const QUEUE: usize = 32;

/// No group begins another batch beyond this many records: its commit would keep the others waiting.
const GROUP_RECORDS: usize = 16_384;

/// The ledger could not be written; the log says why.
#[derive(Debug, thiserror::Error)]
#[error("the ledger could not be written; see the log of wasmeter-billing, then send again")]
pub(crate) struct WriteFailed;

type Outcome = Result<Result<Committed, Refusal>, WriteFailed>;

struct Job {
    batch: Batch,
    reply: oneshot::Sender<Outcome>,
}

/// Something else that only the writer may do, in a transaction of its own.
type Task = Box<dyn FnOnce(&mut Ledger) + Send>;

enum Work {
    Append(Job),
    Other(Task),
}

/// Hands batches to the thread that owns the ledger. Once all handles are gone, it finishes and ends.
#[derive(Clone)]
pub(crate) struct Writer {
    jobs: mpsc::Sender<Work>,
}

impl Writer {
    /// Starts the thread. The receiver resolves when it has ended.
    pub(crate) fn start(ledger: Ledger) -> io::Result<(Self, oneshot::Receiver<()>)> {
        let (jobs, queue) = mpsc::channel(QUEUE);
        let (guard, ended) = oneshot::channel::<()>();
        thread::Builder::new().name("ledger-writer".into()).spawn(move || {
            // Dropped with the thread, also when it panics.
            let _guard = guard;
            run(ledger, queue);
        })?;
        Ok((Self { jobs }, ended))
    }

    /// Books one batch; on return it is on disk.
    pub(crate) async fn append(&self, batch: Batch) -> Outcome {
        let (reply, outcome) = oneshot::channel();
        self.jobs.send(Work::Append(Job { batch, reply })).await.map_err(|_| WriteFailed)?;
        outcome.await.map_err(|_| WriteFailed)?
    }

    /// Has the thread do something else with the ledger.
    pub(crate) async fn with<T: Send + 'static>(
        &self,
        task: impl FnOnce(&mut Ledger) -> T + Send + 'static,
    ) -> Result<T, WriteFailed> {
        let (reply, outcome) = oneshot::channel();
        let task: Task = Box::new(move |ledger| {
            // Who asked may have left.
            let _ = reply.send(task(ledger));
        });
        self.jobs.send(Work::Other(task)).await.map_err(|_| WriteFailed)?;
        outcome.await.map_err(|_| WriteFailed)
    }
}

/// Group commit: whatever waits when a transaction begins shares it.
fn run(mut ledger: Ledger, mut queue: mpsc::Receiver<Work>) {
    while let Some(work) = queue.blocking_recv() {
        let first = match work {
            Work::Append(job) => job,
            Work::Other(task) => {
                task(&mut ledger);
                continue;
            }
        };
        let mut next = None;
        let mut records = first.batch.records.len();
        let (mut batches, mut replies) = (vec![first.batch], vec![first.reply]);
        while records < GROUP_RECORDS
            && let Ok(work) = queue.try_recv()
        {
            let job = match work {
                Work::Append(job) => job,
                Work::Other(task) => {
                    next = Some(task);
                    break;
                }
            };
            records += job.batch.records.len();
            batches.push(job.batch);
            replies.push(job.reply);
        }
        match ledger.append(&batches, now_ns()) {
            Ok(outcomes) => {
                for ((batch, outcome), reply) in batches.iter().zip(outcomes).zip(replies) {
                    report(batch, &outcome);
                    // A sender that left asks for the high-water mark when it is back.
                    let _ = reply.send(Ok(outcome));
                }
            }
            Err(error) => {
                tracing::error!(%error, batches = batches.len(), records, "nothing was booked; senders keep and resend");
                for reply in replies {
                    let _ = reply.send(Err(WriteFailed));
                }
            }
        }
        if let Some(task) = next {
            task(&mut ledger);
        }
    }
}

fn report(batch: &Batch, outcome: &Result<Committed, Refusal>) {
    let (node, epoch) = (batch.node.as_str(), batch.epoch);
    match outcome {
        Ok(done) => {
            tracing::debug!(node, epoch, acked_seq = done.acked_seq, booked = done.booked, "booked");
            for rejected in &done.rejected {
                tracing::error!(
                    node,
                    epoch,
                    seq = rejected.seq,
                    reason = rejected.reason.as_str(),
                    detail = rejected.detail,
                    "usage record cannot be booked; it is kept in the ledger's table `rejected`"
                );
            }
        }
        Err(refusal) => tracing::warn!(node, epoch, %refusal, "append refused"),
    }
}
