mod body;
mod cgi;
mod command;
mod figures;
mod guest_body;
mod run;
mod verdict;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::Request;
use http_body_util::combinators::UnsyncBoxBody;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use wasmeter_admission::{Depth, Permit};
use wasmeter_catalog::Revision;
use wasmeter_inference::Handle;
use wasmeter_nn::{NnLimits, Resolver};
use wasmeter_types::{Error, InvocationId, ModelName, TenantName};
use wasmeter_usage::{PriceSheet, UsageRecord};

pub use body::{BodyError, ReplyBody};
pub use figures::Figures;

use crate::capability::Outbound;
use crate::loader::Loader;
use crate::logs::LogHub;

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
}

/// Usage could not be kept, so the answer must not be given.
#[derive(Debug, thiserror::Error)]
#[error("usage was not recorded: {0}")]
pub struct RecordError(pub String);

/// How invocations are run.
#[derive(Clone, Copy, Debug)]
pub struct InvokerOptions {
    /// Fuel between two yields to the scheduler: 5 to 10 million are 0.5 to 3 ms.
    pub yield_interval: u64,
    /// Response body bytes that are held back for the head to carry the figures.
    pub hold_bytes: usize,
    /// Time after the first body byte after which the head is sent without them.
    pub hold_time: Duration,
    /// wasi:nn limits.
    pub nn: NnLimits,
}

impl Default for InvokerOptions {
    fn default() -> Self {
        Self {
            yield_interval: 10_000_000,
            hold_bytes: 64 << 10,
            hold_time: Duration::from_millis(50),
            nn: NnLimits::default(),
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
    /// Whether the caller may see the figures.
    pub figures: bool,
    /// When the request was accepted.
    pub accepted: Instant,
    /// Functions that stand behind the request.
    pub depth: Depth,
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
    outbound: Outbound,
    logs: LogHub,
    options: InvokerOptions,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Invoker {
    /// An invoker over its collaborators.
    #[must_use]
    pub fn new(
        loader: Loader,
        models: Handle,
        resolver: Arc<dyn Resolver>,
        recorder: Arc<dyn Recorder>,
        outbound: Outbound,
        logs: LogHub,
        options: InvokerOptions,
    ) -> Self {
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let inner = Inner { loader, models, resolver, recorder, outbound, logs, options, tasks, stop };
        Self { inner: Arc::new(inner) }
    }

    /// Runs it in a task of its own. Dropping the future or the reply's body is the caller's leaving: the guest is
    /// stopped, and what it used is recorded all the same.
    pub async fn invoke(&self, invocation: Invocation) -> Reply {
        let cancel = self.inner.stop.child_token();
        let gone = cancel.clone().drop_guard();
        let (reply, answer) = oneshot::channel();
        self.inner.tasks.spawn(run::run(self.inner.clone(), invocation, cancel, reply));
        match answer.await {
            Ok(run::Answer { answer, figures }) => {
                Reply { answer: answer.map(|r| r.map(|b| b.guarded(gone))), figures }
            }
            // The task panicked; it has logged itself.
            Err(_) => Reply { answer: Err(Error::internal()), figures: None },
        }
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
