use std::sync::Arc;

use wasmeter_nn::{NnCtx, NnCtxView, NnView};
use wasmtime::component::{Linker, ResourceTable};
use wasmtime::{Engine, ResourceLimiter};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};
use wasmtime_wasi_http::{WasiHttpCtx, WasiHttpCtxView, WasiHttpView};

use crate::capability::{self, Caller, Capabilities, Hooks};
use crate::toll::{Gate, Toll};

/// Resources of all kinds that one invocation may hold.
pub(crate) const RESOURCES: usize = 10_000;
/// Table elements of one invocation.
const TABLE_ELEMENTS: usize = 100_000;

/// The data of a store: one invocation.
pub(crate) struct Guest {
    pub(crate) wasi: WasiCtx,
    pub(crate) http: WasiHttpCtx,
    pub(crate) hooks: Hooks,
    caller: Arc<Caller>,
    gate: Gate,
    pub(crate) capabilities: Arc<Capabilities>,
    pub(crate) table: ResourceTable,
    pub(crate) nn: NnCtx,
    pub(crate) memory: MemoryLimit,
}

impl Guest {
    pub(crate) fn new(
        wasi: WasiCtx,
        nn: NnCtx,
        capabilities: Arc<Capabilities>,
        caller: Arc<Caller>,
    ) -> Self {
        let memory = caller.revision.manifest.limits.memory.0;
        let hooks = Hooks::new(capabilities.outbound.clone(), caller.clone());
        let mut table = ResourceTable::new();
        table.set_max_capacity(RESOURCES);
        let mut http = WasiHttpCtx::new();
        http.set_field_size_limit(64 << 10);
        let (gate, memory) = (Gate::new(), MemoryLimit::new(memory));
        Self { wasi, http, hooks, caller, gate, capabilities, table, nn, memory }
    }

    /// For a host function, which begins with it: the invocation, charged for the call.
    pub(crate) fn caller(&self) -> &Arc<Caller> {
        self.caller.toll.call();
        &self.caller
    }

    /// For the host itself, which charges nothing.
    pub(crate) fn http_view(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView { ctx: &mut self.http, table: &mut self.table, hooks: &mut self.hooks }
    }

    /// Fuel that is charged and not yet taken from the store.
    pub(crate) fn owed(&self) -> u64 {
        self.gate.owed(&self.caller.toll)
    }
}

// Each host function begins with one of these three, or with `Guest::caller`.
impl WasiView for Guest {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        self.caller.toll.call();
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

impl WasiHttpView for Guest {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        self.caller.toll.call();
        self.http_view()
    }
}

impl NnView for Guest {
    fn nn(&mut self) -> NnCtxView<'_> {
        self.caller.toll.call();
        NnCtxView { ctx: &mut self.nn, table: &mut self.table }
    }
}

/// Linear memory of all instances of the invocation together.
pub(crate) struct MemoryLimit {
    used: usize,
    most: usize,
    pub(crate) refused: bool,
}

impl MemoryLimit {
    pub(crate) fn new(memory: u64) -> Self {
        Self { used: 0, most: usize::try_from(memory).unwrap_or(usize::MAX), refused: false }
    }
}

/// Store data whose use is measured in the same way, whatever kind of guest it belongs to.
pub(crate) trait Metered: Send + 'static {
    fn memory(&mut self) -> &mut MemoryLimit;
    fn nn(&mut self) -> &mut NnCtx;
    /// Its calls to the host, and how far they are paid.
    fn toll(&mut self) -> (&Toll, &mut Gate);
}

impl Metered for Guest {
    fn memory(&mut self) -> &mut MemoryLimit {
        &mut self.memory
    }

    fn nn(&mut self) -> &mut NnCtx {
        &mut self.nn
    }

    fn toll(&mut self) -> (&Toll, &mut Gate) {
        (&self.caller.toll, &mut self.gate)
    }
}

impl ResourceLimiter for MemoryLimit {
    fn memory_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        let used = self.used.saturating_add(desired.saturating_sub(current));
        if used > self.most {
            self.refused = true;
            return Ok(false);
        }
        self.used = used;
        Ok(true)
    }

    fn table_growing(&mut self, _: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        Ok(desired <= TABLE_ELEMENTS)
    }

    fn instances(&self) -> usize {
        100
    }

    fn tables(&self) -> usize {
        100
    }

    fn memories(&self) -> usize {
        32
    }
}

/// Everything that a function may import. Rust's std imports all of `wasi:cli`, JavaScript and Python more, so the
/// whole of WASI 0.2 is linked; what a guest is not given (files, sockets) is there and empty or denied.
pub(crate) fn linker(engine: &Engine) -> wasmtime::Result<Linker<Guest>> {
    let mut linker = Linker::new(engine);
    wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
    wasmtime_wasi_http::p2::add_only_http_to_linker_async(&mut linker)?;
    wasmeter_nn::add_to_linker(&mut linker)?;
    capability::link(&mut linker)?;
    Ok(linker)
}
