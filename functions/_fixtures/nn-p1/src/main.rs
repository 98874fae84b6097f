//! A command (`wasm32-wasip1`) that answers like a CGI program and uses wasi-nn by the published crate `wasi-nn`.
//!
//! | `?case=` | what it does |
//! |---|---|
//! | `ok` (default) | one row of 784 zeros through `mlp` |
//! | `echo` | the numbers of the body (JSON list) through `identity-f32` |
//! | `steps` | set, set again, compute twice, get: the second input is the one that counts |
//! | `load`, `load-tensorflow`, `load-tpu`, `load-auto` | `load` with bytes |
//! | `by-name` | a model that nobody has |
//! | `wrong-shape`, `no-input`, `no-output`, `not-computed`, `small-buffer` | wrong uses |
//! | `pair`, `pair-rows`, `pair-again` | two inputs and two outputs; two rows; two computes on one context |
//! | `pair-wrong-type`, `pair-unknown-input` | I64 where f32 is due, a third input of two |
//! | `load-ir` | `load` with one part that says it is OpenVINO's |
//! | `graphs`, `contexts` | as many as it gets |
//! | `raw-*` | calls with bad handles, numbers and pointers, see `raw.rs` |
//! | `env` | the environment as JSON |
//! | `body` | the body back, as `text/x-echo` with status 203 |
//! | `plain` | text without a head |
//! | `silent` | nothing at all |
//! | `big` | `?bytes=` of body |
//! | `exit` | ends with status 3 after writing an answer |
//! | `trap` | traps |

mod cases;
mod raw;

use std::io::{Read, Write};

use serde_json::json;

/// One parameter of the query.
pub(crate) fn query(name: &str) -> Option<String> {
    let query = std::env::var("QUERY_STRING").unwrap_or_default();
    query
        .split('&')
        .find_map(|pair| pair.split_once('=').filter(|(key, _)| *key == name).map(|(_, v)| v.to_owned()))
}

fn main() -> std::io::Result<()> {
    let case = query("case").unwrap_or_else(|| "ok".to_owned());
    let mut out = std::io::stdout().lock();
    eprintln!("case {case}");
    match case.as_str() {
        "body" => {
            let mut body = Vec::new();
            std::io::stdin().lock().read_to_end(&mut body)?;
            write!(
                out,
                "Status: 203 Echoed\r\nContent-Type: text/x-echo\r\nX-Length: {}\r\n\r\n",
                body.len()
            )?;
            out.write_all(&body)
        }
        "plain" => writeln!(out, "hello from a command"),
        "silent" => Ok(()),
        "big" => {
            let bytes: usize = query("bytes").and_then(|b| b.parse().ok()).unwrap_or(1 << 20);
            write!(out, "Content-Type: application/octet-stream\n\n")?;
            (0..bytes.div_ceil(1000)).try_for_each(|_| out.write_all(&[b'x'; 1000]))
        }
        "exit" => {
            writeln!(out, "Content-Type: text/plain\n\nhalf an answer")?;
            out.flush()?;
            std::process::exit(3)
        }
        "trap" => std::process::abort(),
        "env" => {
            let env: serde_json::Map<_, _> = std::env::vars().map(|(k, v)| (k, v.into())).collect();
            writeln!(out, "Content-Type: application/json\n\n{}", serde_json::Value::Object(env))
        }
        case => {
            let answer = match cases::run(case) {
                Ok(value) => json!({ "case": case, "ok": true, "value": value }),
                Err(error) => json!({ "case": case, "ok": false, "error": error }),
            };
            writeln!(out, "Content-Type: application/json\n\n{answer}")
        }
    }
}
