//! `wasmeter serve`: puts the crates together, runs them, and takes them down in order.

mod adapters;
mod bench;
mod billing;
mod budgets;
mod child;
mod config;
mod functions;
mod keyvalue;
mod models;
mod money;
mod outbound;
mod recordings;
mod telemetry;
mod watch;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use tokio::net::{TcpListener, TcpSocket};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;
use wasmeter_admission::{Budgets, Gate, GateOptions, Grant, HopKey, Scope, Scopes, TokenKeys};
use wasmeter_catalog::{BlobStore, Catalog, SecretStore};
use wasmeter_device::WorkerBackend;
use wasmeter_inference::{DeviceOptions, Service};
use wasmeter_ingress::{AdminDeps, ControlService, Once, Readiness, ServerOptions, Webhooks};
use wasmeter_metering::{BillingClient, BillingOptions, Shipper, Spool};
use wasmeter_runtime::{
    ArtifactCache, Capabilities, Compiler, Engines, Invoker, InvokerOptions, Loader, LogHub, Outbound,
    PoolOptions,
};
use wasmeter_store::{
    DataDir, FsBlobStore, SqliteEventLog, SqliteKeyValueStore, SqliteOnceStore, SqliteRecordingStore,
    SqliteSecretStore, StoredModels,
};
use wasmeter_types::TenantName;

use config::{Config, DurabilityLevel};
pub(crate) use money::Mode;

use crate::cli::serve::{DurabilityArg, ServeArgs};

/// A predecessor that drains may hold the data directory this long.
const LOCK_WAIT: Duration = Duration::from_secs(40);
/// Life of the token files.
const TOKEN_TTL: Duration = Duration::from_secs(30 * 24 * 3600);
/// How long a start waits for billing before it goes on without.
const BILLING_WAIT: Duration = Duration::from_secs(10);
/// How long a shutdown waits until billing has all usage; the rest ships at the next start.
const FLUSH_WAIT: Duration = Duration::from_secs(5);

/// Tasks after which a thread of the runtime looks for news of sockets. A task may be a whole call: with the library's 61,
/// who has an open connection would not be heard for 10 ms beside a flood of new ones.
const EVENT_INTERVAL: u32 = 4;

const WITHOUT_METERING: &str = "--bench-without-metering is for a benchmark on this machine: both listeners must be on loopback addresses, without TLS, a domain or --insecure";

/// Runs the host until a signal.
pub(crate) fn run(args: ServeArgs) -> anyhow::Result<ExitCode> {
    let env =
        || std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)));
    money::refuse_money(env())?;
    let with_config = args.config.is_some();
    let without_metering = args.bench_without_metering;
    let mut config = Config::load(args.config.as_deref(), env())?;
    apply(args, &mut config);
    config.check()?;
    ensure!(!without_metering || config.is_private(), WITHOUT_METERING);
    telemetry::init_logs();
    let metrics = telemetry::install_metrics()?;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().event_interval(EVENT_INTERVAL).enable_all().build()?;
    let code = runtime.block_on(Box::pin(serve(config, with_config, without_metering, metrics)))?;
    // A worker that is still in a host call must not hold the exit.
    runtime.shutdown_timeout(Duration::from_secs(1));
    Ok(code)
}

fn apply(args: ServeArgs, config: &mut Config) {
    let ServeArgs {
        config: _,
        data,
        listen,
        admin_listen,
        insecure,
        durability,
        onnxruntime,
        drain_timeout,
        billing,
        stripe_key_file,
        webhook_secret_file,
        bench_without_metering: _,
    } = args;
    let server = &mut config.server;
    server.data = data.unwrap_or_else(|| server.data.clone());
    server.listen = listen.unwrap_or(server.listen);
    server.admin_listen = admin_listen.unwrap_or(server.admin_listen);
    server.insecure |= insecure;
    server.durability = match durability {
        None => server.durability,
        Some(DurabilityArg::Process) => DurabilityLevel::Process,
        Some(DurabilityArg::Power) => DurabilityLevel::Power,
    };
    server.drain_timeout = drain_timeout.unwrap_or(server.drain_timeout);
    let money = &mut config.billing;
    money.mode = billing.unwrap_or(money.mode);
    money.stripe_key_file = stripe_key_file.or(money.stripe_key_file.take());
    money.webhook_secret_file = webhook_secret_file.or(money.webhook_secret_file.take());
    if onnxruntime.is_some() {
        config.engines.onnxruntime = onnxruntime;
    }
}

async fn serve(
    config: Config,
    with_config: bool,
    without_metering: bool,
    metrics: metrics_exporter_prometheus::PrometheusHandle,
) -> anyhow::Result<ExitCode> {
    let mut signals = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let data = DataDir::open(&config.server.data, LOCK_WAIT)?;
    let tokens = token_keys(&data)?;
    let artifact_key = key(&data, "artifacts.key")?;
    let hops = HopKey::new(&key(&data, "hops.key")?);
    let outbound = Outbound::new(config.outbound.options()?, tokens.clone(), hops.clone())?;
    let events = Box::new(SqliteEventLog::open(&data.catalog())?);
    let provisionable = config.admission.provisionable();
    let catalog = Catalog::open_within(events, provisionable).await?;
    if catalog.snapshot().provisioned > provisionable.host {
        let (provisioned, most) = (catalog.snapshot().provisioned, provisionable.host);
        tracing::warn!(
            provisioned,
            most,
            "more is provisioned than this host gives: raise admission.in-flight"
        );
    }
    let once = Once::new(Arc::new(SqliteOnceStore::open(&data.idempotency())?));
    let there = catalog.snapshot();
    let secrets = SqliteSecretStore::open(&data.secrets(), &key(&data, "secrets.key")?, |tenant| {
        there.tenants.contains_key(tenant)
    })?;
    let secrets: Arc<dyn SecretStore> = Arc::new(secrets);
    let keyvalue_options = config.keyvalue.options(config.server.durability);
    let keyvalue = SqliteKeyValueStore::open(&data.keyvalue(), keyvalue_options, |tenant, function| {
        there.function(tenant, function).is_some()
    })?;
    let recorded = catalog.clone();
    let recordings = SqliteRecordingStore::open(
        &data.recordings(),
        &key(&data, "recordings.key")?,
        config.recordings.options(),
        move |tenant| recorded.snapshot().recorded.contains(tenant),
    )?;
    let (domain, tls) = (config.server.domain()?, config.server.tls()?);
    let blobs: Arc<dyn BlobStore> = Arc::new(FsBlobStore::open(&data.blobs()).context("blob store")?);

    // Usage: spool, billing, the way between them.
    if without_metering {
        tracing::warn!("no usage is recorded: this host is for a benchmark, and nobody is billed");
    }
    let spool = Spool::open(&data.spool(), config.server.spool())?;
    let mut options = BillingOptions::new(data.billing_socket(), spool.node());
    options.prices = Some(data.path().join("prices.json"));
    let billing = BillingClient::new(options);
    let leases = budgets::BillingLeases {
        billing: billing.clone(),
        spool: spool.clone(),
        kept: data.path().join("budgets.json"),
    };
    let kept = leases.kept()?;
    let budgets = Budgets::new(Arc::new(leases), kept);
    let shipper = Shipper::new(spool.clone(), billing.clone());
    let shipping = shipper.handle();
    let stop_shipping = CancellationToken::new();
    let shipper = tokio::spawn(shipper.run(stop_shipping.clone()));

    // Models.
    let files = models::Files::new(StoredModels::new(catalog.clone(), blobs.clone()));
    let device = |name: String| {
        let backend = Box::new(WorkerBackend::new(&name, config.engines.worker()));
        DeviceOptions { name, backend }
    };
    let devices = config.engines.devices().into_iter().map(device).collect();
    let mut options = wasmeter_inference::Options::new(devices, Arc::new(files.clone()));
    options.model_memory = config.engines.model_memory.0;
    options.queue_capacity = config.engines.queue;
    options.load_wait = config.engines.load_wait.0;
    options.warm_up = true;
    options.quarantine_deaths = config.engines.quarantine_after;
    let inference = Service::new(options);
    let handle = inference.handle();
    let stop_devices = CancellationToken::new();
    let devices = tokio::spawn(inference.run(stop_devices.clone().cancelled_owned()));
    let models = Arc::new(models::DeviceModels { catalog: catalog.clone(), files, handle: handle.clone() });

    // Functions.
    let engine = Engines::new(PoolOptions {
        instances: u32::try_from(config.admission.in_flight)?,
        ..PoolOptions::default()
    })?;
    let compiler = Compiler::new(config.functions.compile());
    let artifacts =
        ArtifactCache::open(&data.artifacts(), artifact_key, &engine, config.functions.artifacts.0)?;
    artifacts.retain(adapters::deployed(&catalog.snapshot()))?;
    let loader = Loader::new(&engine, compiler, artifacts, blobs.clone(), config.functions.loader())?;
    let logs = LogHub::default();
    let invoker = Invoker::new(
        loader.clone(),
        handle.clone(),
        Arc::new(adapters::ModelNames { catalog: catalog.clone(), handle: handle.clone() }),
        Arc::new(adapters::SpoolRecorder {
            spool: spool.clone(),
            billing: billing.clone(),
            off: without_metering,
            recordings: recordings.clone(),
        }),
        Capabilities { outbound, secrets: secrets.clone(), keyvalue: Arc::new(keyvalue.clone()) },
        logs.clone(),
        InvokerOptions {
            guests: config.server.guests(),
            nn: config.admission.nn(),
            ..InvokerOptions::default()
        },
    )
    .context("guest threads")?;

    // Addresses: everything that can fail has been tried.
    let listener = bind(config.server.listen, "listen")?;
    let admin_listener = bind(config.server.admin_listen, "admin-listen")?;
    let base_url = base_url(&config, &listener)?;
    let (terms, ledger, socket) =
        (config.billing.clone().absolute()?, data.ledger(), data.billing_socket().to_owned());
    let (twin, webhooks) = (data.path().join("twin"), billing::webhook_url(listener.local_addr()?));
    let money = tokio::task::spawn_blocking(move || {
        billing::BillingProcesses::start(&terms, ledger, socket, twin, webhooks)
    });
    let money = money.await.context("billing")??;
    let way = Arc::new(adapters::BillingLedger { billing: billing.clone(), budgets: budgets.clone() });
    let webhooks = (config.billing.mode != Mode::Off).then(|| Webhooks::new(way.clone()));
    let (router, _) = wasmeter_control::router(wasmeter_control::Deps {
        catalog: catalog.clone(),
        blobs,
        keys: tokens.clone(),
        deployer: Arc::new(adapters::ComponentDeployer {
            loader: loader.clone(),
            catalog: catalog.clone(),
            logs: logs.clone(),
            keyvalue,
        }),
        models: models.clone(),
        secrets,
        recordings: Arc::new(recordings),
        ledger: way,
        logs: Arc::new(adapters::GuestLogs(logs)),
        base_url: base_url.clone(),
    });
    let control = ControlService::new(ServiceExt::<http::Request<wasmeter_ingress::Body>>::map_response(
        router,
        |response: http::Response<_>| response.map(wasmeter_ingress::boxed),
    ));
    let gate = Gate::new(GateOptions {
        host: config.admission.in_flight,
        tenant_percent: config.admission.tenant_percent,
    });
    first_tokens(&config, with_config, &data, &catalog, &tokens).await?;
    // The public address last: who reads it finds the other one.
    let admin_url = format!("http://{}", admin_listener.local_addr()?);
    wasmeter_store::write_private(&data.path().join("admin-url"), admin_url.as_bytes())?;
    wasmeter_store::write_private(&data.path().join("url"), base_url.as_bytes())?;
    let ready = Readiness::default();
    let stop = CancellationToken::new();
    let kept = adapters::provisioned(catalog.clone());
    tokio::spawn(loader.clone().let_go(kept, stop.clone()));
    tokio::spawn(budgets.clone().keep(stop.clone()));
    tokio::spawn(telemetry::keep(metrics.clone(), stop.clone()));
    tokio::spawn(watch::keep(billing.clone(), stop.clone()));
    let admin = AdminDeps {
        metrics: Arc::new(move || {
            metrics.run_upkeep();
            metrics.render()
        }),
    };
    let admin = tokio::spawn(wasmeter_ingress::serve_admin(admin_listener, admin, stop.clone()));
    let server = ServerOptions {
        connections: config.server.connections,
        head_timeout: config.server.client_timeout.0,
        drain_timeout: config.server.drain_timeout.0,
        ..ServerOptions::default()
    };
    let deps = wasmeter_ingress::Deps {
        catalog,
        tokens,
        hops,
        gate: gate.clone(),
        budgets: budgets.clone(),
        invoker: invoker.clone(),
        control,
        webhooks,
        once,
        domain,
        tls: tls.clone(),
        silence: config.server.client_timeout.0,
        ready: ready.clone(),
    };
    if let Some(tls) = tls {
        let mut hangup = signal(SignalKind::hangup())?;
        let asked = async move || {
            hangup.recv().await;
        };
        tokio::spawn(tls.watch(asked, stop.clone()));
    }
    let public = tokio::spawn(Box::pin(wasmeter_ingress::serve(listener, deps, server, stop.clone())));
    tracing::info!(url = base_url, data = %data.path().display(), "wasmeter is listening");

    let starting = async {
        if let Err(error) = billing.ready(BILLING_WAIT).await {
            tracing::warn!(%error, "starting without billing; usage waits in the spool");
        }
        budgets.refresh().await;
        models.load_all().await;
        ready.set(true);
        tracing::info!("wasmeter is ready");
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = starting => {}
        () = next(&mut signals) => {}
    }

    // Down: no new work, then what runs, then what it stands on.
    tracing::info!("draining; a second signal ends at once");
    ready.set(false);
    stop.cancel();
    let patience = config.server.drain_timeout.0;
    let down = async {
        let _ = public.await;
        gate.close();
        invoker.drain(patience).await;
        stop_devices.cancel();
        let _ = devices.await;
        budgets.close().await;
        if let Err(error) = shipping.flush(FLUSH_WAIT).await {
            tracing::warn!(%error, "stopping before billing has all usage");
        }
        stop_shipping.cancel();
        let _ = shipper.await;
        let _ = admin.await;
        let _ = tokio::task::spawn_blocking(move || money.end()).await;
    };
    tokio::select! {
        () = down => {
            let accounts = handle.status().devices;
            for device in &accounts {
                tracing::info!(device = %device.name, charged_ns = device.account.charged_ns, platform_ns = device.account.platform_ns, "device account");
            }
            Ok(ExitCode::SUCCESS)
        }
        () = next(&mut signals) => {
            let _ = spool.durable(spool.last_seq()).await;
            // Not by returning: the end of the runtime would look to each guest like a caller who left, and be billed.
            std::process::exit(130)
        }
    }
}

/// Where clients reach the public listener. A certificate is for names, so with TLS the domain stands for the address.
fn base_url(config: &Config, listener: &TcpListener) -> anyhow::Result<String> {
    let (scheme, address) = (config.server.scheme(), listener.local_addr()?);
    Ok(match &config.server.domain {
        Some(domain) if scheme == "https" => format!("{scheme}://{domain}:{}", address.port()),
        _ => format!("{scheme}://{address}"),
    })
}

async fn next(signals: &mut (Signal, Signal)) {
    tokio::select! {
        _ = signals.0.recv() => {}
        _ = signals.1.recv() => {}
    }
}

/// Connections that may wait to be accepted. Of more than that the kernel drops the handshake, and its peer tries again
/// after a second; by itself tokio asks for 128.
const BACKLOG: u32 = 4096;

fn bind(address: std::net::SocketAddr, what: &str) -> anyhow::Result<TcpListener> {
    let listen = || {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    };
    listen().with_context(|| format!("cannot listen on {address}: choose another with --{what}"))
}

fn token_keys(data: &DataDir) -> anyhow::Result<TokenKeys> {
    let path = data.keys().join("token-issuer.pk8");
    if !path.exists() {
        wasmeter_store::write_private(&path, &TokenKeys::generate()?)?;
    }
    let der = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    TokenKeys::from_pkcs8(&der).with_context(|| format!("{}", path.display()))
}

/// A key of 32 bytes, made at the first start.
fn key(data: &DataDir, name: &str) -> anyhow::Result<[u8; 32]> {
    let key = wasmeter_store::read_or_create_secret(&data.keys().join(name), 32)?;
    key.try_into().map_err(|_| anyhow::anyhow!("keys/{name} does not hold 32 bytes: delete it"))
}

/// The operator's token, and on a loopback machine without configuration the tenant `dev` with its own.
async fn first_tokens(
    config: &Config,
    with_config: bool,
    data: &DataDir,
    catalog: &Catalog,
    tokens: &TokenKeys,
) -> anyhow::Result<()> {
    let grant =
        |subject: &str, tenant, scopes| Grant { subject: subject.to_owned(), tenant, scopes, ttl: TOKEN_TTL };
    let operator = tokens.mint(grant("operator", None, [Scope::Operator].into_iter().collect()))?;
    wasmeter_store::write_private(&data.operator_token(), operator.as_bytes())?;
    if with_config || !config.server.listen.ip().is_loopback() {
        return Ok(());
    }
    let dev: TenantName = "dev".parse()?;
    catalog.put_tenant(dev.clone()).await?;
    let token = tokens.mint(grant("dev", Some(dev), Scopes::tenant()))?;
    ensure!(!token.is_empty(), "an empty token was minted");
    wasmeter_store::write_private(&data.dev_token(), token.as_bytes())?;
    Ok(())
}
