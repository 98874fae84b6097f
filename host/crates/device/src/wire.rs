//! Messages between host and worker: a tag byte, then little-endian fields. One message is one packet of at
//! most [`MAX_MESSAGE`] bytes. Tensors are not in it, only where they lie in the shared regions.

use wasmeter_inference::{Batching, DType, Dim, MAX_NAME, MAX_PORTS, MAX_RANK, Port, Precision, Signature};

/// Version of this protocol. Host and worker are one binary, so a mismatch means a replaced file.
pub(crate) const VERSION: u16 = 1;
/// The largest message; below the kernel's default socket buffer, so that it never fails to fit.
pub(crate) const MAX_MESSAGE: usize = 128 * 1024;
/// The longest text of an error.
const MAX_TEXT: usize = 1024;
/// The most lines of a sandbox probe.
const MAX_PROBES: usize = 64;

/// From host to worker.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum ToWorker {
    /// First message; comes with the input and the output region.
    Hello {
        version: u16,
        threads: u16,
        spin: bool,
        input_bytes: u64,
        output_bytes: u64,
    },
    /// Comes with the sealed model file.
    Load {
        model: u32,
        size: u64,
        /// For OpenVINO; the other engine computes as the model says.
        precision: Precision,
    },
    Unload {
        model: u32,
    },
    Run {
        run: u64,
        model: u32,
        inputs: Vec<Placed>,
    },
    /// Asks the worker to try what its sandbox must refuse.
    Probe,
}

/// From worker to host.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum ToHost {
    Ready(SandboxReport),
    /// The worker cannot start; it ends after this.
    NotReady {
        engine_missing: bool,
        message: String,
    },
    Loaded {
        model: u32,
        signature: Signature,
        batching: Batching,
    },
    Refused {
        model: u32,
        message: String,
    },
    Ran {
        run: u64,
        busy_ns: u64,
        outputs: Vec<Placed>,
    },
    Failed {
        run: u64,
        busy_ns: u64,
        kind: Failure,
        message: String,
    },
    Probed(Vec<Probe>),
}

/// Why a run failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    Input,
    Engine,
    TooLarge,
}

/// A tensor in a region. Its length follows from type and dimensions: one lie less to check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Placed {
    pub(crate) dtype: DType,
    pub(crate) dims: Vec<u32>,
    pub(crate) offset: u64,
}

/// What a worker says about its own confinement.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SandboxReport {
    /// Landlock: `full`, `partial`, or `none` where the kernel has none.
    pub landlock: String,
    /// Whether the system call filter is in force.
    pub seccomp: bool,
}

/// One thing that the sandbox must refuse, and what came of trying it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// What was tried.
    pub what: String,
    /// The system's error number; 0 where it was allowed.
    pub errno: i32,
}

/// A message that does not follow the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed message")]
pub(crate) struct Malformed;

type Parsed<T> = Result<T, Malformed>;

impl ToWorker {
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        let mut w = Writer::new(out);
        match self {
            ToWorker::Hello { version, threads, spin, input_bytes, output_bytes } => {
                w.u8(1).u16(*version).u16(*threads).u8(u8::from(*spin)).u64(*input_bytes).u64(*output_bytes);
            }
            ToWorker::Load { model, size, precision } => {
                w.u8(2).u32(*model).u64(*size).u8(precision_code(*precision));
            }
            ToWorker::Unload { model } => {
                w.u8(3).u32(*model);
            }
            ToWorker::Run { run, model, inputs } => {
                w.u8(4).u64(*run).u32(*model).tensors(inputs);
            }
            ToWorker::Probe => {
                w.u8(5);
            }
        }
    }

    pub(crate) fn decode(bytes: &[u8]) -> Parsed<Self> {
        let mut r = Reader(bytes);
        let message = match r.u8()? {
            1 => ToWorker::Hello {
                version: r.u16()?,
                threads: r.u16()?,
                spin: r.u8()? != 0,
                input_bytes: r.u64()?,
                output_bytes: r.u64()?,
            },
            2 => ToWorker::Load { model: r.u32()?, size: r.u64()?, precision: r.precision()? },
            3 => ToWorker::Unload { model: r.u32()? },
            4 => ToWorker::Run { run: r.u64()?, model: r.u32()?, inputs: r.tensors()? },
            5 => ToWorker::Probe,
            _ => return Err(Malformed),
        };
        r.end(message)
    }
}

impl ToHost {
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        let mut w = Writer::new(out);
        match self {
            ToHost::Ready(report) => {
                w.u8(1).text(&report.landlock, MAX_NAME).u8(report.seccomp.into());
            }
            ToHost::NotReady { engine_missing, message } => {
                w.u8(2).u8((*engine_missing).into()).text(message, MAX_TEXT);
            }
            ToHost::Loaded { model, signature, batching } => {
                w.u8(3).u32(*model).ports(&signature.inputs).ports(&signature.outputs);
                match batching {
                    Batching::Rows => w.u8(1),
                    Batching::Off(reason) => w.u8(0).text(reason, MAX_TEXT),
                };
            }
            ToHost::Refused { model, message } => {
                w.u8(4).u32(*model).text(message, MAX_TEXT);
            }
            ToHost::Ran { run, busy_ns, outputs } => {
                w.u8(5).u64(*run).u64(*busy_ns).tensors(outputs);
            }
            ToHost::Failed { run, busy_ns, kind, message } => {
                let kind = match kind {
                    Failure::Input => 0,
                    Failure::Engine => 1,
                    Failure::TooLarge => 2,
                };
                w.u8(6).u64(*run).u64(*busy_ns).u8(kind).text(message, MAX_TEXT);
            }
            ToHost::Probed(probes) => {
                w.u8(7).len(probes.len().min(MAX_PROBES));
                for probe in probes.iter().take(MAX_PROBES) {
                    w.text(&probe.what, MAX_NAME).u32(probe.errno.cast_unsigned());
                }
            }
        }
    }

    pub(crate) fn decode(bytes: &[u8]) -> Parsed<Self> {
        let mut r = Reader(bytes);
        let message = match r.u8()? {
            1 => ToHost::Ready(SandboxReport { landlock: r.text(MAX_NAME)?, seccomp: r.flag()? }),
            2 => ToHost::NotReady { engine_missing: r.flag()?, message: r.text(MAX_TEXT)? },
            3 => ToHost::Loaded {
                model: r.u32()?,
                signature: Signature { inputs: r.ports()?, outputs: r.ports()? },
                batching: if r.flag()? { Batching::Rows } else { Batching::Off(r.text(MAX_TEXT)?) },
            },
            4 => ToHost::Refused { model: r.u32()?, message: r.text(MAX_TEXT)? },
            5 => ToHost::Ran { run: r.u64()?, busy_ns: r.u64()?, outputs: r.tensors()? },
            6 => ToHost::Failed {
                run: r.u64()?,
                busy_ns: r.u64()?,
                kind: match r.u8()? {
                    0 => Failure::Input,
                    1 => Failure::Engine,
                    2 => Failure::TooLarge,
                    _ => return Err(Malformed),
                },
                message: r.text(MAX_TEXT)?,
            },
            7 => {
                let count = r.len(MAX_PROBES)?;
                let probe =
                    |r: &mut Reader<'_>| Ok(Probe { what: r.text(MAX_NAME)?, errno: r.u32()?.cast_signed() });
                ToHost::Probed((0..count).map(|_| probe(&mut r)).collect::<Parsed<_>>()?)
            }
            _ => return Err(Malformed),
        };
        r.end(message)
    }
}

fn precision_code(precision: Precision) -> u8 {
    match precision {
        Precision::F32 => 0,
        Precision::Bf16 => 1,
        Precision::F16 => 2,
    }
}

fn dtype_code(dtype: DType) -> u8 {
    match dtype {
        DType::F16 => 0,
        DType::F32 => 1,
        DType::F64 => 2,
        DType::Bf16 => 3,
        DType::U8 => 4,
        DType::I32 => 5,
        DType::I64 => 6,
        DType::Bool => 7,
    }
}

/// Appends fields. Lists and texts are cut at their limits by the callers that make them.
struct Writer<'a>(&'a mut Vec<u8>);

impl<'a> Writer<'a> {
    fn new(out: &'a mut Vec<u8>) -> Self {
        out.clear();
        Self(out)
    }

    fn put(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend_from_slice(bytes);
        self
    }

    fn u8(&mut self, value: u8) -> &mut Self {
        self.put(&[value])
    }

    fn u16(&mut self, value: u16) -> &mut Self {
        self.put(&value.to_le_bytes())
    }

    fn u32(&mut self, value: u32) -> &mut Self {
        self.put(&value.to_le_bytes())
    }

    fn u64(&mut self, value: u64) -> &mut Self {
        self.put(&value.to_le_bytes())
    }

    fn len(&mut self, len: usize) -> &mut Self {
        self.u16(u16::try_from(len).unwrap_or(u16::MAX))
    }

    fn text(&mut self, text: &str, max: usize) -> &mut Self {
        let end = text.floor_char_boundary(max);
        self.len(end).put(&text.as_bytes()[..end])
    }

    fn tensors(&mut self, tensors: &[Placed]) -> &mut Self {
        self.len(tensors.len());
        for tensor in tensors {
            self.u8(dtype_code(tensor.dtype)).u64(tensor.offset).len(tensor.dims.len());
            for dim in &tensor.dims {
                self.u32(*dim);
            }
        }
        self
    }

    fn ports(&mut self, ports: &[Port]) -> &mut Self {
        self.len(ports.len());
        for port in ports {
            self.text(&port.name, MAX_NAME).u8(dtype_code(port.dtype));
            let Some(dims) = &port.dims else {
                self.u8(0);
                continue;
            };
            self.u8(1).len(dims.len());
            for dim in dims {
                match dim {
                    Dim::Any => self.u8(0),
                    Dim::Fixed(size) => self.u8(1).u32(*size),
                    Dim::Named(name) => self.u8(2).text(name, MAX_NAME),
                };
            }
        }
        self
    }
}

/// Takes fields off; every length meets its limit before anything is allocated for it.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Parsed<&'a [u8]> {
        let (head, tail) = self.0.split_at_checked(len).ok_or(Malformed)?;
        self.0 = tail;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Parsed<[u8; N]> {
        let (head, tail) = self.0.split_first_chunk().ok_or(Malformed)?;
        self.0 = tail;
        Ok(*head)
    }

    fn u8(&mut self) -> Parsed<u8> {
        Ok(u8::from_le_bytes(self.array()?))
    }

    fn u16(&mut self) -> Parsed<u16> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    fn u32(&mut self) -> Parsed<u32> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn u64(&mut self) -> Parsed<u64> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    fn flag(&mut self) -> Parsed<bool> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Malformed),
        }
    }

    fn len(&mut self, max: usize) -> Parsed<usize> {
        let len = usize::from(self.u16()?);
        if len > max { Err(Malformed) } else { Ok(len) }
    }

    fn text(&mut self, max: usize) -> Parsed<String> {
        let len = self.len(max)?;
        let text = std::str::from_utf8(self.take(len)?).map_err(|_| Malformed)?;
        Ok(text.to_owned())
    }

    fn precision(&mut self) -> Parsed<Precision> {
        let code = self.u8()?;
        let all = [Precision::F32, Precision::Bf16, Precision::F16];
        all.into_iter().find(|precision| precision_code(*precision) == code).ok_or(Malformed)
    }

    fn dtype(&mut self) -> Parsed<DType> {
        let code = self.u8()?;
        DType::ALL.into_iter().find(|dtype| dtype_code(*dtype) == code).ok_or(Malformed)
    }

    fn tensors(&mut self) -> Parsed<Vec<Placed>> {
        let count = self.len(MAX_PORTS)?;
        (0..count)
            .map(|_| {
                let (dtype, offset) = (self.dtype()?, self.u64()?);
                let rank = self.len(MAX_RANK)?;
                let dims = (0..rank).map(|_| self.u32()).collect::<Parsed<_>>()?;
                Ok(Placed { dtype, dims, offset })
            })
            .collect()
    }

    fn ports(&mut self) -> Parsed<Vec<Port>> {
        let count = self.len(MAX_PORTS)?;
        (0..count)
            .map(|_| {
                let (name, dtype) = (self.text(MAX_NAME)?, self.dtype()?);
                let dims = if self.flag()? {
                    let rank = self.len(MAX_RANK)?;
                    Some((0..rank).map(|_| self.dim()).collect::<Parsed<_>>()?)
                } else {
                    None
                };
                Ok(Port { name, dtype, dims })
            })
            .collect()
    }

    fn dim(&mut self) -> Parsed<Dim> {
        match self.u8()? {
            0 => Ok(Dim::Any),
            1 => Ok(Dim::Fixed(self.u32()?)),
            2 => Ok(Dim::Named(self.text(MAX_NAME)?)),
            _ => Err(Malformed),
        }
    }

    fn end<T>(self, message: T) -> Parsed<T> {
        if self.0.is_empty() { Ok(message) } else { Err(Malformed) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn placed() -> Placed {
        Placed { dtype: DType::Bf16, dims: vec![1, 2, 3], offset: 64 }
    }

    #[test]
    fn messages_survive_the_way() {
        let mut bytes = Vec::new();
        for message in [
            ToWorker::Hello { version: 1, threads: 2, spin: true, input_bytes: 3, output_bytes: 4 },
            ToWorker::Load { model: 1, size: 2, precision: Precision::Bf16 },
            ToWorker::Unload { model: 7 },
            ToWorker::Run { run: 9, model: 1, inputs: vec![placed()] },
            ToWorker::Probe,
        ] {
            message.encode(&mut bytes);
            assert_eq!(ToWorker::decode(&bytes), Ok(message));
        }
        let port = Port {
            name: "x".into(),
            dtype: DType::I64,
            dims: Some(vec![Dim::Any, Dim::Fixed(3), Dim::Named("batch".into())]),
        };
        let any = Port { name: "y".into(), dtype: DType::Bool, dims: None };
        for message in [
            ToHost::Ready(SandboxReport { landlock: "full".into(), seccomp: true }),
            ToHost::NotReady { engine_missing: true, message: "no".into() },
            ToHost::Loaded {
                model: 1,
                signature: Signature { inputs: vec![port], outputs: vec![any] },
                batching: Batching::Off("why".into()),
            },
            ToHost::Loaded {
                model: 2,
                signature: Signature { inputs: Vec::new(), outputs: Vec::new() },
                batching: Batching::Rows,
            },
            ToHost::Refused { model: 1, message: "bad".into() },
            ToHost::Ran { run: 1, busy_ns: 2, outputs: vec![placed(), placed()] },
            ToHost::Failed { run: 1, busy_ns: 2, kind: Failure::TooLarge, message: "big".into() },
            ToHost::Probed(vec![Probe { what: "open".into(), errno: 13 }]),
        ] {
            message.encode(&mut bytes);
            assert_eq!(ToHost::decode(&bytes), Ok(message));
        }
    }

    #[test]
    fn long_texts_are_cut_at_a_character() {
        let mut bytes = Vec::new();
        ToHost::Refused { model: 0, message: "é".repeat(1000) }.encode(&mut bytes);
        let Ok(ToHost::Refused { message, .. }) = ToHost::decode(&bytes) else { panic!("not decoded") };
        assert_eq!(message.len(), MAX_TEXT);
    }

    proptest! {
        #[test]
        fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = ToHost::decode(&bytes);
            let _ = ToWorker::decode(&bytes);
        }

        #[test]
        fn cut_messages_are_refused(cut in 0usize..30) {
            let mut bytes = Vec::new();
            ToHost::Ran { run: 1, busy_ns: 2, outputs: vec![placed()] }.encode(&mut bytes);
            let cut = cut.min(bytes.len() - 1);
            prop_assert_eq!(ToHost::decode(&bytes[..cut]), Err(Malformed));
        }
    }
}
