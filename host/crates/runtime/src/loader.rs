use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;
use wasmeter_catalog::{BlobError, BlobKey, BlobKind, BlobStore};
use wasmeter_types::Digest;
use wasmtime::component::{Component, Linker};
use wasmtime::{ExternType, InstancePre, Module};
use wasmtime_wasi::p2::bindings::CommandPre;
use wasmtime_wasi_http::p2::bindings::ProxyPre;
use wasmtime_wasi_http::p3::bindings::ServicePre;

use crate::artifact::{ArtifactCache, ArtifactError};
use crate::compile::{CompileError, CompileStage, Compiler};
use crate::engine::{Engines, Wasi};
use crate::guest::{self, Guest};
use crate::guest_core::{self, CoreGuest};
use crate::guests::Paces;
use crate::heap;
use crate::kind::{Compiled, Entry, Kind};
use crate::outline::{importer, outline};
use crate::shelf::Shelf;
use crate::tape::Tape;
use crate::underway::Underway;

/// What is held in memory.
#[derive(Clone, Copy, Debug)]
pub struct LoaderOptions {
    /// Components at one time; a small one takes about half a megabyte, most of it pages of its artifact.
    pub loaded: usize,
    /// How long one stays that nobody calls.
    pub idle: Duration,
}

impl Default for LoaderOptions {
    fn default() -> Self {
        Self { loaded: 1000, idle: Duration::from_secs(300) }
    }
}

/// How often the heap gives back what loads and uploads have left free.
const GIVE_BACK: Duration = Duration::from_secs(10);

/// A function that is ready to be instantiated.
pub struct Loaded {
    pub(crate) pre: Pre,
    pub(crate) paces: Paces,
}

/// Its imports are resolved.
pub(crate) enum Pre {
    /// A component that handles HTTP.
    Component(ProxyPre<Guest>),
    /// A component that handles HTTP with WASI 0.3.
    Service(ServicePre<Guest>),
    /// A component that is run as a command.
    Command(CommandPre<Guest>),
    /// A core module that is run as a command.
    CoreCommand(InstancePre<CoreGuest>),
}

impl Pre {
    /// Says what of a taped call's kind cannot be run again to the unit.
    pub(crate) fn judge(&self, tape: &Tape) {
        match self {
            Self::Component(_) | Self::Command(_) => {}
            Self::Service(_) => tape.beyond(|| "it handles requests with WASI 0.3".to_owned()),
            Self::CoreCommand(pre) => {
                if pre.module().imports().any(|import| import.name() == "poll_oneoff") {
                    tape.doubt("it can wait for a clock (poll_oneoff)");
                }
            }
        }
    }
}

/// What a component imports and exports.
#[derive(Clone, Debug)]
pub struct Inspected {
    /// Interfaces that it imports.
    pub imports: Vec<String>,
    /// Interfaces that it exports.
    pub exports: Vec<String>,
}

/// A component that cannot run here.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LoadError {
    /// The upload is at fault; the text is for its author.
    #[error("{0}")]
    Refused(String),
    /// The host compiles as much as it can; the text is for the author.
    #[error("{0}")]
    Busy(String),
    /// The tenant's own uploads are in the way; the text is for the author.
    #[error("{0}")]
    Share(String),
    /// The blob is not there or damaged.
    #[error(transparent)]
    Blob(Arc<BlobError>),
    /// The platform is at fault.
    #[error("{0}")]
    Broken(String),
}

impl From<BlobError> for LoadError {
    fn from(error: BlobError) -> Self {
        Self::Blob(Arc::new(error))
    }
}

impl From<CompileError> for LoadError {
    fn from(error: CompileError) -> Self {
        match error {
            CompileError::Refused(_) => Self::Refused(format!("the component is not valid: {error}")),
            CompileError::TooMuch(_) => Self::Refused(error.to_string()),
            CompileError::Busy(_) => Self::Busy(error.to_string()),
            CompileError::Share(_) => Self::Share(error.to_string()),
            CompileError::Child(_) => Self::Broken(error.to_string()),
        }
    }
}

/// Checks, compiles and keeps components. Cheap to clone.
#[derive(Clone)]
pub struct Loader {
    inner: Arc<Inner>,
}

struct Inner {
    engines: Engines,
    linker: Linker<Guest>,
    /// Made with its engine.
    linker_three: OnceLock<Linker<Guest>>,
    core: wasmtime::Linker<CoreGuest>,
    compiler: Compiler,
    artifacts: ArtifactCache,
    blobs: Arc<dyn BlobStore>,
    shelf: Shelf<Loaded>,
    underway: Underway<Result<Arc<Loaded>, LoadError>>,
    idle: Duration,
}

impl Loader {
    /// A loader over an engine, a compiler, and where artifacts and components lie.
    ///
    /// # Errors
    /// If the interfaces of the host contradict each other.
    pub fn new(
        engines: &Engines,
        compiler: Compiler,
        artifacts: ArtifactCache,
        blobs: Arc<dyn BlobStore>,
        options: LoaderOptions,
    ) -> Result<Self, LoadError> {
        let broken = |e: wasmtime::Error| LoadError::Broken(format!("{e:#}"));
        let linker = guest::linker(engines.main()).map_err(broken)?;
        let core = guest_core::linker(engines.main()).map_err(broken)?;
        let inner = Inner {
            engines: engines.clone(),
            linker,
            linker_three: OnceLock::new(),
            core,
            compiler,
            artifacts,
            blobs,
            shelf: Shelf::new(options.loaded, options.idle),
            underway: Underway::default(),
            idle: options.idle,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Checks a tenant's upload: reads what it says of itself, compiles it in the confined child, keeps the artifact, and
    /// links it against what the host provides. A refused upload leaves nothing behind. WASI 0.3 must be allowed.
    ///
    /// # Errors
    /// `Refused`, `Busy` or `Share` with a text for the author.
    pub async fn inspect(
        &self,
        tenant: &str,
        bytes: Bytes,
        wasi_three: bool,
        told: &(dyn Fn(CompileStage) + Send + Sync),
    ) -> Result<Inspected, LoadError> {
        check_kind(&bytes)?;
        let upload = bytes.clone();
        let (digest, there) = self
            .blocking(move |inner| {
                inner.precheck(&upload, wasi_three)?;
                let digest = Digest::of(&upload);
                Ok((digest, inner.artifacts.get(&digest).ok()))
            })
            .await?;
        let component = match there {
            Some(component) => component,
            None => self.compile(tenant, digest, bytes, told).await?,
        };
        self.blocking(move |inner| {
            let checked = inner.check(&component);
            if checked.is_err() {
                let _ = inner.artifacts.forget(&digest);
            }
            checked
        })
        .await
    }

    /// The component of a revision: in memory, from its artifact, or compiled again from its blob. Who stops waiting does
    /// not stop the work: the next call finds what it made, or goes on waiting for it.
    ///
    /// # Errors
    /// The platform's; a deployed component was accepted once.
    pub async fn load(&self, owner: &str, digest: Digest) -> Result<Arc<Loaded>, LoadError> {
        let there = || self.loaded(&digest).map(Ok);
        let work = || {
            let (loader, owner) = (self.clone(), owner.to_owned());
            async move {
                let loaded = loader.make(&owner, digest).await?;
                if let Some(gone) = loader.inner.shelf.put(digest, loaded.clone()) {
                    spawn_blocking(move || drop(gone));
                }
                Ok(loaded)
            }
        };
        let broken = |panic| Err(LoadError::Broken(panic));
        self.inner.underway.join(digest, there, work, broken).await
    }

    /// The component of a revision if it is in memory.
    pub(crate) fn loaded(&self, digest: &Digest) -> Option<Arc<Loaded>> {
        self.inner.shelf.get(digest)
    }

    /// Drops a component from memory and its artifact from disk.
    pub fn forget(&self, digest: &Digest) {
        self.inner.shelf.remove(digest);
        if let Err(error) = self.inner.artifacts.forget(digest) {
            tracing::warn!(%digest, %error, "an artifact was not deleted; it can be deleted by hand");
        }
    }

    /// Lets go of components that nobody calls, until it is stopped. Calls that run one keep it to their end. Those that
    /// are `kept` (owner and digest) are loaded if they are not there, and stay.
    pub async fn let_go(
        self,
        kept: impl Fn() -> Vec<(String, Digest)> + Send + 'static,
        stop: CancellationToken,
    ) {
        let pause = (self.inner.idle / 4).clamp(Duration::from_millis(100), Duration::from_secs(30));
        let mut given_back = Instant::now();
        loop {
            for (owner, digest) in kept() {
                // A failure is told to who calls it.
                if self.loaded(&digest).is_none() && self.load(&owner, digest).await.is_err() {
                    tracing::debug!(%digest, "a provisioned component is not loaded");
                }
            }
            if stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                return;
            }
            let gone = self.inner.shelf.take_idle();
            metrics::gauge!("wasmeter_components_loaded").set(self.inner.shelf.len() as f64);
            let due = given_back.elapsed() >= GIVE_BACK;
            if due {
                given_back = Instant::now();
            }
            let inner = self.inner.clone();
            spawn_blocking(move || {
                drop(gone);
                inner.artifacts.settle();
                if due {
                    heap::give_back();
                }
            });
        }
    }

    async fn make(&self, owner: &str, digest: Digest) -> Result<Arc<Loaded>, LoadError> {
        let there = self.blocking(move |inner| match inner.artifacts.get(&digest) {
            Ok(component) => inner.ready(&component).map(Some),
            Err(ArtifactError::Missing(_) | ArtifactError::Engine(_)) => Ok(None),
            Err(error) => Err(LoadError::Broken(error.to_string())),
        });
        if let Some(loaded) = there.await? {
            return Ok(loaded);
        }
        let key = BlobKey { owner: owner.to_owned(), kind: BlobKind::Component, id: digest };
        let bytes = self.inner.blobs.get(&key).await?;
        let component = self.compile(owner, digest, bytes.into(), &|_| {}).await?;
        self.inner.ready(&component)
    }

    async fn compile(
        &self,
        owner: &str,
        digest: Digest,
        bytes: Bytes,
        told: &(dyn Fn(CompileStage) + Send + Sync),
    ) -> Result<Compiled, LoadError> {
        let artifact = self.inner.compiler.compile(owner, bytes.clone(), told).await?;
        self.blocking(move |inner| {
            let wasi = Entry::wasi(&outline(&bytes).map_err(LoadError::Refused)?.exports);
            let kept = inner.artifacts.put(&digest, wasi, &artifact).map_err(ArtifactError::from);
            kept.and_then(|()| inner.artifacts.get(&digest)).map_err(|error| match error {
                // It is whole: what the engine has against it is what the pool has no room for.
                ArtifactError::Engine(reason) => {
                    let _ = inner.artifacts.forget(&digest);
                    LoadError::Refused(format!("the component asks for more than this host gives: {reason}"))
                }
                error => LoadError::Broken(error.to_string()),
            })
        })
        .await
    }

    /// Runs what reads files or takes long away from the threads of connections.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> Result<T, LoadError> + Send + 'static,
    ) -> Result<T, LoadError> {
        let inner = self.inner.clone();
        spawn_blocking(move || work(&inner)).await.map_err(|e| LoadError::Broken(e.to_string()))?
    }
}

impl Inner {
    fn ready(&self, compiled: &Compiled) -> Result<Arc<Loaded>, LoadError> {
        let pre = self.pre(compiled).map_err(|e| LoadError::Broken(format!("{e:#}")))?;
        Ok(Arc::new(Loaded { pre, paces: Paces::default() }))
    }

    /// What can be refused without compiling it.
    fn precheck(&self, wasm: &[u8], wasi_three: bool) -> Result<(), LoadError> {
        let found = outline(wasm).map_err(LoadError::Refused)?;
        match Kind::of(wasm) {
            Some(Kind::Component) => {
                if entry(&found.exports)? == Entry::Service && !wasi_three {
                    return Err(LoadError::Refused(NO_THREE.to_owned()));
                }
                self.provides(Entry::wasi(&found.exports), &found.instances)
            }
            _ if found.exports.iter().any(|e| e == "_start") => Ok(()),
            _ => Err(LoadError::Refused(NO_START.to_owned())),
        }
    }

    /// Whether each of these interfaces is there in a compatible version; what is in it, the linker checks later.
    fn provides(&self, wasi: Wasi, instances: &[String]) -> Result<(), LoadError> {
        let engine = self.engines.of(wasi).map_err(|e| LoadError::Broken(e.to_string()))?;
        let linker = self.linker(wasi)?;
        let linked = Component::new(engine, importer(instances))
            .and_then(|component| linker.instantiate_pre(&component));
        linked.map(drop).map_err(|error| nobody_provides("component", &error))
    }

    /// What components of a WASI are linked to.
    fn linker(&self, wasi: Wasi) -> Result<&Linker<Guest>, LoadError> {
        let broken = |e: &dyn std::fmt::Display| LoadError::Broken(format!("{e:#}"));
        match (wasi, self.linker_three.get()) {
            (Wasi::Two, _) => Ok(&self.linker),
            (Wasi::Three, Some(linker)) => Ok(linker),
            (Wasi::Three, None) => {
                let engine = self.engines.of(wasi).map_err(|e| broken(&e))?;
                let linker = guest::linker_three(engine).map_err(|e| broken(&e))?;
                Ok(self.linker_three.get_or_init(|| linker))
            }
        }
    }

    fn pre(&self, compiled: &Compiled) -> wasmtime::Result<Pre> {
        Ok(match compiled {
            Compiled::Component(component) => {
                let exports = exports(component);
                let linker = self.linker(Entry::wasi(&exports)).map_err(wasmtime::Error::new)?;
                let pre = linker.instantiate_pre(component)?;
                match Entry::of(&exports) {
                    Some(Entry::Run) => Pre::Command(CommandPre::new(pre)?),
                    Some(Entry::Service) => Pre::Service(ServicePre::new(pre)?),
                    // Without either, the error names what is missing.
                    Some(Entry::Handler) | None => Pre::Component(ProxyPre::new(pre)?),
                }
            }
            Compiled::Module(module) => Pre::CoreCommand(self.core.instantiate_pre(module)?),
        })
    }

    fn check(&self, compiled: &Compiled) -> Result<Inspected, LoadError> {
        let (imports, exports): (Vec<String>, Vec<String>) = match compiled {
            Compiled::Component(component) => {
                let ty = component.component_type();
                let imports = ty.imports(component.engine()).map(|(name, _)| name.to_owned()).collect();
                (imports, exports(component))
            }
            Compiled::Module(module) => {
                let mut imports: Vec<_> = module.imports().map(|i| i.module().to_owned()).collect();
                imports.sort_unstable();
                imports.dedup();
                (imports, module.exports().map(|e| e.name().to_owned()).collect())
            }
        };
        let kind = match compiled {
            Compiled::Component(_) => entry(&exports).map(|_| "component")?,
            Compiled::Module(module) => is_command(module).map(|()| "module")?,
        };
        self.pre(compiled).map_err(|error| nobody_provides(kind, &error))?;
        Ok(Inspected { imports, exports })
    }
}

fn exports(component: &Component) -> Vec<String> {
    component.component_type().exports(component.engine()).map(|(name, _)| name.to_owned()).collect()
}

fn nobody_provides(kind: &str, error: &wasmtime::Error) -> LoadError {
    LoadError::Refused(format!("the {kind} imports something that nobody provides here: {error:#}"))
}

fn entry(exports: &[String]) -> Result<Entry, LoadError> {
    Entry::of(exports).ok_or_else(|| {
        LoadError::Refused(format!(
            "the component exports {}; a function exports wasi:http/incoming-handler@0.2 (or handler@0.3), a command wasi:cli/run@0.2: start from `wasmeter new`",
            shown(exports)
        ))
    })
}

/// A command has the function `_start`, which takes and gives nothing, and a memory that the host can see: without one,
/// no call of WASI or wasi-nn can pass a pointer.
fn is_command(module: &Module) -> Result<(), LoadError> {
    let refused = |reason: &str| Err(LoadError::Refused(reason.to_owned()));
    match module.get_export("_start") {
        Some(ExternType::Func(start)) if start.params().len() == 0 && start.results().len() == 0 => {}
        Some(_) => {
            return refused("this core module's _start is not a function without parameters and results");
        }
        None => return refused(NO_START),
    }
    match module.get_export("memory") {
        Some(ExternType::Memory(_)) => Ok(()),
        _ => refused("this core module does not export its memory: build it for wasm32-wasip1"),
    }
}

fn shown(names: &[String]) -> String {
    match names {
        [] => "nothing".to_owned(),
        names => names.iter().take(5).map(String::as_str).collect::<Vec<_>>().join(", "),
    }
}

/// The operator's switch is off.
const NO_THREE: &str = "the component handles requests with WASI 0.3, which is switched off for this tenant: build it for wasi:http/incoming-handler@0.2, or have the operator say `wasmeter tenants set TENANT --wasi3 on`";

/// A library and no command.
const NO_START: &str = "this is a core module without the export of a function: build a component (`cargo build --target wasm32-wasip2`), or a command that answers like a CGI program (`--target wasm32-wasip1`)";

fn check_kind(bytes: &[u8]) -> Result<(), LoadError> {
    if Kind::of(bytes).is_some() {
        return Ok(());
    }
    let reason = if bytes.starts_with(b"\x7fELF") {
        "this is a compiled artifact or a program: upload the component (.wasm); artifacts are made here"
    } else {
        "this is not Wasm: a component starts with the bytes 00 61 73 6d 0d 00 01 00"
    };
    Err(LoadError::Refused(reason.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_was_uploaded_instead() {
        let text = |bytes: &[u8]| check_kind(bytes).unwrap_err().to_string();
        assert!(text(b"").contains("not Wasm"));
        assert!(text(&[0; 64]).contains("not Wasm"));
        assert!(text(b"\x7fELF\x02").contains("compiled artifact"));
        assert!(check_kind(b"\0asm\x0d\0\x01\0").is_ok());
        assert!(check_kind(b"\0asm\x01\0\0\0").is_ok());
    }
}
