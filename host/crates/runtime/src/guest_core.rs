use std::sync::Arc;

use wasmeter_nn::NnCtx;
use wasmtime::{Engine, Linker};
use wasmtime_wasi::p1::{self, WasiP1Ctx};
use wasmtime_wasi::{WasiCtxBuilder, WasiView};

use crate::capability::Caller;
use crate::guest::{Metered, Room, size};
use crate::toll::{Gate, Toll};

/// The data of a store that runs a core module: a `wasip1` command.
pub(crate) struct CoreGuest {
    wasi: WasiP1Ctx,
    nn: NnCtx,
    room: Room,
    caller: Arc<Caller>,
    gate: Gate,
}

impl CoreGuest {
    pub(crate) fn new(mut wasi: WasiCtxBuilder, nn: NnCtx, caller: Arc<Caller>) -> Self {
        let mut wasi = wasi.build_p1();
        let limits = &caller.revision.manifest.limits;
        wasi.ctx().table.set_max_capacity(size(limits.bounds().handles.into()));
        let room = Room::new(limits);
        let gate = Gate::new(caller.tape.is_some());
        Self { wasi, nn, room, caller, gate }
    }
}

impl Metered for CoreGuest {
    fn room(&mut self) -> &mut Room {
        &mut self.room
    }

    fn nn(&mut self) -> &mut NnCtx {
        &mut self.nn
    }

    fn toll(&mut self) -> (&Toll, &mut Gate) {
        (&self.caller.toll, &mut self.gate)
    }
}

/// What a command may import: `wasi_snapshot_preview1`, with no files and no sockets in it, and `wasi_ephemeral_nn`.
pub(crate) fn linker(engine: &Engine) -> wasmtime::Result<Linker<CoreGuest>> {
    let mut linker = Linker::new(engine);
    p1::add_to_linker_async(&mut linker, |guest: &mut CoreGuest| {
        guest.caller.toll.call();
        &mut guest.wasi
    })?;
    wasmeter_nn::add_core_to_linker(&mut linker, |guest: &mut CoreGuest| {
        guest.caller.toll.call();
        guest.caller.beyond("wasi_ephemeral_nn");
        &mut guest.nn
    })?;
    Ok(linker)
}
