//! What all versions of wasi:nn have in common: models by name, limits, and one compute.

use wasmeter_inference::{
    ComputeError, ComputeRequest, Computed, MAX_NAME, MAX_PORTS, ModelKey, NamedTensor,
};

use crate::bindings::errors::ErrorCode;
use crate::bindings::graph::{ExecutionTarget, GraphEncoding};
use crate::ctx::NnCtx;
use crate::errors::NnError;
use crate::quota::Of;

/// What counts against a limit while it lives.
#[derive(Clone, Copy)]
pub(crate) enum Count {
    Graph,
    Context,
    Flight,
}

impl Count {
    /// What it is in the tenant's account; computes under way are bounded by the device's queue there.
    fn of(self) -> Option<Of> {
        match self {
            Self::Graph => Some(Of::Graphs),
            Self::Context => Some(Of::Contexts),
            Self::Flight => None,
        }
    }
}

impl NnCtx {
    /// The model behind a name, if the function may use it. Counts a graph.
    pub(crate) fn open(&mut self, name: &str) -> Result<ModelKey, NnError> {
        let shown: String = name.chars().take(64).collect();
        // The list has plain names: it says which models, not which of their versions.
        let plain = name.split_once('@').map_or(name, |(plain, _)| plain);
        if !self.allow.iter().any(|m| m.as_str() == plain) {
            return Err(NnError::new(
                ErrorCode::NotFound,
                format!("model {shown:?} is not in [models] allow of the function's manifest"),
            ));
        }
        let Some(model) = self.lease(name) else {
            return Err(NnError::new(
                ErrorCode::NotFound,
                format!("model {shown:?} is not on this host: `wasmeter models list`"),
            ));
        };
        self.take(Count::Graph)?;
        Ok(model)
    }

    /// The version behind the name, held to the end of the invocation: what began with it ends with it, even if it is
    /// removed meanwhile.
    fn lease(&mut self, name: &str) -> Option<ModelKey> {
        // A version may go between the look and the hold; then the name stands for another one already.
        for _ in 0..4 {
            let key = self.resolver.resolve(&self.tenant, name)?;
            if self.leases.iter().any(|lease| *lease.key() == key) {
                return Some(key);
            }
            if let Some(lease) = self.models.lease(&key) {
                self.leases.push(lease);
                return Some(key);
            }
        }
        None
    }

    /// Why a guest's own model is not loaded; the first thing that is wrong with it.
    pub(crate) fn refuse_load(parts: usize, encoding: GraphEncoding, target: ExecutionTarget) -> NnError {
        if parts == 0 {
            return NnError::new(ErrorCode::InvalidArgument, "a graph has at least one part");
        }
        match (encoding, target) {
            (GraphEncoding::Openvino | GraphEncoding::Onnx | GraphEncoding::Autodetect, target) => {
                match target {
                    ExecutionTarget::Tpu => {
                        NnError::new(ErrorCode::UnsupportedOperation, "there is no tpu: use cpu or gpu")
                    }
                    ExecutionTarget::Cpu | ExecutionTarget::Gpu => NnError::new(
                        ErrorCode::Security,
                        "a guest cannot load model bytes here: ask the operator to push the model and use load-by-name",
                    ),
                }
            }
            _ => NnError::new(
                ErrorCode::InvalidEncoding,
                "no engine here reads this encoding: models are onnx or openvino, and loaded by name",
            ),
        }
    }

    /// Counts one more of a kind; over its limit the guest is told to drop one.
    pub(crate) fn take(&mut self, count: Count) -> Result<(), NnError> {
        let limits = self.limits;
        let (used, limit, what) = match count {
            Count::Graph => (&mut self.graphs, limits.graphs, "graphs"),
            Count::Context => (&mut self.contexts, limits.contexts, "execution contexts"),
            Count::Flight => (&mut self.flying, limits.in_flight, "computes under way"),
        };
        if *used >= limit {
            let message = format!("an invocation has at most {limit} {what}: drop one first");
            return Err(NnError::new(ErrorCode::TooLarge, message));
        }
        *used += 1;
        if let Some(of) = count.of()
            && let Err(limit) = self.share().take(of, 1)
        {
            self.uncount(count);
            let message = format!("the tenant's invocations hold at most {limit} {what} at one time");
            return Err(NnError::new(ErrorCode::TooLarge, message));
        }
        Ok(())
    }

    pub(crate) fn give(&mut self, count: Count) {
        self.uncount(count);
        if let Some(of) = count.of() {
            self.share().give(of, 1);
        }
    }

    fn uncount(&mut self, count: Count) {
        let used = match count {
            Count::Graph => &mut self.graphs,
            Count::Context => &mut self.contexts,
            Count::Flight => &mut self.flying,
        };
        *used = used.saturating_sub(1);
    }

    /// Counts tensor bytes; called before they are copied or kept.
    pub(crate) fn hold(&mut self, bytes: usize) -> Result<(), NnError> {
        let total = self.tensor_bytes.saturating_add(bytes);
        let limit = self.limits.tensor_bytes;
        if total > limit {
            return Err(NnError::new(
                ErrorCode::TooLarge,
                format!("tensors of {total} bytes live at one time, at most {limit} are allowed"),
            ));
        }
        if let Err(limit) = self.share().take(Of::TensorBytes, bytes) {
            let message =
                format!("the tenant's invocations hold at most {limit} bytes of tensors at one time");
            return Err(NnError::new(ErrorCode::TooLarge, message));
        }
        self.tensor_bytes = total;
        Ok(())
    }

    pub(crate) fn release(&mut self, bytes: usize) {
        self.tensor_bytes = self.tensor_bytes.saturating_sub(bytes);
        self.share().give(Of::TensorBytes, bytes);
    }

    /// Counts a compute and makes the request for it.
    pub(crate) fn request(
        &mut self,
        model: &ModelKey,
        inputs: Vec<NamedTensor>,
    ) -> Result<ComputeRequest, NnError> {
        if self.computes >= self.limits.computes {
            let limit = self.limits.computes;
            let message = format!("an invocation makes at most {limit} computes");
            return Err(NnError::new(ErrorCode::TooLarge, message));
        }
        check_names(&inputs)?;
        let meter = Some(self.paid_charges(model)?);
        self.computes += 1;
        let (tenant, deadline) = (self.tenant.clone(), self.deadline);
        Ok(ComputeRequest { tenant, model: model.clone(), inputs, deadline, meter })
    }

    /// One compute that the guest waits for.
    pub(crate) async fn compute(
        &mut self,
        model: &ModelKey,
        inputs: Vec<NamedTensor>,
    ) -> Result<Vec<NamedTensor>, NnError> {
        let request = self.request(model, inputs)?;
        let answer = self.models.compute(request).await;
        self.judge(answer)
    }

    /// What the guest sees of an answer; a fault of ours is kept.
    pub(crate) fn judge(
        &mut self,
        answer: Result<Computed, ComputeError>,
    ) -> Result<Vec<NamedTensor>, NnError> {
        answer.map(|computed| computed.outputs).map_err(|error| {
            let (error, fault) = NnError::of(&error);
            if fault.is_some() {
                self.fault = fault;
            }
            error
        })
    }
}

fn check_names(inputs: &[NamedTensor]) -> Result<(), NnError> {
    if inputs.len() > MAX_PORTS {
        let message = format!("{} inputs; no model has more than {MAX_PORTS}", inputs.len());
        return Err(NnError::new(ErrorCode::InvalidArgument, message));
    }
    match inputs.iter().find(|i| i.name.len() > MAX_NAME) {
        Some(long) => Err(NnError::new(
            ErrorCode::InvalidArgument,
            format!("an input's name has {} bytes; no model has one above {MAX_NAME}", long.name.len()),
        )),
        None => Ok(()),
    }
}

/// Bytes that a tensor takes of the limit.
pub(crate) fn weight(tensor: &wasmeter_inference::Tensor) -> usize {
    tensor.data().len() + size_of_val(tensor.dims())
}
