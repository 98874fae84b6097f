//! Answers `?bytes=` bytes (default 1 MiB): streamed, or with `?whole=true` from memory with a content-length.

use std::io::Write as _;

use wasmeter_guest::{Error, Request, Response, Result};

const PIECE: usize = 64 << 10;

#[wasmeter_guest::handler]
fn handle(req: Request) -> Result<Response> {
    let bytes: usize = match req.query_param("bytes") {
        Some(text) => text.parse().map_err(|_| Error::bad_request("bytes is no number"))?,
        None => 1 << 20,
    };
    if req.query_param("whole").as_deref() == Some("true") {
        return Ok(Response::bytes("application/octet-stream", vec![b'x'; bytes]));
    }
    Ok(Response::stream("application/octet-stream", move |body| {
        let piece = vec![b'x'; PIECE.min(bytes)];
        let mut left = bytes;
        while left > 0 {
            let count = left.min(PIECE);
            body.write_all(&piece[..count])?;
            left -= count;
        }
        Ok(())
    }))
}
