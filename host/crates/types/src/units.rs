use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The text is not a size or a duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{got:?} is not a {what}: write {example}")]
pub struct ParseUnitError {
    what: &'static str,
    got: String,
    example: &'static str,
}

/// Bytes, written as `8MiB`, `64KiB`, `1GiB` or a plain number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ByteSize(pub u64);

/// Wall time, written as `10s`, `250ms`, `2m`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct WallTime(pub Duration);

const BYTES: &[(&str, u64)] = &[("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("B", 1), ("", 1)];
const MILLIS: &[(&str, u64)] = &[("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000)];

fn parse(
    s: &str,
    units: &[(&str, u64)],
    what: &'static str,
    example: &'static str,
) -> Result<u64, ParseUnitError> {
    let fail = || ParseUnitError { what, got: s.chars().take(40).collect(), example };
    let digits = s.len() - s.trim_start_matches(|c: char| c.is_ascii_digit() || c == '_').len();
    let (number, unit) = s.split_at(digits);
    let number: u64 = number.replace('_', "").parse().map_err(|_| fail())?;
    let scale = units.iter().find(|(u, _)| *u == unit.trim()).ok_or_else(fail)?.1;
    number.checked_mul(scale).ok_or_else(fail)
}

/// The largest unit that divides the value.
fn show(value: u64, units: &[(&str, u64)], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let fits = |(_, scale): &&(&str, u64)| value.is_multiple_of(*scale) && (value >= *scale || *scale == 1);
    match units.iter().filter(|(u, _)| !u.is_empty()).filter(fits).max_by_key(|(_, scale)| *scale) {
        Some((unit, scale)) => write!(f, "{}{unit}", value / scale),
        None => write!(f, "{value}"),
    }
}

impl FromStr for ByteSize {
    type Err = ParseUnitError;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        parse(s, BYTES, "size", "\"8MiB\" (B, KiB, MiB, GiB)").map(Self)
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show(self.0, BYTES, f)
    }
}

impl FromStr for WallTime {
    type Err = ParseUnitError;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        parse(s, MILLIS, "duration", "\"10s\" (ms, s, m, h)").map(|ms| Self(Duration::from_millis(ms)))
    }
}

impl fmt::Display for WallTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show(u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX), MILLIS, f)
    }
}

macro_rules! text {
    ($name:ident) => {
        impl TryFrom<String> for $name {
            type Error = ParseUnitError;

            fn try_from(s: String) -> Result<Self, Self::Error> {
                s.parse()
            }
        }

        impl From<$name> for String {
            fn from(value: $name) -> String {
                value.to_string()
            }
        }
    };
}
text!(ByteSize);
text!(WallTime);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_shows() {
        for (text, bytes) in [("8MiB", 8 << 20), ("64KiB", 64 << 10), ("17", 17), ("1_000B", 1000)] {
            assert_eq!(text.parse::<ByteSize>().unwrap().0, bytes, "{text}");
        }
        assert_eq!(ByteSize(8 << 20).to_string(), "8MiB");
        assert_eq!(ByteSize(1025).to_string(), "1025B");
        assert_eq!(ByteSize(0).to_string(), "0B");
        assert_eq!(WallTime(Duration::from_secs(90)).to_string(), "90s");
        for bad in ["", "MiB", "1TB", "-1s", "99999999999999999999GiB", "1.5s"] {
            assert!(bad.parse::<ByteSize>().is_err(), "{bad}");
            assert!(bad.parse::<WallTime>().is_err(), "{bad}");
        }
    }
}
