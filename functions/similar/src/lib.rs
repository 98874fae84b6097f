//! How similar two texts are in meaning: the cosine of their MiniLM sentence vectors.

mod embed;
#[cfg(test)]
mod golden;
mod tokens;

use serde::{Deserialize, Serialize};
use wasmeter_guest::nn::{Model, Tensor};
use wasmeter_guest::{Error, Request, Response, Result};

const USAGE: &str = "\
POST two texts as JSON, get their similarity, -1 to 1:
  curl --json '{\"a\": \"A cat sits on the mat.\", \"b\": \"A kitten rests on a rug.\"}' <this address>
  {\"similarity\":0.65}
Of each text the first 254 tokens count.
";

/// What the model was trained for, with begin and end mark.
const MAX_TOKENS: usize = 256;

/// Numbers in a sentence vector.
const WIDTH: usize = 384;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Question {
    a: String,
    b: String,
}

#[derive(Serialize)]
struct Answer {
    similarity: f32,
}

#[wasmeter_guest::handler]
fn handle(req: Request) -> Result<Response> {
    match req.method() {
        "POST" => {
            let question: Question = req.json()?;
            let similarity = similarity(&question)?;
            Response::json(&Answer { similarity })
        }
        "GET" | "HEAD" => Ok(Response::text(USAGE)),
        _ => Ok(Response::method_not_allowed(&["GET", "HEAD", "POST"])),
    }
}

/// Both texts go through the model as one batch: the mask keeps the longer from changing the shorter.
fn similarity(question: &Question) -> Result<f32> {
    let rows = [tokens::encode(&question.a, MAX_TOKENS), tokens::encode(&question.b, MAX_TOKENS)];
    let batch = embed::Batch::new(&rows);
    let shape = [rows.len(), batch.columns];
    let model = Model::load("minilm")?;
    let outputs = model.compute([
        ("input_ids", Tensor::i64(shape, &batch.ids)),
        ("attention_mask", Tensor::i64(shape, &batch.mask)),
        ("token_type_ids", Tensor::i64(shape, &vec![0; batch.ids.len()])),
    ])?;
    let states = outputs.f32("last_hidden_state")?;
    let text = batch.columns * WIDTH;
    if states.len() != rows.len() * text {
        let (got, want) = (states.len(), rows.len() * text);
        return Err(Error::internal(format!("the model minilm answered {got} numbers instead of {want}")));
    }
    let (a, b) = states.split_at(text);
    let [a, b] = [(a, &rows[0]), (b, &rows[1])].map(|(states, row)| embed::mean(states, WIDTH, row.len()));
    Ok(embed::dot(&a, &b))
}
