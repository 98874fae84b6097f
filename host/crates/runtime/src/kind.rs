use wasmtime::Module;
use wasmtime::component::Component;

/// The two kinds of Wasm that can be a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A component: an [`Entry`] says how it is called.
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

/// How a component is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    /// `wasi:http/incoming-handler`: with the request.
    Handler,
    /// `wasi:cli/run`: as a command.
    Run,
}

impl Entry {
    /// By the names that a component exports; who handles HTTP is no command, whatever else it exports.
    pub(crate) fn of<N: AsRef<str>>(exports: &[N]) -> Option<Self> {
        let exports = |name: &str| exports.iter().any(|e| e.as_ref().starts_with(name));
        if exports("wasi:http/incoming-handler@0.2.") {
            Some(Self::Handler)
        } else if exports("wasi:cli/run@0.2.") {
            Some(Self::Run)
        } else {
            None
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
