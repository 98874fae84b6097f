use std::sync::mpsc;

use wiggle::{GuestMemory, GuestPtr};

use super::bench::{Bench, Step, engine_error};
use crate::NnLimits;
use crate::witx::Failure;
use crate::witx::generated::types::{self, NnErrno, UserErrorConversion};
use crate::witx::generated::wasi_ephemeral_nn::WasiEphemeralNn;

/// A guest's memory of 64 KiB, with numbers of our own to place things at.
struct Guest {
    bench: Bench,
    memory: Vec<u8>,
}

const DIMS: u32 = 64;
const DATA: u32 = 1024;
const OUT: u32 = 8192;

impl Guest {
    async fn new(limits: NnLimits, queue: usize) -> Self {
        Self { bench: Bench::with(limits, queue).await, memory: vec![0; 64 << 10] }
    }

    fn errno(&mut self, failure: Failure) -> NnErrno {
        self.bench.ctx.nn_errno_from_failure(failure).unwrap()
    }

    fn put(&mut self, at: u32, bytes: &[u8]) -> (u32, u32) {
        let start = usize::try_from(at).unwrap();
        self.memory[start..start + bytes.len()].copy_from_slice(bytes);
        (at, u32::try_from(bytes.len()).unwrap())
    }

    async fn load(&mut self, builder: (u32, u32), encoding: u32, target: u32) -> NnErrno {
        let memory = &mut GuestMemory::Unshared(&mut self.memory);
        let answer = self.bench.ctx.load(memory, GuestPtr::new(builder), encoding, target).await;
        self.errno(answer.unwrap_err())
    }

    async fn by_name(&mut self, name: (u32, u32)) -> Result<types::Graph, NnErrno> {
        let memory = &mut GuestMemory::Unshared(&mut self.memory);
        let answer = self.bench.ctx.load_by_name(memory, GuestPtr::new(name)).await;
        answer.map_err(|e| self.errno(e))
    }

    async fn context(&mut self, graph: u32) -> Result<types::GraphExecutionContext, NnErrno> {
        let memory = &mut GuestMemory::Unshared(&mut self.memory);
        let answer = self.bench.ctx.init_execution_context(memory, graph.into()).await;
        answer.map_err(|e| self.errno(e))
    }

    async fn ready(&mut self) -> u32 {
        let name = self.put(16, b"m");
        let graph = self.by_name(name).await.unwrap().into();
        self.context(graph).await.unwrap().into()
    }

    async fn set(
        &mut self,
        context: u32,
        index: u32,
        (dims, type_, data): ((u32, u32), u8, (u32, u32)),
    ) -> Result<(), NnErrno> {
        let tensor = types::Tensor { dimensions: GuestPtr::new(dims), type_, data: GuestPtr::new(data) };
        let memory = &mut GuestMemory::Unshared(&mut self.memory);
        let answer =
            WasiEphemeralNn::set_input(&mut self.bench.ctx, memory, context.into(), index, &tensor).await;
        answer.map_err(|e| self.errno(e))
    }

    async fn compute(&mut self, context: u32) -> Result<(), NnErrno> {
        let memory = &mut GuestMemory::Unshared(&mut self.memory);
        let answer = WasiEphemeralNn::compute(&mut self.bench.ctx, memory, context.into()).await;
        answer.map_err(|e| self.errno(e))
    }

    async fn get(&mut self, context: u32, index: u32, at: u32, size: u32) -> Result<u32, NnErrno> {
        let memory = &mut GuestMemory::Unshared(&mut self.memory);
        let buffer = GuestPtr::new(at);
        let answer = self.bench.ctx.get_output(memory, context.into(), index, buffer, size).await;
        answer.map_err(|e| self.errno(e))
    }

    /// `[1, 2]` of f32.
    fn row(&mut self) -> ((u32, u32), u8, (u32, u32)) {
        self.put(DIMS, &[1, 0, 0, 0, 2, 0, 0, 0]);
        let data = self.put(DATA, &[1, 2, 3, 4, 5, 6, 7, 8]);
        ((DIMS, 2), 1, data)
    }
}

#[tokio::test]
async fn computes() {
    let mut guest = Guest::new(NnLimits::default(), 1024).await;
    let context = guest.ready().await;
    let row = guest.row();
    assert_eq!(guest.get(context, 0, OUT, 100).await, Err(NnErrno::UnsupportedOperation));
    guest.set(context, 0, row).await.unwrap();
    guest.set(context, 0, row).await.unwrap();
    assert_eq!(guest.bench.ctx.tensor_bytes, 16);
    guest.compute(context).await.unwrap();
    assert_eq!(guest.get(context, 0, OUT, 8).await, Ok(8));
    let start = usize::try_from(OUT).unwrap();
    assert_eq!(guest.memory[start..start + 9], [1, 2, 3, 4, 5, 6, 7, 8, 0]);
    assert_eq!(guest.get(context, 0, OUT, 7).await, Err(NnErrno::TooLarge));
    assert_eq!(guest.get(context, 1, OUT, 8).await, Err(NnErrno::InvalidArgument));
    // At the very end of the memory it fits; one further it does not, and nothing is written.
    let end = 64 << 10;
    assert_eq!(guest.get(context, 0, end - 8, 8).await, Ok(8));
    assert_eq!(guest.get(context, 0, end - 7, 8).await, Err(NnErrno::InvalidArgument));
    assert_eq!(guest.get(context, 0, u32::MAX - 3, 8).await, Err(NnErrno::InvalidArgument));
}

#[tokio::test]
async fn every_number_can_be_met() {
    let mut guest = Guest::new(NnLimits::default(), 1).await;
    guest.put(256, &[0, 4, 0, 0, 16, 0, 0, 0]);
    let part = (256, 1);
    for (encoding, target, errno) in [
        (1, 0, NnErrno::UnsupportedOperation),
        (5, 3, NnErrno::UnsupportedOperation),
        (1, 2, NnErrno::UnsupportedOperation),
        (2, 0, NnErrno::InvalidEncoding),
        (3, 0, NnErrno::InvalidEncoding),
        (4, 1, NnErrno::InvalidEncoding),
        (6, 0, NnErrno::InvalidArgument),
        (u32::MAX, 0, NnErrno::InvalidArgument),
        (1, 4, NnErrno::InvalidArgument),
    ] {
        assert_eq!(guest.load(part, encoding, target).await, errno, "{encoding} {target}");
    }
    let name = guest.put(16, b"other");
    assert_eq!(guest.by_name(name).await.unwrap_err(), NnErrno::NotFound);
    let context = guest.ready().await;
    let row = guest.row();
    guest.set(context, 0, row).await.unwrap();
    guest.bench.next(Step::Fail(engine_error()));
    assert_eq!(guest.compute(context).await, Err(NnErrno::RuntimeError));

    // Busy: one runs, one waits, and there is room for no more.
    let go: mpsc::Sender<()> = guest.bench.block();
    let request = |guest: &mut Guest| {
        let model = wasmeter_inference::ModelKey::operator("m", 1);
        let tensor =
            wasmeter_inference::Tensor::new(wasmeter_inference::DType::F32, vec![1, 1], vec![0; 4]).unwrap();
        let inputs = vec![wasmeter_inference::NamedTensor { name: "x".into(), tensor }];
        let (models, request) =
            (guest.bench.ctx.models.clone(), guest.bench.ctx.request(&model, inputs).unwrap());
        tokio::spawn(async move { models.compute(request).await.map(drop) })
    };
    let runs = *guest.bench.script.runs.lock();
    let first = request(&mut guest);
    guest.bench.running(runs + 1).await;
    let second = request(&mut guest);
    while guest.bench.ctx.models.status().devices[0].queued == 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(guest.compute(context).await, Err(NnErrno::Busy));
    assert!(guest.bench.ctx.fault().is_some());
    drop(go);
    first.await.unwrap().unwrap();
    second.await.unwrap().unwrap();
}

#[tokio::test]
async fn what_is_no_handle_number_or_pointer_is_refused() {
    let limits = NnLimits { graphs: 2, contexts: 2, tensor_bytes: 1000, ..NnLimits::default() };
    let mut guest = Guest::new(limits, 1024).await;
    let bad = NnErrno::InvalidArgument;
    // Parts: none, too many, a list outside, a part outside.
    assert_eq!(guest.load((0, 0), 1, 0).await, bad);
    assert_eq!(guest.load((0, u32::MAX), 1, 0).await, NnErrno::TooLarge);
    assert_eq!(guest.load((u32::MAX - 3, 2), 1, 0).await, bad);
    guest.put(256, &[0xff, 0xff, 0xff, 0xff, 16, 0, 0, 0]);
    assert_eq!(guest.load((256, 1), 1, 0).await, bad);

    // Names: outside, longer than any, no text.
    assert_eq!(guest.by_name((u32::MAX, 1)).await.unwrap_err(), bad);
    assert_eq!(guest.by_name((0, u32::MAX)).await.unwrap_err(), bad);
    let name = guest.put(16, &[0xff, 0xfe]);
    assert_eq!(guest.by_name(name).await.unwrap_err(), bad);

    let context = guest.ready().await;
    for handle in [1, 7, u32::MAX] {
        assert_eq!(guest.context(handle).await.unwrap_err(), bad);
        assert_eq!(guest.compute(handle).await, Err(bad));
        assert_eq!(guest.get(handle, 0, OUT, 8).await, Err(bad));
        let row = guest.row();
        assert_eq!(guest.set(handle, 0, row).await, Err(bad));
    }
    let (dims, kind, data) = guest.row();
    for (dims, kind, data, errno) in [
        (dims, 6, data, bad),
        (dims, 255, data, bad),
        ((u32::MAX - 7, 2), kind, data, bad),
        ((DIMS + 1, 2), kind, data, bad),
        ((DIMS, 65), kind, data, bad),
        ((DIMS, u32::MAX), kind, data, bad),
        (dims, kind, (u32::MAX, 8), bad),
        (dims, kind, (DATA, 7), bad),
        (dims, 2, data, bad),
        (dims, kind, (DATA, 2000), NnErrno::TooLarge),
        (dims, kind, (DATA, u32::MAX), NnErrno::TooLarge),
    ] {
        assert_eq!(guest.set(context, 0, (dims, kind, data)).await, Err(errno), "{dims:?} {kind} {data:?}");
    }
    assert_eq!(guest.bench.ctx.tensor_bytes, 0);
    // An input that the model has not is found at the compute.
    guest.set(context, 9, (dims, kind, data)).await.unwrap();
    assert_eq!(guest.compute(context).await, Err(bad));

    guest.ready().await;
    let name = guest.put(16, b"m");
    assert_eq!(guest.by_name(name).await.unwrap_err(), NnErrno::TooLarge);
    assert_eq!(guest.context(0).await.unwrap_err(), NnErrno::TooLarge);
}
