use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use wasmtime::{
    Config, Enabled, Engine, InstanceAllocationStrategy, OperatorCost, PoolingAllocationConfig,
    WasmBacktraceDetails,
};

/// What fuel is counted with: wasmtime's table of operator costs of this major version, with ours on top, and what calls
/// to the host cost (`toll.rs`; since `/2`). It is in every usage record and in the name of every artifact.
pub const FUEL_SCHEDULE: &str = "wasmtime-48/2";

/// The engine cannot be made.
#[derive(Clone, Debug, thiserror::Error)]
#[error("wasm engine: {0}")]
pub struct EngineError(String);

/// Which WASI a component handles requests with. It decides the engine: what WASI 0.3 needs for its tasks would cost
/// every call of a 0.2 component, so each has an engine of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wasi {
    /// WASI 0.2, and core modules.
    Two,
    /// WASI 0.3.
    Three,
}

/// How much the pool holds at one time.
#[derive(Clone, Copy, Debug)]
pub struct PoolOptions {
    /// Component instances.
    pub instances: u32,
    /// The most linear memory that any function may have, in bytes.
    pub max_memory: usize,
}

impl Default for PoolOptions {
    fn default() -> Self {
        Self { instances: 1024, max_memory: 1 << 30 }
    }
}

/// What the compile child and the host must have in common: everything that shapes machine code.
fn config(wasi: Wasi) -> Config {
    let mut config = Config::new();
    // Fuel meters and pre-empts; epochs beside it would cost more than either (FACTS 2).
    config.consume_fuel(true);
    let mut cost = OperatorCost::default();
    // A grown page is zeroed on first touch; its default price is nothing.
    cost.variable.memory_grow_per_page = u8::MAX;
    config.operator_cost(cost);
    config.max_wasm_stack(512 << 10).async_stack_size(1 << 20);
    config.wasm_backtrace_details(WasmBacktraceDetails::Disable);
    config.wasm_component_model(true);
    config.concurrency_support(wasi == Wasi::Three).wasm_component_model_async(wasi == Wasi::Three);
    // Threads, GC and stack switching are not built in (Cargo features); memory64 is switched off.
    config.wasm_memory64(false);
    config
}

/// The engines of the host. Cheap to clone.
#[derive(Clone)]
pub struct Engines {
    inner: Arc<Inner>,
}

struct Inner {
    pool: PoolOptions,
    main: Engine,
    /// Made when the first component needs it: its pool reserves as much address space as the main one's.
    three: OnceLock<Engine>,
    making: Mutex<()>,
}

impl Engines {
    /// The engine that nearly all components run on; another one when it is needed.
    ///
    /// # Errors
    /// If the pool's address space cannot be reserved.
    pub fn new(pool: PoolOptions) -> Result<Self, EngineError> {
        let main = host_engine(pool, Wasi::Two)?;
        let inner = Inner { pool, main, three: OnceLock::new(), making: Mutex::new(()) };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The engine of components of WASI 0.2, and of core modules.
    pub(crate) fn main(&self) -> &Engine {
        &self.inner.main
    }

    /// The engine of a WASI. Blocking when it is made.
    ///
    /// # Errors
    /// If the pool's address space cannot be reserved.
    pub(crate) fn of(&self, wasi: Wasi) -> Result<&Engine, EngineError> {
        match wasi {
            Wasi::Two => Ok(&self.inner.main),
            Wasi::Three => {
                let _making = self.inner.making.lock();
                if let Some(engine) = self.inner.three.get() {
                    return Ok(engine);
                }
                let engine = host_engine(self.inner.pool, wasi)?;
                Ok(self.inner.three.get_or_init(|| engine))
            }
        }
    }
}

fn host_engine(pool: PoolOptions, wasi: Wasi) -> Result<Engine, EngineError> {
    let mut config = config(wasi);
    let n = pool.instances;
    let mut allocator = PoolingAllocationConfig::new();
    allocator
        .total_component_instances(n)
        .total_core_instances(n.saturating_mul(8))
        .total_memories(n.saturating_mul(2))
        .total_tables(n.saturating_mul(4))
        // A WASI 0.3 component has a stack for each of its tasks.
        .total_stacks(if wasi == Wasi::Three { n.saturating_mul(4) } else { n })
        .max_core_instances_per_component(64)
        .max_memories_per_component(8)
        .max_tables_per_component(32)
        .max_component_instance_size(4 << 20)
        .max_core_instance_size(4 << 20)
        .max_memory_size(pool.max_memory)
        .table_elements(100_000)
        .max_unused_warm_slots(n)
        .table_keep_resident(64 << 10);
    if has_pagemap_scan() {
        allocator.pagemap_scan(Enabled::Auto).linear_memory_keep_resident(1 << 20);
    }
    config.allocation_strategy(InstanceAllocationStrategy::Pooling(allocator));
    Engine::new(&config).map_err(|e| EngineError(format!("{e:#}")))
}

/// An engine of the compile child: no pool, it instantiates nothing.
pub(crate) fn compile_engine(wasi: Wasi) -> Result<Engine, EngineError> {
    Engine::new(&config(wasi)).map_err(|e| EngineError(format!("{e:#}")))
}

/// Whether the kernel (6.7 or later) can tell which pages of a memory were written. Where it cannot, a memory that
/// is kept resident costs more than it saves (FACTS 8).
fn has_pagemap_scan() -> bool {
    let uname = rustix::system::uname();
    let release = uname.release().to_string_lossy();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse().unwrap_or(0u32));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= (6, 7)
}

#[cfg(test)]
mod tests {
    use wasmtime::Module;

    use super::*;

    #[test]
    fn what_tenants_have_no_use_for_is_off() {
        let engine = compile_engine(Wasi::Two).unwrap();
        let valid = |sections: &[u8]| {
            Module::validate(&engine, &[b"\0asm\x01\0\0\0".as_slice(), sections].concat()).is_ok()
        };
        assert!(valid(&[5, 3, 1, 0, 1]), "a memory of one page");
        assert!(!valid(&[5, 3, 1, 4, 1]), "memory64");
        assert!(!valid(&[5, 4, 1, 3, 1, 1]), "a shared memory: threads");
        assert!(valid(&[1, 4, 1, 0x60, 0, 0]), "a function type");
        assert!(!valid(&[1, 3, 1, 0x5f, 0]), "a struct type: garbage collection");
        assert!(!valid(&[1, 6, 2, 0x60, 0, 0, 0x5d, 0]), "a continuation type: stack switching");
    }
}
