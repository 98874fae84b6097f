use std::{collections::HashMap, hash::Hash, time::Duration};

use parking_lot::Mutex;

/// Measurements of a shape that are kept.
const SAMPLES: usize = 9;
/// Measurements of a shape before its entries may share a run: the first one still pays for cold caches.
const ENOUGH: usize = 2;
/// Shapes of a model that are remembered; the one that was not asked for the longest goes first.
const SHAPES: usize = 1024;
/// What an entry of a model that never ran is thought to cost.
const UNKNOWN_NS: u64 = 1_000_000;

/// The dimensions of all inputs, in the model's order: for each its rank and its dimensions.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Shape(pub(crate) Box<[u32]>);

/// What an entry costs alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cost {
    pub(crate) ns: u64,
    /// Measured often enough to split a batch by it; else a guess, good for queueing only.
    pub(crate) calibrated: bool,
}

/// What the shapes of one model version cost on its device.
///
/// The cost of a shape is the lower median of its last nine runs alone. A median follows the machine where a
/// minimum would keep one lucky run for ever, and leaves out the cold first run; the lower one of an even
/// number errs in favour of the caller. Runs in company teach only how long a batch takes.
#[derive(Debug, Default)]
pub(crate) struct Calibration {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    shapes: Bounded<Shape, Samples>,
    times: Bounded<Box<[u32]>, Times>,
    /// The last run alone, as a guess for other shapes.
    last_ns: Option<u64>,
}

impl Calibration {
    /// What an entry of this shape costs alone.
    pub(crate) fn cost(&self, shape: &Shape) -> Cost {
        let mut state = self.state.lock();
        let guess = state.last_ns.unwrap_or(UNKNOWN_NS);
        match state.shapes.get(shape) {
            Some(samples) => Cost { ns: samples.cost, calibrated: samples.len >= ENOUGH },
            None => Cost { ns: guess, calibrated: false },
        }
    }

    /// An entry of this shape ran alone and took this much.
    pub(crate) fn alone(&self, shape: &Shape, busy_ns: u64) {
        let mut state = self.state.lock();
        state.last_ns = Some(busy_ns);
        state.shapes.entry(shape).add(busy_ns);
    }

    /// A batch of so many rows of a group took this long on the clock.
    pub(crate) fn ran(&self, group: &[u32], rows: u32, took: Duration) {
        let took = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.state.lock().times.entry(&group.into()).add(rows, took);
    }

    /// How long a batch of so many rows of a group will take; zero where nothing is known.
    pub(crate) fn expected(&self, group: &[u32], rows: u32) -> Duration {
        let mut state = self.state.lock();
        let times = state.times.map.get_mut(group);
        Duration::from_nanos(times.map_or(0, |(_, times)| times.of(rows)))
    }
}

#[derive(Debug, Default)]
struct Samples {
    ring: [u64; SAMPLES],
    next: usize,
    len: usize,
    cost: u64,
}

impl Samples {
    fn add(&mut self, ns: u64) {
        self.ring[self.next] = ns;
        self.next = (self.next + 1) % SAMPLES;
        self.len = (self.len + 1).min(SAMPLES);
        let mut sorted = self.ring;
        let sorted = &mut sorted[..self.len];
        sorted.sort_unstable();
        self.cost = sorted[(self.len - 1) / 2];
    }
}

/// Smoothed times of batches, by the power of two that their rows fill up to.
#[derive(Debug, Default)]
struct Times([u64; 12]);

impl Times {
    fn class(rows: u32) -> usize {
        usize::try_from(rows.max(1).next_power_of_two().trailing_zeros()).unwrap_or(0).min(11)
    }

    fn add(&mut self, rows: u32, ns: u64) {
        let time = &mut self.0[Self::class(rows)];
        *time = if *time == 0 { ns } else { *time - *time / 8 + ns / 8 };
    }

    /// Unknown sizes are as long as the next smaller one in proportion, which errs on the long side, or as
    /// long as the next larger one.
    fn of(&self, rows: u32) -> u64 {
        let class = Self::class(rows);
        let smaller = (0..=class).rev().find(|c| self.0[*c] > 0);
        if let Some(known) = smaller {
            return self.0[known].saturating_mul(1 << (class - known));
        }
        self.0[class..].iter().copied().find(|ns| *ns > 0).unwrap_or(0)
    }
}

/// A map that forgets what was not used for the longest.
#[derive(Debug)]
struct Bounded<K, V> {
    map: HashMap<K, (u64, V)>,
    clock: u64,
}

impl<K, V> Default for Bounded<K, V> {
    fn default() -> Self {
        Self { map: HashMap::new(), clock: 0 }
    }
}

impl<K: Clone + Eq + Hash, V: Default> Bounded<K, V> {
    fn get(&mut self, key: &K) -> Option<&V> {
        self.clock += 1;
        let (used, value) = self.map.get_mut(key)?;
        *used = self.clock;
        Some(value)
    }

    fn entry(&mut self, key: &K) -> &mut V {
        self.clock += 1;
        if self.map.len() >= SHAPES && !self.map.contains_key(key) {
            let oldest = self.map.iter().min_by_key(|(_, (used, _))| *used).map(|(key, _)| key.clone());
            if let Some(oldest) = oldest {
                self.map.remove(&oldest);
            }
        }
        let (used, value) = self.map.entry(key.clone()).or_default();
        *used = self.clock;
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(rows: u32) -> Shape {
        Shape([1, rows].into())
    }

    #[test]
    fn the_lower_median_of_the_last_runs_alone() {
        let calibration = Calibration::default();
        assert_eq!(calibration.cost(&shape(1)), Cost { ns: UNKNOWN_NS, calibrated: false });
        calibration.alone(&shape(1), 900);
        assert_eq!(calibration.cost(&shape(1)), Cost { ns: 900, calibrated: false });
        assert_eq!(calibration.cost(&shape(2)), Cost { ns: 900, calibrated: false }, "a guess");
        for (ns, cost) in [(100, 100), (110, 110), (90, 100), (120, 110)] {
            calibration.alone(&shape(1), ns);
            assert_eq!(calibration.cost(&shape(1)), Cost { ns: cost, calibrated: true });
        }
        for _ in 0..9 {
            calibration.alone(&shape(1), 50);
        }
        assert_eq!(calibration.cost(&shape(1)).ns, 50);
    }

    #[test]
    fn shapes_are_bounded_and_the_used_ones_stay() {
        let calibration = Calibration::default();
        calibration.alone(&shape(0), 7);
        calibration.alone(&shape(0), 7);
        for rows in 1..3_000 {
            calibration.alone(&shape(rows), 1);
            assert!(calibration.cost(&shape(0)).calibrated);
        }
        assert_eq!(calibration.state.lock().shapes.map.len(), SHAPES);
    }

    #[test]
    fn times_of_unknown_sizes_err_on_the_long_side() {
        let calibration = Calibration::default();
        assert_eq!(calibration.expected(&[3], 4), Duration::ZERO);
        calibration.ran(&[3], 1, Duration::from_millis(2));
        assert_eq!(calibration.expected(&[3], 8), Duration::from_millis(16));
        calibration.ran(&[3], 8, Duration::from_millis(3));
        assert_eq!(calibration.expected(&[3], 7), Duration::from_millis(3));
        assert_eq!(calibration.expected(&[3], 16), Duration::from_millis(6));
        assert_eq!(calibration.expected(&[4], 1), Duration::ZERO);
    }
}
