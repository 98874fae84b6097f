//! Calls elsewhere and says what came of it.
//!
//! `?url=` is called with the method and body of the request, and with each `?set=name:value` as a header; the answer is
//! JSON: status, headers and the body's text, or `error`. `/follow` follows redirects, up to five. `/size` answers how
//! many bytes the body had; `/many?n=` calls n times and answers the outcomes; `/loop` calls itself
//! and says how often.

use serde_json::{Value, json};
use wasmeter_guest::http::{Answer, Call, Error};
use wasmeter_guest::{Request, Response, Result};

/// Bytes of a body that are shown.
const SHOWN: usize = 1 << 20;

fn call(req: &Request, url: &str) -> Result<Call> {
    let mut call = Call::new(req.method(), url);
    if req.method() != "GET" {
        call = call.body(req.body()?);
    }
    for (name, value) in req.query_pairs() {
        if let ("set", Some((name, value))) = (name.as_str(), value.split_once(':')) {
            call = call.header(name, value);
        }
    }
    Ok(call)
}

fn shown(answer: Result<Answer, Error>) -> Value {
    let show = |answer: Answer| {
        let headers: Vec<_> = answer.headers().map(|(n, v)| json!([n, String::from_utf8_lossy(v)])).collect();
        let status = answer.status();
        let body = answer.body(SHOWN)?;
        Ok(json!({ "status": status, "headers": headers, "body": String::from_utf8_lossy(&body) }))
    };
    answer.and_then(show).unwrap_or_else(|error| json!({ "error": error.to_string() }))
}

#[wasmeter_guest::handler]
fn handle(req: Request) -> Result<Response> {
    let url = req.query_param("url").unwrap_or_default();
    let answer = match req.path() {
        "/follow" => {
            let mut answer = call(&req, &url)?.send();
            for _ in 0..5 {
                let Ok(Some(next)) = answer.as_ref().map(|a| a.header("location").map(str::to_owned)) else {
                    break;
                };
                answer = Call::get(next).send();
            }
            shown(answer)
        }
        "/size" => match call(&req, &url)?.send().and_then(|a| a.body(usize::MAX)) {
            Ok(body) => json!({ "bytes": body.len() }),
            Err(error) => json!({ "error": error.to_string() }),
        },
        "/loop" => {
            let own = format!("http://{}/fn/dev/outbound/loop", req.authority().unwrap_or_default());
            let answer = shown(Call::get(own).send());
            let inner: Value = serde_json::from_str(answer["body"].as_str().unwrap_or_default())?;
            match inner["depth"].as_u64() {
                Some(depth) => {
                    json!({ "depth": depth + 1, "status": inner["status"], "body": inner["body"] })
                }
                None => json!({ "depth": 1, "status": answer["status"], "body": answer["body"] }),
            }
        }
        "/many" => {
            let n = req.query_param("n").and_then(|n| n.parse::<usize>().ok()).unwrap_or(0);
            // Held until the end, so that the connections stay open.
            let mut held = Vec::new();
            let mut errors = Vec::new();
            for _ in 0..n {
                match call(&req, &url)?.send() {
                    Ok(answer) => held.push(answer),
                    Err(error) => errors.push(error.to_string()),
                }
            }
            json!({ "answered": held.len(), "errors": errors })
        }
        _ => shown(call(&req, &url)?.send()),
    };
    Response::json(&answer)
}
