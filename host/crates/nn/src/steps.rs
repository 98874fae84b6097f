//! The older way to compute: set inputs, compute, get outputs. The two older release candidates and WITX share it.

use wasmeter_inference::{MAX_NAME, MAX_PORTS, ModelKey, NamedTensor, Tensor};

use crate::bindings::errors::ErrorCode;
use crate::call::weight;
use crate::ctx::NnCtx;
use crate::errors::NnError;

/// An execution context that remembers its inputs and outputs. Their bytes count while it lives.
#[derive(Debug)]
#[allow(unreachable_pub, reason = "generated modules re-export it")]
pub struct Steps {
    pub(crate) model: ModelKey,
    inputs: Vec<NamedTensor>,
    outputs: Option<Vec<NamedTensor>>,
}

impl Steps {
    pub(crate) fn new(model: ModelKey) -> Self {
        Self { model, inputs: Vec::new(), outputs: None }
    }

    /// Sets an input, in place of one of the same name. The tensor's bytes are counted by the caller; those that are
    /// given back now are returned.
    pub(crate) fn set_input(&mut self, name: String, tensor: Tensor) -> Result<usize, (NnError, Tensor)> {
        if name.len() > MAX_NAME {
            let message = format!("an input's name has {} bytes, at most {MAX_NAME} are allowed", name.len());
            return Err((NnError::new(ErrorCode::InvalidArgument, message), tensor));
        }
        if let Some(known) = self.inputs.iter_mut().find(|i| i.name == name) {
            let old = std::mem::replace(&mut known.tensor, tensor);
            return Ok(weight(&old));
        }
        if self.inputs.len() >= MAX_PORTS {
            let message = format!("no model has more than {MAX_PORTS} inputs");
            return Err((NnError::new(ErrorCode::InvalidArgument, message), tensor));
        }
        self.inputs.push(NamedTensor { name, tensor });
        Ok(0)
    }

    /// What a compute needs. The inputs stay set, as in the engines that this API was made for.
    pub(crate) fn prepared(&self) -> (ModelKey, Vec<NamedTensor>) {
        (self.model.clone(), self.inputs.clone())
    }

    /// Keeps the outputs of a compute in place of earlier ones.
    pub(crate) fn finish(&mut self, ctx: &mut NnCtx, outputs: Vec<NamedTensor>) -> Result<(), NnError> {
        ctx.release(self.outputs.take().iter().flatten().map(|o| weight(&o.tensor)).sum());
        ctx.hold(outputs.iter().map(|o| weight(&o.tensor)).sum())?;
        self.outputs = Some(outputs);
        Ok(())
    }

    /// An output by its name, or by its index in decimal.
    pub(crate) fn output(&self, name: &str) -> Result<&Tensor, NnError> {
        let outputs = self.outputs()?;
        let by_index = || {
            let index: usize = name.parse().ok()?;
            outputs.get(index).filter(|_| index.to_string() == name)
        };
        let found = outputs.iter().find(|o| o.name == name).or_else(by_index);
        found.map(|o| &o.tensor).ok_or_else(|| {
            let shown: String = name.chars().take(64).collect();
            let names: Vec<_> = outputs.iter().map(|o| format!("{:?}", o.name)).collect();
            NnError::new(
                ErrorCode::InvalidArgument,
                format!("unknown output {shown:?}; the model has {}", names.join(", ")),
            )
        })
    }

    /// All outputs, in the model's order.
    pub(crate) fn outputs(&self) -> Result<&[NamedTensor], NnError> {
        self.outputs.as_deref().ok_or_else(|| {
            NnError::new(ErrorCode::UnsupportedOperation, "there are no outputs before a compute")
        })
    }

    /// Bytes that count against the limit.
    pub(crate) fn bytes(&self) -> usize {
        let outputs = self.outputs.iter().flatten();
        self.inputs.iter().chain(outputs).map(|t| weight(&t.tensor)).sum()
    }
}
