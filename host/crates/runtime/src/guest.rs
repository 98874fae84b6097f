use std::sync::Arc;

use wasmeter_nn::{NnCtx, NnCtxView, NnView};
use wasmeter_types::{Bounds, Limits};
use wasmtime::component::{Linker, ResourceTable};
use wasmtime::{Engine, ResourceLimiter};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};
use wasmtime_wasi_http::{WasiHttpCtx, WasiHttpCtxView, WasiHttpView};

use crate::capability::{self, Caller, Capabilities, Hooks};
use crate::tape::Tape;
use crate::toll::{Gate, Toll};

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
    room: Room,
}

impl Guest {
    pub(crate) fn new(
        wasi: WasiCtx,
        nn: NnCtx,
        capabilities: Arc<Capabilities>,
        caller: Arc<Caller>,
    ) -> Self {
        let limits = &caller.revision.manifest.limits;
        let (bounds, room) = (limits.bounds(), Room::new(limits));
        let gate = Gate::new(caller.tape.is_some());
        let hooks = Hooks::new(capabilities.outbound.clone(), caller.clone());
        let mut table = ResourceTable::new();
        table.set_max_capacity(size(bounds.handles.into()));
        let mut http = WasiHttpCtx::new();
        http.set_field_size_limit(size(bounds.header_bytes));
        Self { wasi, http, hooks, caller, gate, capabilities, table, nn, room }
    }

    /// For a host function, which begins with it: the invocation, charged for the call.
    pub(crate) fn caller(&self) -> &Arc<Caller> {
        self.caller.toll.call();
        &self.caller
    }

    /// Of a call that is recorded or run again.
    pub(crate) fn tape(&self) -> Option<Arc<Tape>> {
        self.caller.tape.clone()
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
        self.caller.beyond("wasi:nn");
        NnCtxView { ctx: &mut self.nn, table: &mut self.table }
    }
}

/// What all instances of the invocation together may have.
pub(crate) struct Room {
    memory: usize,
    most_memory: usize,
    elements: usize,
    bounds: Bounds,
    pub(crate) refused: Refused,
}

/// What a guest asked for in vain.
#[derive(Clone, Copy, Default)]
pub(crate) struct Refused {
    pub(crate) memory: bool,
    pub(crate) elements: bool,
}

impl Room {
    pub(crate) fn new(limits: &Limits) -> Self {
        let refused = Refused::default();
        Self { memory: 0, most_memory: size(limits.memory.0), elements: 0, bounds: limits.bounds(), refused }
    }
}

pub(crate) fn size(limit: u64) -> usize {
    usize::try_from(limit).unwrap_or(usize::MAX)
}

/// Store data whose use is measured in the same way, whatever kind of guest it belongs to.
pub(crate) trait Metered: Send + 'static {
    fn room(&mut self) -> &mut Room;
    fn nn(&mut self) -> &mut NnCtx;
    /// Its calls to the host, and how far they are paid.
    fn toll(&mut self) -> (&Toll, &mut Gate);
}

impl Metered for Guest {
    fn room(&mut self) -> &mut Room {
        &mut self.room
    }

    fn nn(&mut self) -> &mut NnCtx {
        &mut self.nn
    }

    fn toll(&mut self) -> (&Toll, &mut Gate) {
        (&self.caller.toll, &mut self.gate)
    }
}

impl ResourceLimiter for Room {
    fn memory_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        let memory = self.memory.saturating_add(desired.saturating_sub(current));
        if memory > self.most_memory {
            self.refused.memory = true;
            return Ok(false);
        }
        self.memory = memory;
        Ok(true)
    }

    fn table_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        let elements = self.elements.saturating_add(desired.saturating_sub(current));
        if elements > size(self.bounds.table_elements.into()) {
            self.refused.elements = true;
            return Ok(false);
        }
        self.elements = elements;
        Ok(true)
    }

    fn instances(&self) -> usize {
        size(self.bounds.instances.into())
    }

    fn tables(&self) -> usize {
        size(self.bounds.tables.into())
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

/// The same for the engine of WASI 0.3, with that beside 0.2: the standard libraries of its guests still import 0.2.
pub(crate) fn linker_three(engine: &Engine) -> wasmtime::Result<Linker<Guest>> {
    let mut linker = linker(engine)?;
    wasmtime_wasi::p3::add_to_linker(&mut linker)?;
    wasmtime_wasi_http::p3::add_to_linker(&mut linker)?;
    Ok(linker)
}
