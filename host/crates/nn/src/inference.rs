use wasmeter_inference::{ComputeRequest, ModelKey, NamedTensor as Named};
use wasmtime::component::Resource;

use crate::bindings::errors::ErrorCode;
use crate::bindings::inference::{Host, HostGraphExecutionContext, NamedTensor};
use crate::ctx::NnCtxView;
use crate::errors::NnError;
use crate::tensor::GuestTensor;

/// Where the guest computes.
#[derive(Debug)]
#[allow(unreachable_pub, reason = "the generated module re-exports it")]
pub struct ExecutionContext {
    pub(crate) model: ModelKey,
}

impl NnCtxView<'_> {
    fn request(
        &mut self,
        context: &Resource<ExecutionContext>,
        inputs: Vec<NamedTensor>,
    ) -> wasmtime::Result<Result<ComputeRequest, NnError>> {
        let model = self.table.get(context)?.model.clone();
        let mut tensors = Vec::with_capacity(inputs.len());
        let mut bad = None;
        for (name, tensor) in inputs {
            match self.table.get(&tensor)?.checked() {
                Ok(tensor) => tensors.push(Named { name, tensor }),
                Err(error) => {
                    bad.get_or_insert(NnError::new(
                        error.code,
                        format!("input {:?}: {}", name.chars().take(64).collect::<String>(), error.data),
                    ));
                }
            }
            // The call took the handles: `list<named-tensor>` owns its tensors.
            self.ctx.tensor_bytes = self.ctx.tensor_bytes.saturating_sub(self.table.delete(tensor)?.bytes());
        }
        if let Some(error) = bad {
            return Ok(Err(error));
        }
        if self.ctx.computes >= self.ctx.limits.computes {
            let limit = self.ctx.limits.computes;
            return Ok(Err(NnError::new(
                ErrorCode::TooLarge,
                format!("an invocation makes at most {limit} computes"),
            )));
        }
        self.ctx.computes += 1;
        let meter = Some(self.ctx.charges(&model));
        let (tenant, deadline) = (self.ctx.tenant.clone(), self.ctx.deadline);
        Ok(Ok(ComputeRequest { tenant, model, inputs: tensors, deadline, meter }))
    }
}

impl Host for NnCtxView<'_> {}

impl HostGraphExecutionContext for NnCtxView<'_> {
    async fn compute(
        &mut self,
        context: Resource<ExecutionContext>,
        inputs: Vec<NamedTensor>,
    ) -> wasmtime::Result<Result<Vec<NamedTensor>, Resource<NnError>>> {
        let request = match self.request(&context, inputs)? {
            Ok(request) => request,
            Err(error) => return self.fail(error),
        };
        match self.ctx.models.compute(request).await {
            Ok(computed) => {
                let mut outputs = Vec::with_capacity(computed.outputs.len());
                for Named { name, tensor } in computed.outputs {
                    outputs.push((name, self.push_tensor(GuestTensor::from_tensor(tensor))?));
                }
                Ok(Ok(outputs))
            }
            Err(error) => {
                let (error, fault) = NnError::of(&error);
                if fault.is_some() {
                    self.ctx.fault = fault;
                }
                self.fail(error)
            }
        }
    }

    async fn drop(&mut self, context: Resource<ExecutionContext>) -> wasmtime::Result<()> {
        self.table.delete(context)?;
        self.ctx.graphs = self.ctx.graphs.saturating_sub(1);
        Ok(())
    }
}
