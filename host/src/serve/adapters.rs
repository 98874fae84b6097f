//! What each crate asks of the others, answered.

use std::collections::HashSet;
use std::sync::Arc;

use async_trait::async_trait;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use tokio::sync::{broadcast, watch};
use wasmeter_admission::Budgets;
use wasmeter_catalog::{
    Catalog, KeyValueStore as _, ModelRef, ModelVersion, RecordingStore as _, Revision, Snapshot,
};
use wasmeter_control::{Checked, DeployStage, Deployer, Ledger, Logs};
use wasmeter_inference::{Handle, ModelKey, ModelState, Owner};
use wasmeter_ingress::{Taken, WebhookSink};
use wasmeter_metering::{BillingClient, BillingError, Spool};
use wasmeter_nn::Resolver;
use wasmeter_runtime::{CompileStage, LoadError, Loader, LogHub, RecordError, Recorder, Recording};
use wasmeter_store::{SqliteKeyValueStore, SqliteRecordingStore};
use wasmeter_types::{Digest, Error, ErrorKind, FunctionName, TenantName};
use wasmeter_usage::wire::{Call, Reply};
use wasmeter_usage::{PriceSheet, UsageRecord};

/// Usage into the spool, priced by the sheet that billing gave last.
pub(crate) struct SpoolRecorder {
    pub(crate) spool: Spool,
    pub(crate) billing: BillingClient,
    /// A benchmark's: nothing is recorded.
    pub(crate) off: bool,
    pub(crate) recordings: SqliteRecordingStore,
}

#[async_trait]
impl Recorder for SpoolRecorder {
    fn prices(&self) -> Option<Arc<PriceSheet>> {
        self.billing.prices()
    }

    fn accepting(&self) -> bool {
        // Without a price sheet a record could not be booked: billing was never reached on this machine.
        self.spool.accepting() && self.billing.prices().is_some()
    }

    async fn record(&self, record: &UsageRecord) -> Result<(), RecordError> {
        if self.off {
            return Ok(());
        }
        self.spool.append_durably(record).await.map(drop).map_err(|e| RecordError(e.to_string()))
    }

    fn keep(&self, recording: Recording) {
        let kept = serde_json::to_vec(&recording)
            .is_ok_and(|bytes| self.recordings.keep(&recording.tenant, recording.invocation, bytes));
        let count = if kept {
            metrics::counter!("wasmeter_recordings_kept_total")
        } else {
            metrics::counter!("wasmeter_recordings_lost_total")
        };
        count.increment(1);
    }
}

/// What a model's name means to a tenant: `m` is the version labelled `stable`, or without that label the highest that
/// can be used; `m@canary` and `m@3` name a label or a version. A tenant's own model shadows the operator's of the same
/// name, of which it sees those that it was granted.
pub(crate) struct ModelNames {
    pub(crate) catalog: Catalog,
    pub(crate) handle: Handle,
}

impl Resolver for ModelNames {
    fn resolve(&self, tenant: &str, name: &str) -> Option<ModelKey> {
        let ModelRef { name, which } = ModelRef::parse(name);
        let snapshot = self.catalog.snapshot();
        let (owner, entry) = snapshot.model_for(tenant, name)?;
        let key = |version| model_key(owner, name, version);
        // Loading and evicted ones are as good as ready: who asks for them waits.
        let usable = |version: &ModelVersion| {
            let state = self.handle.state(&key(version.version));
            matches!(state, Some(ModelState::Ready(_) | ModelState::Evicted | ModelState::Loading))
        };
        entry.choose(which, usable).map(|version| key(version.version))
    }
}

/// The device's name of a model version.
pub(crate) fn model_key(tenant: Option<&TenantName>, name: &str, version: u32) -> ModelKey {
    let owner = tenant.map_or(Owner::Operator, |tenant| Owner::Tenant(tenant.to_string()));
    ModelKey { owner, name: name.to_owned(), version }
}

/// Whether any revision of any tenant is made of the component.
pub(crate) fn deployed(now: &Snapshot) -> impl Fn(&Digest) -> bool + use<> {
    let functions = now.tenants.values().flat_map(|t| t.functions.values());
    let digests: HashSet<Digest> = functions.flat_map(|f| f.revisions.iter().map(|r| r.digest)).collect();
    move |digest| digests.contains(digest)
}

/// The components of functions that have room provisioned, with whose they are: they stay in memory.
pub(crate) fn provisioned(catalog: Catalog) -> impl Fn() -> Vec<(String, Digest)> + Send + 'static {
    move || {
        let now = catalog.snapshot();
        let mut kept = Vec::new();
        for (tenant, content) in now.tenants.iter().filter(|(_, content)| content.provisioned > 0) {
            let parts = content.functions.values().flat_map(|f| f.aliases.values()).flat_map(|a| a.parts());
            let revisions = parts.map(|p| &p.revision).filter(|r| r.manifest.limits.provisioned > 0);
            kept.extend(revisions.map(|r| (tenant.to_string(), r.digest)));
        }
        kept
    }
}

/// Uploads through the loader.
pub(crate) struct ComponentDeployer {
    pub(crate) loader: Loader,
    pub(crate) catalog: Catalog,
    pub(crate) logs: LogHub,
    pub(crate) keyvalue: SqliteKeyValueStore,
}

#[async_trait]
impl Deployer for ComponentDeployer {
    async fn check(
        &self,
        tenant: &TenantName,
        component: Bytes,
        told: &watch::Sender<DeployStage>,
    ) -> Result<Checked, Error> {
        let tell = |stage| {
            told.send_replace(match stage {
                CompileStage::Queued(place) => DeployStage::Queued { place },
                CompileStage::Compiling => DeployStage::Compiling,
            });
        };
        let wasi_three = self.catalog.snapshot().tenants.get(tenant).is_some_and(|t| t.wasi3);
        match self.loader.inspect(tenant.as_str(), component, wasi_three, &tell).await {
            Ok(found) => Ok(Checked { imports: found.imports, exports: found.exports }),
            Err(LoadError::Refused(reason)) => Err(Error::new(ErrorKind::Invalid, reason)),
            Err(LoadError::Busy(reason)) => Err(Error::new(ErrorKind::Overloaded, reason)),
            Err(LoadError::Share(reason)) => Err(Error::new(ErrorKind::Quota, reason)),
            Err(error) => {
                tracing::error!(%error, "an upload could not be checked");
                Err(Error::internal())
            }
        }
    }

    async fn forget_kept(
        &self,
        tenant: &TenantName,
        function: &FunctionName,
        revisions: &[Arc<Revision>],
    ) -> Result<(), Error> {
        let youngest = revisions.iter().map(|r| r.created_ns).max().unwrap_or(0);
        self.keyvalue.forget(tenant, function, youngest).await.map_err(|error| {
            tracing::error!(%error, %tenant, %function, "what a function kept cannot be removed, so it was not deleted");
            Error::internal()
        })
    }

    async fn forget(&self, tenant: &TenantName, function: &FunctionName, revisions: &[Arc<Revision>]) {
        self.logs.forget(tenant, function);
        let snapshot = self.catalog.snapshot();
        for revision in revisions {
            let in_use =
                snapshot.tenants.keys().any(|t| snapshot.uses_component(t.as_str(), &revision.digest));
            if !in_use {
                self.loader.forget(&revision.digest);
            }
        }
    }
}

/// The way to billing.
pub(crate) struct BillingLedger {
    pub(crate) billing: BillingClient,
    pub(crate) budgets: Budgets,
}

#[async_trait]
impl Ledger for BillingLedger {
    async fn call(&self, call: Call) -> Result<Reply, Error> {
        let changes = matches!(call, Call::SetBudget { .. } | Call::GrantCredit { .. } | Call::Adjust { .. });
        let answer = self.billing.call(call).await;
        if changes {
            self.budgets.refresh().await;
        }
        answer
            .or_else(|error| match error {
                BillingError::Refused { code, message } => Ok(Reply::Refused { code, message }),
                error => Err(error),
            })
            .map_err(|error| match error {
                BillingError::Unavailable(_) => Error::new(
                    ErrorKind::Unavailable,
                    "billing does not answer; nothing is lost, ask again in a moment",
                ),
                error => {
                    tracing::error!(%error, "a question to billing failed");
                    Error::internal()
                }
            })
    }

    fn prices(&self) -> Option<PriceSheet> {
        self.billing.prices().map(|p| PriceSheet::clone(&p))
    }
}

#[async_trait]
impl WebhookSink for BillingLedger {
    async fn take(&self, signature: &str, body: Bytes) -> Taken {
        let call =
            Call::Webhook { signature: signature.to_owned(), body_base64: BASE64_STANDARD.encode(&body) };
        match self.billing.call(call).await {
            Ok(Reply::Webhook { status, message }) => {
                tracing::debug!(status, message, "billing judged a webhook");
                if status < 300 {
                    // It may be about who has paid.
                    self.budgets.look().await;
                }
                Taken::Judged(status)
            }
            Ok(other) => {
                tracing::error!(?other, "billing answered a webhook with something else");
                Taken::Judged(500)
            }
            Err(BillingError::Refused { code, .. }) if code == "stripe_off" => Taken::Off,
            Err(BillingError::Unavailable(_)) => Taken::Away,
            Err(BillingError::Refused { code, .. }) if matches!(code.as_str(), "stripe_away" | "busy") => {
                Taken::Away
            }
            Err(error) => {
                tracing::error!(%error, "a webhook was not judged");
                Taken::Judged(500)
            }
        }
    }
}

/// What guests wrote.
pub(crate) struct GuestLogs(pub(crate) LogHub);

fn line(line: &wasmeter_runtime::LogLine) -> wasmeter_control::LogLine {
    let stream = match line.stream {
        wasmeter_runtime::LogStream::Stdout => wasmeter_control::LogStream::Stdout,
        wasmeter_runtime::LogStream::Stderr => wasmeter_control::LogStream::Stderr,
        wasmeter_runtime::LogStream::Log => wasmeter_control::LogStream::Log,
        wasmeter_runtime::LogStream::Platform => wasmeter_control::LogStream::Platform,
    };
    wasmeter_control::LogLine {
        time_ns: line.time_ns,
        invocation: Some(line.invocation),
        stream,
        level: line.level.map(wasmeter_runtime::LogLevel::as_str),
        text: line.text.clone(),
    }
}

impl Logs for GuestLogs {
    fn tail(&self, tenant: &TenantName, function: &FunctionName) -> Vec<wasmeter_control::LogLine> {
        self.0.tail(tenant, function).iter().map(|l| line(l)).collect()
    }

    fn follow(
        &self,
        tenant: &TenantName,
        function: &FunctionName,
    ) -> (Vec<wasmeter_control::LogLine>, broadcast::Receiver<wasmeter_control::LogLine>) {
        let (kept, mut lines) = self.0.follow(tenant, function);
        let (sender, receiver) = broadcast::channel(256);
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    next = lines.recv() => match next {
                        Ok(next) => if sender.send(line(&next)).is_err() {
                            return;
                        },
                        Err(broadcast::error::RecvError::Lagged(_)) => {}
                        Err(broadcast::error::RecvError::Closed) => return,
                    },
                    () = sender.closed() => return,
                }
            }
        });
        (kept.iter().map(|l| line(l)).collect(), receiver)
    }
}
