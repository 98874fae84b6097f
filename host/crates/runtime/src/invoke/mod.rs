mod access;
mod body;
mod bound;
mod carrier;
mod cgi;
mod command;
mod component;
mod figures;
mod guest_body;
mod run;
mod service;
mod verdict;

use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::Request;
use http_body_util::combinators::UnsyncBoxBody;
use tokio::sync::oneshot;
use tokio::task::unconstrained;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use wasmeter_admission::{Depth, Permit, Purse};
use wasmeter_catalog::Revision;
use wasmeter_inference::Handle;
use wasmeter_nn::{NnLimits, Quotas, Resolver, TenantLimits};
use wasmeter_types::{Error, InvocationId, ModelName, ModelsLimits, TenantName};
use wasmeter_usage::{PriceSheet, UsageRecord};

pub use body::{BodyError, ReplyBody};
pub use figures::Figures;

use verdict::Verdict;

use crate::capability::Capabilities;
use crate::guests::{Fate, GuestOptions, Guests};
use crate::loader::Loader;
use crate::logs::LogHub;
use crate::tape::{Recording, Tape};

/// The type of the bodies whose pieces are a WebSocket's messages (wit/README.md).
pub const WEBSOCKET: &str = "application/vnd.wasmeter.websocket";

/// Where usage goes. The record is final; the caller's last byte waits for `record`.
#[async_trait]
pub trait Recorder: Send + Sync + 'static {
    /// The list prices that the caller is shown; none if billing was never reached.
    fn prices(&self) -> Option<Arc<PriceSheet>>;
    /// Whether there is room for usage; without it no new work is taken.
    fn accepting(&self) -> bool;
    /// Keeps the record, as durably as the configuration says.
    async fn record(&self, record: &UsageRecord) -> Result<(), RecordError>;
    /// Keeps what a taped call got from outside. Nobody waits for it.
    fn keep(&self, recording: Recording) {
        let _ = recording;
    }
}

/// Usage could not be kept, so the answer must not be given.
#[derive(Debug, thiserror::Error)]
#[error("usage was not recorded: {0}")]
pub struct RecordError(pub String);

/// How invocations are run.
#[derive(Clone, Copy, Debug)]
pub struct InvokerOptions {
    /// Fuel between two yields, for so long nobody can stop a guest: a million are 50 us of SHA-256 and 1.7 ms of an empty
    /// loop. A yield costs about a microsecond.
    pub yield_interval: u64,
    /// Where guests run and for how long.
    pub guests: GuestOptions,
    /// Response body bytes that are held back for the head to carry the figures.
    pub hold_bytes: usize,
    /// Time after the first body byte after which the head is sent without them.
    pub hold_time: Duration,
    /// What of wasi:nn all invocations of one tenant may hold together.
    pub nn: TenantLimits,
}

impl Default for InvokerOptions {
    fn default() -> Self {
        Self {
            yield_interval: 1_000_000,
            guests: GuestOptions::default(),
            hold_bytes: 64 << 10,
            hold_time: Duration::from_millis(50),
            nn: TenantLimits::default(),
        }
    }
}

/// One request for a function, admitted.
pub struct Invocation {
    /// Its id.
    pub id: InvocationId,
    /// Who pays.
    pub tenant: TenantName,
    /// What runs.
    pub revision: Arc<Revision>,
    /// As the guest shall see it: the rest of the path, no platform token, no `x-wasmeter-*`.
    pub request: Request<UnsyncBoxBody<Bytes, BodyError>>,
    /// Ends after the usage is recorded.
    pub permit: Permit,
    /// What it may cost, where something bounds it.
    pub purse: Option<Purse>,
    /// Whether the caller may see the figures.
    pub figures: bool,
    /// When the request was accepted.
    pub accepted: Instant,
    /// Functions that stand behind the request.
    pub depth: Depth,
    /// Of a call that is recorded or run again.
    pub tape: Option<Arc<Tape>>,
}

/// The answer to one invocation. Its body ends after the usage is recorded, never before.
pub struct Reply {
    /// The guest's answer, or the error instead of it.
    pub answer: Result<http::Response<ReplyBody>, Error>,
    /// The figures, where the guest had ended when the head was made.
    pub figures: Option<Figures>,
}

/// Runs invocations. Cheap to clone.
#[derive(Clone)]
pub struct Invoker {
    inner: Arc<Inner>,
}

pub(crate) struct Inner {
    loader: Loader,
    models: Handle,
    resolver: Arc<dyn Resolver>,
    recorder: Arc<dyn Recorder>,
    capabilities: Arc<Capabilities>,
    quotas: Arc<Quotas>,
    logs: LogHub,
    options: InvokerOptions,
    guests: Guests,
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// After a deadline, for a guest to be stopped and its usage to be recorded. One that is in the middle of something that
/// cannot be stopped, such as the copy of a big memory, takes longer: then its caller does not wait for it.
const STOP_TIME: Duration = Duration::from_millis(3);

impl Invoker {
    /// An invoker over its collaborators. Its guest threads use the timers of the runtime that it is made in.
    ///
    /// # Errors
    /// If threads cannot be started.
    pub fn new(
        loader: Loader,
        models: Handle,
        resolver: Arc<dyn Resolver>,
        recorder: Arc<dyn Recorder>,
        capabilities: Capabilities,
        logs: LogHub,
        options: InvokerOptions,
    ) -> io::Result<Self> {
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let guests = Guests::start(options.guests)?;
        let quotas = Arc::new(Quotas::new(options.nn));
        let inner = Inner {
            loader,
            models,
            resolver,
            recorder,
            capabilities: Arc::new(capabilities),
            quotas,
            logs,
            options,
            guests,
            tasks,
            stop,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Runs it: at first in the caller's poll, later on the guest threads. Dropping the future or the reply's body is
    /// the caller's leaving: the guest is stopped, and what it used is recorded all the same.
    ///
    /// A caller is answered at the deadline at the latest, give or take [`STOP_TIME`]. If its guest cannot be stopped by
    /// then, the answer goes before the record: the one case in which a death of this process loses usage, and the
    /// loss is ours.
    pub async fn invoke(&self, invocation: Invocation) -> Reply {
        let inner = &self.inner;
        let cancel = inner.stop.child_token();
        let gone = cancel.clone().drop_guard();
        let (reply, mut answer) = oneshot::channel();
        let limits = &invocation.revision.manifest.limits;
        let deadline = invocation.accepted + limits.deadline.0;
        let revision = invocation.revision.clone();
        let loaded = inner.loader.loaded(&invocation.revision.digest);
        let fate = Arc::new(Fate::of(loaded.is_some()));
        let tenant: Arc<str> = Arc::from(invocation.tenant.as_str());
        let pace = loaded.as_ref().map(|loaded| loaded.paces.of(&tenant));
        // The caller's task has a budget of polls that must not end in the middle of a guest.
        let life = Box::write(
            Box::new_uninit(),
            unconstrained(inner.tasks.track_future(run::run(
                inner.clone(),
                invocation,
                loaded,
                fate.clone(),
                cancel,
                reply,
            ))),
        );
        let life = Box::into_pin(life);
        let mut held = inner.guests.take(tenant, deadline, pace, life);
        let mut too_late = pin!(sleep_until(deadline + STOP_TIME));
        let mut given_up = false;
        let answer = poll_fn(|cx| {
            held.poll(cx);
            if let Poll::Ready(answer) = Pin::new(&mut answer).poll(cx) {
                return Poll::Ready(Ok(answer));
            }
            if !given_up && too_late.as_mut().poll(cx).is_ready() {
                given_up = true;
                if let Some(told) = fate.give_up() {
                    return Poll::Ready(Err(told));
                }
            }
            Poll::Pending
        });
        match answer.await {
            Ok(Ok(run::Answer { answer, figures })) => {
                Reply { answer: answer.map(|r| r.map(|b| b.guarded(gone))), figures }
            }
            // It panicked and has logged itself.
            Ok(Err(_)) => Reply { answer: Err(Error::internal()), figures: None },
            Err(told) => {
                metrics::counter!("wasmeter_answers_before_stop_total").increment(1);
                Reply { answer: Err(Verdict::told(told, &revision.manifest.limits)), figures: None }
            }
        }
    }

    /// The list prices; none if billing was never reached.
    #[must_use]
    pub fn prices(&self) -> Option<Arc<PriceSheet>> {
        self.inner.recorder.prices()
    }

    /// Whether the usage of new work could be recorded.
    #[must_use]
    pub fn accepting(&self) -> bool {
        self.inner.recorder.accepting()
    }

    /// Invocations whose usage is not recorded yet.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.inner.tasks.len()
    }

    /// Waits until every invocation has recorded its usage; stops the guests that still run after `patience`.
    pub async fn drain(&self, patience: Duration) {
        self.inner.tasks.close();
        if tokio::time::timeout(patience, self.inner.tasks.wait()).await.is_err() {
            self.inner.stop.cancel();
            self.inner.tasks.wait().await;
        }
    }
}

/// The names that a revision may load, in the form that each of its invocations shares.
fn allow_list(revision: &Revision) -> Arc<[ModelName]> {
    revision.manifest.models.allow.as_slice().into()
}

/// What one invocation may hold of wasi:nn.
fn nn_limits(models: ModelsLimits) -> NnLimits {
    let size = |count: u32| usize::try_from(count).unwrap_or(usize::MAX);
    NnLimits {
        graphs: size(models.graphs),
        contexts: size(models.contexts),
        tensor_bytes: usize::try_from(models.tensors).unwrap_or(usize::MAX),
        computes: models.computes,
        in_flight: size(models.in_flight),
    }
}
