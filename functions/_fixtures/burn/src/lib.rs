//! Works for `?n=` iterations (default a million), then answers. The same request uses the same fuel each time.

use std::hint::black_box;

use serde_json::json;
use wasmeter_guest::{Error, Request, Response, Result};

#[wasmeter_guest::handler]
fn handle(req: Request) -> Result<Response> {
    let n = match req.query_param("n") {
        Some(n) => n.parse::<u64>().map_err(|_| Error::bad_request("n is no number"))?,
        None => 1_000_000,
    };
    // A linear congruential generator: each step needs the one before, so nothing is optimised away.
    let mut value = 1u64;
    for _ in 0..n {
        value =
            black_box(value).wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    }
    Response::json(&json!({ "n": n, "value": value }))
}
