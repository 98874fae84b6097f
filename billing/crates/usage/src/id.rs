use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use rand::Rng as _;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A 128-bit, time-ordered invocation id (UUID version 7, RFC 9562), written in the hyphenated form.
///
/// It is the idempotency key of everything that is derived from the invocation.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct InvocationId(Uuid);

/// The text is not a UUID.
#[derive(Debug, Clone, thiserror::Error)]
#[error("invocation id {0:?} is not a UUID; take it from the x-wasmeter-invocation header")]
pub struct ParseInvocationIdError(String);

impl InvocationId {
    /// A new id; later calls of one process sort after earlier ones.
    #[must_use]
    #[allow(clippy::new_without_default, reason = "every call gives another id")]
    pub fn new() -> Self {
        Self::at(ticks_now(), rand::rng().next_u64())
    }

    /// Of a time and 62 random bits. The generator behind [`InvocationId::new`] is the thread's own, seeded and reseeded
    /// by the system: `Uuid::now_v7` asks the system each time, which costs more than the rest of the id.
    fn at(now: u64, random: u64) -> Self {
        static LAST: AtomicU64 = AtomicU64::new(0);
        let after = |last: u64| now.max(last.saturating_add(1));
        // The closure always says something, so that this cannot fail.
        let last = LAST.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| Some(after(last)));
        let ticks = after(last.unwrap_or_default());
        let (milliseconds, within) = (ticks >> 12, ticks & 0xfff);
        let high = (milliseconds << 16) | 0x7000 | within;
        let low = (0b10 << 62) | (random >> 2);
        Self(Uuid::from_u64_pair(high, low))
    }

    /// A number that ids spread evenly over 64 bits. It is made of their last 32 bits, which are random.
    #[must_use]
    pub fn draw(self) -> u64 {
        self.0.as_u64_pair().1 << 32
    }
}

/// 4096ths of a millisecond since the Unix epoch: as finely as version 7 has room for (RFC 9562, section 6.2, method 3).
fn ticks_now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    (u64::try_from(now.as_millis()).unwrap_or(0) << 12)
        | u64::from(now.subsec_nanos() % 1_000_000 * 512 / 125_000)
}

impl fmt::Display for InvocationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_hyphenated().fmt(f)
    }
}

impl fmt::Debug for InvocationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for InvocationId {
    type Err = ParseInvocationIdError;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        Uuid::try_parse(s).map(Self).map_err(|_| ParseInvocationIdError(s.chars().take(64).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips_and_sorts() {
        let (a, b) = (InvocationId::new(), InvocationId::new());
        assert!(a < b);
        assert_eq!(a.to_string().parse::<InvocationId>().unwrap(), a);
        assert!("x".parse::<InvocationId>().is_err());
    }

    #[test]
    fn is_a_uuid_of_version_7_that_tells_the_time() {
        let before = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64;
        let id = InvocationId::new().0;
        assert_eq!((id.get_version_num(), id.get_variant()), (7, uuid::Variant::RFC4122));
        let told = id.as_u64_pair().0 >> 16;
        assert!((before..=before + 60_000).contains(&told), "{told} is not {before}");
    }

    #[test]
    fn threads_never_make_the_same_and_each_goes_up() {
        let make = || (0..20_000).map(|_| InvocationId::new()).collect::<Vec<_>>();
        let threads: Vec<_> = (0..4).map(|_| std::thread::spawn(make)).collect();
        let mut all = Vec::new();
        for thread in threads {
            let ids = thread.join().unwrap();
            assert!(ids.is_sorted());
            all.extend(ids);
        }
        all.sort();
        all.dedup();
        assert_eq!(all.len(), 80_000);
    }

    #[test]
    fn a_clock_that_is_set_back_changes_no_order() {
        let ahead = InvocationId::at(ticks_now() + (1_000 << 12), 7);
        assert!(InvocationId::new() > ahead);
    }
}
