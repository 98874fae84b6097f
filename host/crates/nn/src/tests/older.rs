use super::bench::{BUSY, Bench, Step, engine_error};
use super::newest::borrow;
use crate::NnLimits;
use crate::bindings::errors::ErrorCode;
use crate::call::Count;
use crate::steps::Steps;
use wasmeter_inference::ModelKey;
use wasmtime::component::Resource;

impl Bench {
    fn steps(&mut self) -> Resource<Steps> {
        self.ctx.take(Count::Context).unwrap();
        self.table.push(Steps::new(ModelKey::operator("m", 1))).unwrap()
    }

    async fn set(&mut self, context: &Resource<Steps>, name: &str, values: &[f32]) -> Result<(), ErrorCode> {
        let tensor = self.tensor(values).await;
        let answer = self.view().set_input(&borrow(context), name.into(), tensor).unwrap();
        answer.map_err(|e| self.error(e).0)
    }

    async fn go(&mut self, context: &Resource<Steps>) -> Result<(), ErrorCode> {
        let answer = self.view().compute_steps(&borrow(context)).await.unwrap();
        answer.map_err(|e| self.error(e).0)
    }

    async fn get(&mut self, context: &Resource<Steps>, name: &str) -> Result<Vec<f32>, ErrorCode> {
        let answer = self.view().output(&borrow(context), name).unwrap();
        match answer {
            Ok(tensor) => Ok(self.values(tensor).await),
            Err(error) => Err(self.error(error).0),
        }
    }
}

#[tokio::test]
async fn sets_computes_and_gets() {
    let mut bench = Bench::new().await;
    let context = bench.steps();
    assert_eq!(bench.get(&context, "y").await, Err(ErrorCode::UnsupportedOperation));
    bench.set(&context, "x", &[9.0; 100]).await.unwrap();
    bench.set(&context, "x", &[1.0, 2.0]).await.unwrap();
    bench.go(&context).await.unwrap();
    // The input is still set.
    bench.go(&context).await.unwrap();
    for name in ["y", "0"] {
        assert_eq!(bench.get(&context, name).await.unwrap(), [1.0, 2.0]);
    }
    for name in ["x", "1", "00", "-1", ""] {
        assert_eq!(bench.get(&context, name).await, Err(ErrorCode::InvalidArgument), "{name}");
    }
    // The input and the output of the last compute, and nothing of what they replaced.
    assert_eq!(bench.ctx.tensor_bytes, 2 * (2 * 4 + 2 * 4));
    assert_eq!(bench.ctx.uses()[0].device_ns, 2 * BUSY);
    bench.next(Step::Fail(engine_error()));
    assert_eq!(bench.go(&context).await, Err(ErrorCode::RuntimeError));
    bench.view().drop_steps(context).unwrap();
    bench.assert_empty();
}

#[tokio::test]
async fn what_a_context_holds_is_bounded() {
    let limits = NnLimits { tensor_bytes: 100, ..NnLimits::default() };
    let mut bench = Bench::with(limits, 1024).await;
    let context = bench.steps();
    assert_eq!(bench.set(&context, &"n".repeat(10_000), &[1.0]).await, Err(ErrorCode::InvalidArgument));
    bench.set(&context, "x", &[0.0; 12]).await.unwrap();
    // 56 bytes are in, 56 would come out.
    assert_eq!(bench.go(&context).await, Err(ErrorCode::TooLarge));
    bench.set(&context, "x", &[0.0; 8]).await.unwrap();
    bench.go(&context).await.unwrap();
    // 80 bytes are held; another copy of the output is too much.
    assert_eq!(bench.get(&context, "y").await, Err(ErrorCode::TooLarge));
    bench.view().drop_steps(context).unwrap();
    bench.assert_empty();
}
