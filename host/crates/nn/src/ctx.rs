use std::sync::Arc;

use tokio::time::Instant;
use wasmeter_admission::Purse;
use wasmeter_inference::{ChargeMeter, Handle, Lease, ModelKey};
use wasmeter_types::{ErrorKind, ModelName};
use wasmeter_usage::{DeviceClass, ModelUse};
use wasmtime::component::{HasData, Linker, Resource, ResourceTable};

use crate::bindings::{errors, graph, inference, tensor};
use crate::bindings_inflight as inflight;
use crate::errors::NnError;
use crate::inflight::Flight;
use crate::quota::{Quotas, Share};
use crate::witx::CoreState;

/// Finds the model version behind a name. Called once a `load-by-name`; must not do I/O.
pub trait Resolver: Send + Sync + 'static {
    /// The version that the name stands for now and for this tenant; `None` if there is no such model. The name may
    /// say which: a label, as in `minilm@canary`, or a version, as in `minilm@3`.
    fn resolve(&self, tenant: &str, name: &str) -> Option<ModelKey>;
}

/// What one invocation may hold.
#[derive(Clone, Copy, Debug)]
pub struct NnLimits {
    /// Graphs.
    pub graphs: usize,
    /// Execution contexts.
    pub contexts: usize,
    /// Bytes of tensors that live at one time.
    pub tensor_bytes: usize,
    /// Computes.
    pub computes: u32,
    /// Computes under way at one time, beside the one that a guest waits for.
    pub in_flight: usize,
}

impl Default for NnLimits {
    fn default() -> Self {
        Self { graphs: 64, contexts: 64, tensor_bytes: 128 << 20, computes: 10_000, in_flight: 32 }
    }
}

/// A fault of the platform that the guest met. If the guest then fails, the fault is ours and not the guest's.
#[derive(Clone, Debug)]
pub struct Fault {
    /// What to answer with.
    pub kind: ErrorKind,
    /// For the caller.
    pub message: String,
}

/// The state of wasi:nn in one invocation.
pub struct NnCtx {
    pub(crate) models: Handle,
    pub(crate) resolver: Arc<dyn Resolver>,
    pub(crate) allow: Arc<[ModelName]>,
    pub(crate) tenant: String,
    pub(crate) deadline: Instant,
    pub(crate) limits: NnLimits,
    quotas: Arc<Quotas>,
    /// What pays for computes, where something bounds them.
    pub(crate) purse: Option<Arc<Purse>>,
    /// From the first thing that it holds on.
    share: Option<Share>,
    pub(crate) graphs: usize,
    pub(crate) contexts: usize,
    pub(crate) flying: usize,
    pub(crate) tensor_bytes: usize,
    pub(crate) computes: u32,
    pub(crate) uses: Vec<Use>,
    /// Versions that the guest has loaded: what is removed meanwhile stays for it.
    pub(crate) leases: Vec<Lease>,
    pub(crate) fault: Option<Fault>,
    pub(crate) flights: Vec<Arc<Flight>>,
    pub(crate) core: CoreState,
}

/// Charges of one model version. The meter is shared with the device's lane, so that a compute which the guest
/// did not live to see answered is charged all the same.
pub(crate) struct Use {
    pub(crate) key: ModelKey,
    pub(crate) charges: Arc<ChargeMeter>,
    /// Where it runs, as it was at the first compute: a model that is removed meanwhile is charged all the same.
    pub(crate) placed: Option<(Arc<str>, DeviceClass)>,
}

impl NnCtx {
    /// The state of a new invocation.
    #[must_use]
    pub fn new(
        models: Handle,
        resolver: Arc<dyn Resolver>,
        allow: Arc<[ModelName]>,
        tenant: String,
        deadline: Instant,
        limits: NnLimits,
        quotas: Arc<Quotas>,
    ) -> Self {
        Self {
            models,
            resolver,
            allow,
            tenant,
            deadline,
            limits,
            quotas,
            purse: None,
            share: None,
            graphs: 0,
            contexts: 0,
            flying: 0,
            tensor_bytes: 0,
            computes: 0,
            uses: Vec::new(),
            leases: Vec::new(),
            fault: None,
            flights: Vec::new(),
            core: CoreState::default(),
        }
    }

    /// Has computes paid from a purse: one that it cannot pay is refused before it is queued.
    #[must_use]
    pub fn paid_by(self, purse: Option<Arc<Purse>>) -> Self {
        Self { purse, ..self }
    }

    /// Its part of the tenant's account.
    pub(crate) fn share(&mut self) -> &mut Share {
        self.share.get_or_insert_with(|| self.quotas.share(&self.tenant))
    }

    /// Gives up the computes that are still under way, which fixes their charges: for the end of the invocation.
    pub fn settle(&mut self) {
        self.land();
    }

    /// What the invocation is charged for so far, by model version.
    #[must_use]
    pub fn uses(&self) -> Vec<ModelUse> {
        let one = |u: &Use| {
            let (device, class) = u.placed.clone().or_else(|| self.models.placement(&u.key))?;
            Some(ModelUse {
                model: u.key.name.clone(),
                version: u.key.version,
                device: device.to_string(),
                class,
                computes: u.charges.computes(),
                device_ns: u.charges.charged_ns(),
            })
        };
        self.uses.iter().filter_map(one).filter(|u| u.computes > 0 || u.device_ns > 0).collect()
    }

    /// The last fault of ours that the guest met.
    #[must_use]
    pub fn fault(&self) -> Option<&Fault> {
        self.fault.as_ref()
    }

    pub(crate) fn charges(&mut self, key: &ModelKey) -> Arc<ChargeMeter> {
        if let Some(known) = self.uses.iter().find(|u| u.key == *key) {
            return known.charges.clone();
        }
        let bounded = self.purse.is_some();
        let charges = Arc::new(if bounded { ChargeMeter::bounded() } else { ChargeMeter::default() });
        let placed = self.models.placement(key);
        self.uses.push(Use { key: key.clone(), charges: charges.clone(), placed });
        charges
    }
}

/// The state and the table of the store, for the time of one host call.
pub struct NnCtxView<'a> {
    /// State.
    pub ctx: &'a mut NnCtx,
    /// Resources.
    pub table: &'a mut ResourceTable,
}

/// Store data that has a [`NnCtx`].
pub trait NnView: Send {
    /// The view.
    fn nn(&mut self) -> NnCtxView<'_>;
}

pub(crate) struct HasNn;

impl HasData for HasNn {
    type Data<'a> = NnCtxView<'a>;
}

/// Links wasi:nn in all its versions, and `wasmeter:nn`.
///
/// # Errors
/// If the linker has it already.
pub fn add_to_linker<T: NnView + 'static>(linker: &mut Linker<T>) -> wasmtime::Result<()> {
    errors::add_to_linker::<T, HasNn>(linker, T::nn)?;
    tensor::add_to_linker::<T, HasNn>(linker, T::nn)?;
    graph::add_to_linker::<T, HasNn>(linker, T::nn)?;
    inference::add_to_linker::<T, HasNn>(linker, T::nn)?;
    crate::older::june::add_to_linker(linker)?;
    crate::older::august::add_to_linker(linker)?;
    inflight::add_to_linker::<T, HasNn>(linker, T::nn)
}

/// Links `wasi_ephemeral_nn`, the wasi:nn of core modules.
///
/// # Errors
/// If the linker has it already.
pub fn add_core_to_linker<T: Send + 'static>(
    linker: &mut wasmtime::Linker<T>,
    ctx: impl Fn(&mut T) -> &mut NnCtx + Send + Sync + Copy + 'static,
) -> wasmtime::Result<()> {
    crate::witx::add_to_linker(linker, ctx)
}

impl NnCtxView<'_> {
    pub(crate) fn fail<T>(&mut self, error: NnError) -> wasmtime::Result<Result<T, Resource<NnError>>> {
        Ok(Err(self.table.push(error)?))
    }
}
