use wasmeter_inference::ModelKey;
use wasmtime::component::Resource;

use crate::bindings::errors::ErrorCode;
use crate::bindings::graph::{ExecutionTarget, GraphBuilder, GraphEncoding, Host, HostGraph};
use crate::ctx::NnCtxView;
use crate::errors::NnError;
use crate::inference::ExecutionContext;

/// A model that the guest may compute with.
#[derive(Debug)]
#[allow(unreachable_pub, reason = "the generated module re-exports it")]
pub struct Graph {
    pub(crate) model: ModelKey,
}

impl NnCtxView<'_> {
    /// Graphs and contexts share one count: each is a small host allocation in the guest's name.
    pub(crate) fn take_graph(&mut self) -> Result<(), NnError> {
        if self.ctx.graphs >= self.ctx.limits.graphs {
            let limit = self.ctx.limits.graphs;
            return Err(NnError::new(
                ErrorCode::TooLarge,
                format!("an invocation holds at most {limit} graphs and execution contexts: drop one first"),
            ));
        }
        self.ctx.graphs += 1;
        Ok(())
    }

    fn find(&self, name: &str) -> Result<ModelKey, NnError> {
        let shown: String = name.chars().take(64).collect();
        if !self.ctx.allow.iter().any(|m| m.as_str() == name) {
            return Err(NnError::new(
                ErrorCode::NotFound,
                format!("model {shown:?} is not in [models] allow of the function's manifest"),
            ));
        }
        let missing = || {
            NnError::new(
                ErrorCode::NotFound,
                format!("model {shown:?} is not on this host: `wasmeter models list`"),
            )
        };
        self.ctx.resolver.resolve(name).ok_or_else(missing)
    }
}

impl Host for NnCtxView<'_> {
    async fn load(
        &mut self,
        _builder: Vec<GraphBuilder>,
        _encoding: GraphEncoding,
        _target: ExecutionTarget,
    ) -> wasmtime::Result<Result<Resource<Graph>, Resource<NnError>>> {
        self.fail(NnError::new(
            ErrorCode::Security,
            "a guest cannot load model bytes here: ask the operator to push the model and use load-by-name",
        ))
    }

    async fn load_by_name(
        &mut self,
        name: String,
    ) -> wasmtime::Result<Result<Resource<Graph>, Resource<NnError>>> {
        match self.find(&name).and_then(|model| self.take_graph().map(|()| model)) {
            Ok(model) => Ok(Ok(self.table.push(Graph { model })?)),
            Err(error) => self.fail(error),
        }
    }
}

impl HostGraph for NnCtxView<'_> {
    async fn init_execution_context(
        &mut self,
        graph: Resource<Graph>,
    ) -> wasmtime::Result<Result<Resource<ExecutionContext>, Resource<NnError>>> {
        let model = self.table.get(&graph)?.model.clone();
        match self.take_graph() {
            Ok(()) => Ok(Ok(self.table.push(ExecutionContext { model })?)),
            Err(error) => self.fail(error),
        }
    }

    async fn drop(&mut self, graph: Resource<Graph>) -> wasmtime::Result<()> {
        self.table.delete(graph)?;
        self.ctx.graphs = self.ctx.graphs.saturating_sub(1);
        Ok(())
    }
}
