//! `wasmeter:nn/inflight`: several computes of one guest under way.
//!
//! A compute is an entry in the device's queue, which the lane's thread works off; nothing has to poll it. Its future
//! is polled once to get it into the queue and then when the guest looks, so that no task of its own can outlive the store.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;
use wasmeter_inference::{ComputeError, Computed};
use wasmtime::component::Resource;
use wasmtime_wasi_io::async_trait;
use wasmtime_wasi_io::poll::{DynPollable, Pollable, subscribe};

use crate::bindings::errors::ErrorCode;
use crate::bindings::inference::NamedTensor;
use crate::bindings_inflight::{Host, HostPending};
use crate::call::Count;
use crate::ctx::{NnCtx, NnCtxView};
use crate::errors::NnError;
use crate::inference::ExecutionContext;

type Answer = Result<Computed, ComputeError>;

/// A compute under way.
pub(crate) struct Flight {
    state: Mutex<State>,
    /// Of its inputs, counted until it ends or is dropped.
    bytes: usize,
}

enum State {
    Running(Pin<Box<dyn Future<Output = Answer> + Send>>),
    Done(Answer),
    /// Taken by the guest, or given up.
    Over,
}

impl Flight {
    fn poll(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.state.lock();
        if let State::Running(compute) = &mut *state {
            match compute.as_mut().poll(cx) {
                Poll::Ready(answer) => *state = State::Done(answer),
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(())
    }

    /// Dropping the future takes a waiting entry out of the queue and fixes the charge of a running one.
    pub(crate) fn give_up(&self) {
        *self.state.lock() = State::Over;
    }
}

/// The guest's end of a compute under way.
#[allow(unreachable_pub, reason = "the generated module re-exports it")]
pub struct Pending {
    flight: Arc<Flight>,
}

#[async_trait]
impl Pollable for Pending {
    async fn ready(&mut self) {
        std::future::poll_fn(|cx| self.flight.poll(cx)).await;
    }
}

impl NnCtx {
    /// Gives up what is under way. After this the charges do not change any more on this side.
    pub(crate) fn land(&mut self) {
        self.flights.drain(..).for_each(|f| f.give_up());
    }

    fn end(&mut self, flight: &Arc<Flight>) {
        let before = self.flights.len();
        self.flights.retain(|f| !Arc::ptr_eq(f, flight));
        if self.flights.len() < before {
            self.release(flight.bytes);
            self.give(Count::Flight);
        }
    }
}

impl Host for NnCtxView<'_> {
    async fn start(
        &mut self,
        context: Resource<ExecutionContext>,
        inputs: Vec<NamedTensor>,
    ) -> wasmtime::Result<Result<Resource<Pending>, Resource<NnError>>> {
        let model = self.table.get(&context)?.model.clone();
        let inputs = self.take_tensors(inputs)?;
        let ready = inputs.and_then(|(inputs, bytes)| {
            self.ctx.take(Count::Flight)?;
            let counted = self.ctx.hold(bytes).and_then(|()| self.ctx.request(&model, inputs));
            match counted {
                Ok(request) => Ok((request, bytes)),
                Err(error) => {
                    self.ctx.give(Count::Flight);
                    Err(error)
                }
            }
        });
        let (request, bytes) = match ready {
            Ok(ready) => ready,
            Err(error) => return self.fail(error),
        };
        let models = self.ctx.models.clone();
        let compute = Box::pin(async move { models.compute(request).await });
        let flight = Arc::new(Flight { state: Mutex::new(State::Running(compute)), bytes });
        // Into the queue. Whoever waits for it polls again, with a waker of its own.
        let _ = flight.poll(&mut Context::from_waker(Waker::noop()));
        self.ctx.flights.push(flight.clone());
        Ok(Ok(self.table.push(Pending { flight })?))
    }
}

type Taken = Option<Result<Vec<NamedTensor>, Resource<NnError>>>;

impl HostPending for NnCtxView<'_> {
    async fn subscribe(&mut self, pending: Resource<Pending>) -> wasmtime::Result<Resource<DynPollable>> {
        subscribe(self.table, pending)
    }

    async fn get(&mut self, pending: Resource<Pending>) -> wasmtime::Result<Taken> {
        let flight = self.table.get(&pending)?.flight.clone();
        if flight.poll(&mut Context::from_waker(Waker::noop())).is_pending() {
            return Ok(None);
        }
        let state = std::mem::replace(&mut *flight.state.lock(), State::Over);
        self.ctx.end(&flight);
        let answer = match state {
            State::Done(answer) => self.ctx.judge(answer),
            State::Running(_) | State::Over => {
                Err(NnError::new(ErrorCode::InvalidArgument, "the answer was taken before"))
            }
        };
        let outputs = match answer {
            Ok(outputs) => self.give_tensors(outputs)?,
            Err(error) => Err(self.table.push(error)?),
        };
        Ok(Some(outputs))
    }

    async fn drop(&mut self, pending: Resource<Pending>) -> wasmtime::Result<()> {
        let Pending { flight } = self.table.delete(pending)?;
        flight.give_up();
        self.ctx.end(&flight);
        Ok(())
    }
}
