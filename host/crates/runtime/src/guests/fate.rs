use std::sync::atomic::{AtomicU8, Ordering};

/// What the caller was told before the guest's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    /// That the function is not ready: its guest had not begun, so it never does.
    Unready,
    /// That the guest is late.
    Late,
}

const LOADING: u8 = 0;
const RUNNING: u8 = 1;
const ENDED: u8 = 2;
const UNREADY: u8 = 3;
const LATE: u8 = 4;

/// Who was first: the guest with its end, or the caller's error. Both must tell the same story, the answer and the bill.
pub(crate) struct Fate(AtomicU8);

impl Fate {
    /// Of a call whose component is there, or must be loaded first.
    pub(crate) fn of(loaded: bool) -> Self {
        Self(AtomicU8::new(if loaded { RUNNING } else { LOADING }))
    }

    /// The component is there; false if the caller was told before that it is not.
    pub(crate) fn begin(&self) -> bool {
        self.decide(|now| (now == LOADING).then_some(RUNNING)) != UNREADY
    }

    /// It is over: what the caller was told before, if anything.
    pub(crate) fn end(&self) -> Option<Told> {
        match self.decide(|now| (now <= RUNNING).then_some(ENDED)) {
            UNREADY => Some(Told::Unready),
            LATE => Some(Told::Late),
            _ => None,
        }
    }

    /// The caller shall wait no longer: what it is to be told; nothing if an answer is on the way.
    pub(crate) fn give_up(&self) -> Option<Told> {
        let next = |now| match now {
            LOADING => Some(UNREADY),
            RUNNING => Some(LATE),
            _ => None,
        };
        match self.decide(next) {
            LOADING => Some(Told::Unready),
            RUNNING => Some(Told::Late),
            _ => None,
        }
    }

    /// What it was before.
    fn decide(&self, next: impl Fn(u8) -> Option<u8>) -> u8 {
        self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, next).unwrap_or_else(|now| now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_story() {
        let fate = Fate::of(true);
        assert_eq!(fate.give_up(), Some(Told::Late));
        assert_eq!(fate.end(), Some(Told::Late));
        let fate = Fate::of(true);
        assert_eq!(fate.end(), None);
        assert_eq!(fate.give_up(), None);
    }

    #[test]
    fn nobody_is_late_who_had_not_begun() {
        let fate = Fate::of(false);
        assert_eq!(fate.give_up(), Some(Told::Unready));
        assert!(!fate.begin());
        assert_eq!(fate.end(), Some(Told::Unready));
        let fate = Fate::of(false);
        assert!(fate.begin());
        assert_eq!(fate.give_up(), Some(Told::Late));
        assert_eq!(fate.end(), Some(Told::Late));
    }
}
