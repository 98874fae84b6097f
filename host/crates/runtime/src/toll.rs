//! What calls to the host cost, and how they pre-empt.
//!
//! A call to the host burns no fuel by itself, so a guest that does little else would be neither metered nor stopped. Each
//! call is charged a fixed number of units, and what it makes the host compute by the byte is charged by the byte. The charge
//! is a count of what the guest asked for, never a time: the same request costs the same fuel. Only *when* the guest lets
//! others go first is decided by the clock, and nothing of that is billed.
//!
//! Counted is where a host function reaches for the data of its store, since wasmtime's call hook cannot tell a host
//! function from a helper of compiled code (`memory.copy` is one). The hook is where the charge meets the store's fuel.

use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use wasmtime::{CallHook, CallHookHandler, Result, StoreContextMut, Trap};

use crate::guest::Metered;

/// Fuel of one call to the host: the cheapest ones take 50 to 150 ns, in which a guest burns some 500 units.
const CALL: u64 = 500;
/// Fuel of one random byte.
const RANDOM_BYTE: u64 = 1;
/// What is owed is taken from the store's fuel when it is so much. It is small beside the interval of the engine's own
/// yields, so that a guest is not let run far beyond its limit.
const SETTLE: u64 = 50_000;
/// After so long without a yield of its own, a settlement yields.
const TURN: Duration = Duration::from_micros(200);

/// Calls to the host of one invocation, and what they were charged.
#[derive(Default)]
pub(crate) struct Toll {
    calls: AtomicU64,
    random: AtomicU64,
}

impl Toll {
    /// One call.
    pub(crate) fn call(&self) {
        add(&self.calls, 1);
    }

    /// So many random bytes.
    pub(crate) fn random(&self, bytes: usize) {
        add(&self.random, u64::try_from(bytes).unwrap_or(u64::MAX));
    }

    /// Calls so far.
    pub(crate) fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }

    /// Fuel units of all of them.
    fn fuel(&self) -> u64 {
        let random = self.random.load(Ordering::Relaxed).saturating_mul(RANDOM_BYTE);
        self.calls().saturating_mul(CALL).saturating_add(random)
    }
}

/// One guest is on one thread at a time: no need of a locked addition.
fn add(count: &AtomicU64, more: u64) {
    count.store(count.load(Ordering::Relaxed).saturating_add(more), Ordering::Relaxed);
}

/// How far a store has paid.
pub(crate) struct Gate {
    /// Of host entries: a host function may call the guest (for memory), and the guest a helper.
    depth: u32,
    /// Calls when the outermost entry began: it was a host function if there are more at its end.
    calls: u64,
    paid: u64,
    yielded: Instant,
    /// Of a taped call: yields come by count and not by time, since others may go on meanwhile.
    always: bool,
}

impl Gate {
    /// Of a store that has paid nothing; one that yields at each settlement, whatever the time, for a taped call.
    pub(crate) fn new(always: bool) -> Self {
        Self { depth: 0, calls: 0, paid: 0, yielded: Instant::now(), always }
    }

    /// Fuel that is charged and not yet taken from the store.
    pub(crate) fn owed(&self, toll: &Toll) -> u64 {
        toll.fuel().saturating_sub(self.paid)
    }

    /// Whether the store must pay now. Compiled code holds its fuel in a register over a helper, so that only after a host
    /// function a change of it is not lost.
    fn is_due(&mut self, toll: &Toll, event: CallHook) -> bool {
        match event {
            CallHook::CallingHost => {
                if self.depth == 0 {
                    self.calls = toll.calls();
                }
                self.depth += 1;
                false
            }
            CallHook::ReturningFromHost => {
                self.depth = self.depth.saturating_sub(1);
                self.depth == 0 && toll.calls() != self.calls && self.owed(toll) >= SETTLE
            }
            CallHook::CallingWasm | CallHook::ReturningFromWasm => false,
        }
    }
}

/// The call hook of a store: takes what is owed.
pub(crate) struct Collector;

impl<T: Metered> CallHookHandler<T> for Collector {
    fn handle_call_event<'a, 'b, 'c>(
        &'a self,
        mut store: StoreContextMut<'b, T>,
        event: CallHook,
    ) -> Pin<Box<dyn Future<Output = Result<()>> + Send + 'c>>
    where
        'a: 'c,
        'b: 'c,
    {
        let (toll, gate) = store.data_mut().toll();
        if !gate.is_due(toll, event) {
            // Without a size: the box of it is no allocation, and most events end here.
            return Box::pin(GoOn);
        }
        match settle(&mut store) {
            Ok(true) => Box::pin(Yield { yielded: false }),
            Ok(false) => Box::pin(GoOn),
            Err(error) => Box::pin(std::future::ready(Err(error))),
        }
    }
}

/// Takes what is owed from the fuel; says whether others go first.
fn settle<T: Metered>(store: &mut StoreContextMut<'_, T>) -> Result<bool> {
    let left = store.get_fuel()?;
    let (toll, gate) = store.data_mut().toll();
    let owed = gate.owed(toll);
    gate.paid = gate.paid.saturating_add(owed);
    // To set the fuel begins a new interval of the engine's own yields, so after a long one this is a yield too.
    let long = gate.always || gate.yielded.elapsed() >= TURN;
    if long {
        gate.yielded = Instant::now();
    }
    store.set_fuel(left.saturating_sub(owed))?;
    if left < owed { Err(Trap::OutOfFuel.into()) } else { Ok(long) }
}

struct GoOn;

impl Future for GoOn {
    type Output = Result<()>;

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        Poll::Ready(Ok(()))
    }
}

struct Yield {
    yielded: bool,
}

impl Future for Yield {
    type Output = Result<()>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if std::mem::replace(&mut self.yielded, true) {
            return Poll::Ready(Ok(()));
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_outermost_host_function_pays() {
        let (toll, mut gate) = (Toll::default(), Gate::new(false));
        let call = |gate: &mut Gate, inside: &mut dyn FnMut(&mut Gate)| {
            assert!(!gate.is_due(&toll, CallHook::CallingHost));
            inside(gate);
            gate.is_due(&toll, CallHook::ReturningFromHost)
        };
        assert!(!call(&mut gate, &mut |_| toll.call()), "one call is not much");
        toll.random(50_000);
        assert!(!call(&mut gate, &mut |_| {}), "a helper does not pay what is owed");
        let due = call(&mut gate, &mut |gate| {
            toll.call();
            assert!(!call(gate, &mut |_| {}), "nor one below a host function");
        });
        assert!(due);
        assert_eq!(gate.owed(&toll), 51_000);
        gate.paid = 51_000;
        assert!(!call(&mut gate, &mut |_| toll.call()));
        assert_eq!((gate.owed(&toll), toll.calls()), (500, 3));
    }
}
