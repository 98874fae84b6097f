//! `wasi_ephemeral_nn`: wasi:nn for core modules. A guest speaks in handles, indices and pointers; wiggle checks every
//! pointer against the guest's memory, and sizes are checked against the limits before anything is copied. The specification's
//! `missing_memory` is a trap here, as in wasmtime: the glue finds no `memory` before any of this runs.

use wasmeter_inference::{DType, ModelKey, Tensor};
use wiggle::{GuestError, GuestMemory, GuestPtr};

use crate::bindings::errors::ErrorCode;
use crate::bindings::graph::{ExecutionTarget, GraphEncoding};
use crate::call::Count;
use crate::ctx::NnCtx;
use crate::errors::NnError;
use crate::steps::Steps;
use generated::types;

pub(crate) use generated::wasi_ephemeral_nn::add_to_linker;

#[allow(missing_docs, unreachable_pub, reason = "generated")]
pub(crate) mod generated {
    use super::Failure;

    wiggle::from_witx!({
        witx: ["../../../wit/witx/wasi-nn.witx"],
        errors: { nn_errno => Failure },
        async: *,
        tracing: false,
    });

    impl wiggle::GuestErrorType for types::NnErrno {
        fn success() -> Self {
            Self::Success
        }
    }
}

/// What a core module holds. There is no call that drops a handle, so a handle is an index.
#[derive(Default)]
pub(crate) struct CoreState {
    graphs: Vec<ModelKey>,
    contexts: Vec<Steps>,
}

/// Longest name of a model that is read from a guest.
const MAX_MODEL_NAME: u32 = 1024;
/// Most dimensions that are read from a guest; no tensor has more than 16.
const MAX_DIMS: u32 = 64;
/// Most parts of a graph that are looked at.
const MAX_PARTS: u32 = 16;

/// Why a call fails; the guest is told a number.
#[derive(Debug)]
#[allow(unreachable_pub, reason = "the generated module names it")]
pub struct Failure(NnError);

impl From<NnError> for Failure {
    fn from(error: NnError) -> Self {
        Self(error)
    }
}

/// A pointer or a text that is none.
impl From<GuestError> for Failure {
    fn from(error: GuestError) -> Self {
        invalid(&error.to_string())
    }
}

impl types::UserErrorConversion for NnCtx {
    fn nn_errno_from_failure(&mut self, failure: Failure) -> wasmtime::Result<types::NnErrno> {
        tracing::debug!(error = failure.0.data, "wasi_ephemeral_nn");
        Ok(match failure.0.code {
            _ if failure.0.busy => types::NnErrno::Busy,
            ErrorCode::InvalidArgument => types::NnErrno::InvalidArgument,
            ErrorCode::InvalidEncoding => types::NnErrno::InvalidEncoding,
            ErrorCode::TooLarge => types::NnErrno::TooLarge,
            ErrorCode::NotFound => types::NnErrno::NotFound,
            // This version has no word for what is forbidden.
            ErrorCode::UnsupportedOperation | ErrorCode::Security => types::NnErrno::UnsupportedOperation,
            ErrorCode::RuntimeError | ErrorCode::Timeout | ErrorCode::Unknown => types::NnErrno::RuntimeError,
        })
    }
}

fn invalid(message: &str) -> Failure {
    Failure(NnError::new(ErrorCode::InvalidArgument, message))
}

fn index(handle: u32) -> usize {
    usize::try_from(handle).unwrap_or(usize::MAX)
}

impl NnCtx {
    fn steps(&mut self, context: types::GraphExecutionContext) -> Result<&mut Steps, Failure> {
        let steps = self.core.contexts.get_mut(index(context.into()));
        steps.ok_or_else(|| invalid("no such execution context"))
    }
}

impl generated::wasi_ephemeral_nn::WasiEphemeralNn for NnCtx {
    async fn load(
        &mut self,
        memory: &mut GuestMemory<'_>,
        builder: types::GraphBuilderArray,
        encoding: u32,
        target: u32,
    ) -> Result<types::Graph, Failure> {
        let encoding = match encoding {
            0 => GraphEncoding::Openvino,
            1 => GraphEncoding::Onnx,
            2 => GraphEncoding::Tensorflow,
            3 => GraphEncoding::Pytorch,
            4 => GraphEncoding::Tensorflowlite,
            5 => GraphEncoding::Autodetect,
            _ => return Err(invalid("no such encoding")),
        };
        let target = match target {
            0 | 3 => ExecutionTarget::Cpu,
            1 => ExecutionTarget::Gpu,
            2 => ExecutionTarget::Tpu,
            _ => return Err(invalid("no such target")),
        };
        if builder.len() > MAX_PARTS {
            return Err(
                NnError::new(ErrorCode::TooLarge, format!("a graph of {} parts", builder.len())).into()
            );
        }
        for part in builder.iter() {
            // Nothing is copied: it is refused below, but a bad pointer is told as such.
            memory.as_slice(memory.read(part?)?)?;
        }
        Err(NnCtx::refuse_load(index(builder.len()), encoding, target).into())
    }

    async fn load_by_name(
        &mut self,
        memory: &mut GuestMemory<'_>,
        name: GuestPtr<str>,
    ) -> Result<types::Graph, Failure> {
        if name.len() > MAX_MODEL_NAME {
            return Err(invalid("the name of a model is short"));
        }
        let model = self.open(&memory.as_cow_str(name)?)?;
        self.core.graphs.push(model);
        Ok(handle(self.core.graphs.len()).into())
    }

    async fn init_execution_context(
        &mut self,
        _memory: &mut GuestMemory<'_>,
        graph: types::Graph,
    ) -> Result<types::GraphExecutionContext, Failure> {
        let model = self.core.graphs.get(index(graph.into())).cloned();
        let model = model.ok_or_else(|| invalid("no such graph"))?;
        self.take(Count::Context)?;
        self.core.contexts.push(Steps::new(model));
        Ok(handle(self.core.contexts.len()).into())
    }

    async fn set_input(
        &mut self,
        memory: &mut GuestMemory<'_>,
        context: types::GraphExecutionContext,
        input: u32,
        tensor: &types::Tensor,
    ) -> Result<(), Failure> {
        self.steps(context)?;
        let dtype = match tensor.type_ {
            0 => DType::F16,
            1 => DType::F32,
            2 => DType::F64,
            3 => DType::U8,
            4 => DType::I32,
            5 => DType::I64,
            _ => return Err(invalid("no such tensor type")),
        };
        if tensor.dimensions.len() > MAX_DIMS {
            return Err(invalid("too many dimensions"));
        }
        let (dims, data) = (tensor.dimensions, tensor.data);
        let bytes = index(data.len()).saturating_add(index(dims.len()) * size_of::<u32>());
        self.hold(bytes)?;
        let set = copy(memory, dtype, dims, data).and_then(|tensor| {
            let set = self.steps(context)?.set_input(input.to_string(), tensor);
            set.map_err(|(error, _)| error.into())
        });
        self.release(*set.as_ref().unwrap_or(&bytes));
        set.map(drop)
    }

    async fn compute(
        &mut self,
        _memory: &mut GuestMemory<'_>,
        context: types::GraphExecutionContext,
    ) -> Result<(), Failure> {
        let (model, inputs) = self.steps(context)?.prepared();
        let outputs = NnCtx::compute(self, &model, inputs).await?;
        // Out of the table for a moment, for both are borrowed.
        let mut steps = std::mem::replace(self.steps(context)?, Steps::new(model));
        let kept = steps.finish(self, outputs);
        *self.steps(context)? = steps;
        Ok(kept?)
    }

    async fn get_output(
        &mut self,
        memory: &mut GuestMemory<'_>,
        context: types::GraphExecutionContext,
        output: u32,
        buffer: GuestPtr<u8>,
        size: u32,
    ) -> Result<u32, Failure> {
        let outputs = self.steps(context)?.outputs()?;
        let output = outputs.get(index(output)).ok_or_else(|| invalid("no such output"))?;
        let data = output.tensor.data();
        let length = u32::try_from(data.len()).ok().filter(|length| *length <= size);
        let Some(length) = length else {
            let message = format!("the output has {} bytes, the buffer {size}", data.len());
            return Err(NnError::new(ErrorCode::TooLarge, message).into());
        };
        memory.copy_from_slice(data, buffer.as_array(length))?;
        Ok(length)
    }
}

/// The handle of the last of so many.
fn handle(count: usize) -> u32 {
    u32::try_from(count.saturating_sub(1)).unwrap_or(u32::MAX)
}

fn copy(
    memory: &GuestMemory<'_>,
    dtype: DType,
    dims: GuestPtr<[u32]>,
    data: GuestPtr<[u8]>,
) -> Result<Tensor, Failure> {
    let (dims, data) = (memory.to_vec(dims)?, memory.to_vec(data)?);
    Tensor::new(dtype, dims, data).map_err(|e| invalid(&e.to_string()))
}
