use wasmtime::Module;
use wasmtime::component::Component;

/// The two kinds of Wasm that can be a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A component: `wasi:http/incoming-handler`.
    Component,
    /// A core module: a `wasip1` command.
    Module,
}

impl Kind {
    /// By the first eight bytes; the last four of them tell one from the other.
    pub(crate) fn of(wasm: &[u8]) -> Option<Self> {
        match wasm.get(..8)? {
            b"\0asm\x0d\0\x01\0" => Some(Self::Component),
            b"\0asm\x01\0\0\0" => Some(Self::Module),
            _ => None,
        }
    }
}

/// What an artifact holds.
#[derive(Clone)]
pub enum Compiled {
    /// A component.
    Component(Component),
    /// A core module.
    Module(Module),
}
