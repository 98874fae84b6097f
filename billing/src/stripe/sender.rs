use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use wasmeter_ledger::{Attempted, Claimed, Closing, Lane, Settled};
use wasmeter_stripe::{Delivery, MeterEvent, divisor};

use super::pace::Pace;
use super::{Stripe, TICK, named};
use crate::now::now_ns;
use crate::service::Service;

/// Calls under way, over all lanes.
const CONCURRENT: usize = 32;

/// Entries counted in one transaction: bookings wait for no more.
const SWEEP: u32 = 5_000;

/// Between attempts at a set-up that usage waits for.
const AGAIN: Duration = Duration::from_secs(10);

/// How long calls under way are waited for at the end. What is left was sent or not, and is parked.
const DRAIN: Duration = Duration::from_secs(4);

/// Brings usage to Stripe: counts entries in buckets, closes them in time, and sends each once.
pub(super) async fn run(service: Arc<Service>, stripe: Arc<Stripe>, stop: CancellationToken) {
    match service.writer.with(|ledger| ledger.park_interrupted(now_ns())).await {
        Ok(Ok(0)) => {}
        Ok(Ok(parked)) => tracing::info!(parked, "buckets were being sent when billing ended: parked"),
        Ok(Err(error)) => {
            return tracing::error!(%error, "the outbox cannot be read: nothing is sent to stripe");
        }
        Err(error) => return tracing::error!(%error, "the outbox cannot be read: nothing is sent to stripe"),
    }
    let pace = Pace::new(stripe.buckets.rate, now_ns());
    let mut sender = Sender {
        service,
        stripe,
        pace,
        queue: VecDeque::new(),
        flying: JoinSet::new(),
        busy: HashSet::new(),
        told_away: false,
        set_up: None,
    };
    sender.run(&stop).await;
    sender.drain().await;
}

struct Sender {
    service: Arc<Service>,
    stripe: Arc<Stripe>,
    pace: Pace,
    queue: VecDeque<Lane>,
    flying: JoinSet<(Claimed, Delivery)>,
    busy: HashSet<Lane>,
    told_away: bool,
    set_up: Option<JoinHandle<()>>,
}

impl Sender {
    async fn run(&mut self, stop: &CancellationToken) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while !stop.is_cancelled() {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                Some(done) = self.flying.join_next(), if !self.flying.is_empty() => {
                    self.settle(done).await;
                    self.launch().await;
                }
                _ = tick.tick() => {
                    self.count().await;
                    self.refill().await;
                    self.launch().await;
                }
            }
        }
    }

    /// Counts what was booked, and closes what is due.
    async fn count(&mut self) {
        loop {
            match self.service.writer.with(|ledger| ledger.sweep(SWEEP, now_ns())).await {
                Ok(Ok(SWEEP)) => {}
                Ok(Ok(_)) => break,
                Ok(Err(error)) => return tracing::error!(%error, "usage cannot be counted for stripe"),
                Err(_) => return,
            }
        }
        let due = Closing::Due(self.stripe.buckets.grace_ns, self.stripe.buckets.flush_ns);
        match self.service.writer.with(move |ledger| ledger.close_buckets(&due, divisor, now_ns())).await {
            Ok(Ok(0)) | Err(_) => {}
            Ok(Ok(closed)) => tracing::debug!(closed, "buckets closed"),
            Ok(Err(error)) => tracing::error!(%error, "buckets cannot be closed"),
        }
    }

    async fn refill(&mut self) {
        if !self.queue.is_empty() {
            return;
        }
        let lanes = match self.service.readers.ask(|r| r.due_lanes(now_ns())).await {
            Ok(lanes) => lanes,
            Err(error) => return tracing::error!(%error, "the outbox cannot be read"),
        };
        if !lanes.is_empty() && self.is_set_up() {
            self.queue.extend(lanes.into_iter().filter(|lane| !self.busy.contains(lane)));
        }
    }

    /// Whether the meters of the prices in force are at Stripe, which takes usage of others and cannot use it. Where they are
    /// not, they are made meanwhile.
    fn is_set_up(&mut self) -> bool {
        if self.stripe.has_catalogue() {
            return true;
        }
        if self.set_up.as_ref().is_none_or(JoinHandle::is_finished) {
            let stripe = Arc::clone(&self.stripe);
            self.set_up = Some(tokio::spawn(async move {
                if let Err(error) = stripe.catalogue().await {
                    tracing::warn!(%error, "the prices in force are not at stripe yet: usage waits");
                    tokio::time::sleep(AGAIN).await;
                }
            }));
        }
        false
    }

    /// Begins as many calls as there is room for, each of another lane.
    async fn launch(&mut self) {
        let free = CONCURRENT.saturating_sub(self.flying.len());
        let room = self.pace.room(self.flying.len(), now_ns()).min(free).min(self.queue.len());
        if room == 0 {
            return;
        }
        let lanes: Vec<Lane> = self.queue.drain(..room).collect();
        let claimed = match self.service.writer.with(move |ledger| ledger.claim(&lanes, now_ns())).await {
            Ok(Ok(claimed)) => claimed,
            Ok(Err(error)) => return tracing::error!(%error, "the outbox cannot be written: nothing is sent"),
            Err(_) => return,
        };
        self.pace.begin(claimed.len());
        for bucket in claimed {
            self.busy.insert(bucket.lane.clone());
            let stripe = Arc::clone(&self.stripe);
            self.flying.spawn(async move {
                let event = MeterEvent {
                    meter: bucket.lane.meter,
                    customer: bucket.customer.clone(),
                    value: bucket.value,
                    identifier: bucket.identifier.clone(),
                    timestamp: bucket.stamp_s,
                };
                let delivery = stripe.client.send_event(&event).await;
                (bucket, delivery)
            });
        }
    }

    /// Writes what became of a call, and of all others that ended meanwhile.
    async fn settle(&mut self, first: Result<(Claimed, Delivery), tokio::task::JoinError>) {
        let mut ended = vec![first];
        while let Some(more) = self.flying.try_join_next() {
            ended.push(more);
        }
        let mut settled = Vec::with_capacity(ended.len());
        for done in ended {
            let (bucket, delivery) = match done {
                Ok(done) => done,
                Err(error) => {
                    // Its bucket stays `sending`, and is parked at the next start.
                    tracing::error!(%error, "a call to stripe ended without a result");
                    continue;
                }
            };
            self.busy.remove(&bucket.lane);
            self.queue.push_back(bucket.lane.clone());
            settled.push(self.judge(&bucket, delivery));
        }
        self.write(settled).await;
        self.tell();
    }

    fn judge(&mut self, bucket: &Claimed, delivery: Delivery) -> Settled {
        let now = now_ns();
        let (attempt, reason) = match delivery {
            Delivery::Delivered => {
                self.pace.answered();
                (Attempted::Delivered, String::new())
            }
            Delivery::Later { after, reason } => {
                let asked = after.map(|wait| u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX));
                self.pace.failed(asked, now);
                (Attempted::Later(asked), reason)
            }
            Delivery::Unknown(reason) => {
                self.pace.failed(None, now);
                (Attempted::Unknown, reason)
            }
            Delivery::Refused(reason) => {
                self.pace.answered();
                tracing::error!(
                    lane = named(&bucket.lane),
                    customer = bucket.customer,
                    value = bucket.value,
                    identifier = bucket.identifier,
                    reason,
                    "stripe refuses usage; see `wasmeter-billing outbox list --state refused`"
                );
                (Attempted::Refused, reason)
            }
        };
        Settled { id: bucket.id, attempt, reason }
    }

    async fn write(&self, settled: Vec<Settled>) {
        if settled.is_empty() {
            return;
        }
        match self.service.writer.with(move |ledger| ledger.settle(&settled, now_ns())).await {
            Ok(Ok(())) => {}
            // They stay `sending`, and are parked at the next start.
            Ok(Err(error)) => tracing::error!(%error, "what became of calls to stripe cannot be written"),
            Err(error) => tracing::error!(%error, "what became of calls to stripe cannot be written"),
        }
    }

    /// Says once that Stripe is away, and once that it is back.
    fn tell(&mut self) {
        let away = self.pace.is_away();
        if away != self.told_away {
            let address = self.stripe.address.as_str();
            if away {
                tracing::warn!(address, "stripe does not take usage; it is kept and sent later");
            } else {
                tracing::info!(address, "stripe takes usage again");
            }
            self.told_away = away;
        }
    }

    async fn drain(&mut self) {
        if let Some(task) = self.set_up.take() {
            task.abort();
        }
        let ended = timeout(DRAIN, async {
            while let Some(done) = self.flying.join_next().await {
                self.settle(done).await;
            }
        });
        if ended.await.is_err() {
            self.flying.abort_all();
        }
    }
}
