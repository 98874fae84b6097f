use wasmtime::Module;
use wasmtime::component::Component;

use crate::engine::Wasi;

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

/// How a component is called, and what runs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    /// `wasi:http/incoming-handler`: with the request.
    Handler,
    /// `wasi:http/handler` of WASI 0.3: with the request, on the engine for it.
    Service,
    /// `wasi:cli/run`: as a command.
    Run,
}

impl Entry {
    /// By the names that a component exports; who handles HTTP is no command, whatever else it exports.
    pub(crate) fn of<N: AsRef<str>>(exports: &[N]) -> Option<Self> {
        let exports = |name: &str| exports.iter().any(|e| e.as_ref().starts_with(name));
        if exports("wasi:http/incoming-handler@0.2.") {
            Some(Self::Handler)
        } else if exports("wasi:http/handler@0.3.") {
            Some(Self::Service)
        } else if exports("wasi:cli/run@0.2.") {
            Some(Self::Run)
        } else {
            None
        }
    }

    /// The WASI of a component with these exports; of none that can be called, the first that refuses it.
    pub(crate) fn wasi<N: AsRef<str>>(exports: &[N]) -> Wasi {
        match Self::of(exports) {
            Some(Self::Service) => Wasi::Three,
            Some(Self::Handler | Self::Run) | None => Wasi::Two,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exports_say_how_a_component_is_called() {
        let (two, three) = ("wasi:http/incoming-handler@0.2.6", "wasi:http/handler@0.3.0-rc-2026-03-15");
        assert_eq!((Entry::of(&[two]), Entry::wasi(&[two])), (Some(Entry::Handler), Wasi::Two));
        assert_eq!((Entry::of(&[three]), Entry::wasi(&[three])), (Some(Entry::Service), Wasi::Three));
        assert_eq!(Entry::wasi(&[three, two]), Wasi::Two, "what runs everywhere is taken first");
        assert_eq!((Entry::of(&["a:b/c"]), Entry::wasi::<&str>(&[])), (None, Wasi::Two));
    }
}
