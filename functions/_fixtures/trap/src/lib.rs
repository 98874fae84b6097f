//! Traps: by a panic, or on `/unreachable` by the bare instruction, or on `/late` in the middle of its answer.

use std::io::Write as _;

use wasmeter_guest::{Request, Response, Result};

#[wasmeter_guest::handler]
fn handle(req: Request) -> Result<Response> {
    match req.path() {
        "/unreachable" => unreachable(),
        "/late" => Ok(Response::stream("text/plain", |body| {
            body.write_all(&[b'x'; 100_000])?;
            body.flush()?;
            deliberate_panic("after 100000 bytes")
        })),
        _ => deliberate_panic("as asked"),
    }
}

/// A named frame for the backtrace.
#[inline(never)]
fn deliberate_panic(when: &str) -> ! {
    panic!("the trap fixture panics, {when}")
}

#[inline(never)]
fn unreachable() -> ! {
    #[cfg(target_arch = "wasm32")]
    core::arch::wasm32::unreachable();
    #[cfg(not(target_arch = "wasm32"))]
    std::process::abort()
}
