//! Names what a picture shows: the five best of ImageNet's thousand classes, by EfficientNet-lite0.

#[cfg(test)]
mod golden;
mod picture;
mod rank;

use serde::Serialize;
use wasmeter_guest::nn::{Model, Tensor};
use wasmeter_guest::{Error, Request, Response, Result};

const USAGE: &str = "\
POST a JPEG or PNG picture, get what it shows:
  curl --data-binary @cat.jpg <this address>
  {\"top\":[{\"label\":\"tabby, tabby cat\",\"index\":281,\"score\":0.6}, ...]}
At most 8 MiB and 12.5 million pixels.
";

/// How many classes are answered.
const TOP: usize = 5;

#[derive(Serialize)]
struct Answer {
    top: Vec<rank::Hit>,
}

#[wasmeter_guest::handler]
fn handle(req: Request) -> Result<Response> {
    match req.method() {
        "POST" => Response::json(&Answer { top: classify(req.body()?)? }),
        "GET" | "HEAD" => Ok(Response::text(USAGE)),
        _ => Ok(Response::method_not_allowed(&["GET", "HEAD", "POST"])),
    }
}

fn classify(bytes: &[u8]) -> Result<Vec<rank::Hit>> {
    let input = picture::input(bytes).map_err(|e| Error::bad_request(e.to_string()))?;
    let model = Model::load("efficientnet-lite0")?;
    let side = picture::SIDE;
    let outputs = model.compute([("images", Tensor::f32([1, 3, side, side], &input))])?;
    let logits = outputs.f32("logits")?;
    rank::best(&logits, TOP).ok_or_else(|| {
        let got = logits.len();
        Error::internal(format!(
            "the model efficientnet-lite0 answered {got} numbers, not one for each class"
        ))
    })
}
