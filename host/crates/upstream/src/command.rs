use bytes::Bytes;
use wasmtime::{Engine, InstancePre, Linker, Module, Store};
use wasmtime_wasi::p1::{self, WasiP1Ctx};
use wasmtime_wasi::p2::pipe::{MemoryInputPipe, MemoryOutputPipe};
use wasmtime_wasi::{I32Exit, WasiCtxBuilder};
use wasmtime_wasi_nn::witx;

use crate::models::Models;

/// Bytes of an answer.
const ANSWER: usize = 16 << 20;

pub(crate) struct Guest {
    wasi: WasiP1Ctx,
    nn: witx::WasiNnCtx,
}

pub(crate) fn link(engine: &Engine, wasm: &[u8]) -> wasmtime::Result<InstancePre<Guest>> {
    let mut linker = Linker::new(engine);
    p1::add_to_linker_async(&mut linker, |guest: &mut Guest| &mut guest.wasi)?;
    witx::add_to_linker(&mut linker, |guest: &mut Guest| &mut guest.nn)?;
    linker.instantiate_pre(&Module::new(engine, wasm)?)
}

/// Calls a command like a CGI program; the answer is what it says after the head.
pub(crate) async fn call(
    pre: InstancePre<Guest>,
    models: Models,
    query: String,
    body: Bytes,
) -> wasmtime::Result<Vec<u8>> {
    let output = MemoryOutputPipe::new(ANSWER);
    let mut wasi = WasiCtxBuilder::new();
    wasi.arg("guest").env("QUERY_STRING", query);
    wasi.stdin(MemoryInputPipe::new(body)).stdout(output.clone());
    let (backends, registry) = models.parts();
    let guest = Guest { wasi: wasi.build_p1(), nn: witx::WasiNnCtx::new(backends, registry) };
    let mut store = Store::new(pre.module().engine(), guest);
    let instance = pre.instantiate_async(&mut store).await?;
    let start = instance.get_typed_func::<(), ()>(&mut store, "_start")?;
    match start.call_async(&mut store, ()).await {
        Err(error) if error.downcast_ref::<I32Exit>().is_none_or(|exit| exit.0 != 0) => return Err(error),
        _ => {}
    }
    let said = output.contents();
    let head = said.windows(2).position(|w| w == b"\n\n");
    Ok(head.map_or(&said[..], |end| &said[end + 2..]).to_vec())
}
