use wasmeter_inference::ModelKey;
use wasmtime::component::Resource;

use crate::bindings::graph::{ExecutionTarget, GraphBuilder, GraphEncoding, Host, HostGraph};
use crate::call::Count;
use crate::ctx::{NnCtx, NnCtxView};
use crate::errors::NnError;
use crate::inference::ExecutionContext;

/// A model that the guest may compute with.
#[derive(Debug)]
#[allow(unreachable_pub, reason = "the generated module re-exports it")]
pub struct Graph {
    pub(crate) model: ModelKey,
}

impl Host for NnCtxView<'_> {
    async fn load(
        &mut self,
        builder: Vec<GraphBuilder>,
        encoding: GraphEncoding,
        target: ExecutionTarget,
    ) -> wasmtime::Result<Result<Resource<Graph>, Resource<NnError>>> {
        self.fail(NnCtx::refuse_load(builder.len(), encoding, target))
    }

    async fn load_by_name(
        &mut self,
        name: String,
    ) -> wasmtime::Result<Result<Resource<Graph>, Resource<NnError>>> {
        match self.ctx.open(&name) {
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
        match self.ctx.take(Count::Context) {
            Ok(()) => Ok(Ok(self.table.push(ExecutionContext { model })?)),
            Err(error) => self.fail(error),
        }
    }

    async fn drop(&mut self, graph: Resource<Graph>) -> wasmtime::Result<()> {
        self.table.delete(graph)?;
        self.ctx.give(Count::Graph);
        Ok(())
    }
}
