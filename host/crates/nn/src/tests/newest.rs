use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use wasmeter_inference::BackendError;
use wasmtime::component::Resource;

use super::bench::{BUSY, Bench, Step, engine_error};
use crate::bindings::errors::{ErrorCode, HostError};
use crate::bindings::graph::{ExecutionTarget, GraphEncoding, Host as _, HostGraph};
use crate::bindings::inference::HostGraphExecutionContext;
use crate::bindings::tensor::{HostTensor, TensorType};
use crate::inference::ExecutionContext;
use crate::tensor::GuestTensor;
use crate::{NnLimits, Quotas, TenantLimits};

type Outputs = Vec<(String, Resource<GuestTensor>)>;

impl Bench {
    pub(super) async fn tensor(&mut self, values: &[f32]) -> Resource<GuestTensor> {
        let data = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        let dims = vec![1, u32::try_from(values.len()).unwrap()];
        HostTensor::new(&mut self.view(), dims, TensorType::Fp32, data).await.unwrap()
    }

    pub(super) async fn context(&mut self, model: &str) -> Resource<ExecutionContext> {
        let graph = self.view().load_by_name(model.into()).await.unwrap().unwrap();
        let context = self.view().init_execution_context(borrow(&graph)).await.unwrap().unwrap();
        HostGraph::drop(&mut self.view(), graph).await.unwrap();
        context
    }

    async fn compute(
        &mut self,
        context: &Resource<ExecutionContext>,
        name: &str,
        values: &[f32],
    ) -> Result<Outputs, (ErrorCode, String)> {
        let input = vec![(name.to_owned(), self.tensor(values).await)];
        let answer = self.view().compute(borrow(context), input).await.unwrap();
        answer.map_err(|e| self.error(e))
    }

    /// The code of one compute under this step.
    async fn code(&mut self, step: Step) -> (ErrorCode, String) {
        self.next(step);
        let context = self.context("m").await;
        let answer = self.compute(&context, "x", &[1.0]).await;
        HostGraphExecutionContext::drop(&mut self.view(), context).await.unwrap();
        answer.unwrap_err()
    }

    pub(super) async fn values(&mut self, tensor: Resource<GuestTensor>) -> Vec<f32> {
        let data = HostTensor::data(&mut self.view(), borrow(&tensor)).await.unwrap();
        HostTensor::drop(&mut self.view(), tensor).await.unwrap();
        data.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
    }
}

pub(super) fn borrow<T: 'static>(resource: &Resource<T>) -> Resource<T> {
    Resource::new_borrow(resource.rep())
}

#[tokio::test]
async fn computes_by_name_and_by_index() {
    let mut bench = Bench::new().await;
    let context = bench.context("m").await;
    for name in ["x", "0"] {
        let mut outputs = bench.compute(&context, name, &[1.0, 2.0]).await.unwrap();
        let (name, tensor) = outputs.pop().unwrap();
        assert_eq!((name.as_str(), bench.values(tensor).await), ("y", vec![1.0, 2.0]));
    }
    HostGraphExecutionContext::drop(&mut bench.view(), context).await.unwrap();
    bench.assert_empty();
    let uses = bench.ctx.uses();
    assert_eq!((uses.len(), uses[0].computes, uses[0].device_ns), (1, 2, 2 * BUSY));
}

#[tokio::test]
async fn every_error_code_can_be_met() {
    let mut bench = Bench::new().await;
    let load = async |bench: &mut Bench, parts: usize, encoding, target| {
        let answer = bench.view().load(vec![vec![0; 16]; parts], encoding, target).await.unwrap();
        bench.error(answer.unwrap_err()).0
    };
    use ExecutionTarget::{Cpu, Gpu, Tpu};
    assert_eq!(load(&mut bench, 1, GraphEncoding::Onnx, Cpu).await, ErrorCode::Security);
    assert_eq!(load(&mut bench, 1, GraphEncoding::Autodetect, Gpu).await, ErrorCode::Security);
    assert_eq!(load(&mut bench, 1, GraphEncoding::Openvino, Tpu).await, ErrorCode::UnsupportedOperation);
    assert_eq!(load(&mut bench, 0, GraphEncoding::Onnx, Cpu).await, ErrorCode::InvalidArgument);
    let foreign = [
        GraphEncoding::Tensorflow,
        GraphEncoding::Pytorch,
        GraphEncoding::Tensorflowlite,
        GraphEncoding::Ggml,
    ];
    for encoding in foreign {
        assert_eq!(load(&mut bench, 1, encoding, Cpu).await, ErrorCode::InvalidEncoding);
    }
    for (name, why) in [("other", "manifest"), ("gone", "not on this host")] {
        let answer = bench.view().load_by_name(name.into()).await.unwrap();
        let (code, message) = bench.error(answer.unwrap_err());
        assert_eq!(code, ErrorCode::NotFound);
        assert!(message.contains(why), "{message}");
    }
    let (message, busy_ns) = ("scripted".to_owned(), 1);
    let input = BackendError::InvalidInput { message: message.clone(), busy_ns };
    assert_eq!(bench.code(Step::Fail(input)).await.0, ErrorCode::InvalidArgument);
    let large = BackendError::TooLarge { message, busy_ns };
    assert_eq!(bench.code(Step::Fail(large)).await.0, ErrorCode::TooLarge);
    assert_eq!(bench.code(Step::Fail(engine_error())).await.0, ErrorCode::RuntimeError);
    assert!(bench.ctx.fault().is_none());

    // Past its deadline, while another one holds the device.
    bench.ctx.deadline = Instant::now() + Duration::from_millis(20);
    let (go, wait) = std::sync::mpsc::channel();
    assert_eq!(bench.code(Step::Wait(wait)).await.0, ErrorCode::Timeout);
    drop(go);
    bench.ctx.deadline = Instant::now() + Duration::from_secs(30);

    // The service ends: nothing is wrong with the call.
    drop(bench.stop.take());
    let answer = async {
        loop {
            let context = bench.context("m").await;
            if let Err(error) = bench.compute(&context, "x", &[1.0]).await {
                return error.0;
            }
        }
    };
    assert_eq!(tokio::time::timeout(Duration::from_secs(10), answer).await.unwrap(), ErrorCode::Unknown);
    assert!(bench.ctx.fault().is_some());
}

#[tokio::test]
async fn an_error_says_what_it_is() {
    let mut bench = Bench::new().await;
    let answer = bench.view().load_by_name("other".into()).await.unwrap();
    let error = answer.unwrap_err();
    assert_eq!(bench.view().code(borrow(&error)).await.unwrap(), ErrorCode::NotFound);
    let text = HostError::data(&mut bench.view(), borrow(&error)).await.unwrap();
    assert_eq!(text, "model \"other\" is not in [models] allow of the function's manifest");
    HostError::drop(&mut bench.view(), error).await.unwrap();
    bench.assert_empty();
}

#[tokio::test]
async fn wrong_inputs_are_refused_and_forgotten() {
    let mut bench = Bench::new().await;
    let context = bench.context("m").await;
    let code = |answer: Result<Outputs, (ErrorCode, String)>| answer.unwrap_err().0;
    assert_eq!(code(bench.compute(&context, "nonsense", &[1.0]).await), ErrorCode::InvalidArgument);
    assert_eq!(code(bench.compute(&context, &"n".repeat(10_000), &[1.0]).await), ErrorCode::InvalidArgument);
    let short = HostTensor::new(&mut bench.view(), vec![1, 2], TensorType::Fp32, vec![0; 3]).await.unwrap();
    let huge = HostTensor::new(&mut bench.view(), vec![u32::MAX; 4], TensorType::Fp64, vec![]).await.unwrap();
    let inputs = vec![("x".to_owned(), short), ("y".to_owned(), huge)];
    let answer = bench.view().compute(borrow(&context), inputs).await.unwrap();
    let (code, message) = bench.error(answer.unwrap_err());
    assert_eq!(
        (code, message.as_str()),
        (ErrorCode::InvalidArgument, "input \"x\": tensor of f32 [1, 2] needs 8 bytes, got 3")
    );
    HostGraphExecutionContext::drop(&mut bench.view(), context).await.unwrap();
    bench.assert_empty();
}

#[tokio::test]
async fn limits_hold() {
    let limits = NnLimits { graphs: 2, contexts: 1, tensor_bytes: 100, computes: 2, in_flight: 1 };
    let mut bench = Bench::with(limits, 1024).await;
    let first = bench.view().load_by_name("m".into()).await.unwrap().unwrap();
    let _second = bench.view().load_by_name("m".into()).await.unwrap().unwrap();
    let answer = bench.view().load_by_name("m".into()).await.unwrap();
    assert_eq!(bench.error(answer.unwrap_err()).0, ErrorCode::TooLarge);
    let context = bench.view().init_execution_context(borrow(&first)).await.unwrap().unwrap();
    let answer = bench.view().init_execution_context(borrow(&first)).await.unwrap();
    assert_eq!(bench.error(answer.unwrap_err()).0, ErrorCode::TooLarge);
    // A constructor cannot refuse: it ends the guest.
    let view = &mut bench.view();
    assert!(HostTensor::new(view, vec![1, 100], TensorType::U8, vec![0; 100]).await.is_err());

    // Inputs are the model's while it computes; outputs count again.
    let mut outputs = bench.compute(&context, "x", &[0.0; 20]).await.unwrap();
    assert_eq!(bench.ctx.tensor_bytes, 88);
    outputs.extend(bench.compute(&context, "x", &[0.0]).await.unwrap());
    for (_, tensor) in outputs {
        HostTensor::drop(&mut bench.view(), tensor).await.unwrap();
    }
    let error = bench.compute(&context, "x", &[0.0]).await.unwrap_err();
    assert_eq!((error.0, error.1.as_str()), (ErrorCode::TooLarge, "an invocation makes at most 2 computes"));
    // What is given back can be had again.
    HostGraph::drop(&mut bench.view(), first).await.unwrap();
    bench.view().load_by_name("m".into()).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_tenant_s_invocations_share_one_account() {
    let limits = TenantLimits { graphs: 1, contexts: 1, tensor_bytes: 40 };
    let quotas = Arc::new(Quotas::new(limits));
    let bench = || Bench::sharing(NnLimits::default(), 1024, quotas.clone());
    let (mut one, mut two) = (bench().await, bench().await);
    let _graph = one.view().load_by_name("m".into()).await.unwrap().unwrap();
    let answer = two.view().load_by_name("m".into()).await.unwrap();
    let (code, message) = two.error(answer.unwrap_err());
    assert_eq!(code, ErrorCode::TooLarge);
    assert_eq!(message, "the tenant's invocations hold at most 1 graphs at one time");
    // What was refused counts nowhere.
    two.assert_empty();
    let tensor = one.tensor(&[0.; 4]).await;
    let view = &mut two.view();
    assert!(HostTensor::new(view, vec![1, 32], TensorType::U8, vec![0; 32]).await.is_err());
    HostTensor::drop(&mut one.view(), tensor).await.unwrap();
    let kept = two.tensor(&[0.; 4]).await;

    // An invocation's end gives back what it still held.
    drop(one);
    let graph = two.view().load_by_name("m".into()).await.unwrap().unwrap();
    HostGraph::drop(&mut two.view(), graph).await.unwrap();
    HostTensor::drop(&mut two.view(), kept).await.unwrap();
    two.assert_empty();
}
