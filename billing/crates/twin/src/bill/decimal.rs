/// Places that a price has behind the point (Stripe documentation, "Price", `unit_amount_decimal`).
const PLACES: usize = 12;

/// One smallest currency unit, in the parts that amounts are counted in.
pub(crate) const ONE: u128 = 1_000_000_000_000;

/// Reads decimal text as parts of 10^-12; `None` if it is none, has a sign or more places than a price.
pub(crate) fn parse(text: &str) -> Option<u128> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    let shaped = !whole.is_empty() && whole.len() <= 15 && digits(whole) && digits(fraction);
    let fraction = fraction.trim_end_matches('0');
    if !shaped || fraction.len() > PLACES {
        return None;
    }
    let parts: u128 = format!("{fraction:0<12}").parse().ok()?;
    whole.parse::<u128>().ok()?.checked_mul(ONE)?.checked_add(parts)
}

/// The shortest text of it.
pub(crate) fn format(parts: u128) -> String {
    let text = format!("{}.{:012}", parts / ONE, parts % ONE);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// To whole smallest units, halves up.
pub(crate) fn round(parts: u128) -> i64 {
    i64::try_from(parts / ONE + u128::from(parts % ONE >= ONE / 2)).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_writes_and_rounds() {
        for (text, parts) in [
            ("0", 0),
            ("1", ONE),
            ("0.000000000001", 1),
            ("0.0000000024", 2400),
            ("12.50", 12 * ONE + ONE / 2),
        ] {
            assert_eq!(parse(text), Some(parts), "{text}");
        }
        for bad in ["", ".5", "-1", "+1", "1.0000000000001", "1e3", "1,5", "1.2.3", "1234567890123456"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
        assert_eq!(format(parse("12.50").unwrap()), "12.5");
        assert_eq!((format(ONE), format(1)), ("1".into(), "0.000000000001".into()));
        assert_eq!((round(ONE / 2 - 1), round(ONE / 2), round(ONE + ONE / 2)), (0, 1, 2));
    }

    proptest::proptest! {
        #[test]
        fn text_and_number_are_one(parts in 0u128..1_000_000_000_000_000_000_000_000) {
            proptest::prop_assert_eq!(parse(&format(parts)), Some(parts));
        }
    }
}
