use std::fmt;
use std::iter::Sum;
use std::ops::Add;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// An amount in 10^-12 of the currency unit. Integers only: no float touches money.
///
/// JSON form: a string of the integer, because amounts pass 2^53.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Pico(pub i128);

/// The text is not a decimal integer.
#[derive(Debug, Clone, thiserror::Error)]
#[error("amount {0:?} is not an integer of 10^-12 currency units")]
pub struct ParsePicoError(String);

impl Pico {
    /// Nothing.
    pub const ZERO: Pico = Pico(0);
    /// Pico in one currency unit.
    pub const UNIT: i128 = 1_000_000_000_000;

    /// The amount of a decimal number of currency units, such as `12.50`: digits, a point, at most twelve places, no sign.
    /// `None` for anything else, and for more than 10^18 units.
    #[must_use]
    pub fn from_units(text: &str) -> Option<Pico> {
        let (whole, places) = text.split_once('.').unwrap_or((text, "0"));
        let digits = |t: &str| !t.is_empty() && t.bytes().all(|b| b.is_ascii_digit());
        if !digits(whole) || !digits(places) || places.len() > 12 || whole.len() > 18 {
            return None;
        }
        let units: i128 = whole.parse().ok()?;
        let part: i128 = format!("{places:0<12}").parse().ok()?;
        Some(Pico(units * Self::UNIT + part))
    }

    /// Sum, or `None` where it does not fit.
    #[must_use]
    pub fn checked_add(self, other: Pico) -> Option<Pico> {
        self.0.checked_add(other.0).map(Pico)
    }
}

/// Decimal currency units with all twelve places, such as `0.000000001100`.
impl fmt::Display for Pico {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.0 < 0 { "-" } else { "" };
        let abs = self.0.unsigned_abs();
        let unit = Self::UNIT.unsigned_abs();
        write!(f, "{sign}{}.{:012}", abs / unit, abs % unit)
    }
}

impl FromStr for Pico {
    type Err = ParsePicoError;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        s.parse().map(Pico).map_err(|_| ParsePicoError(s.chars().take(64).collect()))
    }
}

impl Add for Pico {
    type Output = Pico;

    fn add(self, other: Pico) -> Pico {
        Pico(self.0 + other.0)
    }
}

impl Sum for Pico {
    fn sum<I: Iterator<Item = Pico>>(iter: I) -> Pico {
        iter.fold(Pico::ZERO, Add::add)
    }
}

impl Serialize for Pico {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Pico {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_units() {
        for (text, pico) in
            [("12.50", 12_500_000_000_000), ("0", 0), ("0.000000000001", 1), ("3", 3 * Pico::UNIT)]
        {
            assert_eq!(Pico::from_units(text), Some(Pico(pico)), "{text}");
        }
        for text in ["", ".", "1.", ".5", "-1", "+1", "1e3", "0.0000000000001", "1 ", "9999999999999999999"] {
            assert_eq!(Pico::from_units(text), None, "{text}");
        }
    }

    #[test]
    fn shows_all_places() {
        assert_eq!(Pico(1100).to_string(), "0.000000001100");
        assert_eq!(Pico(-1_500_000_000_000).to_string(), "-1.500000000000");
    }
}
