use wasmeter_types::{ErrorKind, unix_ns};

use crate::clock::{month, parse};
use crate::error::{Answer, refuse};

/// `from` (inclusive) and `to` (exclusive) of an invocation's end, nanoseconds since the Unix epoch.
#[derive(Clone, Copy)]
pub(super) struct Window {
    pub(super) from_ns: u64,
    pub(super) to_ns: u64,
}

impl Window {
    /// The current UTC month where a bound is missing.
    pub(super) fn of_month(from: Option<&str>, to: Option<&str>) -> Answer<Self> {
        let (first, next) = month(unix_ns());
        Self::new(from, to, first, next)
    }

    /// Everything until now where a bound is missing: without an end, a busy tenant's list would have none.
    pub(super) fn of_all(from: Option<&str>, to: Option<&str>) -> Answer<Self> {
        Self::new(from, to, 0, unix_ns().saturating_add(1))
    }

    fn new(from: Option<&str>, to: Option<&str>, first: u64, last: u64) -> Answer<Self> {
        let from_ns = from.map_or(Ok(first), |text| parse("from", text))?;
        let to_ns = match to {
            Some(text) => parse("to", text)?,
            // `from` alone, later than the default end: empty, not an error.
            None => last.max(from_ns),
        };
        if from_ns > to_ns {
            return Err(refuse(ErrorKind::Malformed, "from is after to: swap them"));
        }
        Ok(Self { from_ns, to_ns })
    }
}
