/// Decimals of a rate: one pico is 10^-12.
const PLACES: usize = 12;

/// Why a text is not a rate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RateError {
    /// Below zero.
    #[error("is negative; a price is zero or more")]
    Negative,
    /// More decimals than a pico has.
    #[error("has {0} decimals; at most {PLACES} can be represented")]
    TooManyPlaces(usize),
    /// Above the largest rate.
    #[error("is too large; a rate is below 18446744 currency units")]
    TooLarge,
    /// Not digits with at most one point between them.
    #[error("is not a plain decimal number such as \"0.000024\"")]
    NotDecimal,
}

/// A decimal text in currency units as an integer of pico. Nothing is rounded: what does not fit exactly is an error.
///
/// # Errors
/// What [`RateError`] lists.
pub fn parse_rate(text: &str) -> Result<u64, RateError> {
    if let Some(rest) = text.strip_prefix('-') {
        // Minus nothing is a slip too, but only a number is "negative".
        return Err(if parse_rate(rest).is_ok() { RateError::Negative } else { RateError::NotDecimal });
    }
    let (whole, fraction) = match text.split_once('.') {
        Some((whole, fraction)) if !fraction.is_empty() => (whole, fraction),
        Some(_) => return Err(RateError::NotDecimal),
        None => (text, ""),
    };
    if whole.is_empty() || !whole.bytes().chain(fraction.bytes()).all(|b| b.is_ascii_digit()) {
        return Err(RateError::NotDecimal);
    }
    if fraction.len() > PLACES {
        return Err(RateError::TooManyPlaces(fraction.len()));
    }
    let digits =
        whole.bytes().chain(fraction.bytes()).chain(std::iter::repeat_n(b'0', PLACES - fraction.len()));
    digits
        .map(|b| u64::from(b - b'0'))
        .try_fold(0u64, |sum, digit| sum.checked_mul(10)?.checked_add(digit))
        .ok_or(RateError::TooLarge)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use wasmeter_usage::Pico;

    use super::*;

    #[test]
    fn reads_exactly_or_not_at_all() {
        assert_eq!(parse_rate("0.000024"), Ok(24_000_000));
        assert_eq!(parse_rate("1"), Ok(1_000_000_000_000));
        assert_eq!(parse_rate("0.000000000001"), Ok(1));
        assert_eq!(parse_rate("0.0000000000001"), Err(RateError::TooManyPlaces(13)));
        assert_eq!(parse_rate("-0.1"), Err(RateError::Negative));
        assert_eq!(parse_rate("18446745"), Err(RateError::TooLarge));
        assert_eq!(parse_rate("999999999999999999999999999"), Err(RateError::TooLarge));
        for bad in ["", ".", "1.", ".5", "1e-3", "+1", "1,5", " 1", "1.2.3", "--1", "-", "0x1", "٣"] {
            assert_eq!(parse_rate(bad), Err(RateError::NotDecimal), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_shown_is_read_back(pico in any::<u64>()) {
            prop_assert_eq!(parse_rate(&Pico(i128::from(pico)).to_string()), Ok(pico));
        }

        #[test]
        fn never_panics(text in ".{0,40}") {
            let _ = parse_rate(&text);
        }
    }
}
