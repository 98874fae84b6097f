//! Pre-initialisation: what a component does before its first request is done once, and its memory is written into the
//! component. It happens where the component is built and not on the host, which would run a tenant's code that no
//! call pays for; the host takes the result like any other component.

use futures_util::FutureExt as _;
use wasmtime::component::{Component, Instance, Lift, Linker, WasmList};
use wasmtime::{Engine, Store, StoreLimits, StoreLimitsBuilder};
use wasmtime_wizer::{ComponentInstanceState, Wizer};

use crate::engine::compile_engine;
use crate::kind::{Entry, Kind};
use crate::outline::outline;

/// What a component exports to be pre-initialised: a function without parameters and results. The name is Wizer's.
pub const INITIALIZE: &str = "wizer-initialize";

/// Fuel of the initialisation: some seconds of a processor.
const FUEL: u64 = 5_000_000_000;

/// A component whose initialisation has run.
#[derive(Debug)]
pub struct PreInitialized {
    /// It, with what the initialisation left in memory.
    pub component: Vec<u8>,
    /// What the initialisation burned, once for all calls.
    pub fuel: u64,
}

/// Why a component cannot be pre-initialised.
#[derive(Debug, thiserror::Error)]
pub enum PreInitError {
    /// It is a core module, or no Wasm.
    #[error(
        "only a component can be pre-initialised; of a core module, `wizer` makes a new one before it is deployed"
    )]
    NoComponent,
    /// There is nothing to run.
    #[error("it exports no function `wizer-initialize`: in Rust, #[wasmeter_guest::initialize] makes one")]
    NothingToRun,
    /// It is not valid, or has what a snapshot cannot hold.
    #[error("{0}")]
    Unfit(String),
    /// It trapped, called what is not there, or burned too much.
    #[error(
        "`wizer-initialize` failed: {0}\n\
         It may call nothing outside the component: no clock, no random numbers (so no HashMap of Rust's with its own \
         hasher), no environment, no standard streams, no model"
    )]
    Failed(String),
}

/// Runs the component's `wizer-initialize` with this much memory, and snapshots it. Blocking, for as long as a
/// compilation and the run take.
///
/// # Errors
/// See [`PreInitError`].
pub fn pre_initialize(component: &[u8], memory: usize) -> Result<PreInitialized, PreInitError> {
    if Kind::of(component) != Some(Kind::Component) {
        return Err(PreInitError::NoComponent);
    }
    let unfit = |error: wasmtime::Error| PreInitError::Unfit(format!("{error:#}"));
    let exports = outline(component).map_err(PreInitError::Unfit)?.exports;
    if !exports.iter().any(|name| name == INITIALIZE) {
        return Err(PreInitError::NothingToRun);
    }
    let engine = compile_engine(Entry::wasi(&exports)).map_err(|e| PreInitError::Unfit(e.to_string()))?;
    let mut wizer = Wizer::new();
    // Kept, though nobody calls it again: Wizer would take the core module's export of that name, which the component lifts.
    wizer.init_func(INITIALIZE).keep_init_func(true);
    let (context, instrumented) = wizer.instrument_component(component).map_err(unfit)?;
    let mut state = State::instantiate(&engine, &instrumented, memory)?;
    let fuel = state.initialize()?;
    // Nothing of it waits.
    let snapshot = wizer.snapshot_component(&context, &mut state).now_or_never();
    let component =
        snapshot.ok_or_else(|| PreInitError::Unfit("the snapshot waits".into()))?.map_err(unfit)?;
    Ok(PreInitialized { component, fuel })
}

/// The instance that is initialised.
struct State {
    store: Store<StoreLimits>,
    instance: Instance,
}

impl State {
    fn instantiate(engine: &Engine, instrumented: &[u8], memory: usize) -> Result<Self, PreInitError> {
        let unfit = |error: wasmtime::Error| PreInitError::Unfit(format!("{error:#}"));
        let component = Component::new(engine, instrumented).map_err(unfit)?;
        let mut store = Store::new(engine, StoreLimitsBuilder::new().memory_size(memory).build());
        store.limiter(|limits| limits);
        store.set_fuel(FUEL).map_err(unfit)?;
        let mut linker = Linker::new(engine);
        linker.define_unknown_imports_as_traps(&component).map_err(unfit)?;
        let instance = linker.instantiate(&mut store, &component).map_err(failed)?;
        Ok(Self { store, instance })
    }

    fn initialize(&mut self) -> Result<u64, PreInitError> {
        let initialize =
            self.instance.get_typed_func::<(), ()>(&mut self.store, INITIALIZE).map_err(|e| {
                PreInitError::Unfit(format!(
                    "`{INITIALIZE}` is no function without parameters and results: {e:#}"
                ))
            })?;
        initialize.call(&mut self.store, ()).map_err(failed)?;
        let left = self.store.get_fuel().map_err(failed)?;
        // The rest is ours: reading what there is.
        self.store.set_fuel(u64::MAX).map_err(failed)?;
        Ok(FUEL - left)
    }

    /// Calls what the instrumentation added. It is there, and cannot fail.
    #[allow(clippy::expect_used, reason = "the trait has no way to fail, and says so")]
    fn read<R: Lift + Send + Sync + 'static>(&mut self, instance: &str, function: &str) -> R {
        let at = self.instance.get_export_index(&mut self.store, None, instance);
        let at = self.instance.get_export_index(&mut self.store, at.as_ref(), function);
        let at = at.expect("the instrumentation exports it");
        let function = self.instance.get_typed_func::<(), (R,)>(&mut self.store, at);
        function.and_then(|f| f.call(&mut self.store, ())).expect("it only reads").0
    }
}

fn failed(error: wasmtime::Error) -> PreInitError {
    let reason = match error.downcast_ref::<wasmtime::Trap>() {
        Some(wasmtime::Trap::OutOfFuel) => format!("it burned more than {FUEL} units of fuel"),
        _ => format!("{:#}", error),
    };
    PreInitError::Failed(reason)
}

impl ComponentInstanceState for State {
    async fn call_func_ret_list_u8(
        &mut self,
        instance: &str,
        func: &str,
        contents: impl FnOnce(&[u8]) + Send,
    ) {
        let list: WasmList<u8> = self.read(instance, func);
        contents(list.as_le_slice(&self.store));
    }

    async fn call_func_ret_s32(&mut self, instance: &str, func: &str) -> i32 {
        self.read(instance, func)
    }

    async fn call_func_ret_s64(&mut self, instance: &str, func: &str) -> i64 {
        self.read(instance, func)
    }

    async fn call_func_ret_f32(&mut self, instance: &str, func: &str) -> u32 {
        self.read::<f32>(instance, func).to_bits()
    }

    async fn call_func_ret_f64(&mut self, instance: &str, func: &str) -> u64 {
        self.read::<f64>(instance, func).to_bits()
    }
}
