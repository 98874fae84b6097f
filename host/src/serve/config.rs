use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use serde::Deserialize;
use wasmeter_catalog::Provisionable;
use wasmeter_device::WorkerOptions;
use wasmeter_ingress::{Domain, Tls};
use wasmeter_metering::{Durability, SpoolOptions};
use wasmeter_nn::TenantLimits;
use wasmeter_runtime::GuestOptions;
use wasmeter_types::{ByteSize, WallTime};

use super::functions::FunctionsSection;
use super::keyvalue::KeyValueConfig;
use super::money::Billing;
use super::outbound::OutboundSection;
use super::recordings::RecordingsSection;

/// `wasmeter-server.toml`. Every key has a default, so that no file at all is a working single machine.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub(crate) struct Config {
    pub(crate) server: Server,
    pub(crate) admission: Admission,
    pub(crate) engines: Engines,
    pub(crate) functions: FunctionsSection,
    pub(crate) billing: Billing,
    pub(crate) outbound: OutboundSection,
    pub(crate) keyvalue: KeyValueConfig,
    pub(crate) recordings: RecordingsSection,
}

/// `[server]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub(crate) struct Server {
    /// The data directory.
    pub(crate) data: PathBuf,
    /// The public listener.
    pub(crate) listen: SocketAddr,
    /// The admin listener.
    pub(crate) admin_listen: SocketAddr,
    /// Whether a non-loopback address may be served without TLS.
    pub(crate) insecure: bool,
    /// `process` or `power`.
    pub(crate) durability: DurabilityLevel,
    /// Usage that waits for billing, in bytes on disk; while there is no room for more, new work is answered 503.
    pub(crate) spool_max: ByteSize,
    /// How long a shutdown waits for what runs.
    pub(crate) drain_timeout: WallTime,
    /// Connections at one time.
    pub(crate) connections: usize,
    /// Threads that run long calls; 0 is one for each processor.
    pub(crate) guest_threads: usize,
    /// Microseconds that a call may run on the thread of its connection before it moves to a guest thread; 0 is not at
    /// all, which keeps that thread free at the price of two wake-ups a call.
    pub(crate) first_turn_us: u64,
    /// How long a client may take over a request's head, and be silent within its body.
    pub(crate) client_timeout: WallTime,
    /// Below it each function has a host name of its own: `{function}--{tenant}.{domain}`.
    pub(crate) domain: Option<String>,
    /// The certificate chain of the public listener, PEM; with `tls-key`, HTTPS instead of HTTP.
    pub(crate) tls_certificate: Option<PathBuf>,
    /// Its key, PEM, mode 0600.
    pub(crate) tls_key: Option<PathBuf>,
}

/// The smallest bound of a spool.
const SPOOL_LEAST: u64 = 1 << 20;

impl Server {
    /// How usage is kept until billing has it.
    pub(crate) fn spool(&self) -> SpoolOptions {
        let default = SpoolOptions::default();
        SpoolOptions {
            durability: self.durability.into(),
            max_bytes: self.spool_max.0,
            // A full spool is several segments, so that it empties bit by bit.
            segment_bytes: default.segment_bytes.min(self.spool_max.0 / 8),
            ..default
        }
    }

    /// Where guests run.
    pub(crate) fn guests(&self) -> GuestOptions {
        let default = GuestOptions::default();
        GuestOptions {
            threads: if self.guest_threads == 0 { default.threads } else { self.guest_threads },
            first_turn: Duration::from_micros(self.first_turn_us),
            ..default
        }
    }

    /// `http` or `https`.
    pub(crate) fn scheme(&self) -> &'static str {
        if self.tls_certificate.is_some() { "https" } else { "http" }
    }

    /// The domain, if there is one.
    pub(crate) fn domain(&self) -> anyhow::Result<Option<Domain>> {
        self.domain.as_deref().map(|d| d.parse().context("server.domain")).transpose()
    }

    /// TLS, if it is configured. Blocking.
    pub(crate) fn tls(&self) -> anyhow::Result<Option<Tls>> {
        match (&self.tls_certificate, &self.tls_key) {
            (Some(certificate), Some(key)) => Ok(Some(Tls::open(certificate, key)?)),
            (None, None) => Ok(None),
            _ => bail!("server.tls-certificate and server.tls-key are needed together"),
        }
    }
}

/// What a usage record survives before its answer is released.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum DurabilityLevel {
    /// The death of every process.
    Process,
    /// A power cut.
    Power,
}

impl From<DurabilityLevel> for Durability {
    fn from(level: DurabilityLevel) -> Self {
        match level {
            DurabilityLevel::Process => Durability::Process,
            DurabilityLevel::Power => Durability::Power,
        }
    }
}

/// `[admission]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub(crate) struct Admission {
    /// Invocations in flight on this host.
    pub(crate) in_flight: usize,
    /// The part of them that one tenant may hold.
    pub(crate) tenant_percent: usize,
    /// The part of them that functions may have provisioned (`limits.provisioned`); of that, one tenant may have
    /// `tenant-percent`.
    pub(crate) provisioned_percent: usize,
    /// wasi:nn graphs that the invocations of one tenant may hold together.
    pub(crate) tenant_graphs: usize,
    /// wasi:nn execution contexts likewise.
    pub(crate) tenant_contexts: usize,
    /// Bytes of wasi:nn tensors likewise.
    pub(crate) tenant_tensors: ByteSize,
}

impl Admission {
    /// What functions may have provisioned.
    pub(crate) fn provisionable(&self) -> Provisionable {
        let host = self.in_flight * self.provisioned_percent / 100;
        let tenant = host * self.tenant_percent / 100;
        let size = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
        // Whoever may have a place at all may have one.
        Provisionable { host: size(host), tenant: size(tenant.max(host.min(1))) }
    }

    /// What of wasi:nn the invocations of one tenant may hold together.
    pub(crate) fn nn(&self) -> TenantLimits {
        TenantLimits {
            graphs: self.tenant_graphs,
            contexts: self.tenant_contexts,
            tensor_bytes: usize::try_from(self.tenant_tensors.0).unwrap_or(usize::MAX),
        }
    }
}

/// `[engines]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub(crate) struct Engines {
    /// Path of libonnxruntime.so; searched for if absent.
    pub(crate) onnxruntime: Option<PathBuf>,
    /// Path of libopenvino_c.so, its plugins beside it; searched for if absent.
    pub(crate) openvino: Option<PathBuf>,
    /// Devices of this host, such as `["cpu:0", "openvino:CPU"]`, which is the default where OpenVINO is found; without
    /// it `["cpu:0"]`. One that is asked for and not there is an error of the models on it, never another device.
    pub(crate) devices: Option<Vec<String>>,
    /// Threads of one run on a processor, whatever the engine; 0 is one for each processor.
    pub(crate) threads: u16,
    /// Whether who waits for a short time looks before it sleeps, in the engine too.
    pub(crate) spin: bool,
    /// The most memory that ONNX Runtime's arena may take on a CUDA device; 4 GiB if absent.
    pub(crate) device_memory: Option<ByteSize>,
    /// Memory that the models on a device may take: what their loads were seen to take, before that twice their files.
    pub(crate) model_memory: ByteSize,
    /// Deaths of a worker under one model version within ten minutes that quarantine the version.
    pub(crate) quarantine_after: u32,
    /// The most private memory of a worker process.
    pub(crate) worker_memory: ByteSize,
    /// Computes that may wait for one device; one more is refused.
    pub(crate) queue: usize,
    /// How long a load waits for models in use to leave room.
    pub(crate) load_wait: WallTime,
    /// How long an engine may take to load a model.
    pub(crate) load_timeout: WallTime,
    /// The longest wait before a worker that died is started again; the first is 10 ms, and each doubles the last.
    pub(crate) restart_wait: WallTime,
    /// How long a worker of a tenant may have nothing to do before it is ended.
    pub(crate) idle_after: WallTime,
    /// Whether workers are refused that the kernel cannot confine in every way that we know.
    pub(crate) require_sandbox: bool,
}

impl Default for Engines {
    fn default() -> Self {
        let worker = WorkerOptions::default();
        Self {
            onnxruntime: None,
            openvino: None,
            devices: None,
            threads: 0,
            device_memory: None,
            model_memory: ByteSize(8 << 30),
            quarantine_after: 2,
            spin: worker.spin,
            worker_memory: ByteSize(worker.memory_limit),
            queue: 1024,
            load_wait: WallTime(Duration::from_secs(10)),
            load_timeout: WallTime(worker.load_timeout),
            restart_wait: WallTime(worker.restart_max),
            idle_after: WallTime(worker.idle_after),
            require_sandbox: worker.require_sandbox,
        }
    }
}

impl Engines {
    /// Names of the devices.
    pub(crate) fn devices(&self) -> Vec<String> {
        if let Some(devices) = &self.devices {
            return devices.clone();
        }
        let openvino = wasmeter_device::find_openvino(self.openvino.as_deref()).is_ok();
        let openvino = openvino.then(|| "openvino:CPU".to_owned());
        std::iter::once("cpu:0".to_owned()).chain(openvino).collect()
    }

    /// How the workers of each device are started.
    pub(crate) fn worker(&self) -> WorkerOptions {
        let mut options = WorkerOptions {
            onnxruntime: self.onnxruntime.clone(),
            openvino: self.openvino.clone(),
            threads: self.threads,
            memory_limit: self.worker_memory.0,
            load_timeout: self.load_timeout.0,
            restart_max: self.restart_wait.0,
            idle_after: self.idle_after.0,
            require_sandbox: self.require_sandbox,
            spin: self.spin,
            ..WorkerOptions::default()
        };
        if let Some(size) = self.device_memory {
            options.device_memory_limit = size.0;
        }
        options
    }

    fn check_devices(&self) -> anyhow::Result<()> {
        let devices = self.devices.as_deref().unwrap_or_default();
        ensure!(
            self.devices.is_none() || !devices.is_empty(),
            "engines.devices is empty: name at least \"cpu:0\", or leave it out"
        );
        for (index, device) in devices.iter().enumerate() {
            wasmeter_device::check_device_name(device).context("engines.devices")?;
            ensure!(!devices[..index].contains(device), "engines.devices names {device} twice");
        }
        Ok(())
    }

    fn check(&self) -> anyhow::Result<()> {
        ensure!(self.model_memory.0 > 0, "engines.model-memory must be more than 0, such as \"4GiB\"");
        // Below it no engine starts.
        ensure!(self.worker_memory.0 >= 256 << 20, "engines.worker-memory must be at least 256MiB");
        ensure!((1..=100_000).contains(&self.queue), "engines.queue must be 1 to 100000");
        ensure!(
            self.quarantine_after > 0,
            "engines.quarantine-after must be at least 1: the deaths after which a model version is quarantined"
        );
        let (second, hour) = (Duration::from_secs(1), Duration::from_secs(3600));
        let times = [
            ("load-wait", self.load_wait, Duration::ZERO, hour),
            ("load-timeout", self.load_timeout, second, hour),
            ("restart-wait", self.restart_wait, Duration::from_millis(10), hour),
            ("idle-after", self.idle_after, second, hour * 24 * 365),
        ];
        for (key, time, least, most) in times {
            let (least, most) = (WallTime(least), WallTime(most));
            ensure!(
                (least.0..=most.0).contains(&time.0),
                "engines.{key} is {time}: it must be {least} to {most}"
            );
        }
        self.check_devices()
    }
}

impl Default for Server {
    fn default() -> Self {
        Self {
            data: PathBuf::from(".wasmeter"),
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            admin_listen: SocketAddr::from(([127, 0, 0, 1], 9464)),
            insecure: false,
            durability: DurabilityLevel::Process,
            spool_max: ByteSize(1 << 30),
            drain_timeout: WallTime(Duration::from_secs(30)),
            connections: 4096,
            guest_threads: 0,
            first_turn_us: 1_000,
            client_timeout: WallTime(Duration::from_secs(10)),
            domain: None,
            tls_certificate: None,
            tls_key: None,
        }
    }
}

impl Default for Admission {
    fn default() -> Self {
        let nn = TenantLimits::default();
        Self {
            in_flight: 1024,
            tenant_percent: 75,
            provisioned_percent: 50,
            tenant_graphs: nn.graphs,
            tenant_contexts: nn.contexts,
            tenant_tensors: ByteSize(nn.tensor_bytes as u64),
        }
    }
}

impl Config {
    /// The file, with `WASMETER_<SECTION>__<KEY>` of the environment over it.
    pub(crate) fn load(
        file: Option<&Path>,
        env: impl Iterator<Item = (String, String)>,
    ) -> anyhow::Result<Self> {
        let text = match file {
            Some(path) => std::fs::read_to_string(path)
                .with_context(|| format!("cannot read the configuration {}", path.display()))?,
            None => String::new(),
        };
        let mut table: toml::Table = text.parse().context("the configuration is not TOML")?;
        for (name, value) in env {
            let Some((section, key)) = name.strip_prefix("WASMETER_").and_then(|n| n.split_once("__")) else {
                continue;
            };
            let (section, key) = (section.to_ascii_lowercase(), key.to_ascii_lowercase().replace('_', "-"));
            let entry = table.entry(section.clone()).or_insert_with(|| toml::Table::new().into());
            let Some(entry) = entry.as_table_mut() else {
                bail!("{section} is not a section of the configuration")
            };
            entry.insert(key, scalar(value));
        }
        toml::Value::Table(table).try_into().context("the configuration is not valid")
    }

    /// Whether nobody but this machine's users can reach it.
    pub(crate) fn is_private(&self) -> bool {
        let server = &self.server;
        let loopback = server.listen.ip().is_loopback() && server.admin_listen.ip().is_loopback();
        loopback && !server.insecure && server.domain.is_none() && server.tls_certificate.is_none()
    }

    /// Everything that can be told before the first port opens.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        let public = self.server.tls_certificate.is_some();
        for (what, address, tls) in
            [("listen", self.server.listen, public), ("admin-listen", self.server.admin_listen, false)]
        {
            ensure!(
                address.ip().is_loopback() || tls || self.server.insecure,
                "server.{what} is {address}, which is not loopback, and there is no TLS: set server.tls-certificate and server.tls-key for the public listener, or put a TLS proxy in front and say --insecure"
            );
        }
        let client_timeout = self.server.client_timeout;
        ensure!(
            (Duration::from_millis(100)..=Duration::from_secs(300)).contains(&client_timeout.0),
            "server.client-timeout is {client_timeout}: it must be 100ms to 5m"
        );
        ensure!(
            self.server.spool_max.0 >= SPOOL_LEAST,
            "server.spool-max must be at least 1MiB: it holds the usage of everything in flight"
        );
        self.server.domain()?;
        self.server.tls()?;
        ensure!((1..=100_000).contains(&self.admission.in_flight), "admission.in-flight must be 1 to 100000");
        ensure!(
            (1..=100).contains(&self.admission.tenant_percent),
            "admission.tenant-percent must be 1 to 100"
        );
        ensure!(
            self.admission.provisioned_percent <= 90,
            "admission.provisioned-percent must be 0 to 90: the rest is for all who provision nothing"
        );
        let nn = self.admission.nn();
        ensure!(
            nn.graphs > 0 && nn.contexts > 0 && nn.tensor_bytes > 0,
            "admission.tenant-graphs, tenant-contexts and tenant-tensors must be above 0"
        );
        ensure!(
            (1..=1_000_000).contains(&self.server.connections),
            "server.connections must be 1 to 1000000"
        );
        ensure!(self.server.guest_threads <= 1024, "server.guest-threads must be 0 to 1024");
        ensure!(self.server.first_turn_us <= 10_000, "server.first-turn-us must be 0 to 10000");
        self.engines.check()?;
        self.functions.check()?;
        self.outbound.check()?;
        self.keyvalue.check()?;
        self.recordings.check()?;
        self.billing.check(public)
    }
}

/// As TOML would read it, or a plain text.
fn scalar(value: String) -> toml::Value {
    let parsed: Result<toml::Table, _> = format!("v = {value}").parse();
    match parsed.ok().and_then(|mut t| t.remove("v")) {
        Some(v @ (toml::Value::Integer(_) | toml::Value::Boolean(_))) => v,
        _ => toml::Value::String(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str, env: &[(&str, &str)]) -> anyhow::Result<Config> {
        let dir = tempfile::tempdir()?;
        let file = dir.path().join("c.toml");
        std::fs::write(&file, text)?;
        Config::load(Some(&file), env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())))
    }

    #[test]
    fn environment_over_file_over_defaults() {
        let config = load(
            "[server]\nlisten = \"127.0.0.1:1\"\nadmin-listen = \"127.0.0.1:2\"",
            &[
                ("WASMETER_SERVER__LISTEN", "127.0.0.1:3"),
                ("WASMETER_ADMISSION__IN_FLIGHT", "7"),
                ("WASMETER_URL", "x"),
            ],
        );
        let config = config.unwrap();
        assert_eq!(config.server.listen.port(), 3);
        assert_eq!(config.server.admin_listen.port(), 2);
        assert_eq!(config.admission.in_flight, 7);
        config.check().unwrap();
    }

    #[test]
    fn errors_say_what_and_which() {
        let error = |text: &str| format!("{:#}", load(text, &[]).and_then(|c| c.check()).unwrap_err());
        assert!(error("[server]\ncolour = 1").contains("colour"));
        assert!(error("[server]\nlisten = \"0.0.0.0:80\"").contains("server.listen is 0.0.0.0:80"));
        assert!(error("[server]\ndomain = \"*.fn.test\"").contains("*.fn.test"));
        assert!(error("[server]\ntls-certificate = \"c.pem\"").contains("together"));
        let absent =
            "[server]\nlisten = \"0.0.0.0:80\"\ntls-certificate = \"absent.pem\"\ntls-key = \"absent.pem\"";
        assert!(error(absent).contains("absent.pem"));
        assert!(error("[server]\nspool-max = \"64KiB\"").contains("server.spool-max"));
        assert!(error("[admission]\nin-flight = 0").contains("admission.in-flight"));
        assert!(error("[admission]\nprovisioned-percent = 91").contains("admission.provisioned-percent"));
        assert!(error("[engines]\ndevices = [\"gpu:0\"]").contains("cuda:N"));
        assert!(error("[engines]\ndevices = [\"cpu:0\", \"cpu:0\"]").contains("twice"));
        assert!(error("[engines]\ndevices = []").contains("empty"));
        assert!(error("[engines]\nmodel-memory = \"0MiB\"").contains("engines.model-memory"));
        assert!(error("[engines]\nquarantine-after = 0").contains("engines.quarantine-after"));
        assert!(error("[engines]\nworker-memory = \"1MiB\"").contains("engines.worker-memory"));
        assert!(error("[engines]\nqueue = 0").contains("engines.queue"));
        assert!(
            error("[engines]\nidle-after = \"10ms\"")
                .contains("engines.idle-after is 10ms: it must be 1s to")
        );
        assert!(error("[engines]\nload-wait = \"2h\"").contains("engines.load-wait"));
        assert!(error("[engines]\nload-timeout = \"0s\"").contains("engines.load-timeout"));
        assert!(error("[engines]\nrestart-wait = \"1ms\"").contains("engines.restart-wait"));
        assert!(error("[functions]\nloaded = 0").contains("functions.loaded"));
        assert!(error("[functions]\nidle-after = \"10ms\"").contains("functions.idle-after is 10ms"));
        assert!(error("[functions]\nartifacts = \"1MiB\"").contains("functions.artifacts"));
        assert!(error("[functions]\ncompile-queue = 1").contains("functions.compile-queue"));
        assert!(error("[keyvalue]\ntenant-total = \"1KiB\"").contains("keyvalue.tenant-total"));
        assert!(error("[recordings]\ntenant-total = \"1KiB\"").contains("recordings.tenant-total"));
        assert!(error("[recordings]\nkeep = \"1s\"").contains("recordings.keep"));
        assert!(error("[engines]\nrequire-sandbox = 1").contains("require-sandbox"));
    }

    #[test]
    fn engines_are_tuned() {
        let text = "[engines]\nidle-after = \"5m\"\nload-timeout = \"60s\"\nworker-memory = \"1GiB\"\n";
        let env = [("WASMETER_ENGINES__REQUIRE_SANDBOX", "true"), ("WASMETER_ENGINES__RESTART_WAIT", "2s")];
        let config = load(text, &env).unwrap();
        config.check().unwrap();
        let worker = config.engines.worker();
        assert_eq!(
            (worker.idle_after, worker.restart_max),
            (Duration::from_secs(300), Duration::from_secs(2))
        );
        assert_eq!((worker.load_timeout, worker.memory_limit), (Duration::from_secs(60), 1 << 30));
        assert!(worker.require_sandbox && !Config::default().engines.worker().require_sandbox);
        Config::default().check().unwrap();
    }
}
