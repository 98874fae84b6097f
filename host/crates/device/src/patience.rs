//! How long to look for a message before sleeping. A sleeper costs a wake-up, tens of microseconds on an idle core; one
//! who looks costs processor time. So whoever waits looks only while its last waits were short, and never for long.

use std::time::Duration;

/// What one wait teaches about the next.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    limit: Duration,
    /// Short waits of late, up to [`MOST`].
    short: u8,
}

const MOST: u8 = 4;

impl Patience {
    pub(crate) const fn new(limit: Duration) -> Self {
        Self { limit, short: 0 }
    }

    /// How long to look now; zero on an idle machine.
    pub(crate) fn look(&self) -> Duration {
        if self.short > 0 { self.limit } else { Duration::ZERO }
    }

    /// A wait is over. One that slept includes its wake-up, hence the doubt of twice the limit.
    pub(crate) fn waited(&mut self, time: Duration) {
        if time <= self.limit * 2 {
            self.short = (self.short + 1).min(MOST);
        } else if time > self.limit * 20 {
            // Idle: one vain look is enough.
            self.short = 0;
        } else {
            self.short = self.short.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_only_while_waits_are_short() {
        let us = Duration::from_micros;
        let mut patience = Patience::new(us(50));
        assert_eq!(patience.look(), Duration::ZERO);
        patience.waited(us(90));
        assert_eq!(patience.look(), us(50));
        for _ in 0..10 {
            patience.waited(us(5));
        }
        for _ in 0..4 {
            assert_eq!(patience.look(), us(50));
            patience.waited(us(300));
        }
        assert_eq!(patience.look(), Duration::ZERO);
        patience.waited(us(5));
        patience.waited(us(5000));
        assert_eq!(patience.look(), Duration::ZERO);
    }
}
