/// The largest value of one meter event: 15 digits (Stripe documentation, "Record usage").
pub(super) const LARGEST: i128 = 999_999_999_999_999;

/// What a bucket says to Stripe of `raw` of a meter's units, with what earlier ones left over: whole units of Stripe's,
/// and what is left for the next. A debt (a refund larger than the usage) is carried, and nothing is sent.
pub(super) fn quantity(raw: i128, carry: i128, units: u64) -> (i64, i128) {
    let (total, units) = (raw + carry, i128::from(units.max(1)));
    let value = (total / units).clamp(0, LARGEST);
    (i64::try_from(value).unwrap_or(0), total - value * units)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn carries_what_is_left_over() {
        assert_eq!(quantity(1_999, 0, 1_000), (1, 999));
        assert_eq!(quantity(1, 999, 1_000), (1, 0));
        assert_eq!(quantity(-5, 3, 1_000), (0, -2));
        assert_eq!(quantity(LARGEST + 7, 0, 1), (999_999_999_999_999, 7));
    }

    proptest! {
        #[test]
        fn buckets_and_remainder_are_the_entries(
            raws in prop::collection::vec(-1_000i128..10_000_000, 0..50),
            units in prop::sample::select(vec![1u64, 1_000, 1_000_000]),
        ) {
            let (mut carry, mut sent) = (0, 0);
            for raw in &raws {
                let (value, left) = quantity(*raw, carry, units);
                prop_assert!(value >= 0 && left < i128::from(units));
                sent += i128::from(value) * i128::from(units);
                carry = left;
            }
            prop_assert_eq!(sent + carry, raws.iter().sum::<i128>());
        }
    }
}
