use std::io;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use http_body_util::{BodyExt as _, Full};
use parking_lot::Mutex;
use tokio::time::Instant;
use wasmeter_admission::{Concurrency, Depth, Gate, GateOptions};
use wasmeter_catalog::Revision;
use wasmeter_inference::{ModelKey, ModelSource, Options, Service};
use wasmeter_nn::Resolver;
use wasmeter_types::{Error, WallTime};
use wasmeter_usage::{Outcome, PriceSheet, UsageRecord};

use crate::capability::Capabilities;
use crate::engine::FUEL_SCHEDULE;
use crate::invoke::{Invocation, Invoker, InvokerOptions, RecordError, Recorder};
use crate::loader::Loader;
use crate::logs::LogHub;
use crate::tape::{BadRecording, RECORDING_VERSION, Recording, Tape};

/// How long a second run may take: the first one's machine may have been faster.
const PATIENCE: Duration = Duration::from_secs(600);

/// Runs recorded calls again: by the same code as the first time, without models, secrets, pairs and ways out.
pub struct Replay {
    invoker: Invoker,
    desk: Arc<Desk>,
    gate: Gate,
}

/// What a second run used.
#[derive(Clone, Debug)]
pub struct Replayed {
    /// Units.
    pub fuel: u64,
    /// How it ended.
    pub outcome: Outcome,
    /// Why another fuel proves nothing, if there is a reason.
    pub doubt: Option<String>,
}

/// A recorded call that cannot be run again.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// It got something from outside that is not kept.
    #[error("{0}")]
    Beyond(String),
    /// It was run by another wasmeter.
    #[error("it was recorded by {theirs}, and this is {ours}")]
    Other {
        /// Of the recording.
        theirs: String,
        /// Of this program.
        ours: String,
    },
    /// The recording was changed, or is no recording.
    #[error(transparent)]
    Bad(#[from] BadRecording),
    /// It did not run to its end here.
    #[error("the second run failed: {0}")]
    Failed(String),
}

/// Takes the record of the second run, and says what calls cost.
#[derive(Default)]
struct Desk {
    prices: Mutex<Option<Arc<PriceSheet>>>,
    record: Mutex<Option<UsageRecord>>,
}

#[async_trait]
impl Recorder for Desk {
    fn prices(&self) -> Option<Arc<PriceSheet>> {
        self.prices.lock().clone()
    }

    fn accepting(&self) -> bool {
        true
    }

    async fn record(&self, record: &UsageRecord) -> Result<(), RecordError> {
        *self.record.lock() = Some(record.clone());
        Ok(())
    }
}

/// A second run has no models.
struct NoModels;

impl Resolver for NoModels {
    fn resolve(&self, _: &str, _: &str) -> Option<ModelKey> {
        None
    }
}

impl ModelSource for NoModels {
    fn open(&self, _: &ModelKey) -> io::Result<std::fs::File> {
        Err(io::ErrorKind::NotFound.into())
    }
}

impl Replay {
    /// Over a loader that finds the components of the recordings, as their tenants'. Within a tokio runtime.
    ///
    /// # Errors
    /// If threads cannot be started.
    pub fn new(loader: Loader, capabilities: Capabilities) -> io::Result<Self> {
        let desk = Arc::new(Desk::default());
        let models = Service::new(Options::new(Vec::new(), Arc::new(NoModels))).handle();
        let (logs, options) = (LogHub::default(), InvokerOptions::default());
        let resolver = Arc::new(NoModels);
        let invoker = Invoker::new(loader, models, resolver, desk.clone(), capabilities, logs, options)?;
        Ok(Self { invoker, desk, gate: Gate::new(GateOptions { host: 1, tenant_percent: 100 }) })
    }

    /// Runs a call again. One at a time.
    ///
    /// # Errors
    /// See [`ReplayError`].
    pub async fn run(&mut self, recording: &Recording) -> Result<Replayed, ReplayError> {
        let name = |wasmeter: &str, schedule: &str| format!("wasmeter {wasmeter} (fuel {schedule})");
        let theirs = name(&recording.wasmeter, &recording.fuel_schedule);
        let ours = name(env!("CARGO_PKG_VERSION"), FUEL_SCHEDULE);
        if recording.v != RECORDING_VERSION || theirs != ours {
            return Err(ReplayError::Other { theirs, ours });
        }
        let beyond = || recording.beyond.clone().unwrap_or_else(|| "nothing of it was kept".to_owned());
        let call = recording.call.as_ref().ok_or_else(|| ReplayError::Beyond(beyond()))?;
        let tape = Tape::play(call)?;
        let mut revision = Revision {
            id: recording.revision.clone(),
            digest: call.component,
            manifest: call.manifest.clone(),
            imports: Vec::new(),
            exports: Vec::new(),
            size: 0,
            created_ns: 0,
        };
        let limits = &mut revision.manifest.limits;
        limits.fuel = call.fuel;
        limits.deadline = WallTime(PATIENCE);
        let (tenant, function) = (&recording.tenant, &revision.manifest.function.name);
        let concurrency = Concurrency { most: 1, provisioned: 0, provisioned_of_all: 0 };
        let failed = |error: &Error| ReplayError::Failed(error.message.clone());
        let permit = self.gate.admit(tenant, function, concurrency).map_err(|e| failed(&e))?;
        *self.desk.prices.lock() = call.prices.clone().map(Arc::new);
        let body = |bytes| Full::new(bytes).map_err(|never| match never {}).boxed_unsync();
        let reply = self.invoker.invoke(Invocation {
            id: recording.invocation,
            tenant: tenant.clone(),
            revision: Arc::new(revision),
            request: call.request()?.map(body),
            permit,
            purse: None,
            figures: false,
            accepted: Instant::now(),
            depth: Depth::default(),
            tape: Some(tape.clone()),
        });
        let reply = reply.await;
        if let Ok(response) = reply.answer {
            // A body that breaks off is the end of a call like any other.
            let _ = response.into_body().collect().await;
        }
        let record = self.desk.record.lock().take();
        let record = record.ok_or_else(|| ReplayError::Failed("it left no record".to_owned()))?;
        let doubt = tape.doubts();
        let stopped = matches!(record.outcome, Outcome::Deadline | Outcome::Platform | Outcome::Disconnect);
        if stopped {
            return Err(ReplayError::Failed(format!("outcome {}", record.outcome.as_str())));
        }
        let doubt = recording.doubt.clone().or(doubt);
        Ok(Replayed { fuel: record.fuel, outcome: record.outcome, doubt })
    }
}
