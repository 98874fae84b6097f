use wasmeter_usage::Pico;

use crate::{AmountError, minor_digits};

/// Pico in the smallest unit of a currency.
pub(crate) fn pico_per_minor(currency: &str) -> i128 {
    Pico::UNIT / 10i128.pow(minor_digits(currency))
}

/// An amount in the currency's smallest unit, rounded half away from zero: the one rounding of a line of an invoice, and
/// the rule by which Stripe rounds a line. An amount was rounded down to a pico before; that never moves it over a half.
///
/// # Errors
/// [`AmountError`] if it passes 63 bits.
pub fn due_minor(amount: Pico, currency: &str) -> Result<i64, AmountError> {
    let per = pico_per_minor(currency);
    let (whole, rest) = (amount.0 / per, amount.0 % per);
    let rounded = if rest.abs() * 2 >= per { whole + amount.0.signum() } else { whole };
    i64::try_from(rounded).map_err(|_| AmountError("the amount due"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn rounds_half_away_from_zero_by_currency() {
        let cent = 10_000_000_000;
        let due = |pico, currency| due_minor(Pico(pico), currency).unwrap();
        assert_eq!(due(cent / 2 - 1, "USD"), 0);
        assert_eq!(due(cent / 2, "USD"), 1);
        assert_eq!(due(cent * 3 / 2, "USD"), 2);
        assert_eq!(due(cent * 5 / 2, "USD"), 3);
        assert_eq!(due(-cent / 2, "USD"), -1);
        assert_eq!(due(1 - cent / 2, "USD"), 0);
        assert_eq!(due(Pico::UNIT * 7 / 2, "JPY"), 4);
        assert_eq!(due(Pico::UNIT, "KWD"), 1000);
        assert_eq!(due_minor(Pico(i128::MAX), "USD"), Err(AmountError("the amount due")));
    }

    proptest! {
        #[test]
        fn due_is_the_nearest(total in -1i128 << 80..1 << 80) {
            let due = i128::from(due_minor(Pico(total), "USD").unwrap());
            prop_assert!((total - due * 10_000_000_000).abs() <= 5_000_000_000);
        }
    }
}
