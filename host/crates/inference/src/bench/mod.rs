//! What batches of a model cost on its device, measured on the platform's account: for the card's `max-batch` and
//! `max-queue-delay`.
//!
//! Each run is an order of its own that the lane takes when nobody's compute waits, so that callers never stand
//! behind more than the one run that is under way.

mod advice;
mod input;
mod measure;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio::{
    sync::oneshot,
    time::{Instant, timeout_at},
};
use wasmeter_usage::DeviceClass;

use crate::{
    BackendError, BatchEntry, ComputeError, Handle, ModelKey,
    queue::{Full, Order},
    registry::Model,
};

pub use advice::Advice;
pub(crate) use measure::Measure;
use measure::Measured;

/// The most rows that a batch is measured with.
const MAX_ROWS: u32 = 1024;
/// The longest run; the device is ended then, as by a caller's deadline. Sizes that would come near are not tried.
const LONGEST: Duration = Duration::from_secs(5);
/// Runs of one size: at least, and at most.
const RUNS: (usize, usize) = (3, 50);
/// How long one size is measured, if its fewest runs take no longer.
const EACH: Duration = Duration::from_millis(700);

/// What to measure.
#[derive(Clone, Debug)]
pub struct BenchOptions {
    /// The model version.
    pub model: ModelKey,
    /// The largest batch, in rows; at most 1024.
    pub max_batch: u32,
    /// Sizes of free dimensions: by name, or as `input.axis` where they have none. The batch dimension is not one of them;
    /// one that the card pads is as large as the card allows, unless it is here.
    pub dimensions: BTreeMap<String, u32>,
    /// What inputs are filled with, by name. Without: 0.5, and 1 in integers.
    pub values: BTreeMap<String, f64>,
    /// When to end with what is known by then.
    pub within: Duration,
}

/// What batches of a model cost.
#[derive(Clone, Debug)]
pub struct Bench {
    /// The device.
    pub device: Arc<str>,
    /// Which meter its time belongs to.
    pub class: DeviceClass,
    /// Why there is nothing but batch 1: rows of the model cannot share a run.
    pub alone: Option<String>,
    /// Each input of one row: its name, type and dimensions.
    pub inputs: Vec<String>,
    /// Batch sizes, rising; never none.
    pub steps: Vec<BenchStep>,
    /// Why larger batches were not measured, though asked for.
    pub stopped: Option<String>,
    /// What the card should say.
    pub advice: Advice,
}

/// Runs with so many rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BenchStep {
    /// Rows in each run.
    pub rows: u32,
    /// How many runs.
    pub runs: usize,
    /// Busy time of the device in a run, nanoseconds.
    pub busy_ns: Spread,
    /// Time of a run on the clock, nanoseconds: what its callers wait.
    pub wall_ns: Spread,
}

/// Of several measurements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spread {
    /// The smallest.
    pub min: u64,
    /// The lower median.
    pub median: u64,
    /// The largest.
    pub max: u64,
}

impl Spread {
    /// None of no measurements.
    fn of(mut figures: Vec<u64>) -> Option<Self> {
        figures.sort_unstable();
        let median = *figures.get(figures.len().checked_sub(1)? / 2)?;
        Some(Self { min: *figures.first()?, median, max: *figures.last()? })
    }
}

impl BenchStep {
    /// Rows a second at the median.
    #[must_use]
    #[allow(clippy::cast_precision_loss, reason = "a rate for people")]
    pub fn rows_per_second(&self) -> f64 {
        f64::from(self.rows) * 1e9 / self.wall_ns.median.max(1) as f64
    }
}

impl Handle {
    /// Measures batches of 1, 2, 4… rows. All of the device's time is the platform's; nobody is charged.
    ///
    /// # Errors
    /// [`ComputeError`]: `InvalidArgument` where the sizes do not make an input, or the model refuses it;
    /// `Overloaded` where the device had no time.
    pub async fn bench(&self, options: BenchOptions) -> Result<Bench, ComputeError> {
        let end = Instant::now() + options.within;
        let key = &options.model;
        let model = self.inner.registry.get(key).ok_or_else(|| ComputeError::NotFound(key.clone()))?;
        let (signature, _entered) = self.enter(&model, end).await?;
        let alone = model.grouping.coupled();
        let inputs = input::one_row(&signature, &options, model.grouping.options(), alone.is_none())?;
        let named = signature.inputs.iter().zip(&inputs);
        let shown = named.map(|(port, t)| format!("{} {} {:?}", port.name, t.dtype(), t.dims())).collect();
        let row = BatchEntry { tenant: String::new(), inputs };
        let most = if alone.is_some() { 1 } else { options.max_batch.clamp(1, MAX_ROWS) };
        let (mut steps, mut stopped) = (Vec::<BenchStep>::new(), None);
        for rows in sizes(most) {
            if let Some(last) = steps.last() {
                // Twice the rows take no more than twice as long, but for what does not fit into a cache any more.
                let next = Duration::from_nanos(last.wall_ns.max.saturating_mul(3));
                if next > LONGEST {
                    stopped = Some(format!("a run of {rows} rows could take more than {LONGEST:?}"));
                    break;
                }
            }
            match step(&model, &row, rows, end).await {
                Ok(step) => steps.push(step),
                Err(error) if steps.is_empty() => return Err(error),
                Err(error) => {
                    stopped = Some(format!("{rows} rows: {error}"));
                    break;
                }
            }
        }
        let advice = advice::advise(&steps, alone.as_deref());
        let device = &model.device;
        let (class, device) = (device.class, Arc::clone(&device.name));
        Ok(Bench { device, class, alone, inputs: shown, steps, stopped, advice })
    }
}

/// 1, 2, 4… and the largest.
fn sizes(most: u32) -> impl Iterator<Item = u32> {
    (0..).map(|power| 1u32 << power).take_while(move |rows| *rows < most).chain([most])
}

/// Measures one size. Without enough runs by the end it is an error.
async fn step(
    model: &Arc<Model>,
    row: &BatchEntry,
    rows: u32,
    end: Instant,
) -> Result<BenchStep, ComputeError> {
    let entries: Arc<[BatchEntry]> = (0..rows).map(|_| row.clone()).collect();
    // The first run of a size prepares memory and kernels.
    run(model, &entries, end).await?;
    let began = Instant::now();
    let (mut busy, mut wall) = (Vec::new(), Vec::new());
    while wall.len() < RUNS.1 && (wall.len() < RUNS.0 || began.elapsed() < EACH) {
        let Measured { busy_ns, wall_ns } = run(model, &entries, end).await?;
        busy.push(busy_ns);
        wall.push(wall_ns);
    }
    let runs = wall.len();
    match (Spread::of(busy), Spread::of(wall)) {
        (Some(busy_ns), Some(wall_ns)) => Ok(BenchStep { rows, runs, busy_ns, wall_ns }),
        _ => Err(ComputeError::Overloaded(Arc::clone(&model.device.name))),
    }
}

/// One run, when the lane has nothing else to do.
async fn run(
    model: &Arc<Model>,
    entries: &Arc<[BatchEntry]>,
    end: Instant,
) -> Result<Measured, ComputeError> {
    let device = &model.device;
    let (reply, answer) = oneshot::channel();
    let measure = Measure { model: Arc::clone(model), entries: Arc::clone(entries), longest: LONGEST, reply };
    match device.queue.order(Order::Measure(measure)) {
        Ok(()) => {}
        Err(Full::Full) => return Err(ComputeError::Overloaded(Arc::clone(&device.name))),
        Err(Full::Closed) => return Err(ComputeError::Draining),
    }
    // A run that has begun is the lane's to end; one that waits is forgotten with its receiver.
    match timeout_at(end, answer).await {
        Ok(answer) => answer.unwrap_or(Err(ComputeError::Draining)),
        Err(_) => Err(ComputeError::Overloaded(Arc::clone(&device.name))),
    }
}

/// What a failed run means for the one who measures.
fn refusal(model: &Model, error: BackendError) -> ComputeError {
    ComputeError::from_backend(&model.device.name, &model.spec.key, error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_double_up_to_the_largest() {
        assert_eq!(sizes(1).collect::<Vec<_>>(), [1]);
        assert_eq!(sizes(8).collect::<Vec<_>>(), [1, 2, 4, 8]);
        assert_eq!(sizes(12).collect::<Vec<_>>(), [1, 2, 4, 8, 12]);
        assert_eq!(sizes(1024).last(), Some(1024));
    }

    #[test]
    fn a_spread_has_the_lower_median() {
        assert_eq!(Spread::of(vec![]), None);
        assert_eq!(Spread::of(vec![7]), Some(Spread { min: 7, median: 7, max: 7 }));
        assert_eq!(Spread::of(vec![9, 1, 5, 3]), Some(Spread { min: 1, median: 3, max: 9 }));
    }
}
