use std::path::Path;

use bytes::Bytes;
use wasmtime::{Engine, InstancePre};
use wasmtime_wasi_http::p2::bindings::ProxyPre;

use crate::models::Models;
use crate::{Outcome, command, component};

/// One guest on upstream's wasi-nn.
pub struct Upstream {
    guest: Guest,
    models: Models,
}

enum Guest {
    Component(ProxyPre<component::Guest>),
    Command(InstancePre<command::Guest>),
}

impl Upstream {
    /// A guest, as Wasm, and the models that it can load by name: names and ONNX bytes.
    ///
    /// # Errors
    /// If the library (`libopenvino_c.so…`) cannot be loaded, a model is none, or the guest does not link.
    pub fn new(library: &Path, models: &[(&str, Vec<u8>)], wasm: &[u8]) -> wasmtime::Result<Self> {
        openvino_sys::library::load_from(library)
            .map_err(|e| wasmtime::format_err!("cannot load {}: {e}", library.display()))?;
        let models = Models::load(models)?;
        let engine = Engine::default();
        let guest = match wasm.get(4..8) {
            // Version and layer of the preamble: a core module, or else a component.
            Some(&[1, 0, 0, 0]) => Guest::Command(command::link(&engine, wasm)?),
            _ => Guest::Component(component::link(&engine, wasm)?),
        };
        Ok(Self { guest, models })
    }

    /// Calls the guest in an instance of its own with a query (`case=ok`) and a body.
    pub async fn call(&self, query: &str, body: &[u8]) -> Outcome {
        let (models, query, body) = (self.models.clone(), query.to_owned(), Bytes::copy_from_slice(body));
        // A task, so that a panic is an outcome.
        Outcome::of(match &self.guest {
            Guest::Component(pre) => tokio::spawn(component::call(pre.clone(), models, query, body)).await,
            Guest::Command(pre) => tokio::spawn(command::call(pre.clone(), models, query, body)).await,
        })
    }
}
