//! What a device's name stands for.

use std::fmt;

use wasmeter_usage::DeviceClass;

/// An engine and the device of it that a lane uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// ONNX Runtime on the processor.
    Cpu,
    /// ONNX Runtime on an NVIDIA device of this number.
    Cuda(u32),
    /// OpenVINO on the device that it calls so: `CPU`, `GPU`, `GPU.1`, `AUTO`.
    OpenVino(String),
}

/// The engine's side of a [`Target`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Library {
    OnnxRuntime,
    OpenVino,
}

/// A name that stands for no kind of device.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "device {0:?} is not known: name one of cpu:0, cuda:N, openvino:CPU, openvino:GPU, openvino:GPU.N, openvino:AUTO"
)]
pub struct UnknownDevice(String);

/// Whether a device of this name can be asked for. Whether the machine has it shows when it is first used.
///
/// # Errors
/// [`UnknownDevice`] lists the names there are.
pub fn check_device_name(name: &str) -> Result<(), UnknownDevice> {
    Target::parse(name).map(drop)
}

impl Target {
    pub(crate) fn parse(name: &str) -> Result<Self, UnknownDevice> {
        let target = match name.split_once(':') {
            Some(("cpu", "0")) => Some(Target::Cpu),
            Some(("cuda", number)) => index(number).map(Target::Cuda),
            Some(("openvino", device @ ("CPU" | "GPU" | "AUTO"))) => {
                Some(Target::OpenVino(device.to_owned()))
            }
            Some(("openvino", device)) => device
                .strip_prefix("GPU.")
                .and_then(index)
                .map(|number| Target::OpenVino(format!("GPU.{number}"))),
            _ => None,
        };
        target.ok_or_else(|| UnknownDevice(name.to_owned()))
    }

    pub(crate) fn library(&self) -> Library {
        match self {
            Target::Cpu | Target::Cuda(_) => Library::OnnxRuntime,
            Target::OpenVino(_) => Library::OpenVino,
        }
    }

    /// AUTO may choose an accelerator, but what it chooses cannot be asked before a model is there; metered as what
    /// it falls back on.
    pub(crate) fn class(&self) -> DeviceClass {
        match self {
            Target::Cpu => DeviceClass::Cpu,
            Target::Cuda(_) => DeviceClass::Gpu,
            Target::OpenVino(device) if device.starts_with("GPU") => DeviceClass::Gpu,
            Target::OpenVino(_) => DeviceClass::Cpu,
        }
    }
}

fn index(number: &str) -> Option<u32> {
    number.parse().ok().filter(|index: &u32| index.to_string() == number && *index < 64)
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Cpu => f.write_str("cpu:0"),
            Target::Cuda(number) => write!(f, "cuda:{number}"),
            Target::OpenVino(device) => write!(f, "openvino:{device}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_go_there_and_back() {
        for name in
            ["cpu:0", "cuda:0", "cuda:7", "openvino:CPU", "openvino:GPU", "openvino:GPU.1", "openvino:AUTO"]
        {
            assert_eq!(Target::parse(name).unwrap().to_string(), name);
        }
        for name in [
            "cpu",
            "cpu:1",
            "cuda:",
            "cuda:01",
            "cuda:-1",
            "openvino:",
            "openvino:NPU",
            "openvino:GPU.x",
            "gpu:0",
            "",
        ] {
            assert!(check_device_name(name).unwrap_err().to_string().contains("openvino:CPU"), "{name}");
        }
    }
}
