//! What figures mean for a model's card.

use std::time::Duration;

use crate::bench::BenchStep;

/// A batch that is within this part of the best throughput is as good: smaller ones keep answers early.
const GOOD: f64 = 0.95;
/// A batch that gains less over single rows is not worth a card's line.
const WORTH: f64 = 1.1;
/// Waiting pays only where a second row costs next to nothing.
const CHEAP_ROW: f64 = 1.25;
/// And where batches gain as much.
const GAIN: f64 = 2.;
/// The longest advised delay.
const MOST: Duration = Duration::from_millis(5);

/// What a card should say under `[batching]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advice {
    /// The smallest batch with all but the whole of the best throughput.
    pub max_batch: u32,
    /// How long a free device should wait for company.
    pub max_queue_delay: Duration,
    /// Why.
    pub reason: String,
}

/// Reads the figures; `alone` says why the rows of the model cannot share a run.
pub(super) fn advise(steps: &[BenchStep], alone: Option<&str>) -> Advice {
    let off = |reason: String| Advice { max_batch: 1, max_queue_delay: Duration::ZERO, reason };
    if let Some(why) = alone {
        return off(format!("rows of this model cannot share a run: {why}"));
    }
    let Some(one) = steps.first() else { return off("nothing was measured".to_owned()) };
    let best = steps.iter().map(BenchStep::rows_per_second).fold(0., f64::max);
    let good = steps.iter().find(|step| step.rows_per_second() >= GOOD * best).unwrap_or(one);
    let gain = good.rows_per_second() / one.rows_per_second();
    if good.rows == 1 || gain < WORTH {
        let most = steps.last().map_or(1, |step| step.rows);
        return off(format!(
            "no batch up to {most} rows gives {:.0} % more rows a second than single rows do",
            (WORTH - 1.) * 100.
        ));
    }
    let second = steps.get(1).map_or(f64::INFINITY, |two| ratio(two.wall_ns.median, one.wall_ns.median));
    // In whole milliseconds, as a card says it.
    let quarter = Duration::from_millis(one.wall_ns.median / 4_000_000).min(MOST);
    let (max_queue_delay, delay) = if second <= CHEAP_ROW && gain >= GAIN && !quarter.is_zero() {
        (
            quarter,
            "a second row costs next to nothing, so a free device may wait a quarter of a single run for it",
        )
    } else {
        (Duration::ZERO, "under load batches fill while the device is busy, so a free device need not wait")
    };
    let reason = format!(
        "{} rows together give {gain:.1} times the rows a second of single rows, at {:.1} times the latency; larger ones gain hardly more; {delay}",
        good.rows,
        ratio(good.wall_ns.median, one.wall_ns.median),
    );
    Advice { max_batch: good.rows, max_queue_delay, reason }
}

#[allow(clippy::cast_precision_loss, reason = "a ratio for people")]
fn ratio(a: u64, b: u64) -> f64 {
    a as f64 / b.max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::Spread;

    fn steps(medians: &[(u32, u64)]) -> Vec<BenchStep> {
        let spread = |median| Spread { min: median, median, max: median };
        let step = |(rows, us): &(u32, u64)| BenchStep {
            rows: *rows,
            runs: 5,
            busy_ns: spread(us * 1000),
            wall_ns: spread(us * 1000),
        };
        medians.iter().map(step).collect()
    }

    #[test]
    fn the_smallest_batch_that_is_as_good_as_the_best() {
        let gpu = advise(&steps(&[(1, 8000), (2, 8400), (4, 9200), (8, 11_600), (16, 22_800)]), None);
        assert_eq!((gpu.max_batch, gpu.max_queue_delay), (8, Duration::from_millis(2)));
        let quick = advise(&steps(&[(1, 800), (2, 840), (4, 920), (8, 1160)]), None);
        assert_eq!((quick.max_batch, quick.max_queue_delay), (8, Duration::ZERO));
        assert!(
            gpu.reason.contains("5.5 times the rows") && gpu.reason.contains("1.4 times"),
            "{}",
            gpu.reason
        );
        let some = advise(&steps(&[(1, 1000), (2, 1600), (4, 2800), (8, 5600)]), None);
        assert_eq!((some.max_batch, some.max_queue_delay), (4, Duration::ZERO));
        let slow = advise(&steps(&[(1, 60_000), (2, 61_000), (4, 62_000)]), None);
        assert_eq!((slow.max_batch, slow.max_queue_delay), (4, MOST));
    }

    #[test]
    fn batches_that_gain_nothing_are_off() {
        let none = advise(&steps(&[(1, 1000), (2, 1950), (4, 3900), (8, 8000)]), None);
        assert_eq!((none.max_batch, none.max_queue_delay), (1, Duration::ZERO));
        assert!(none.reason.contains("up to 8 rows"), "{}", none.reason);
        let coupled = advise(&steps(&[(1, 1000)]), Some("a scale over the batch"));
        assert_eq!(coupled.max_batch, 1);
        assert!(coupled.reason.contains("a scale over the batch"));
    }
}
