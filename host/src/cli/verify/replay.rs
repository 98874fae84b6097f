use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde::Deserialize;
use serde_json::{Value, json};
use tempfile::TempDir;
use wasmeter_admission::{HopKey, TokenKeys};
use wasmeter_catalog::{BlobKey, BlobKind, BlobStore};
use wasmeter_runtime::{
    ArtifactCache, Capabilities, CompileOptions, Compiler, Engines, Loader, LoaderOptions, Outbound,
    OutboundOptions, PoolOptions, Recording, Replay,
};
use wasmeter_store::{FsBlobStore, KeyValueOptions, SqliteKeyValueStore, SqliteSecretStore};
use wasmeter_types::{Digest, InvocationId};
use wasmeter_usage::UsageRecord;

use crate::cli::client::{Client, Refused};
use crate::cli::connect::TenantConnect;
use crate::cli::output::{count, harmless};

/// The largest component that is fetched: what the server takes.
const MAX_COMPONENT: u64 = wasmeter_control::MAX_COMPONENT;
/// Wall time of compiling one.
const COMPILE_WALL: Duration = Duration::from_secs(300);

/// What running the calls again has shown.
#[derive(Default)]
pub(super) struct Found {
    /// Calls whose fuel is what their receipts say.
    agreed: u64,
    pub(super) differ: Vec<Differs>,
    /// Calls of which nothing can be told, by reason.
    pub(super) untold: BTreeMap<String, Vec<InvocationId>>,
}

pub(super) struct Differs {
    invocation: InvocationId,
    receipt: u64,
    replay: u64,
}

/// A line of the receipts; others have no invocation.
#[derive(Deserialize)]
struct Line {
    record: Option<UsageRecord>,
}

/// Why nothing can be told of a call.
struct Untold(String);

pub(super) fn run(receipts: &Path, connect: &TenantConnect) -> Result<Found> {
    let (client, _) = connect.client()?;
    let file =
        File::open(receipts).with_context(|| format!("cannot read receipts {}", receipts.display()))?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let _within = runtime.enter();
    let mut runs = Runs::new(client)?;
    let mut found = Found::default();
    for line in BufReader::new(file).lines() {
        let line: Line = serde_json::from_str(&line?).context("a line of the receipts")?;
        let Some(record) = line.record else { continue };
        match runtime.block_on(runs.again(&record))? {
            Ok(fuel) if fuel == record.fuel => found.agreed += 1,
            Ok(replay) => {
                let (invocation, receipt) = (record.invocation, record.fuel);
                found.differ.push(Differs { invocation, receipt, replay });
            }
            Err(Untold(why)) => found.untold.entry(why).or_default().push(record.invocation),
        }
    }
    Ok(found)
}

/// Runs calls again, one after the other.
struct Runs {
    client: Client,
    blobs: Arc<FsBlobStore>,
    replay: Replay,
    /// By tenant and revision; `None` is one that is not to be had any more.
    components: HashMap<(String, String), Option<Digest>>,
    _folder: TempDir,
}

impl Runs {
    fn new(client: Client) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("wasmeter-replay-").tempdir()?;
        let at = |name: &str| folder.path().join(name);
        let engines = Engines::new(PoolOptions { instances: 4, ..PoolOptions::default() })?;
        let compiler = Compiler::new(CompileOptions {
            exe: PathBuf::from("/proc/self/exe"),
            wall: COMPILE_WALL,
            parallel: 1,
            waiting: 1,
        });
        let key: [u8; 32] = wasmeter_store::read_or_create_secret(&at("artifacts.key"), 32)?
            .try_into()
            .map_err(|_| anyhow::anyhow!("a key of 32 bytes"))?;
        let artifacts = ArtifactCache::open(&at("artifacts"), key, &engines, u64::MAX)?;
        let blobs = Arc::new(FsBlobStore::open(&at("blobs"))?);
        let loader = Loader::new(&engines, compiler, artifacts, blobs.clone(), LoaderOptions::default())?;
        // Nothing of these is asked for by a call that can be run again.
        let tokens = TokenKeys::from_pkcs8(&TokenKeys::generate()?)?;
        let options = KeyValueOptions::default();
        let capabilities = Capabilities {
            outbound: Outbound::new(OutboundOptions::default(), tokens, HopKey::new(&key))?,
            secrets: Arc::new(SqliteSecretStore::open(&at("secrets.sqlite"), &key, |_| false)?),
            keyvalue: Arc::new(SqliteKeyValueStore::open(&at("keyvalue.sqlite"), options, |_, _| false)?),
        };
        let replay = Replay::new(loader, capabilities)?;
        Ok(Self { client, blobs, replay, components: HashMap::new(), _folder: folder })
    }

    /// The fuel of a second run of the call, or why there is none.
    async fn again(&mut self, record: &UsageRecord) -> Result<Result<u64, Untold>> {
        let untold = |why: &str| Ok(Err(Untold(why.to_owned())));
        let (Some(function), Some(revision)) = (&record.function, &record.revision) else {
            return untold("it called no function");
        };
        let Some(recording) = self.recording(record)? else { return untold("it was not recorded") };
        let same = recording.invocation == record.invocation
            && recording.tenant.as_str() == record.tenant
            && recording.revision == *revision
            && recording.fuel_schedule == record.fuel_schedule;
        ensure!(same, "the server's recording of {} is of another call", record.invocation);
        if let Some(call) = &recording.call {
            let Some(digest) = self.component(&record.tenant, function, revision).await? else {
                return untold("its revision is not there any more");
            };
            // The id of a revision is a hash of both: neither can be another than the receipt names.
            let names = call.component == digest && call.revision_id()? == *revision;
            ensure!(
                names,
                "component or manifest of {} are not those of revision {revision}",
                record.invocation
            );
        }
        Ok(match self.replay.run(&recording).await {
            Ok(again) if again.fuel == record.fuel => Ok(again.fuel),
            Ok(again) => match again.doubt {
                Some(why) => Err(Untold(format!("{why}, and its fuel was another"))),
                None => Ok(again.fuel),
            },
            Err(error) => Err(Untold(error.to_string())),
        })
    }

    fn recording(&self, record: &UsageRecord) -> Result<Option<Recording>> {
        let path = format!("/api/v1/tenants/{}/recordings/{}", record.tenant, record.invocation);
        match self.client.get(&path) {
            Ok(value) => Ok(Some(serde_json::from_value(value).context("the server's recording")?)),
            Err(error) if is_absent(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Fetches the component, once; its digest.
    async fn component(&mut self, tenant: &str, function: &str, revision: &str) -> Result<Option<Digest>> {
        let key = (tenant.to_owned(), revision.to_owned());
        if let Some(known) = self.components.get(&key) {
            return Ok(*known);
        }
        let path = format!("/api/v1/tenants/{tenant}/functions/{function}/revisions/{revision}/component");
        let fetched = match self.client.get_stream(&path) {
            Ok(body) => {
                let mut bytes = Vec::new();
                body.take(MAX_COMPONENT + 1).read_to_end(&mut bytes).context("a component")?;
                if bytes.len() as u64 > MAX_COMPONENT {
                    bail!("the component of {function} has more than {MAX_COMPONENT} bytes");
                }
                let id = Digest::of(&bytes);
                let blob = BlobKey { owner: tenant.to_owned(), kind: BlobKind::Component, id };
                self.blobs.put(&blob, bytes).await?;
                Some(id)
            }
            Err(error) if is_absent(&error) => None,
            Err(error) => return Err(error),
        };
        self.components.insert(key, fetched);
        Ok(fetched)
    }
}

fn is_absent(error: &anyhow::Error) -> bool {
    error.downcast_ref::<Refused>().is_some_and(|refused| refused.status == 404)
}

impl Found {
    pub(super) fn json(&self) -> Value {
        let differ = |d: &Differs| json!({ "invocation": d.invocation, "receipt_fuel": d.receipt, "replay_fuel": d.replay });
        let untold =
            |(why, calls): (&String, &Vec<InvocationId>)| json!({ "why": why, "invocations": calls });
        json!({
            "agreed": self.agreed,
            "differ": self.differ.iter().map(differ).collect::<Vec<_>>(),
            "not_told": self.untold.iter().map(untold).collect::<Vec<_>>(),
        })
    }

    pub(super) fn text(&self) -> String {
        let mut text = format!("run again   {} calls with the fuel of their receipts\n", count(self.agreed));
        for Differs { invocation, receipt, replay } in &self.differ {
            let (receipt, replay) = (count(*receipt), count(*replay));
            text.push_str(&format!(
                "WRONG       {invocation}: the receipt says {receipt} fuel, it takes {replay}\n"
            ));
        }
        for (why, calls) in &self.untold {
            let first = calls.first().map(ToString::to_string).unwrap_or_default();
            let (calls, why) = (count(calls.len() as u64), harmless(why));
            text.push_str(&format!("not told    {calls} calls: {why} (the first is {first})\n"));
        }
        text
    }
}
