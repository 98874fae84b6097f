//! Measurements of models for the control API.

use std::time::Duration;

use wasmeter_control::{Bench, BenchReport, BenchStep, Recommended, Spread};
use wasmeter_inference::{BenchOptions, ComputeError, Handle, ModelKey};
use wasmeter_types::{Error, ErrorKind, WallTime};

/// Measures a model version on its device.
pub(super) async fn bench(handle: &Handle, model: ModelKey, asked: &Bench) -> Result<BenchReport, Error> {
    let Bench { max_batch, dimensions, values, seconds } = asked.clone();
    let within = Duration::from_secs(seconds);
    let options = BenchOptions { model, max_batch, dimensions, values, within };
    let bench = handle.bench(options).await.map_err(|error| refusal(&error))?;
    let spread = |of: wasmeter_inference::Spread| Spread { min: of.min, median: of.median, max: of.max };
    let step = |step: &wasmeter_inference::BenchStep| BenchStep {
        rows: step.rows,
        runs: step.runs,
        busy_ns: spread(step.busy_ns),
        latency_ns: spread(step.wall_ns),
        rows_per_second: step.rows_per_second(),
    };
    Ok(BenchReport {
        device: bench.device.to_string(),
        alone: bench.alone,
        inputs: bench.inputs,
        steps: bench.steps.iter().map(step).collect(),
        stopped: bench.stopped,
        recommended: Recommended {
            max_batch: bench.advice.max_batch,
            max_queue_delay: WallTime(bench.advice.max_queue_delay).to_string(),
            reason: bench.advice.reason,
        },
    })
}

fn refusal(error: &ComputeError) -> Error {
    let text = error.to_string();
    match error {
        ComputeError::NotFound(_) => Error::not_found(),
        ComputeError::EngineMissing(_) | ComputeError::DeviceAway { .. } => {
            Error::new(ErrorKind::Unavailable, text)
        }
        ComputeError::Overloaded(_) | ComputeError::NoRoom(_) | ComputeError::Draining => {
            Error::new(ErrorKind::Overloaded, text)
        }
        ComputeError::Deadline { .. } => {
            Error::new(ErrorKind::Overloaded, "the model was not on its device in time; try again later")
        }
        ComputeError::DeviceLost { .. } => Error::new(
            ErrorKind::Invalid,
            format!(
                "{text}; a single row may take too long, or needs other inputs: give dimensions and values"
            ),
        ),
        ComputeError::InvalidArgument(_)
        | ComputeError::Quarantined(_)
        | ComputeError::Engine(_)
        | ComputeError::TooLarge(_) => Error::new(ErrorKind::Invalid, text),
    }
}
