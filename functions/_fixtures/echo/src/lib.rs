//! Answers what it was asked.
//!
//! `GET /hello` answers the text `hello`. Everything else answers JSON: method, path, query, headers and body.
//! `?status=` sets the answer's status, each `?set=name:value` adds a header to the answer.

use serde_json::json;
use wasmeter_guest::{Error, Request, Response, Result};

#[wasmeter_guest::handler]
fn handle(req: Request) -> Result<Response> {
    if req.path() == "/hello" && req.method() == "GET" {
        return Ok(Response::text("hello\n"));
    }
    let headers: Vec<_> =
        req.headers().map(|(name, value)| json!([name, String::from_utf8_lossy(value)])).collect();
    let body = req.body()?;
    let mut answer = Response::json(&json!({
        "method": req.method(),
        "scheme": req.scheme(),
        "authority": req.authority(),
        "path": req.path(),
        "query": req.query(),
        "headers": headers,
        "body": String::from_utf8_lossy(body),
        "body_bytes": body.len(),
    }))?;
    for (name, value) in req.query_pairs() {
        answer = match name.as_str() {
            "status" => {
                answer.with_status(value.parse().map_err(|_| Error::bad_request("status is no number"))?)
            }
            "set" => match value.split_once(':') {
                Some((name, value)) => answer.with_header(name, value),
                None => return Err(Error::bad_request("set needs name:value")),
            },
            _ => answer,
        };
    }
    Ok(answer)
}
