//! Streams `?chunks=` (default 200) pieces of 1 KiB with `?delay_ms=` (default 0) before each, as
//! `?type=` (default `application/octet-stream`).

use std::io::Write as _;

use wasmeter_guest::raw::wasi::clocks::monotonic_clock::subscribe_duration;
use wasmeter_guest::{Error, Request, Response, Result};

#[wasmeter_guest::handler]
fn handle(req: Request) -> Result<Response> {
    let chunks = number(&req, "chunks", 200)?;
    let delay = number(&req, "delay_ms", 0)?.saturating_mul(1_000_000);
    let kind = req.query_param("type").unwrap_or_else(|| "application/octet-stream".to_owned());
    Ok(Response::stream(&kind, move |body| {
        for chunk in 0..chunks {
            if delay > 0 {
                subscribe_duration(delay).block();
            }
            // Each piece is a line of its own number, so that a reader sees what is missing.
            body.write_all(format!("{chunk:>1023}\n").as_bytes())?;
            body.flush()?;
        }
        Ok(())
    }))
}

fn number(req: &Request, name: &str, default: u64) -> Result<u64> {
    match req.query_param(name) {
        Some(text) => text.parse().map_err(|_| Error::bad_request(format!("{name} is no number"))),
        None => Ok(default),
    }
}
