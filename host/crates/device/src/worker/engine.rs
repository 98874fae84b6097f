//! ONNX Runtime, as far as the worker needs it.

use std::{
    collections::HashMap,
    os::fd::OwnedFd,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    ptr,
};

use ort::{
    AsPointer, ErrorCode,
    environment::Environment,
    ep,
    memory::{AllocationDevice, Allocator, AllocatorType, MemoryInfo, MemoryType},
    session::{Session, SessionInputValue, builder::GraphOptimizationLevel},
    value::{DynTensor, DynTensorValueType, DynValue, Outlet, TensorElementType, ValueType},
};
use wasmeter_inference::{DType, Port, Precision, Signature};

use super::{
    Engine, Ready,
    tensor::{self, Fault, Input, Outputs},
};
use crate::{
    find::EngineMissing,
    gate,
    region::Region,
    target::{Library, Target},
    wire::{Failure, Placed, ToHost},
};

/// The engine with its loaded models. One thread uses it: a session is not safe to run twice at once.
pub(super) struct OnnxRuntime {
    environment: Environment,
    target: Target,
    threads: usize,
    spin: bool,
    device_memory: u64,
    models: HashMap<u32, Model>,
}

struct Model {
    session: Session,
    /// Of a small file: all threads, where `session` has one.
    wide: Option<(Session, Width)>,
    signature: Signature,
}

/// Files below this get a session of one thread beside that of all: of what is done in microseconds, threads that wait
/// for one another are the longest part, and while the machine is busy they wait for the processor too. A small file may
/// be much work all the same, which is seen.
const SMALL: usize = 1 << 20;

/// Which runs of a small file are for all threads.
struct Width {
    runs: u32,
    /// Bytes of inputs.
    from: usize,
}

impl Width {
    /// Busy time that is worth the threads.
    const LONG_NS: u64 = 1_000_000;
    /// The first runs pay for cold caches.
    const COLD: u32 = 2;

    fn new() -> Self {
        Self { runs: 0, from: usize::MAX }
    }

    fn is_wide(&self, bytes: usize) -> bool {
        bytes >= self.from
    }

    /// A run took so long.
    fn learn(&mut self, bytes: usize, busy_ns: u64) {
        if self.is_wide(bytes) {
            return;
        }
        self.runs = self.runs.saturating_add(1);
        if self.runs > Self::COLD && busy_ns >= Self::LONG_NS {
            self.from = bytes;
        }
    }
}

/// Bytes of a run's inputs.
fn input_bytes(inputs: &[Placed]) -> usize {
    let bytes = inputs.iter().filter_map(|placed| placed.dtype.bytes(&placed.dims));
    bytes.fold(0, usize::saturating_add)
}

/// The part of the GPU build that runs on NVIDIA devices; it lies beside the library.
const CUDA_PROVIDER: &str = "libonnxruntime_providers_cuda.so";

impl OnnxRuntime {
    /// Loads the library. The text of an error is for the operator.
    ///
    /// The library of the PyPI wheel starts a telemetry thread with its first environment, which writes a database
    /// under the home folder and sends to its maker. The variable is the only switch that comes in time;
    /// set here, it does not appear in the worker's initial environment, which stays empty.
    pub(super) fn start(
        library: &Path,
        target: &Target,
        threads: usize,
        spin: bool,
        device_memory: u64,
    ) -> Result<Self, String> {
        if let Target::Cuda(number) = target {
            cuda_is_there(library, *number)?;
        }
        #[allow(unsafe_code, reason = "the engine reads this switch from the environment only")]
        // SAFETY: the worker has only this thread.
        unsafe {
            std::env::set_var("ORT_DISABLE_TELEMETRY", "1");
        }
        let missing = |reason| EngineMissing::new(Library::OnnxRuntime, reason).to_string();
        let start = || {
            let builder = ort::init_from(library).map_err(|error| error.to_string())?;
            let environment =
                builder.with_telemetry(false).build().map_err(|error| error.message().to_owned())?;
            environment.set_log_level(ort::logging::LogLevel::Error);
            Ok(environment)
        };
        // `ort` panics where a library of that name is another thing inside.
        let environment =
            catch_unwind(start).unwrap_or_else(|_| Err(format!("{} is not usable", library.display())));
        let environment = environment.map_err(missing)?;
        let models = HashMap::new();
        let engine = Self { environment, target: target.clone(), threads, spin, device_memory, models };
        if let Target::Cuda(_) = target {
            // Loads CUDA and opens the device while that is allowed; says at once what is wrong with them.
            engine
                .session(super::SMALLEST_ONNX, engine.threads)
                .map_err(|error| format!("{target} cannot be used: {error}"))?;
        }
        Ok(engine)
    }

    fn load_sealed(&mut self, id: u32, file: OwnedFd, size: u64) -> Result<Ready, String> {
        let mapped = Region::map(file, size, false).map_err(|error| error.to_string())?;
        let bytes = mapped.sealed_bytes().map_err(|error| error.to_string())?;
        let batching = gate::check_onnx(bytes).map_err(|refused| refused.to_string())?.batching;
        // `ort` panics on value types that it does not know.
        let model = catch_unwind(AssertUnwindSafe(|| self.build(bytes)))
            .unwrap_or_else(|_| Err("the model has inputs or outputs of an unknown kind".to_owned()))?;
        let signature = model.signature.clone();
        self.models.insert(id, model);
        Ok(Ready { signature, batching })
    }

    fn session(&self, bytes: &[u8], threads: usize) -> Result<Session, String> {
        let built = || -> ort::Result<Session> {
            let mut builder = Session::builder(&self.environment)?;
            if let Target::Cuda(number) = self.target {
                // Without this the engine would compute on the processor and say nothing.
                let cuda = ep::CUDA::default()
                    .with_device_id(i32::try_from(number).unwrap_or(i32::MAX))
                    .with_memory_limit(usize::try_from(self.device_memory).unwrap_or(usize::MAX))
                    // Full f32, as on every other device.
                    .with_tf32(false)
                    .build()
                    .error_on_failure();
                builder = builder.with_execution_providers([cuda])?;
            }
            builder
                .with_optimization_level(GraphOptimizationLevel::Level3)?
                .with_intra_threads(threads)?
                .with_inter_threads(1)?
                // Between the operators of a run only: a thread that spins is busy, and after the run nobody would
                // pay for it.
                .with_intra_op_spinning(self.spin)?
                .with_config_entry("session.force_spinning_stop", "1")?
                .with_inter_op_spinning(false)?
                // The patterns are kept for every shape ever seen: memory that callers could fill.
                .with_memory_pattern(false)?
                // The gate has read the bytes as ONNX, so the engine must not guess another format.
                .with_config_entry("session.load_model_format", "ONNX")?
                .with_log_level(ort::logging::LogLevel::Error)?
                .commit_from_memory(bytes)
        };
        built().map_err(|error| error.message().to_owned())
    }

    fn build(&self, bytes: &[u8]) -> Result<Model, String> {
        let small = matches!(self.target, Target::Cpu) && self.threads > 1 && bytes.len() < SMALL;
        let session = self.session(bytes, if small { 1 } else { self.threads })?;
        let wide = if small { Some((self.session(bytes, self.threads)?, Width::new())) } else { None };
        let mut signature = Signature {
            inputs: ports(session.inputs(), "input")?,
            outputs: ports(session.outputs(), "output")?,
        };
        for (index, port) in signature.inputs.iter_mut().enumerate() {
            // `ort` shows an unknown number of dimensions as a scalar.
            if port.dims.as_ref().is_some_and(Vec::is_empty) && !has_shape(&session, index) {
                port.dims = None;
            }
        }
        Ok(Model { session, wide, signature })
    }
}

impl Engine for OnnxRuntime {
    /// Builds a session. It computes as the model says, whatever the precision.
    fn load(&mut self, id: u32, file: OwnedFd, size: u64, _: Precision) -> Result<Ready, String> {
        self.load_sealed(id, file, size)
    }

    fn unload(&mut self, id: u32) {
        self.models.remove(&id);
    }

    fn run(&mut self, run: u64, id: u32, inputs: &[Placed], input: &Region, output: &Region) -> ToHost {
        let class = self.target.class();
        let mut model = self.models.get_mut(&id);
        let answer =
            tensor::timed(run, class, model.as_deref_mut(), |model| model.run(inputs, input, output));
        if let (Some(Model { wide: Some((_, width)), .. }), ToHost::Ran { busy_ns, .. }) = (model, &answer) {
            width.learn(input_bytes(inputs), *busy_ns);
        }
        answer
    }
}

impl Model {
    fn run(&mut self, inputs: &[Placed], input: &Region, output: &Region) -> Result<Vec<Placed>, Fault> {
        let found = Input::all(inputs, self.signature.inputs.len(), input)?;
        let values = found
            .zip(inputs)
            .map(|(input, placed)| Ok(SessionInputValue::from(view(&input?, placed.dtype)?)))
            .collect::<Result<Vec<_>, Fault>>()?;
        let session = match &mut self.wide {
            Some((session, width)) if width.is_wide(input_bytes(inputs)) => session,
            _ => &mut self.session,
        };
        let values = session.run(values.as_slice()).map_err(|error| {
            let kind = match error.code() {
                ErrorCode::InvalidArgument => Failure::Input,
                _ => Failure::Engine,
            };
            Fault(kind, error.message().to_owned())
        })?;
        let mut outputs = Outputs::new(output, values.len());
        for (value, port) in values.values().zip(&self.signature.outputs) {
            place(&value, port, &mut outputs)?;
        }
        Ok(outputs.placed)
    }
}

/// What a CUDA device needs, before the engine is asked: its own words for what is missing name no step to take.
fn cuda_is_there(library: &Path, number: u32) -> Result<(), String> {
    let provider = library.with_file_name(CUDA_PROVIDER);
    if !provider.is_file() {
        return Err(format!(
            "cuda:{number} needs the GPU build of ONNX Runtime: there is no file {}; deploy/gpu.md has the steps",
            provider.display()
        ));
    }
    let device = format!("/dev/nvidia{number}");
    if !Path::new(&device).exists() {
        return Err(format!("cuda:{number} is not on this machine, or has no driver: there is no {device}"));
    }
    Ok(())
}

/// A tensor over an input. The engine never writes to inputs.
fn view(input: &Input, dtype: DType) -> Result<DynValue, Fault> {
    let create = || -> ort::Result<DynValue> {
        let memory = MemoryInfo::new(AllocationDevice::CPU, 0, AllocatorType::Device, MemoryType::Default)?;
        let mut value: *mut ort::sys::OrtValue = ptr::null_mut();
        #[allow(unsafe_code, reason = "`ort` makes such views only for Rust types; f16 and bf16 are none")]
        // SAFETY: `data` points at `len` readable bytes, aligned for every element type, in a mapping that
        // outlives the run; `dims` outlives the call; `value` receives a value that the caller owns.
        let status = unsafe {
            (ort::api().CreateTensorWithDataAsOrtValue)(
                memory.ptr(),
                input.data.as_ptr().cast(),
                input.len,
                input.dims.as_ptr(),
                input.dims.len(),
                element_type(dtype).into(),
                &raw mut value,
            )
        };
        #[allow(unsafe_code, reason = "the status came from the C interface")]
        // SAFETY: the status is fresh and is not used again.
        unsafe { ort::Error::result_from_status(status) }?;
        let value = ptr::NonNull::new(value).ok_or_else(|| ort::Error::new("no tensor was made"))?;
        #[allow(unsafe_code, reason = "taking over a value of the C interface")]
        // SAFETY: the value is valid and nobody else releases it; releasing it leaves the foreign data alone.
        Ok(unsafe { DynValue::from_ptr(value, Some(&Allocator::default())) })
    };
    create().map_err(|error| Fault::engine(error.message()))
}

fn place(value: &DynValue, port: &Port, outputs: &mut Outputs<'_>) -> Result<(), Fault> {
    let name = &port.name;
    let ValueType::Tensor { ty, shape, .. } = value.dtype() else {
        return Err(Fault::engine(format!("output {name:?} is not a tensor")));
    };
    let Some(dtype) = dtype(*ty) else {
        return Err(Fault::engine(format!("output {name:?} has the unsupported type {ty}")));
    };
    outputs.put(port, dtype, shape, |len| {
        let value = value.view().downcast::<DynTensorValueType>();
        let value = value.map_err(|error| Fault::engine(error.message()))?;
        let tensor: &DynTensor = &value;
        let data = tensor.data_ptr();
        if data.is_null() {
            return Err(Fault::engine(format!("output {name:?} has no data")));
        }
        #[allow(unsafe_code, reason = "the bytes of an output, whatever its element type")]
        // SAFETY: a dense tensor on the CPU of this type and shape has `len` bytes, and they live as long as the
        // engine's value, which outlives this call.
        Ok(unsafe { std::slice::from_raw_parts(data.cast::<u8>(), len) })
    })
}

fn ports(outlets: &[Outlet], kind: &str) -> Result<Vec<Port>, String> {
    tensor::check_count(kind, outlets.len())?;
    outlets.iter().map(|outlet| port(outlet, kind)).collect()
}

fn port(outlet: &Outlet, kind: &str) -> Result<Port, String> {
    let name = outlet.name();
    let ValueType::Tensor { ty, shape, dimension_symbols } = outlet.dtype() else {
        return Err(format!("{kind} {name:?} is not a tensor but {}", outlet.dtype()));
    };
    let Some(dtype) = dtype(*ty) else {
        return Err(format!("{kind} {name:?} has the unsupported type {ty}"));
    };
    let symbol = |index| dimension_symbols.get(index).map(String::as_str);
    let dims = shape.iter().enumerate().map(|(index, size)| (u32::try_from(*size).ok(), symbol(index)));
    tensor::port(kind, name.to_owned(), dtype, Some(dims))
}

/// Whether the model gives an input a number of dimensions.
#[allow(unsafe_code, reason = "`ort` does not wrap this")]
fn has_shape(session: &Session, input: usize) -> bool {
    let mut info: *mut ort::sys::OrtTypeInfo = ptr::null_mut();
    let mut tensor: *const ort::sys::OrtTensorTypeAndShapeInfo = ptr::null();
    let inner = session.inner();
    // SAFETY: the session is alive and has this input; `info` and `tensor` are valid places for results;
    // `tensor` belongs to `info`, which is released after its last use.
    unsafe {
        let api = ort::api();
        let status = (api.SessionGetInputTypeInfo)(inner.ptr(), input, &raw mut info);
        if ort::Error::result_from_status(status).is_err() || info.is_null() {
            return true;
        }
        let status = (api.CastTypeInfoToTensorInfo)(info, &raw mut tensor);
        let has_shape = ort::Error::result_from_status(status).is_err()
            || tensor.is_null()
            || (api.TensorTypeAndShape_HasShape)(tensor);
        (api.ReleaseTypeInfo)(info);
        has_shape
    }
}

fn dtype(ty: TensorElementType) -> Option<DType> {
    DType::ALL.into_iter().find(|dtype| element_type(*dtype) == ty)
}

fn element_type(dtype: DType) -> TensorElementType {
    match dtype {
        DType::F16 => TensorElementType::Float16,
        DType::F32 => TensorElementType::Float32,
        DType::F64 => TensorElementType::Float64,
        DType::Bf16 => TensorElementType::Bfloat16,
        DType::U8 => TensorElementType::Uint8,
        DType::I32 => TensorElementType::Int32,
        DType::I64 => TensorElementType::Int64,
        DType::Bool => TensorElementType::Bool,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_runs_of_small_files_are_for_all_threads() {
        let mut width = Width::new();
        for _ in 0..Width::COLD {
            width.learn(100, Width::LONG_NS * 5);
        }
        width.learn(100, Width::LONG_NS - 1);
        assert!(!width.is_wide(100), "cold, or short");
        width.learn(100, Width::LONG_NS);
        assert!(width.is_wide(100) && width.is_wide(101) && !width.is_wide(99));
        width.learn(200, Width::LONG_NS);
        width.learn(50, Width::LONG_NS);
        assert!(width.is_wide(50) && !width.is_wide(49));
    }
}
