use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{
    ByteSize, FunctionName, HttpSection, IdempotencySection, KeyValueSection, ModelsSection, SecretsSection,
    WallTime, WebsocketSection,
};

/// `wasmeter.toml` beside a function: what it is, may use, and is limited to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FunctionManifest {
    /// Name and trigger.
    pub function: FunctionSection,
    /// How the CLI builds the component; the host ignores it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub build: Option<BuildSection>,
    /// Limits of one invocation.
    #[serde(default)]
    pub limits: Limits,
    /// Models it may load, and how much of wasi:nn it may hold.
    #[serde(default)]
    pub models: ModelsSection,
    /// Outbound HTTP.
    #[serde(default)]
    pub http: HttpSection,
    /// What `wasi:config` gives.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub config: BTreeMap<String, String>,
    /// Secrets that it may ask for.
    #[serde(default, skip_serializing_if = "SecretsSection::is_empty")]
    pub secrets: SecretsSection,
    /// What it may keep.
    #[serde(default, skip_serializing_if = "KeyValueSection::is_empty")]
    pub keyvalue: KeyValueSection,
    /// Environment variables of the guest.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Repeated triggers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idempotency: Option<IdempotencySection>,
    /// Limits of WebSockets; the defaults if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub websocket: Option<WebsocketSection>,
}

/// `[function]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FunctionSection {
    /// Name.
    pub name: FunctionName,
    /// Path of the component, relative to the manifest; the host ignores it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub component: Option<String>,
    /// Trigger without a token.
    #[serde(default)]
    pub public: bool,
}

/// `[build]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct BuildSection {
    /// A shell command, run in the manifest's folder; cargo if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    /// Run the component's `wizer-initialize` once, before it is deployed, and keep what it left in memory.
    #[serde(default)]
    pub pre_init: bool,
}

/// `[limits]`: of one invocation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct Limits {
    /// Linear memory of all of the invocation's instances together.
    pub memory: ByteSize,
    /// Fuel units.
    pub fuel: u64,
    /// Wall time from admission to the end of the guest.
    pub deadline: WallTime,
    /// Request body.
    pub request_body: ByteSize,
    /// Response body.
    pub response_body: ByteSize,
    /// Invocations of the function at one time on one host.
    pub concurrency: u32,
    /// How many of them always find room on the host, whatever else runs there; none if absent.
    #[serde(skip_serializing_if = "is_zero")]
    pub provisioned: u32,
    /// Core instances of the component; 64 if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instances: Option<u32>,
    /// Tables of all instances; 32 if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tables: Option<u32>,
    /// Elements of all tables together; 100,000 if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub table_elements: Option<u32>,
    /// Resource handles (streams, pollables, header fields, tensors) at one time; 10,000 if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub handles: Option<u32>,
    /// Bytes that one call to the host may hand over; as many as `memory` if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host_call_bytes: Option<ByteSize>,
    /// Header fields of the request, and of the answer; 100 if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub headers: Option<u32>,
    /// Bytes of the header fields of the request, and of the answer; 64 KiB if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub header_bytes: Option<ByteSize>,
}

/// Revision ids are made of what is written: a field that older manifests do not have must not be in it.
#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(n: &u32) -> bool {
    *n == 0
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory: ByteSize(128 << 20),
            fuel: 50_000_000_000,
            deadline: WallTime(Duration::from_secs(10)),
            request_body: ByteSize(8 << 20),
            response_body: ByteSize(64 << 20),
            concurrency: 64,
            provisioned: 0,
            instances: None,
            tables: None,
            table_elements: None,
            handles: None,
            host_call_bytes: None,
            headers: None,
            header_bytes: None,
        }
    }
}

/// A manifest that cannot be accepted.
#[derive(Debug, Clone, thiserror::Error)]
#[error("manifest: {0}")]
pub struct ManifestError(String);

impl ManifestError {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }
}

/// The plan's ceiling of each limit, until tenants have plans of their own.
const MOST: Limits = Limits {
    memory: ByteSize(1 << 30),
    fuel: 1_000_000_000_000,
    deadline: WallTime(Duration::from_secs(300)),
    request_body: ByteSize(64 << 20),
    response_body: ByteSize(1 << 30),
    concurrency: 512,
    // Bounded by `concurrency`, and by what the host has left.
    provisioned: 0,
    // Bounds have ceilings of their own.
    instances: None,
    tables: None,
    table_elements: None,
    handles: None,
    host_call_bytes: None,
    headers: None,
    header_bytes: None,
};

impl FunctionManifest {
    /// The manifest of a function with nothing but a name.
    #[must_use]
    pub fn new(name: FunctionName) -> Self {
        Self {
            function: FunctionSection { name, component: None, public: false },
            build: None,
            limits: Limits::default(),
            models: ModelsSection::default(),
            http: HttpSection::default(),
            config: BTreeMap::new(),
            secrets: SecretsSection::default(),
            keyvalue: KeyValueSection::default(),
            env: BTreeMap::new(),
            idempotency: None,
            websocket: None,
        }
    }

    /// Reads and checks a manifest.
    ///
    /// # Errors
    /// The place and the reason, as TOML or as a limit outside the plan.
    pub fn from_toml(text: &str) -> Result<Self, ManifestError> {
        let manifest: Self =
            toml::from_str(text).map_err(|e| ManifestError(e.to_string().trim().to_owned()))?;
        manifest.check()?;
        Ok(manifest)
    }

    /// Refuses limits outside the plan and environment entries that no guest can be given.
    ///
    /// # Errors
    /// Names the entry, what it is and what it may be.
    pub fn check(&self) -> Result<(), ManifestError> {
        let l = &self.limits;
        let range = |name: &str, got: u64, most: u64| {
            if got == 0 || got > most {
                return Err(ManifestError(format!("limits.{name} is {got}; it must be 1 to {most}")));
            }
            Ok(())
        };
        let millis = |w: WallTime| u64::try_from(w.0.as_millis()).unwrap_or(u64::MAX);
        range("memory (bytes)", l.memory.0, MOST.memory.0)?;
        range("fuel", l.fuel, MOST.fuel)?;
        range("deadline (ms)", millis(l.deadline), millis(MOST.deadline))?;
        range("request-body (bytes)", l.request_body.0, MOST.request_body.0)?;
        range("response-body (bytes)", l.response_body.0, MOST.response_body.0)?;
        range("concurrency", l.concurrency.into(), MOST.concurrency.into())?;
        if l.provisioned > l.concurrency {
            return Err(ManifestError(format!(
                "limits.provisioned is {}; it must be at most limits.concurrency, {}",
                l.provisioned, l.concurrency
            )));
        }
        l.bounds().check()?;
        self.idempotency.as_ref().map_or(Ok(()), IdempotencySection::check)?;
        self.websocket.as_ref().map_or(Ok(()), WebsocketSection::check)?;
        for (name, pairs) in [("env", &self.env), ("config", &self.config)] {
            let bytes: usize = pairs.iter().map(|(k, v)| k.len() + v.len()).sum();
            if pairs.len() > 100 || bytes > 64 << 10 {
                return Err(ManifestError(format!("{name} has more than 100 entries or 64KiB")));
            }
        }
        if let Some(key) = self.env.keys().find(|k| k.is_empty() || k.contains(['=', '\0'])) {
            return Err(ManifestError(format!("env key {key:?} is empty or holds '=' or NUL")));
        }
        if self.models.allow.len() > 100 {
            return Err(ManifestError("models.allow has more than 100 entries".to_owned()));
        }
        self.secrets.check()?;
        self.keyvalue.check()?;
        self.models.check()?;
        self.http.check()
    }

    /// The form that revision ids are made of: without what the host ignores.
    #[must_use]
    pub fn for_host(&self) -> Self {
        let mut manifest = self.clone();
        manifest.build = None;
        manifest.function.component = None;
        manifest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_documented_form() {
        let text = r#"
            [function]
            name = "classify"
            component = "target/classify.wasm"
            public = true
            [limits]
            memory = "64MiB"
            fuel = 50_000_000_000
            deadline = "10s"
            [models]
            allow = ["minilm"]
            [env]
            TOP_K = "5"
        "#;
        let manifest = FunctionManifest::from_toml(text).unwrap();
        assert_eq!(manifest.limits.memory, ByteSize(64 << 20));
        assert_eq!(manifest.limits.concurrency, 64);
        assert!(manifest.for_host().function.component.is_none());
        assert!(
            !serde_json::to_string(&manifest).unwrap().contains("provisioned"),
            "it is part of no old id"
        );
    }

    #[test]
    fn refuses_unknown_keys_and_limits_outside_the_plan() {
        let error = |text: &str| FunctionManifest::from_toml(text).unwrap_err().to_string();
        assert!(error("[function]\nname = \"a\"\ncolour = 1").contains("colour"));
        assert!(error("[function]\nname = \"../a\"").contains("../a"));
        assert!(error("[function]\nname = \"a\"\n[limits]\nmemory = \"2GiB\"").contains("limits.memory"));
        assert!(error("[function]\nname = \"a\"\n[limits]\nfuel = 0").contains("limits.fuel"));
        let more = "[function]\nname = \"a\"\n[limits]\nconcurrency = 2\nprovisioned = 3";
        assert!(error(more).contains("limits.provisioned is 3; it must be at most limits.concurrency, 2"));
        assert!(error("[function]\nname = \"a\"\n[models]\ntensors = \"2GiB\"").contains("models.tensors"));
        assert!(error("[function]\nname = \"a\"\n[idempotency]\nkeep-answers = \"25h\"").contains("24h"));
        let wide = "x".repeat(64 << 10);
        let config = format!("[function]\nname = \"a\"\n[config]\nkey = \"{wide}\"");
        assert!(error(&config).contains("config has more than 100 entries or 64KiB"));
        assert!(error("[function]\nname = \"a\"\n[websocket]\nidle = \"0s\"").contains("websocket.idle"));
    }
}
