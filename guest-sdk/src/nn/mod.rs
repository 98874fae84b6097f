//! Models, by `wasi:nn`.
//!
//! ```no_run
//! # fn run(tokens: &[i64]) -> Result<(), wasmeter_guest::nn::Error> {
//! use wasmeter_guest::nn::{Model, Tensor};
//!
//! let model = Model::load("minilm")?;
//! let outputs = model.compute([("input_ids", Tensor::i64([1, tokens.len()], tokens))])?;
//! let state: Vec<f32> = outputs.f32("last_hidden_state")?;
//! # Ok(())
//! # }
//! ```

mod error;
mod model;
mod tensor;

pub use error::{Error, ErrorCode};
pub use model::{Model, Outputs, Pending};
pub use tensor::{Dimensions, Element, Tensor, TensorType};
