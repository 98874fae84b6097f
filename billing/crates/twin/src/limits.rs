use std::collections::HashSet;
use std::time::Instant;

/// Requests that were let through within the last second, by the machine's clock: a limit of rate is about the load on
/// a server, whatever time the twin shows.
#[derive(Debug)]
pub(crate) struct Rate {
    tokens: f64,
    last: Instant,
}

impl Rate {
    pub(crate) fn new() -> Self {
        Self { tokens: f64::MAX, last: Instant::now() }
    }

    /// Lets one through if that keeps to `per_second`.
    pub(crate) fn take(&mut self, per_second: i64, now: Instant) -> bool {
        let rate = per_second.max(1) as f64;
        let gone = now.saturating_duration_since(self.last).as_secs_f64();
        self.last = now;
        self.tokens = gone.mul_add(rate, self.tokens).min(rate);
        if self.tokens < 1.0 {
            return false;
        }
        self.tokens -= 1.0;
        true
    }
}

/// What is being worked on: idempotency keys, and customers' meters, of which each takes one call at a time.
#[derive(Debug, Default)]
pub(crate) struct Lanes(HashSet<String>);

impl Lanes {
    /// Takes a lane, if nobody is in it.
    pub(crate) fn enter(&mut self, lane: &str) -> bool {
        self.0.insert(lane.to_owned())
    }

    pub(crate) fn leave(&mut self, lane: &str) {
        self.0.remove(lane);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_second_lets_through_what_it_may() {
        let start = Instant::now();
        let mut rate = Rate { tokens: f64::MAX, last: start };
        let taken = |rate: &mut Rate, at: u64| {
            (0..50).filter(|_| rate.take(10, start + Duration::from_millis(at))).count()
        };
        assert_eq!((taken(&mut rate, 0), taken(&mut rate, 500), taken(&mut rate, 9000)), (10, 5, 10));
    }
}
