//! What follows from an attempt. Pure: times are nanoseconds since the Unix epoch.

use std::fmt;

const SECOND: u64 = 1_000_000_000;
const HOUR_NS: u64 = 3_600 * SECOND;

/// How long after the first attempt that may have arrived the same identifier may be sent again. Stripe remembers
/// identifiers for at least 24 hours and promises no more.
pub const SAFE_NS: u64 = 23 * HOUR_NS;

/// Stripe counts events with a delay: only this long after the last attempt do its sums prove an absence.
pub(super) const COUNTED_AFTER: u64 = HOUR_NS;

/// Waits between attempts double from the first to the last of these.
const WAITS: (u64, u64) = (2 * SECOND, 600 * SECOND);

/// What is known of one attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attempted {
    /// Stripe has it, from this attempt or an earlier one.
    Delivered,
    /// Stripe does not have it from this attempt, and may take it after so many nanoseconds.
    Later(Option<u64>),
    /// Stripe has it or not.
    Unknown,
    /// Stripe does not want it.
    Refused,
}

/// States of a closed bucket that an attempt can lead to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Ready,
    Delivered,
    Parked,
    Refused,
}

impl State {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            State::Ready => "ready",
            State::Delivered => "delivered",
            State::Parked => "parked",
            State::Refused => "refused",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Where a bucket stands after an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Next {
    pub(super) state: State,
    pub(super) due_ns: u64,
    /// Until when it may be sent again as it is; only while an attempt may have arrived.
    pub(super) resend_until_ns: Option<u64>,
}

/// After an attempt that began at `began_ns`, of a bucket of which an earlier attempt may have arrived if it has a
/// `resend_until_ns`.
pub(super) fn after(
    attempt: &Attempted,
    began_ns: u64,
    attempts: u32,
    resend_until_ns: Option<u64>,
    now_ns: u64,
) -> Next {
    match (attempt, resend_until_ns) {
        (Attempted::Delivered, _) => {
            Next { state: State::Delivered, due_ns: u64::MAX >> 1, resend_until_ns: None }
        }
        (Attempted::Refused, None) => {
            Next { state: State::Refused, due_ns: u64::MAX >> 1, resend_until_ns: None }
        }
        // Refused as it is now, for being old for example; the earlier attempt may count. Only the sums can tell.
        (Attempted::Refused, Some(_)) => park(now_ns, now_ns, 0),
        (Attempted::Later(asked), None) => {
            let wait = asked.unwrap_or(0).clamp(backoff(attempts), WAITS.1);
            Next { state: State::Ready, due_ns: now_ns.saturating_add(wait), resend_until_ns: None }
        }
        (Attempted::Later(asked), Some(until)) => {
            park(until, now_ns, asked.unwrap_or(0).clamp(backoff(attempts), WAITS.1))
        }
        (Attempted::Unknown, known) => {
            let until = known.unwrap_or(began_ns.saturating_add(SAFE_NS));
            park(until, now_ns, backoff(attempts))
        }
    }
}

/// Sent again while that is safe; later the sums are asked.
fn park(until: u64, now_ns: u64, wait: u64) -> Next {
    let again = now_ns.saturating_add(wait);
    let due_ns = if again < until { again } else { until.max(now_ns.saturating_add(COUNTED_AFTER)) };
    Next { state: State::Parked, due_ns, resend_until_ns: Some(until) }
}

fn backoff(attempts: u32) -> u64 {
    (WAITS.0 << attempts.saturating_sub(1).min(20)).min(WAITS.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const T: u64 = 1_800_000_000 * SECOND;

    #[test]
    fn what_is_certain_is_certain() {
        let next = |attempt: &Attempted, until| after(attempt, T, 1, until, T + SECOND);
        assert_eq!(next(&Attempted::Delivered, Some(T + 5)).state, State::Delivered);
        assert_eq!(next(&Attempted::Refused, None).state, State::Refused);
        let later = next(&Attempted::Later(Some(30 * SECOND)), None);
        assert_eq!((later.state, later.due_ns, later.resend_until_ns), (State::Ready, T + 31 * SECOND, None));
        // Never sent, but an earlier attempt may have arrived.
        assert_eq!(next(&Attempted::Later(None), Some(T + SAFE_NS)).state, State::Parked);
    }

    #[test]
    fn what_may_have_arrived_is_resent_only_within_the_window() {
        let first = after(&Attempted::Unknown, T, 1, None, T + SECOND);
        assert_eq!(first.resend_until_ns, Some(T + SAFE_NS));
        assert_eq!((first.state, first.due_ns), (State::Parked, T + 3 * SECOND));
        // The window is that of the first attempt, however often it is sent.
        let late = T + SAFE_NS - 10 * SECOND;
        let second = after(&Attempted::Unknown, late, 30, first.resend_until_ns, late + SECOND);
        assert_eq!(second.resend_until_ns, Some(T + SAFE_NS));
        // Too late to send again: the sums are asked once they are up to date.
        assert_eq!(second.due_ns, late + SECOND + COUNTED_AFTER);
        let refused = after(&Attempted::Refused, late, 2, first.resend_until_ns, late);
        assert_eq!((refused.state, refused.resend_until_ns), (State::Parked, Some(late)));
        assert_eq!(refused.due_ns, late + COUNTED_AFTER);
    }

    proptest::proptest! {
        /// Whatever happens, in the wrong hands of time too: delivered or refused for ever, or due once more.
        #[test]
        fn nothing_is_forgotten(
            kind in 0u8..4, attempts in 0u32..1_000, until in proptest::option::of(0u64..u64::MAX >> 2),
            began in 0u64..u64::MAX >> 2, took in 0u64..1 << 50,
        ) {
            let attempt = [Attempted::Delivered, Attempted::Later(None), Attempted::Unknown, Attempted::Refused]
                [usize::from(kind)].clone();
            let next = after(&attempt, began, attempts, until, began + took);
            match next.state {
                State::Parked => {
                    proptest::prop_assert!(next.resend_until_ns.is_some());
                    proptest::prop_assert!(next.due_ns > began + took);
                    // Between the end of the window and certainty nothing is sent.
                    let resent = next.due_ns < next.resend_until_ns.unwrap();
                    proptest::prop_assert!(resent || next.due_ns >= began + took + COUNTED_AFTER);
                }
                State::Ready => proptest::prop_assert!(until.is_none()),
                State::Refused => proptest::prop_assert!(until.is_none() && attempt == Attempted::Refused),
                State::Delivered => proptest::prop_assert!(attempt == Attempted::Delivered),
            }
        }
    }
}
