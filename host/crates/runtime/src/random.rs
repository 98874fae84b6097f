use std::convert::Infallible;
use std::sync::Arc;

use rand::rngs::{SmallRng, StdRng};
use rand::{Rng, SeedableRng as _, TryRng};
use wasmtime_wasi::WasiCtxBuilder;

use crate::capability::Caller;

/// A generator whose bytes are charged.
struct Charged<R> {
    generator: R,
    caller: Arc<Caller>,
}

/// Gives a guest its two generators, each with a seed of its own.
pub(crate) fn random(wasi: &mut WasiCtxBuilder, caller: &Arc<Caller>) {
    let (secure, fast) = match &caller.tape {
        None => (rand::make_rng::<StdRng>(), rand::make_rng::<SmallRng>()),
        Some(tape) => {
            let mut seeds = StdRng::from_seed(tape.seed("insecure seed"));
            wasi.insecure_random_seed(u128::from(seeds.next_u64()) << 64 | u128::from(seeds.next_u64()));
            (StdRng::from_seed(tape.seed("secure")), SmallRng::from_seed(tape.seed("insecure")))
        }
    };
    wasi.secure_random(Charged { generator: secure, caller: caller.clone() });
    wasi.insecure_random(Charged { generator: fast, caller: caller.clone() });
    // More at one time could not be charged in between.
    wasi.max_random_size(64 << 10);
}

impl<R: Rng> TryRng for Charged<R> {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        // What wasmtime-wasi draws for each byte.
        self.caller.toll.random(1);
        Ok(self.generator.next_u32())
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        self.caller.toll.random(8);
        Ok(self.generator.next_u64())
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        self.caller.toll.random(bytes.len());
        self.generator.fill_bytes(bytes);
        Ok(())
    }
}
