//! Recurses `?depth=` levels (default: for ever) and answers how deep it came.

use std::hint::black_box;

use wasmeter_guest::{Request, Response};

#[wasmeter_guest::handler]
fn handle(req: Request) -> Response {
    let depth = req.query_param("depth").and_then(|d| d.parse().ok()).unwrap_or(u64::MAX);
    Response::text(format!("{}\n", down(depth)))
}

/// No tail call: the sum waits for the level below.
#[inline(never)]
fn down(levels: u64) -> u64 {
    if levels == 0 { 0 } else { black_box(down(black_box(levels - 1))) + 1 }
}
