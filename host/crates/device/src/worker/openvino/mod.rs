//! OpenVINO as the worker's engine: IR, and ONNX that the gate lets pass.

mod api;
mod names;

use std::{
    collections::HashMap,
    os::fd::OwnedFd,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    ptr::NonNull,
};

use openvino_sys::ov_element_type_e as Element;
use wasmeter_inference::{Batching, DType, Dim, MAX_NAME, MAX_PORTS, MAX_RANK, Port, Precision, Signature};
use wasmeter_usage::DeviceClass;

use self::{
    api::{Compiled, Core, RawPort, Request, Tensor},
    names::NamedPort,
};
use super::{Engine, Ready, SMALLEST_ONNX, busy::Busy, engine::Fault, ir};
use crate::{
    bundle,
    find::EngineMissing,
    gate,
    region::{ALIGN, Region, align_up},
    target::{Library, Target},
    wire::{Failure, Placed, ToHost},
};

/// The engine with its loaded models. One thread uses it.
pub(super) struct OpenVino {
    core: Core,
    device: String,
    /// The devices that compute: the device itself, and for AUTO those that it may choose.
    computing: Vec<String>,
    class: DeviceClass,
    models: HashMap<u32, Model>,
}

// The fields are dropped in this order: what runs, what it was compiled from, the memory that constants may lie in.
struct Model {
    request: Request,
    _compiled: Compiled,
    _weights: Option<Tensor>,
    _file: Region,
    signature: Signature,
    batching: Batching,
}

impl OpenVino {
    /// Loads the library, the plugins of the device and the readers of models, so that nothing has to be loaded
    /// after the lock. The text of an error is for the operator.
    pub(super) fn start(library: &Path, device: &str, threads: usize) -> Result<Self, String> {
        // The bindings panic where the library lacks a function.
        catch_unwind(|| Self::open(library, device, threads))
            .unwrap_or_else(|_| Err(format!("{} is not usable", library.display())))
    }

    fn open(library: &Path, device: &str, threads: usize) -> Result<Self, String> {
        let missing = |reason| EngineMissing::new(Library::OpenVino, reason).to_string();
        openvino_sys::library::load_from(library).map_err(missing)?;
        let core = Core::new().map_err(missing)?;
        // Asks every plugin that is there, and by that loads it.
        let devices = core.devices()?;
        let there = |wanted: &str| {
            devices.iter().any(|found| found == wanted || found.strip_suffix(".0") == Some(wanted))
        };
        if device != "AUTO" && !there(device) {
            let seen = if devices.is_empty() { "none".to_owned() } else { devices.join(", ") };
            return Err(format!(
                "there is no device openvino:{device}: the plugins beside {} find {seen}",
                library.display()
            ));
        }
        core.load_plugin(device)?;
        let computing = if device == "AUTO" { devices } else { vec![device.to_owned()] };
        core.set(device, "PERFORMANCE_HINT", "LATENCY")?;
        if computing.iter().any(|device| device == "CPU") {
            core.set("CPU", "NUM_STREAMS", "1")?;
            core.set("CPU", "INFERENCE_NUM_THREADS", &threads.to_string())?;
            // Eight bits for what a model multiplies with eight-bit weights: a precision that no card has asked for.
            core.set("CPU", "DYNAMIC_QUANTIZATION_GROUP_SIZE", "0")?;
            // The host decides where its processes run.
            core.set("CPU", "ENABLE_CPU_PINNING", "NO")?;
        }
        // The readers are libraries too, found at the first model of their kind.
        core.read(SMALLEST_IR.as_bytes(), None)
            .map_err(|error| missing(format!("the reader of IR: {error}")))?;
        core.read(SMALLEST_ONNX, None).map_err(|error| missing(format!("the reader of ONNX: {error}")))?;
        let class = Target::OpenVino(device.to_owned()).class();
        Ok(Self { core, device: device.to_owned(), computing, class, models: HashMap::new() })
    }

    fn build(&self, file: Region, precision: Precision) -> Result<Model, String> {
        let bytes = file.sealed_bytes().map_err(|error| error.to_string())?;
        let mut batching =
            Batching::Off("an OpenVINO IR is not looked through for what couples rows".to_owned());
        let (model, weights, named) = match bundle::split(bytes) {
            Some(parts) => {
                let (xml, weights) = parts?;
                ir::check(xml, weights.len())?;
                let weights = match NonNull::new(weights.as_ptr().cast_mut()).filter(|_| !weights.is_empty())
                {
                    Some(data) => {
                        let len = i64::try_from(weights.len()).map_err(|error| error.to_string())?;
                        Some(Tensor::over(Element::U8, &[len], data)?)
                    }
                    None => None,
                };
                (self.core.read(xml, weights.as_ref())?, weights, None)
            }
            None => {
                let checked = gate::check_onnx(bytes).map_err(|refused| refused.to_string())?;
                batching = checked.batching;
                (self.core.read(bytes, None)?, None, names::read(bytes))
            }
        };
        let (inputs, outputs) = named.unzip();
        let signature = Signature {
            inputs: ports(model.inputs()?, inputs, "input")?,
            outputs: ports(model.outputs()?, outputs, "output")?,
        };
        let hint = match precision {
            Precision::F32 => "f32",
            Precision::Bf16 => "bf16",
            Precision::F16 => "f16",
        };
        for device in &self.computing {
            self.core.set(device, "INFERENCE_PRECISION_HINT", hint)?;
        }
        let compiled = self.core.compile(&model, &self.device)?;
        let request = compiled.request()?;
        Ok(Model { request, _compiled: compiled, _weights: weights, _file: file, signature, batching })
    }
}

impl Engine for OpenVino {
    fn load(&mut self, id: u32, file: OwnedFd, size: u64, precision: Precision) -> Result<Ready, String> {
        let file = Region::map(file, size, false).map_err(|error| error.to_string())?;
        let model = catch_unwind(AssertUnwindSafe(|| self.build(file, precision)))
            .unwrap_or_else(|_| Err("the engine panicked".to_owned()))?;
        let ready = Ready { signature: model.signature.clone(), batching: model.batching.clone() };
        self.models.insert(id, model);
        Ok(ready)
    }

    fn unload(&mut self, id: u32) {
        self.models.remove(&id);
    }

    fn run(&mut self, run: u64, id: u32, inputs: &[Placed], input: &Region, output: &Region) -> ToHost {
        let busy = Busy::start(self.class);
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
        let engine = |message: String| Fault(Failure::Engine, message);
        if inputs.len() != self.signature.inputs.len() {
            return Err(engine("the host sent another number of inputs".to_owned()));
        }
        for (index, (placed, port)) in inputs.iter().zip(&self.signature.inputs).enumerate() {
            let tensor = view(placed, port, input)?;
            self.request
                .set_input(index, &tensor)
                .map_err(|error| Fault(Failure::Input, format!("input {:?}: {error}", port.name)))?;
        }
        self.request.infer().map_err(engine)?;
        let mut end = 0;
        let mut placed = Vec::with_capacity(self.signature.outputs.len());
        for (index, port) in self.signature.outputs.iter().enumerate() {
            let tensor = self.request.output(index).map_err(engine)?;
            placed.push(place(&tensor, port, output, &mut end)?);
        }
        Ok(placed)
    }
}

/// A tensor over the input region: no copy. The mapping is read-only; an engine that wrote to it would die.
fn view(placed: &Placed, port: &Port, region: &Region) -> Result<Tensor, Fault> {
    let unfit = || Fault(Failure::Engine, "the host placed an input outside the region".to_owned());
    let len = placed.dtype.bytes(&placed.dims).ok_or_else(unfit)?;
    let data =
        region.at(placed.offset, len).filter(|_| placed.offset.is_multiple_of(ALIGN)).ok_or_else(unfit)?;
    if placed.dtype == DType::I64 {
        narrow(data, len / size_of::<i64>(), port)?;
    }
    let dims: Vec<i64> = placed.dims.iter().map(|dim| i64::from(*dim)).collect();
    Tensor::over(element(placed.dtype), &dims, data).map_err(|error| Fault(Failure::Engine, error))
}

/// OpenVINO computes i64 in 32 bits: a number that does not fit would become another one without a word.
fn narrow(data: NonNull<u8>, count: usize, port: &Port) -> Result<(), Fault> {
    for index in 0..count {
        #[allow(
            unsafe_code,
            reason = "the bytes are shared with another process, so there is no slice of them"
        )]
        // SAFETY: `view` checked that the range lies in the mapping and begins at a multiple of 64.
        let value = unsafe { data.cast::<i64>().add(index).read_volatile() };
        if i32::try_from(value).is_err() {
            let message = format!(
                "input {:?} holds {value}: OpenVINO computes i64 in 32 bits, use the backend \"onnx\" for larger numbers",
                port.name
            );
            return Err(Fault(Failure::Input, message));
        }
    }
    Ok(())
}

/// Copies an output into the region, behind the ones before it.
fn place(tensor: &Tensor, port: &Port, region: &Region, end: &mut u64) -> Result<Placed, Fault> {
    let engine = |message: String| Fault(Failure::Engine, message);
    let (number, shape) = (tensor.element().map_err(engine)?, tensor.dims().map_err(engine)?);
    let Some(dtype) = dtype(number) else {
        return Err(engine(format!("output {:?} has OpenVINO's type {number}", port.name)));
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
        let data = tensor.data().map_err(engine)?;
        if data.is_null() || tensor.byte_size().map_err(engine)? != len {
            return Err(engine(format!("output {:?} has no dense data", port.name)));
        }
        #[allow(unsafe_code, reason = "the bytes of an output, whatever its element type")]
        // SAFETY: the engine says that the tensor has `len` bytes; it lives longer than the copy below.
        let data = unsafe { std::slice::from_raw_parts(data, len) };
        if !region.write(offset, data) {
            return Err(too_large());
        }
    }
    *end = offset + len as u64;
    Ok(Placed { dtype, dims, offset })
}

/// Ports by what the engine says of them, with the names that the file gives.
fn ports(raw: Vec<RawPort>, named: Option<Vec<NamedPort>>, kind: &str) -> Result<Vec<Port>, String> {
    if raw.len() > MAX_PORTS {
        return Err(format!("the model has {} {kind}s, at most {MAX_PORTS} are supported", raw.len()));
    }
    // The engine may drop ports that nothing uses; then its own names have to do.
    let named = named.filter(|named| named.len() == raw.len()).unwrap_or_default();
    let mut named = named.into_iter();
    let mut bytes = 0;
    raw.into_iter()
        .enumerate()
        .map(|(index, raw)| {
            let port = port(raw, index, named.next(), kind)?;
            bytes += port.name.len() + port.dims.as_ref().map_or(0, Vec::len) * MAX_NAME;
            if bytes > crate::wire::MAX_MESSAGE / 3 {
                return Err("the names of the model's inputs and outputs are too long".to_owned());
            }
            Ok(port)
        })
        .collect()
}

fn port(raw: RawPort, index: usize, named: Option<NamedPort>, kind: &str) -> Result<Port, String> {
    let (name, symbols) = match named {
        Some(NamedPort { name, dims }) => (name, dims.unwrap_or_default()),
        None => (raw.name.unwrap_or_else(|| index.to_string()), Vec::new()),
    };
    if name.len() > MAX_NAME {
        let len = name.len();
        return Err(format!("an {kind} has a name of {len} bytes, at most {MAX_NAME} are supported"));
    }
    if raw.element == Element::F64 as u32 {
        return Err(format!(
            "{kind} {name:?} is f64, which OpenVINO computes in f32: use the backend \"onnx\""
        ));
    }
    let Some(dtype) = dtype(raw.element) else {
        return Err(format!("{kind} {name:?} has an unsupported type, number {} of OpenVINO's", raw.element));
    };
    let dim = |(index, (min, max)): (usize, &(i64, i64))| match u32::try_from(*max) {
        Ok(size) if min == max => Dim::Fixed(size),
        _ => match symbols.get(index) {
            Some(symbol) if !symbol.is_empty() && symbol.len() <= MAX_NAME => Dim::Named(symbol.clone()),
            _ => Dim::Any,
        },
    };
    let dims = raw.dims.map(|dims| dims.iter().enumerate().map(dim).collect::<Vec<_>>());
    if let Some(dims) = dims.as_ref().filter(|dims| dims.len() > MAX_RANK) {
        let rank = dims.len();
        return Err(format!("{kind} {name:?} has {rank} dimensions, at most {MAX_RANK} are supported"));
    }
    Ok(Port { name, dtype, dims })
}

fn element(dtype: DType) -> Element {
    match dtype {
        DType::F16 => Element::F16,
        DType::F32 => Element::F32,
        DType::F64 => Element::F64,
        DType::Bf16 => Element::BF16,
        DType::U8 => Element::U8,
        DType::I32 => Element::I32,
        DType::I64 => Element::I64,
        DType::Bool => Element::OV_BOOLEAN,
    }
}

fn dtype(number: u32) -> Option<DType> {
    DType::ALL.into_iter().find(|dtype| element(*dtype) as u32 == number)
}

/// Takes a number and gives it back.
const SMALLEST_IR: &str = r#"<?xml version="1.0"?><net name="i" version="11"><layers>
<layer id="0" name="x" type="Parameter" version="opset1"><data shape="1" element_type="f32"/>
<output><port id="0" precision="FP32"><dim>1</dim></port></output></layer>
<layer id="1" name="y" type="Result" version="opset1">
<input><port id="0" precision="FP32"><dim>1</dim></port></input></layer></layers>
<edges><edge from-layer="0" from-port="0" to-layer="1" to-port="0"/></edges></net>"#;
