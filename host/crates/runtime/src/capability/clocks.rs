//! `wasi:clocks/monotonic-clock`: wasmtime's, but for who waits. When others are ready beside a clock is time's to say, so
//! that a recorded call which waits for one may go another way the next time.

use std::sync::Arc;

use wasmtime::component::{HasData, Linker, Resource};
use wasmtime_wasi::clocks::{WasiClocksCtxView, WasiClocksView as _};
use wasmtime_wasi::p2::DynPollable;
use wasmtime_wasi::p2::bindings::clocks::monotonic_clock::{self, Duration, Host, Instant};

use crate::guest::Guest;
use crate::tape::Tape;

struct Clocks<'a> {
    view: WasiClocksCtxView<'a>,
    tape: Option<Arc<Tape>>,
}

struct HasClocks;

impl HasData for HasClocks {
    type Data<'a> = Clocks<'a>;
}

/// In place of wasmtime's, which must be linked already.
pub(super) fn link(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    linker.allow_shadowing(true);
    monotonic_clock::add_to_linker::<Guest, HasClocks>(linker, |guest| {
        let tape = guest.tape();
        Clocks { view: guest.clocks(), tape }
    })?;
    linker.allow_shadowing(false);
    Ok(())
}

impl Clocks<'_> {
    fn waits(&self) {
        if let Some(tape) = &self.tape {
            tape.doubt("it waited for a clock");
        }
    }
}

impl Host for Clocks<'_> {
    fn now(&mut self) -> wasmtime::Result<Instant> {
        self.view.now()
    }

    fn resolution(&mut self) -> wasmtime::Result<Duration> {
        Host::resolution(&mut self.view)
    }

    fn subscribe_instant(&mut self, when: Instant) -> wasmtime::Result<Resource<DynPollable>> {
        self.waits();
        self.view.subscribe_instant(when)
    }

    fn subscribe_duration(&mut self, when: Duration) -> wasmtime::Result<Resource<DynPollable>> {
        self.waits();
        self.view.subscribe_duration(when)
    }
}
