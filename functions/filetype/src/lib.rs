//! Says what type of file the posted bytes are, by the magika model.

mod decide;
mod features;
#[cfg(test)]
mod golden;
mod kinds;

use serde::Serialize;
use wasmeter_guest::nn::{Model, Tensor};
use wasmeter_guest::{Error, Request, Response, Result};

const USAGE: &str = "\
POST any bytes, get their file type:
  curl --data-binary @photo.jpg <this address>
  {\"label\":\"jpeg\",\"description\":\"JPEG image data\",\"mime\":\"image/jpeg\",\"score\":0.99}
";

/// The answer.
#[derive(Debug, Serialize)]
struct Answer {
    label: &'static str,
    description: &'static str,
    mime: &'static str,
    /// How sure the model is, 0 to 1; 1 where no model was needed.
    score: f32,
}

#[wasmeter_guest::handler]
fn handle(req: Request) -> Result<Response> {
    match req.method() {
        "POST" => {
            let bytes = req.body()?;
            let (kind, score) = match decide::without_model(bytes) {
                Some(kind) => (kind, 1.0),
                None => ask_model(bytes)?,
            };
            let kinds::Kind { label, description, mime, .. } = kinds::KINDS[kind];
            Response::json(&Answer { label, description, mime, score })
        }
        "GET" | "HEAD" => Ok(Response::text(USAGE)),
        _ => Ok(Response::method_not_allowed(&["GET", "HEAD", "POST"])),
    }
}

/// The model's answer: an index into `KINDS`, and the score of the model's best class.
fn ask_model(bytes: &[u8]) -> Result<(usize, f32)> {
    let features = features::features(bytes);
    let model = Model::load("magika")?;
    let outputs = model.compute([("bytes", Tensor::i32([1, features.len()], &features))])?;
    let scores = outputs.f32("target_label")?;
    decide::by_scores(&scores).ok_or_else(|| {
        let (got, want) = (scores.len(), kinds::CLASSES.len());
        Error::internal(format!("the model magika answered {got} scores, this function knows {want} classes"))
    })
}
