use wasmeter_inference::{ModelKey, NamedTensor as Named};
use wasmtime::component::Resource;

use crate::bindings::inference::{Host, HostGraphExecutionContext, NamedTensor};
use crate::call::{Count, weight};
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
    /// Takes the guest's tensors out of its hands: `list<named-tensor>` owns them, whatever comes of the call. With
    /// them comes what they weigh; they are not counted any more.
    pub(crate) fn take_tensors(
        &mut self,
        inputs: Vec<NamedTensor>,
    ) -> wasmtime::Result<Result<(Vec<Named>, usize), NnError>> {
        let mut tensors = Vec::with_capacity(inputs.len());
        let mut bytes = 0;
        let mut bad = None;
        for (name, tensor) in inputs {
            let tensor = self.table.delete(tensor)?;
            self.ctx.release(tensor.bytes());
            bytes += tensor.bytes();
            match tensor.checked() {
                Ok(tensor) => tensors.push(Named { name, tensor }),
                Err(error) => {
                    let shown: String = name.chars().take(64).collect();
                    bad.get_or_insert(NnError::new(error.code, format!("input {shown:?}: {}", error.data)));
                }
            }
        }
        Ok(bad.map_or(Ok((tensors, bytes)), Err))
    }

    /// Hands outputs to the guest, if they fit into its limit.
    pub(crate) fn give_tensors(
        &mut self,
        outputs: Vec<Named>,
    ) -> wasmtime::Result<Result<Vec<NamedTensor>, Resource<NnError>>> {
        if let Err(error) = self.ctx.hold(outputs.iter().map(|o| weight(&o.tensor)).sum()) {
            return self.fail(error);
        }
        let mut given = Vec::with_capacity(outputs.len());
        for Named { name, tensor } in outputs {
            given.push((name, self.table.push(GuestTensor::from_tensor(tensor))?));
        }
        Ok(Ok(given))
    }
}

impl Host for NnCtxView<'_> {}

impl HostGraphExecutionContext for NnCtxView<'_> {
    async fn compute(
        &mut self,
        context: Resource<ExecutionContext>,
        inputs: Vec<NamedTensor>,
    ) -> wasmtime::Result<Result<Vec<NamedTensor>, Resource<NnError>>> {
        let model = self.table.get(&context)?.model.clone();
        let answer = match self.take_tensors(inputs)? {
            Ok((inputs, _)) => self.ctx.compute(&model, inputs).await,
            Err(error) => Err(error),
        };
        match answer {
            Ok(outputs) => self.give_tensors(outputs),
            Err(error) => self.fail(error),
        }
    }

    async fn drop(&mut self, context: Resource<ExecutionContext>) -> wasmtime::Result<()> {
        self.table.delete(context)?;
        self.ctx.give(Count::Context);
        Ok(())
    }
}
