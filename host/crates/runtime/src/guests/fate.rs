use std::sync::atomic::{AtomicU8, Ordering};

const OPEN: u8 = 0;
const ENDED: u8 = 1;
const LATE: u8 = 2;

/// Who was first: the guest with its end, or the caller's 504. Both must tell the same story, the answer and the bill.
#[derive(Default)]
pub(crate) struct Fate(AtomicU8);

impl Fate {
    /// The guest has ended; false if the caller was told before that it was too late.
    pub(crate) fn end(&self) -> bool {
        self.decide(ENDED)
    }

    /// The caller shall be told that it is too late; false if the guest has ended and its answer is on the way.
    pub(crate) fn give_up(&self) -> bool {
        self.decide(LATE)
    }

    fn decide(&self, fate: u8) -> bool {
        self.0.compare_exchange(OPEN, fate, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_story() {
        let fate = Fate::default();
        assert!(fate.give_up());
        assert!(!fate.end());
        let fate = Fate::default();
        assert!(fate.end());
        assert!(!fate.give_up());
    }
}
