use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio::sync::OnceCell;
use wasmeter_catalog::{BlobError, BlobKey, BlobKind, BlobStore};
use wasmeter_types::Digest;
use wasmtime::component::Linker;
use wasmtime::{Engine, ExternType, InstancePre, Module};
use wasmtime_wasi_http::p2::bindings::ProxyPre;

use crate::artifact::{ArtifactCache, ArtifactError};
use crate::compile::{CompileError, Compiler};
use crate::guest::{self, Guest};
use crate::guest_core::{self, CoreGuest};
use crate::guests::Pace;
use crate::kind::{Compiled, Kind};

/// Components held in memory at one time; each takes about half a megabyte.
const LOADED: usize = 1000;

/// A function that is ready to be instantiated.
pub struct Loaded {
    pub(crate) pre: Pre,
    pub(crate) pace: Pace,
    used: AtomicU64,
}

/// Its imports are resolved.
pub(crate) enum Pre {
    /// A component that handles HTTP.
    Component(ProxyPre<Guest>),
    /// A core module that is run as a command.
    Command(InstancePre<CoreGuest>),
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
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The upload is at fault; the text is for its author.
    #[error("{0}")]
    Refused(String),
    /// The blob is not there or damaged.
    #[error(transparent)]
    Blob(#[from] BlobError),
    /// The platform is at fault.
    #[error("{0}")]
    Broken(String),
}

impl From<CompileError> for LoadError {
    fn from(error: CompileError) -> Self {
        match error {
            CompileError::Refused(_) => Self::Refused(format!("the component is not valid: {error}")),
            CompileError::TooMuch(_) => Self::Refused(error.to_string()),
            CompileError::Child(_) => Self::Broken(error.to_string()),
        }
    }
}

type Slot = Arc<OnceCell<Arc<Loaded>>>;

/// Checks, compiles and keeps components. Cheap to clone.
#[derive(Clone)]
pub struct Loader {
    inner: Arc<Inner>,
}

struct Inner {
    engine: Engine,
    linker: Linker<Guest>,
    core: wasmtime::Linker<CoreGuest>,
    compiler: Compiler,
    artifacts: Arc<ArtifactCache>,
    blobs: Arc<dyn BlobStore>,
    slots: Mutex<HashMap<Digest, Slot>>,
    clock: AtomicU64,
}

const HANDLER: &str = "wasi:http/incoming-handler@0.2.";

impl Loader {
    /// A loader over an engine, a compiler, and where artifacts and components lie.
    ///
    /// # Errors
    /// If the interfaces of the host contradict each other.
    pub fn new(
        engine: &Engine,
        compiler: Compiler,
        artifacts: ArtifactCache,
        blobs: Arc<dyn BlobStore>,
    ) -> Result<Self, LoadError> {
        let broken = |e: wasmtime::Error| LoadError::Broken(format!("{e:#}"));
        let linker = guest::linker(engine).map_err(broken)?;
        let core = guest_core::linker(engine).map_err(broken)?;
        let inner = Inner {
            engine: engine.clone(),
            linker,
            core,
            compiler,
            artifacts: Arc::new(artifacts),
            blobs,
            slots: Mutex::default(),
            clock: AtomicU64::new(0),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Checks an upload: compiles it in the confined child, keeps the artifact, and links it against what the host
    /// provides. A refused upload leaves nothing behind.
    ///
    /// # Errors
    /// `Refused` with a text for the author.
    pub async fn inspect(&self, bytes: &[u8]) -> Result<Inspected, LoadError> {
        check_kind(bytes)?;
        let digest = Digest::of(bytes);
        let component = match self.artifact(digest).await {
            Ok(component) => component,
            Err(_) => self.compile(digest, bytes).await?,
        };
        let checked = self.inner.check(&component);
        if checked.is_err() {
            let _ = self.inner.artifacts.forget(&digest);
        }
        checked
    }

    /// The component of a revision: in memory, from its artifact, or compiled again from its blob.
    ///
    /// # Errors
    /// The platform's; a deployed component was accepted once.
    pub async fn load(&self, owner: &str, digest: Digest) -> Result<Arc<Loaded>, LoadError> {
        let slot = self.slot(digest);
        let loaded = slot.get_or_try_init(|| self.make(owner, digest)).await?;
        Ok(self.used(loaded))
    }

    /// The component of a revision if it is in memory.
    pub(crate) fn loaded(&self, digest: &Digest) -> Option<Arc<Loaded>> {
        let slots = self.inner.slots.lock();
        slots.get(digest).and_then(|slot| slot.get()).map(|loaded| self.used(loaded))
    }

    fn used(&self, loaded: &Arc<Loaded>) -> Arc<Loaded> {
        loaded.used.store(self.inner.clock.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
        loaded.clone()
    }

    /// Drops a component from memory and its artifact from disk.
    pub fn forget(&self, digest: &Digest) {
        self.inner.slots.lock().remove(digest);
        if let Err(error) = self.inner.artifacts.forget(digest) {
            tracing::warn!(%digest, %error, "an artifact was not deleted; it can be deleted by hand");
        }
    }

    fn slot(&self, digest: Digest) -> Slot {
        let mut slots = self.inner.slots.lock();
        if let Some(slot) = slots.get(&digest) {
            return slot.clone();
        }
        if slots.len() >= LOADED {
            // Those in use live on by their own references.
            let last_used = |slot: &Slot| slot.get().map(|l| l.used.load(Ordering::Relaxed));
            let oldest = slots.iter().filter_map(|(d, s)| Some((last_used(s)?, *d))).min();
            if let Some((_, oldest)) = oldest {
                slots.remove(&oldest);
            }
        }
        slots.entry(digest).or_default().clone()
    }

    async fn make(&self, owner: &str, digest: Digest) -> Result<Arc<Loaded>, LoadError> {
        let component = match self.artifact(digest).await {
            Ok(component) => component,
            Err(ArtifactError::Missing(_) | ArtifactError::Engine(_)) => {
                let key = BlobKey { owner: owner.to_owned(), kind: BlobKind::Component, id: digest };
                self.compile(digest, &self.inner.blobs.get(&key).await?).await?
            }
            Err(error) => return Err(LoadError::Broken(error.to_string())),
        };
        let broken = |e: wasmtime::Error| LoadError::Broken(format!("{e:#}"));
        let pre = self.inner.pre(&component).map_err(broken)?;
        Ok(Arc::new(Loaded { pre, pace: Pace::default(), used: AtomicU64::new(0) }))
    }

    async fn artifact(&self, digest: Digest) -> Result<Compiled, ArtifactError> {
        let artifacts = self.inner.artifacts.clone();
        tokio::task::spawn_blocking(move || artifacts.get(&digest))
            .await
            .map_err(|e| ArtifactError::Engine(e.to_string()))?
    }

    async fn compile(&self, digest: Digest, bytes: &[u8]) -> Result<Compiled, LoadError> {
        let artifact = self.inner.compiler.compile(bytes).await?;
        let artifacts = self.inner.artifacts.clone();
        let keep = move || {
            artifacts.put(&digest, &artifact)?;
            artifacts.get(&digest)
        };
        let kept: Result<Compiled, ArtifactError> =
            tokio::task::spawn_blocking(keep).await.map_err(|e| LoadError::Broken(e.to_string()))?;
        kept.map_err(|e| LoadError::Broken(e.to_string()))
    }
}

impl Inner {
    fn pre(&self, compiled: &Compiled) -> wasmtime::Result<Pre> {
        Ok(match compiled {
            Compiled::Component(c) => Pre::Component(ProxyPre::new(self.linker.instantiate_pre(c)?)?),
            Compiled::Module(m) => Pre::Command(self.core.instantiate_pre(m)?),
        })
    }

    fn check(&self, compiled: &Compiled) -> Result<Inspected, LoadError> {
        let (imports, exports): (Vec<String>, Vec<String>) = match compiled {
            Compiled::Component(component) => {
                let ty = component.component_type();
                let imports = ty.imports(&self.engine).map(|(name, _)| name.to_owned()).collect();
                (imports, ty.exports(&self.engine).map(|(name, _)| name.to_owned()).collect())
            }
            Compiled::Module(module) => {
                let mut imports: Vec<_> = module.imports().map(|i| i.module().to_owned()).collect();
                imports.sort_unstable();
                imports.dedup();
                (imports, module.exports().map(|e| e.name().to_owned()).collect())
            }
        };
        let (kind, entry) = match compiled {
            Compiled::Component(_) => ("component", exports.iter().any(|e| e.starts_with(HANDLER))),
            Compiled::Module(module) => ("module", is_command(module)?),
        };
        if !entry {
            return Err(LoadError::Refused(format!(
                "the component exports {}; a function exports wasi:http/incoming-handler@0.2: start from `wasmeter new`",
                shown(&exports)
            )));
        }
        if let Err(error) = self.pre(compiled) {
            return Err(LoadError::Refused(format!(
                "the {kind} imports something that nobody provides here: {error:#}"
            )));
        }
        Ok(Inspected { imports, exports })
    }
}

/// A command has the function `_start`, which takes and gives nothing, and a memory that the host can see: without one,
/// no call of WASI or wasi-nn can pass a pointer.
fn is_command(module: &Module) -> Result<bool, LoadError> {
    let refused = |reason: &str| Err(LoadError::Refused(reason.to_owned()));
    match module.get_export("_start") {
        Some(ExternType::Func(start)) if start.params().len() == 0 && start.results().len() == 0 => {}
        Some(_) => {
            return refused("this core module's _start is not a function without parameters and results");
        }
        None => return refused(NO_START),
    }
    match module.get_export("memory") {
        Some(ExternType::Memory(_)) => Ok(true),
        _ => refused("this core module does not export its memory: build it for wasm32-wasip1"),
    }
}

fn shown(names: &[String]) -> String {
    match names {
        [] => "nothing".to_owned(),
        names => names.iter().take(5).map(String::as_str).collect::<Vec<_>>().join(", "),
    }
}

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
