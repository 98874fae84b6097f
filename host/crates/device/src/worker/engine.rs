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
use wasmeter_inference::{DType, Dim, MAX_NAME, MAX_PORTS, MAX_RANK, Port, Precision, Signature};

use super::{Engine, Ready, busy::Busy};
use crate::{
    find::EngineMissing,
    gate,
    region::{ALIGN, Region, align_up},
    target::{Library, Target},
    wire::{Failure, MAX_MESSAGE, Placed, ToHost},
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
    signature: Signature,
}

/// A failed run, before it is a message.
pub(super) struct Fault(pub(super) Failure, pub(super) String);

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
                .session(super::SMALLEST_ONNX)
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
        let mut message = Vec::new();
        let signature = model.signature.clone();
        let loaded = ToHost::Loaded { model: id, signature: signature.clone(), batching: batching.clone() };
        loaded.encode(&mut message);
        if message.len() > MAX_MESSAGE {
            return Err("the names of the model's inputs and outputs are too long".to_owned());
        }
        self.models.insert(id, model);
        Ok(Ready { signature, batching })
    }

    fn session(&self, bytes: &[u8]) -> Result<Session, String> {
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
                .with_intra_threads(self.threads)?
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
        let session = self.session(bytes)?;
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
        Ok(Model { session, signature })
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
        let busy = Busy::start(self.target.class());
        let result = match self.models.get_mut(&id) {
            Some(model) => catch_unwind(AssertUnwindSafe(|| model.run(inputs, input, output)))
                .unwrap_or_else(|_| Err(Fault(Failure::Engine, "the engine panicked".to_owned()))),
            None => Err(Fault(Failure::Engine, "the model is not loaded".to_owned())),
        };
        let busy_ns = busy.ns();
        match result {
            Ok(outputs) => ToHost::Ran { run, busy_ns, outputs },
            Err(Fault(kind, message)) => ToHost::Failed { run, busy_ns, kind, message },
        }
    }
}

impl Model {
    fn run(&mut self, inputs: &[Placed], input: &Region, output: &Region) -> Result<Vec<Placed>, Fault> {
        let ports = &self.signature.inputs;
        if inputs.len() != ports.len() {
            return Err(Fault(Failure::Engine, "the host sent another number of inputs".to_owned()));
        }
        let values = inputs
            .iter()
            .map(|placed| Ok(SessionInputValue::from(view(placed, input)?)))
            .collect::<Result<Vec<_>, Fault>>()?;
        let outputs = self.session.run(values.as_slice()).map_err(|error| {
            let kind = match error.code() {
                ErrorCode::InvalidArgument => Failure::Input,
                _ => Failure::Engine,
            };
            Fault(kind, error.message().to_owned())
        })?;
        let mut end = 0;
        let mut placed = Vec::with_capacity(outputs.len());
        for (value, port) in outputs.values().zip(&self.signature.outputs) {
            placed.push(place(&value, port, output, &mut end)?);
        }
        Ok(placed)
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

/// A tensor over the input region: no copy. The mapping is read-only, and the engine never writes to inputs.
fn view(placed: &Placed, region: &Region) -> Result<DynValue, Fault> {
    let unfit = || Fault(Failure::Engine, "the host placed an input outside the region".to_owned());
    let len = placed.dtype.bytes(&placed.dims).ok_or_else(unfit)?;
    let data =
        region.at(placed.offset, len).filter(|_| placed.offset.is_multiple_of(ALIGN)).ok_or_else(unfit)?;
    let dims: Vec<i64> = placed.dims.iter().map(|dim| i64::from(*dim)).collect();
    let create = || -> ort::Result<DynValue> {
        let memory = MemoryInfo::new(AllocationDevice::CPU, 0, AllocatorType::Device, MemoryType::Default)?;
        let mut value: *mut ort::sys::OrtValue = ptr::null_mut();
        #[allow(unsafe_code, reason = "`ort` makes such views only for Rust types; f16 and bf16 are none")]
        // SAFETY: `data` points at `len` readable bytes, aligned for every element type, in a mapping that
        // outlives the run; `dims` outlives the call; `value` receives a value that the caller owns.
        let status = unsafe {
            (ort::api().CreateTensorWithDataAsOrtValue)(
                memory.ptr(),
                data.as_ptr().cast(),
                len,
                dims.as_ptr(),
                dims.len(),
                element_type(placed.dtype).into(),
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
    create().map_err(|error| Fault(Failure::Engine, error.message().to_owned()))
}

/// Copies an output into the region, behind the ones before it.
fn place(value: &DynValue, port: &Port, region: &Region, end: &mut u64) -> Result<Placed, Fault> {
    let engine = |message: String| Fault(Failure::Engine, message);
    let ValueType::Tensor { ty, shape, .. } = value.dtype() else {
        return Err(engine(format!("output {:?} is not a tensor", port.name)));
    };
    let Some(dtype) = dtype(*ty) else {
        return Err(engine(format!("output {:?} has the unsupported type {ty}", port.name)));
    };
    let too_large = || {
        let message = format!(
            "output {:?} of {dtype} {shape:?} does not fit into the {} bytes for outputs",
            port.name,
            region.size()
        );
        Fault(Failure::TooLarge, message)
    };
    let dims: Vec<u32> =
        shape.iter().map(|dim| u32::try_from(*dim)).collect::<Result<_, _>>().map_err(|_| too_large())?;
    if dims.len() > MAX_RANK {
        return Err(engine(format!("output {:?} has more than {MAX_RANK} dimensions", port.name)));
    }
    let len = dtype.bytes(&dims).ok_or_else(too_large)?;
    let offset = align_up(*end).ok_or_else(too_large)?;
    if len > 0 {
        let value = value
            .view()
            .downcast::<DynTensorValueType>()
            .map_err(|error| engine(error.message().to_owned()))?;
        let tensor: &DynTensor = &value;
        let data = tensor.data_ptr();
        if data.is_null() {
            return Err(engine(format!("output {:?} has no data", port.name)));
        }
        #[allow(unsafe_code, reason = "the bytes of an output, whatever its element type")]
        // SAFETY: a dense tensor on the CPU of this type and shape has `len` bytes, and it lives as long as
        // `value`, which the copy below does not outlive.
        let data = unsafe { std::slice::from_raw_parts(data.cast::<u8>(), len) };
        if !region.write(offset, data) {
            return Err(too_large());
        }
    }
    *end = offset + len as u64;
    Ok(Placed { dtype, dims, offset })
}

fn ports(outlets: &[Outlet], kind: &str) -> Result<Vec<Port>, String> {
    if outlets.len() > MAX_PORTS {
        return Err(format!("the model has {} {kind}s, at most {MAX_PORTS} are supported", outlets.len()));
    }
    outlets.iter().map(|outlet| port(outlet, kind)).collect()
}

fn port(outlet: &Outlet, kind: &str) -> Result<Port, String> {
    let name = outlet.name().to_owned();
    if name.len() > MAX_NAME {
        return Err(format!(
            "an {kind} has a name of {} bytes, at most {MAX_NAME} are supported",
            name.len()
        ));
    }
    let ValueType::Tensor { ty, shape, dimension_symbols } = outlet.dtype() else {
        return Err(format!("{kind} {name:?} is not a tensor but {}", outlet.dtype()));
    };
    let Some(dtype) = dtype(*ty) else {
        return Err(format!("{kind} {name:?} has the unsupported type {ty}"));
    };
    if shape.len() > MAX_RANK {
        return Err(format!(
            "{kind} {name:?} has {} dimensions, at most {MAX_RANK} are supported",
            shape.len()
        ));
    }
    let dim = |(index, size): (usize, &i64)| match u32::try_from(*size) {
        Ok(size) => Dim::Fixed(size),
        Err(_) => match dimension_symbols.get(index) {
            Some(symbol) if !symbol.is_empty() && symbol.len() <= MAX_NAME => Dim::Named(symbol.clone()),
            _ => Dim::Any,
        },
    };
    let dims = shape.iter().enumerate().map(dim).collect();
    Ok(Port { name, dtype, dims: Some(dims) })
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
