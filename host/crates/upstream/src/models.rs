use std::collections::HashMap;

use wasmtime_wasi_nn::backend::BackendInner;
use wasmtime_wasi_nn::backend::openvino::OpenvinoBackend;
use wasmtime_wasi_nn::wit::ExecutionTarget;
use wasmtime_wasi_nn::{Backend, Graph, GraphRegistry, Registry};

/// Loaded models by name. A copy shares them.
#[derive(Clone, Default)]
pub(crate) struct Models(HashMap<String, Graph>);

impl Models {
    /// Loads a model as upstream's preloading does: the text of the graph, and its weights. OpenVINO tells by the
    /// contents what the first is, so an ONNX file will do as well; its weights are in it.
    pub(crate) fn load(models: &[(&str, Vec<u8>)]) -> wasmtime::Result<Self> {
        let mut backend = OpenvinoBackend::default();
        let mut loaded = HashMap::new();
        for (name, graph) in models {
            let graph = backend.load(&[graph, &[0]], ExecutionTarget::Cpu)?;
            loaded.insert((*name).to_owned(), graph);
        }
        Ok(Self(loaded))
    }

    /// What a context is made of: the backends of this build, and these models to load by name.
    pub(crate) fn parts(&self) -> (Vec<Backend>, Registry) {
        (wasmtime_wasi_nn::backend::list(), self.clone().into())
    }
}

impl GraphRegistry for Models {
    fn get(&self, name: &str) -> Option<&Graph> {
        self.0.get(name)
    }

    fn get_mut(&mut self, name: &str) -> Option<&mut Graph> {
        self.0.get_mut(name)
    }
}
