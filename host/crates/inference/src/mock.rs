//! A device of fixed speed, for tests and benchmarks only: the product never makes one.
//!
//! Its one model takes `x`, u8 `[batch, sequence]`, and gives `y`, `3 x + 1` of each element modulo 256, and
//! `sum`, the i64 sum of each row, `[batch, 1]`: rows that are mixed up, cut wrongly or padded with something
//! else than zeros are seen.

use std::{
    collections::HashSet,
    fs::File,
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex};
use wasmeter_usage::DeviceClass;

use crate::{
    Backend, BackendError, Batch, BatchOutput, Batching, DType, DeviceControl, Dim, Loaded, ModelKey,
    ModelSource, ModelSpec, Port, Signature, Tensor,
};

/// Busy time of a load.
pub const LOAD_NS: u64 = 50_000;

/// How fast the device is.
#[derive(Clone, Debug)]
pub struct MockOptions {
    /// Time of a batch, whatever is in it.
    pub batch: Duration,
    /// Time of each row on top.
    pub row: Duration,
    /// Whether runs take that time on the clock, or only say so.
    pub real: bool,
    /// What the gate says of the model.
    pub batching: Batching,
}

impl Default for MockOptions {
    /// 2 ms a batch, on the clock.
    fn default() -> Self {
        Self { batch: Duration::from_millis(2), row: Duration::ZERO, real: true, batching: Batching::Rows }
    }
}

/// What a run shall come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MockOutcome {
    /// It gives outputs.
    Outputs,
    /// The engine fails.
    Engine,
    /// The batch is too large for the device.
    TooLarge,
    /// The device dies in the middle.
    Lost,
    /// The device had died before.
    Died,
}

/// What the device has done so far.
#[derive(Clone, Debug, Default)]
pub struct MockStats {
    /// Runs that gave outputs.
    pub batches: u64,
    /// Entries in them.
    pub entries: u64,
    /// The most rows of one that had several entries.
    pub most_rows: u32,
    /// Busy time of runs and loads, whatever came of them.
    pub busy_ns: u64,
    /// Deaths.
    pub deaths: u64,
}

type Script = Box<dyn FnMut(&Batch<'_>) -> MockOutcome + Send>;

/// The device.
pub struct MockBackend {
    options: MockOptions,
    script: Script,
    shared: Arc<MockDevice>,
    loaded: HashSet<ModelKey>,
}

/// The device as other threads see it.
#[derive(Default)]
pub struct MockDevice {
    state: Mutex<State>,
    wake: Condvar,
}

#[derive(Default)]
struct State {
    stats: MockStats,
    current: Option<(u64, Instant)>,
    interrupted: bool,
    stopped: bool,
}

impl MockDevice {
    /// What was done so far.
    #[must_use]
    pub fn stats(&self) -> MockStats {
        self.state.lock().stats.clone()
    }
}

impl DeviceControl for MockDevice {
    fn interrupt(&self, run: u64) {
        let mut state = self.state.lock();
        state.interrupted |= state.current.is_some_and(|(current, _)| current == run);
        drop(state);
        self.wake.notify_all();
    }

    fn busy_ns(&self, run: u64) -> u64 {
        let state = self.state.lock();
        let current = state.current.filter(|(current, _)| *current == run);
        current.map_or(0, |(_, began)| nanos(began.elapsed()))
    }

    fn shut_down(&self) {
        self.state.lock().stopped = true;
        self.wake.notify_all();
    }
}

impl MockBackend {
    /// A device whose runs all succeed.
    #[must_use]
    pub fn new(options: MockOptions) -> Self {
        Self::scripted(options, |_| MockOutcome::Outputs)
    }

    /// A device whose runs come to what the script says.
    #[must_use]
    pub fn scripted(
        options: MockOptions,
        script: impl FnMut(&Batch<'_>) -> MockOutcome + Send + 'static,
    ) -> Self {
        Self { options, script: Box::new(script), shared: Arc::default(), loaded: HashSet::new() }
    }

    /// The device as other threads see it.
    #[must_use]
    pub fn device(&self) -> Arc<MockDevice> {
        Arc::clone(&self.shared)
    }

    /// Lets the time of a run pass. Returns its busy time, and whether it was interrupted.
    fn work(&self, run: u64, rows: u32) -> (u64, bool) {
        let due = self.options.batch + self.options.row * rows;
        if !self.options.real {
            return (nanos(due), false);
        }
        let began = Instant::now();
        let mut state = self.shared.state.lock();
        state.current = Some((run, began));
        state.interrupted = false;
        while !state.interrupted && !state.stopped {
            if self.shared.wake.wait_until(&mut state, began + due).timed_out() {
                break;
            }
        }
        state.current = None;
        (nanos(began.elapsed()), state.interrupted || state.stopped)
    }
}

impl Backend for MockBackend {
    fn class(&self) -> DeviceClass {
        DeviceClass::Cpu
    }

    fn control(&self) -> Arc<dyn DeviceControl> {
        self.device()
    }

    fn load(&mut self, spec: &ModelSpec, _: File) -> Result<Loaded, BackendError> {
        self.loaded.insert(spec.key.clone());
        self.shared.state.lock().stats.busy_ns += LOAD_NS;
        Ok(Loaded { signature: signature(), batching: self.options.batching.clone(), busy_ns: LOAD_NS })
    }

    fn unload(&mut self, key: &ModelKey) {
        self.loaded.remove(key);
    }

    fn run(&mut self, batch: Batch<'_>) -> Result<BatchOutput, BackendError> {
        let outcome = (self.script)(&batch);
        if outcome == MockOutcome::Died {
            self.loaded.clear();
        }
        if !self.loaded.contains(batch.model) {
            return Err(BackendError::NotLoaded);
        }
        let rows = batch.entries.iter().map(|entry| entry.inputs[0].dims()[0]).sum();
        let (busy_ns, interrupted) = self.work(batch.run, rows);
        let mut state = self.shared.state.lock();
        state.stats.busy_ns += busy_ns;
        let message = format!("mock device: {outcome:?}");
        match outcome {
            _ if interrupted => {}
            MockOutcome::Engine => return Err(BackendError::Engine { message, busy_ns }),
            MockOutcome::TooLarge => return Err(BackendError::TooLarge { message, busy_ns }),
            MockOutcome::Outputs => {
                state.stats.batches += 1;
                state.stats.entries += batch.entries.len() as u64;
                if batch.entries.len() > 1 {
                    state.stats.most_rows = state.stats.most_rows.max(rows);
                }
                drop(state);
                let entries = batch.entries.iter().map(|entry| outputs(&entry.inputs[0]));
                return Ok(BatchOutput { entries: entries.collect::<Result<_, _>>()?, busy_ns });
            }
            MockOutcome::Lost | MockOutcome::Died => {}
        }
        state.stats.deaths += 1;
        drop(state);
        self.loaded.clear();
        Err(BackendError::Lost { message, busy_ns })
    }
}

fn signature() -> Signature {
    let named = |name: &str| Dim::Named(name.to_owned());
    let port = |name: &str, dtype, second| Port {
        name: name.to_owned(),
        dtype,
        dims: Some(vec![named("batch"), second]),
    };
    Signature {
        inputs: vec![port("x", DType::U8, named("sequence"))],
        outputs: vec![port("y", DType::U8, named("sequence")), port("sum", DType::I64, Dim::Fixed(1))],
    }
}

/// What the model gives for `x`.
///
/// # Errors
/// [`BackendError::InvalidInput`] where `x` has other than two dimensions.
pub fn outputs(x: &Tensor) -> Result<Vec<Tensor>, BackendError> {
    let wrong = |message: String| BackendError::InvalidInput { message, busy_ns: 0 };
    let [rows, width] = *x.dims() else { return Err(wrong(format!("x has dimensions {:?}", x.dims()))) };
    let y: Vec<u8> = x.data().iter().map(|byte| byte.wrapping_mul(3).wrapping_add(1)).collect();
    let rows_of_x = x.data().chunks_exact((width as usize).max(1));
    let sums = rows_of_x.flat_map(|row| row.iter().map(|byte| i64::from(*byte)).sum::<i64>().to_le_bytes());
    let made = Tensor::new(DType::U8, vec![rows, width], y)
        .and_then(|y| Ok(vec![y, Tensor::new(DType::I64, vec![rows, 1], sums.collect::<Vec<u8>>())?]));
    made.map_err(|error| wrong(error.to_string()))
}

/// Model files for a device that never reads them.
pub struct MockSource;

impl ModelSource for MockSource {
    fn open(&self, _: &ModelKey) -> io::Result<File> {
        File::open("/dev/null")
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
