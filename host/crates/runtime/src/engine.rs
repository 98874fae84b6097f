use wasmtime::{
    Config, Enabled, Engine, InstanceAllocationStrategy, OperatorCost, PoolingAllocationConfig,
    WasmBacktraceDetails,
};

/// What fuel is counted with: wasmtime's table of operator costs of this major version, with ours on top, and what calls
/// to the host cost (`toll.rs`; since `/2`). It is in every usage record and in the name of every artifact.
pub const FUEL_SCHEDULE: &str = "wasmtime-48/2";

/// The engine cannot be made.
#[derive(Debug, thiserror::Error)]
#[error("wasm engine: {0}")]
pub struct EngineError(String);

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
fn config() -> Config {
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
    // The books of WASI 0.3's tasks would cost every call of a 0.2 guest.
    config.concurrency_support(false);
    // Threads, GC and stack switching are not built in (Cargo features); memory64 is switched off.
    config.wasm_memory64(false);
    config
}

/// The engine of the host.
///
/// # Errors
/// If the pool's address space cannot be reserved.
pub fn host_engine(pool: PoolOptions) -> Result<Engine, EngineError> {
    let mut config = config();
    let n = pool.instances;
    let mut allocator = PoolingAllocationConfig::new();
    allocator
        .total_component_instances(n)
        .total_core_instances(n.saturating_mul(8))
        .total_memories(n.saturating_mul(2))
        .total_tables(n.saturating_mul(4))
        .total_stacks(n)
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

/// The engine of the compile child: no pool, it instantiates nothing.
pub(crate) fn compile_engine() -> Result<Engine, EngineError> {
    Engine::new(&config()).map_err(|e| EngineError(format!("{e:#}")))
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
        let engine = compile_engine().unwrap();
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
