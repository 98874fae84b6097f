//! One model call and little around it, for `deploy/bench`.
//!
//! | path | body | answer |
//! |---|---|---|
//! | `/embed` | token numbers of one text, i64, little-endian | its MiniLM sentence vector, 384 f32 |
//! | `/mlp` | `{"input":[784 numbers]}` | `{"output":[10 numbers]}`, of the model `mlp` |
//! | `/json` | the same | its first 10 numbers, of no model: what the call takes without one |
//! | `/mock` | bytes | the outputs `y` and `sum` of the mock device's model for one row, one behind the other |

use serde::Serialize;
use wasmeter_guest::json::numbers;
use wasmeter_guest::nn::{Model, Tensor, TensorType};
use wasmeter_guest::{Error, Request, Response, Result};

const WIDTH: usize = 384;

#[wasmeter_guest::handler]
fn handle(req: Request) -> Result<Response> {
    let answer = match req.path() {
        "/embed" => embed(req.body()?)?,
        "/mlp" => return Ok(Response::bytes("application/json", mlp(req.body()?)?)),
        "/json" => return Ok(Response::bytes("application/json", json(req.body()?)?)),
        "/mock" => mock(req.body()?)?,
        path => return Err(Error::bad_request(format!("no {path} here: /embed, /mlp, /json or /mock"))),
    };
    Ok(Response::bytes("application/octet-stream", answer))
}

fn embed(ids: &[u8]) -> Result<Vec<u8>> {
    let tokens = ids.len() / 8;
    if tokens == 0 || !ids.len().is_multiple_of(8) {
        return Err(Error::bad_request(format!("{} bytes are no i64 numbers of tokens", ids.len())));
    }
    let shape = [1, tokens];
    let outputs = Model::load("minilm")?.compute([
        ("input_ids", Tensor::raw(shape, TensorType::I64, ids.to_vec())),
        ("attention_mask", Tensor::i64(shape, &vec![1; tokens])),
        ("token_type_ids", Tensor::i64(shape, &vec![0; tokens])),
    ])?;
    let states = outputs.f32("last_hidden_state")?;
    let mut sum = [0f32; WIDTH];
    for state in states.chunks_exact(WIDTH) {
        for (sum, value) in sum.iter_mut().zip(state) {
            *sum += value;
        }
    }
    let length = sum.iter().map(|value| value * value).sum::<f32>().sqrt().max(f32::MIN_POSITIVE);
    Ok(sum.iter().flat_map(|value| (value / length).to_le_bytes()).collect())
}

#[derive(Serialize)]
struct Scores {
    output: Vec<f32>,
}

fn mlp(body: &[u8]) -> Result<Vec<u8>> {
    let input = numbers::<f32>(body, "input")?;
    let outputs = Model::load("mlp")?.compute([("x", Tensor::f32([1, input.len()], &input))])?;
    Ok(serde_json::to_vec(&Scores { output: outputs.f32("y")? })?)
}

fn json(body: &[u8]) -> Result<Vec<u8>> {
    let mut input = numbers::<f32>(body, "input")?;
    input.truncate(10);
    Ok(serde_json::to_vec(&Scores { output: input })?)
}

fn mock(bytes: &[u8]) -> Result<Vec<u8>> {
    let outputs = Model::load("mock")?.compute([("x", Tensor::u8([1, bytes.len()], bytes))])?;
    let mut answer = outputs.get("y")?.data().to_vec();
    answer.extend_from_slice(outputs.get("sum")?.data());
    Ok(answer)
}
