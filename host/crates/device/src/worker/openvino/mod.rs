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
use wasmeter_inference::{Batching, DType, IrBundle, Port, Precision, Signature};
use wasmeter_usage::DeviceClass;

use self::{
    api::{Compiled, Core, RawPort, Request, Tensor},
    names::NamedPort,
};
use super::{
    Engine, Ready, SMALLEST_ONNX,
    tensor::{self, Fault, Input, Outputs},
};
use crate::{
    find::EngineMissing,
    gate,
    region::Region,
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
        let (model, weights, named) = match IrBundle::split(bytes) {
            Some(parts) => {
                let (xml, weights) = parts.map_err(|cut| cut.to_string())?;
                gate::check_ir(xml, weights.len()).map_err(|refused| refused.to_string())?;
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
        let class = self.class;
        tensor::timed(run, class, self.models.get_mut(&id), |model| model.run(inputs, input, output))
    }
}

impl Model {
    fn run(&mut self, inputs: &[Placed], input: &Region, output: &Region) -> Result<Vec<Placed>, Fault> {
        let ports = &self.signature.inputs;
        let found = Input::all(inputs, ports.len(), input)?;
        for (index, ((input, placed), port)) in found.zip(inputs).zip(ports).enumerate() {
            let input = input?;
            if placed.dtype == DType::I64 {
                narrow(&input, port)?;
            }
            let tensor =
                Tensor::over(element(placed.dtype), &input.dims, input.data).map_err(Fault::engine)?;
            self.request
                .set_input(index, &tensor)
                .map_err(|error| Fault(Failure::Input, format!("input {:?}: {error}", port.name)))?;
        }
        self.request.infer().map_err(Fault::engine)?;
        let mut outputs = Outputs::new(output, self.signature.outputs.len());
        for (index, port) in self.signature.outputs.iter().enumerate() {
            let tensor = self.request.output(index).map_err(Fault::engine)?;
            place(&tensor, port, &mut outputs)?;
        }
        Ok(outputs.placed)
    }
}

/// OpenVINO computes i64 in 32 bits: a number that does not fit would become another one without a word.
fn narrow(input: &Input, port: &Port) -> Result<(), Fault> {
    for index in 0..input.len / size_of::<i64>() {
        #[allow(
            unsafe_code,
            reason = "the bytes are shared with another process, so there is no slice of them"
        )]
        // SAFETY: an input's bytes lie in the mapping and begin at a multiple of 64.
        let value = unsafe { input.data.cast::<i64>().add(index).read_volatile() };
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

fn place(tensor: &Tensor, port: &Port, outputs: &mut Outputs<'_>) -> Result<(), Fault> {
    let (number, shape) = (tensor.element().map_err(Fault::engine)?, tensor.dims().map_err(Fault::engine)?);
    let Some(dtype) = dtype(number) else {
        return Err(Fault::engine(format!("output {:?} has OpenVINO's type {number}", port.name)));
    };
    outputs.put(port, dtype, &shape, |len| {
        let data = tensor.data().map_err(Fault::engine)?;
        if data.is_null() || tensor.byte_size().map_err(Fault::engine)? != len {
            return Err(Fault::engine(format!("output {:?} has no dense data", port.name)));
        }
        #[allow(unsafe_code, reason = "the bytes of an output, whatever its element type")]
        // SAFETY: the engine says that the tensor has `len` bytes; it outlives this call.
        Ok(unsafe { std::slice::from_raw_parts(data, len) })
    })
}

/// Ports by what the engine says of them, with the names that the file gives.
fn ports(raw: Vec<RawPort>, named: Option<Vec<NamedPort>>, kind: &str) -> Result<Vec<Port>, String> {
    tensor::check_count(kind, raw.len())?;
    // The engine may drop ports that nothing uses; then its own names have to do.
    let named = named.filter(|named| named.len() == raw.len()).unwrap_or_default();
    let mut named = named.into_iter();
    raw.into_iter().enumerate().map(|(index, raw)| port(raw, index, named.next(), kind)).collect()
}

fn port(raw: RawPort, index: usize, named: Option<NamedPort>, kind: &str) -> Result<Port, String> {
    let (name, symbols) = match named {
        Some(NamedPort { name, dims }) => (name, dims.unwrap_or_default()),
        None => (raw.name.unwrap_or_else(|| index.to_string()), Vec::new()),
    };
    if raw.element == Element::F64 as u32 {
        return Err(format!(
            "{kind} {name:?} is f64, which OpenVINO computes in f32: use the backend \"onnx\""
        ));
    }
    let Some(dtype) = dtype(raw.element) else {
        return Err(format!("{kind} {name:?} has an unsupported type, number {} of OpenVINO's", raw.element));
    };
    let symbol = |index| symbols.get(index).map(String::as_str);
    let dims = raw.dims.as_ref().map(|dims| {
        dims.iter()
            .enumerate()
            .map(|(index, (min, max))| (u32::try_from(*max).ok().filter(|_| min == max), symbol(index)))
    });
    tensor::port(kind, name, dtype, dims)
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
