//! Several computes under way at one time, by `wasmeter:nn/inflight`.
//!
//! | `?case=` | what it does |
//! |---|---|
//! | `ok` (default) | starts `?n=` (default 4) computes through `identity-f32`, each with its number, and takes them backwards |
//! | `leave` | starts `?n=` long ones (`slow`) and answers without waiting |
//! | `drop` | starts and drops 100, then computes one |
//! | `many` | starts as many as it gets |
//! | `bad` | one whose input the model does not take: the answer says so, not the start |
//! | `first` | starts a long one (`slow`, `?size=`, `?rounds=`) and says whether it was ready at once |

use serde_json::{Value, json};
use wasmeter_guest::nn::{Error, Model, Pending, Tensor};
use wasmeter_guest::{Request, Response, Result};

fn number(req: &Request, name: &str, default: i64) -> i64 {
    req.query_param(name).and_then(|n| n.parse().ok()).unwrap_or(default)
}

fn start(model: &Model, n: f32) -> Result<Pending, Error> {
    model.start([("x", Tensor::f32([1, 1], &[n]))])
}

fn slow(req: &Request) -> Result<Pending, Error> {
    let inputs = [
        ("size", Tensor::i64([1], &[number(req, "size", 512)])),
        ("rounds", Tensor::i64([1], &[number(req, "rounds", 2)])),
    ];
    Model::load("slow")?.start(inputs)
}

fn run(case: &str, req: &Request) -> Result<Value, Error> {
    let model = || Model::load("identity-f32");
    match case {
        "ok" => {
            let model = model()?;
            let n = i16::try_from(number(req, "n", 4)).unwrap_or(4);
            let mut pending = Vec::new();
            for i in 0..n {
                pending.push(start(&model, f32::from(i))?);
            }
            let mut values = Vec::new();
            while let Some(last) = pending.pop() {
                values.push(last.wait()?.single()?.values::<f32>()?[0]);
            }
            Ok(json!({ "values": values }))
        }
        "leave" => {
            let kept = (0..number(req, "n", 4)).map(|_| slow(req)).collect::<Result<Vec<_>, _>>()?;
            Ok(json!({ "started": kept.len() }))
        }
        "drop" => {
            let model = model()?;
            for _ in 0..100 {
                drop(start(&model, 1.0)?);
            }
            Ok(json!({ "values": start(&model, 2.0)?.wait()?.single()?.values::<f32>()? }))
        }
        "many" => {
            let mut kept = Vec::new();
            loop {
                match slow(req) {
                    Ok(one) => kept.push(one),
                    Err(e) => return Ok(json!({ "started": kept.len(), "code": e.code_name() })),
                }
            }
        }
        "bad" => {
            let pending = model()?.start([("nonsense", Tensor::f32([1, 1], &[0.0]))])?;
            pending.wait().map(|_| Value::Null)
        }
        "first" => {
            let mut pending = slow(req)?;
            let at_once = pending.is_ready();
            let outputs = pending.wait()?;
            Ok(json!({ "at-once": at_once, "outputs": outputs.names().count() }))
        }
        case => Ok(json!({ "no case": case })),
    }
}

#[wasmeter_guest::handler]
fn handle(req: Request) -> Result<Response> {
    let case = req.query_param("case").unwrap_or_else(|| "ok".to_owned());
    Response::json(&match run(&case, &req) {
        Ok(value) => json!({ "case": case, "ok": true, "value": value }),
        Err(e) => json!({ "case": case, "ok": false, "code": e.code_name(), "message": e.message() }),
    })
}
