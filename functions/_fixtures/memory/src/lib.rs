//! Takes memory until it is refused, then answers how much it got.
//!
//! `?touch=true` writes to each page. `/allocate?bytes=` allocates so much in one piece, which traps when refused.

use serde_json::json;
use wasmeter_guest::{Error, Request, Response, Result};

/// Bytes of a WebAssembly page.
const PAGE: usize = 65_536;

#[wasmeter_guest::handler]
fn handle(req: Request) -> Result<Response> {
    if req.path() == "/allocate" {
        let bytes = req.query_param("bytes").and_then(|b| b.parse().ok());
        let bytes: usize = bytes.ok_or_else(|| Error::bad_request("bytes is no number"))?;
        let block = std::hint::black_box(vec![1u8; bytes]);
        return Response::json(&json!({ "bytes": block.len() }));
    }
    let touch = req.query_param("touch").as_deref() == Some("true");
    let before = pages();
    // The answer needs a little heap of its own when there is no more to have.
    let reserve = std::hint::black_box(vec![1u8; PAGE]);
    while let Some(first) = grow(16) {
        if touch {
            (first..first + 16).for_each(write_to);
        }
    }
    while grow(1).is_some() {}
    drop(reserve);
    Response::json(&json!({ "pages": pages(), "pages_before": before, "page_bytes": PAGE }))
}

#[cfg(target_arch = "wasm32")]
fn pages() -> usize {
    core::arch::wasm32::memory_size(0)
}

/// The first of the new pages.
#[cfg(target_arch = "wasm32")]
fn grow(by: usize) -> Option<usize> {
    let first = core::arch::wasm32::memory_grow(0, by);
    (first != usize::MAX).then_some(first)
}

#[cfg(target_arch = "wasm32")]
fn write_to(page: usize) {
    // In one statement, so that the allocator cannot take the page in between; nobody else uses it.
    #[allow(unsafe_code, reason = "the page was just grown by us")]
    unsafe {
        std::ptr::with_exposed_provenance_mut::<u8>(page * PAGE).write_volatile(1);
    }
}

#[cfg(not(target_arch = "wasm32"))]
fn pages() -> usize {
    0
}

#[cfg(not(target_arch = "wasm32"))]
fn grow(_: usize) -> Option<usize> {
    None
}

#[cfg(not(target_arch = "wasm32"))]
fn write_to(_: usize) {}
