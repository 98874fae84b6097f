//! Uses wasi-nn directly, rightly and wrongly: `?case=` says how, `?model=` overrides the model of the case.
//!
//! The answer is always 200 with JSON, `{"case", "ok", "step", "code", "message", "outputs"}`, so that a test sees
//! the error that the guest saw. `?sleep=` waits so many milliseconds first, `?repeat=` computes several times,
//! `/status` answers 502 instead of 200 when a step failed.
//!
//! | case | model | what it does |
//! |---|---|---|
//! | `ok` (default) | `mlp` | one row of 784 zeros |
//! | `echo` | `identity-f32` | the numbers of the body (JSON list) there and back |
//! | `any` | `identity-f32` | the tensors of the body, `[[name, "f32" or "i64", dimensions, values], …]`, null for NaN |
//! | `all-types` | `identity-*` | every element type there and back, compared bit by bit |
//! | `slow` | `slow` | a matrix product of `?size=` (default 4096), `?rounds=` times (default 2): about 2 s |
//! | `wrong-shape` | `mlp` | 783 columns |
//! | `wrong-rank` | `mlp` | three dimensions |
//! | `wrong-type` | `mlp` | I64 instead of FP32 |
//! | `short-bytes` | `mlp` | three bytes of data |
//! | `long-bytes` | `mlp` | one element too many |
//! | `unknown-input` | `mlp` | an input called `nonsense` |
//! | `no-input` | `mlp` | no inputs at all |
//! | `twice-named` | `mlp` | the input twice |
//! | `zero-rows` | `mlp` | a batch of 0 |
//! | `overflow` | `mlp` | dimensions whose product does not fit in 64 bits |
//! | `huge` | `identity-f32` | really so many `?bytes=` of data (default 64 MiB) |
//! | `many-tensors` | none | makes `?count=` tensors (default 100,000) and keeps them |
//! | `ramp` | `mlp` | one row of 0/784, 1/784, ... |
//! | `pair` | `pair` | one row for each of the two inputs |
//! | `pair-rows` | `pair` | two rows |
//! | `pair-turned` | `pair` | the inputs in the other order |
//! | `pair-index` | `pair` | the inputs called `0` and `1` |
//! | `pair-missing` | `pair` | one input only |
//! | `pair-crossed`, `pair-uneven` | `pair` | each input in the other's place, two rows and one |
//! | `pair-again`, `pair-contexts` | `pair` | three computes on one context, on two contexts |
//! | `pair-after-error` | `pair` | a compute after one that failed, on the same context |
//! | `load` | none | `load` with bytes that are no model |
//! | `load-ir`, `load-nothing`, `load-tpu`, `load-tensorflow`, `load-auto` | none | two parts, none, other targets and encodings |
//! | `by-name` | `nobody-has-this` | a name that does not exist |

mod cases;
mod pair;
mod step;

use serde_json::{Value, json};
use wasmeter_guest::raw::wasi::clocks::monotonic_clock::subscribe_duration;
use wasmeter_guest::{Error, Request, Response, Result};

use cases::Query;

#[wasmeter_guest::handler]
fn handle(req: Request) -> Result<Response> {
    let query = Query { req: &req };
    let case = query.text("case").unwrap_or_else(|| "ok".to_owned());
    let sleep = query.number("sleep", 0)?;
    if sleep > 0 {
        subscribe_duration(sleep.saturating_mul(1_000_000)).block();
    }
    let mut outcome = Ok(Value::Null);
    for _ in 0..query.number("repeat", 1)? {
        outcome = match cases::run(&case, &query)? {
            Some(outcome) => outcome,
            None => return Err(Error::bad_request(format!("no case {case:?}"))),
        };
    }
    let failed = outcome.is_err();
    let answer = match outcome {
        Ok(outputs) => json!({ "case": case, "ok": true, "outputs": outputs }),
        Err(e) => json!({ "case": case, "ok": false, "step": e.step, "code": e.code, "message": e.message }),
    };
    let answer = Response::json(&answer)?;
    Ok(if failed && req.path() == "/status" { answer.with_status(502) } else { answer })
}
