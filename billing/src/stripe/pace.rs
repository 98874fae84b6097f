/// Failures one after another that stop the flow.
const TRIP: u32 = 4;

const MILLI: u64 = 1_000_000;
const SECOND: u64 = 1_000_000_000;

/// First and longest pause.
const PAUSES: (u64, u64) = (500 * MILLI, 60 * SECOND);

/// How many calls may begin: a rate over all lanes, and hardly any while Stripe does not answer. Pure: times are
/// nanoseconds of one clock.
#[derive(Debug)]
pub(crate) struct Pace {
    rate: u32,
    /// Calls that may begin, in billionths.
    room: u64,
    filled_ns: u64,
    failures: u32,
    paused_until_ns: u64,
}

impl Pace {
    /// `rate` calls a second, and as many at once after a second of rest.
    pub(crate) fn new(rate: u32, now_ns: u64) -> Self {
        Self { rate, room: 0, filled_ns: now_ns, failures: 0, paused_until_ns: 0 }
    }

    /// How many calls may begin now.
    pub(crate) fn room(&mut self, under_way: usize, now_ns: u64) -> usize {
        let passed = now_ns.saturating_sub(self.filled_ns).min(SECOND);
        self.filled_ns = now_ns;
        let most = u64::from(self.rate) * SECOND;
        self.room = self.room.saturating_add(passed * u64::from(self.rate)).min(most);
        if now_ns < self.paused_until_ns {
            return 0;
        }
        let room = usize::try_from(self.room / SECOND).unwrap_or(usize::MAX);
        // One at a time finds out whether it is over.
        if self.failures >= TRIP { room.min(1usize.saturating_sub(under_way)) } else { room }
    }

    /// So many begin.
    pub(crate) fn begin(&mut self, calls: usize) {
        self.room = self.room.saturating_sub(calls as u64 * SECOND);
    }

    /// One was answered.
    pub(crate) fn answered(&mut self) {
        self.failures = 0;
    }

    /// One failed, or was told to come later.
    pub(crate) fn failed(&mut self, asked_ns: Option<u64>, now_ns: u64) {
        self.failures = self.failures.saturating_add(1);
        let own = if self.failures >= TRIP {
            (PAUSES.0 << (self.failures - TRIP).min(20)).min(PAUSES.1)
        } else {
            0
        };
        let pause = own.max(asked_ns.unwrap_or(0).min(PAUSES.1));
        self.paused_until_ns = self.paused_until_ns.max(now_ns.saturating_add(pause));
    }

    /// Whether Stripe is taken to be away.
    pub(crate) fn is_away(&self) -> bool {
        self.failures >= TRIP
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_rate() {
        let mut pace = Pace::new(100, 0);
        assert_eq!(pace.room(0, 0), 0);
        assert_eq!(pace.room(0, SECOND / 2), 50);
        pace.begin(50);
        assert_eq!(pace.room(0, SECOND / 2), 0);
        // Rest is not saved up for longer than a second.
        assert_eq!(pace.room(0, 500 * SECOND), 100);
    }

    #[test]
    fn stops_and_probes_one_at_a_time() {
        let mut pace = Pace::new(100, 0);
        for _ in 0..TRIP - 1 {
            pace.failed(None, SECOND);
        }
        assert!(!pace.is_away() && pace.room(0, SECOND) == 100);
        pace.failed(None, SECOND);
        assert!(pace.is_away());
        assert_eq!(pace.room(0, SECOND), 0);
        assert_eq!(pace.room(0, SECOND + PAUSES.0), 1);
        assert_eq!(pace.room(1, SECOND + PAUSES.0), 0);
        for _ in 0..40 {
            pace.failed(None, 2 * SECOND);
        }
        assert_eq!(pace.room(0, 62 * SECOND - 1), 0);
        assert_eq!(pace.room(0, 62 * SECOND), 1);
        pace.answered();
        assert_eq!(pace.room(0, 62 * SECOND), 100);
        pace.failed(Some(3 * SECOND), 70 * SECOND);
        assert_eq!((pace.room(0, 71 * SECOND), pace.room(0, 73 * SECOND)), (0, 100));
    }
}
