use std::time::Duration;

use wasmtime::component::Resource;
use wasmtime_wasi_io::poll::Pollable;

use super::bench::{BUSY, Bench, Step, engine_error};
use super::newest::borrow;
use crate::NnLimits;
use crate::bindings::errors::ErrorCode;
use crate::bindings::inference::HostGraphExecutionContext;
use crate::bindings_inflight::{Host, HostPending};
use crate::inference::ExecutionContext;
use crate::inflight::Pending;

impl Bench {
    async fn launch(
        &mut self,
        context: &Resource<ExecutionContext>,
        name: &str,
        value: f32,
    ) -> Result<Resource<Pending>, ErrorCode> {
        let input = vec![(name.to_owned(), self.tensor(&[value]).await)];
        let answer = self.view().start(borrow(context), input).await.unwrap();
        answer.map_err(|e| self.error(e).0)
    }

    async fn ready(&mut self, pending: &Resource<Pending>) {
        self.table.get_mut(pending).unwrap().ready().await;
    }

    async fn take(&mut self, pending: &Resource<Pending>) -> Option<Result<Vec<f32>, ErrorCode>> {
        Some(match self.view().get(borrow(pending)).await.unwrap()? {
            Ok(mut outputs) => Ok(self.values(outputs.pop().unwrap().1).await),
            Err(error) => Err(self.error(error).0),
        })
    }

    async fn leave(&mut self, pending: Resource<Pending>) {
        HostPending::drop(&mut self.view(), pending).await.unwrap();
    }
}

/// On one thread: a compute that blocked it would never end.
#[tokio::test(flavor = "current_thread")]
async fn several_are_under_way() {
    let mut bench = Bench::new().await;
    let context = bench.context("m").await;
    let go = bench.block();
    let mut flying = Vec::new();
    for value in [0.0, 1.0, 2.0] {
        flying.push(bench.launch(&context, "x", value).await.unwrap());
    }
    bench.running(1).await;
    for pending in &flying {
        assert_eq!(bench.take(pending).await, None);
    }
    let waits = tokio::time::timeout(Duration::from_millis(20), bench.ready(&flying[2]));
    assert!(waits.await.is_err());
    drop(go);
    for (value, pending) in [0.0, 1.0, 2.0].into_iter().zip(&flying).rev() {
        bench.ready(pending).await;
        assert_eq!(bench.take(pending).await, Some(Ok(vec![value])));
        assert_eq!(bench.take(pending).await, Some(Err(ErrorCode::InvalidArgument)));
    }
    for pending in flying {
        bench.leave(pending).await;
    }
    HostGraphExecutionContext::drop(&mut bench.view(), context).await.unwrap();
    bench.assert_empty();
    assert_eq!((bench.ctx.uses()[0].computes, bench.ctx.uses()[0].device_ns), (3, 3 * BUSY));
}

/// They run without being looked at.
#[tokio::test]
async fn what_nobody_polls_runs_all_the_same() {
    let mut bench = Bench::new().await;
    let context = bench.context("m").await;
    let pending = bench.launch(&context, "x", 1.0).await.unwrap();
    bench.running(1).await;
    while bench.ctx.uses().is_empty() {
        tokio::task::yield_now().await;
    }
    assert_eq!(bench.take(&pending).await, Some(Ok(vec![1.0])));
}

#[tokio::test]
async fn what_is_left_behind_is_given_up_and_charged() {
    let mut bench = Bench::new().await;
    let context = bench.context("m").await;
    let go = bench.block();
    let running = bench.launch(&context, "x", 1.0).await.unwrap();
    bench.running(1).await;
    let waiting = bench.launch(&context, "x", 2.0).await.unwrap();
    bench.ctx.settle();
    // The running one for its time until now, the waiting one for nothing.
    let uses = bench.ctx.uses();
    assert_eq!((uses[0].computes, uses[0].device_ns), (1, BUSY));
    drop(go);
    for pending in [running, waiting] {
        bench.leave(pending).await;
    }
    assert_eq!(bench.ctx.uses()[0].device_ns, BUSY);
}

#[tokio::test]
async fn failures_and_limits_are_told() {
    let limits = NnLimits { in_flight: 2, tensor_bytes: 40, ..NnLimits::default() };
    let mut bench = Bench::with(limits, 1024).await;
    let context = bench.context("m").await;
    bench.next(Step::Fail(engine_error()));
    let failing = bench.launch(&context, "x", 1.0).await.unwrap();
    let wrong = bench.launch(&context, "nonsense", 1.0).await.unwrap();
    assert_eq!(bench.launch(&context, "x", 1.0).await.map(drop), Err(ErrorCode::TooLarge));
    bench.ready(&failing).await;
    assert_eq!(bench.take(&failing).await, Some(Err(ErrorCode::RuntimeError)));
    bench.ready(&wrong).await;
    assert_eq!(bench.take(&wrong).await, Some(Err(ErrorCode::InvalidArgument)));
    assert_eq!(bench.ctx.tensor_bytes, 0);
    // Inputs count while they are under way: 12 bytes each, with their shape.
    let go = bench.block();
    let held = bench.launch(&context, "x", 1.0).await.unwrap();
    assert_eq!(bench.ctx.tensor_bytes, 12);
    bench.leave(held).await;
    assert_eq!(bench.ctx.tensor_bytes, 0);
    drop(go);
}
