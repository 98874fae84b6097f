use wasmeter_usage::Pico;
use wasmeter_usage::wire::Spread;

use crate::AmountError;

/// What one and what `calls` calls cost, from what such calls did cost; `None` if there were none.
///
/// For many calls it is the sum of independent calls like those: the median is the mean times their number, the 95th
/// per cent lie 1.645 standard deviations above it, and never above the largest.
///
/// # Errors
/// [`AmountError`] if the calls together pass what an amount can be.
pub fn quote(mut costs: Vec<u64>, calls: u64) -> Result<Option<(Spread, Spread)>, AmountError> {
    costs.sort_unstable();
    let Some(&max) = costs.last() else { return Ok(None) };
    let count = costs.len() as u128;
    // The smallest cost that so many per cent do not pass.
    let rank =
        |percent: usize| costs.get((costs.len() * percent).div_ceil(100).max(1) - 1).copied().unwrap_or(max);
    let pico =
        |amount: u128| i128::try_from(amount).map(Pico).map_err(|_| AmountError("the cost of so many calls"));
    let one = Spread { p50: pico(rank(50).into())?, p95: pico(rank(95).into())?, max: pico(max.into())? };
    if calls == 1 {
        return Ok(Some((one, one)));
    }
    let mean = costs.iter().map(|&c| u128::from(c)).sum::<u128>() / count;
    // A cost fits 63 bits, so that a square fits 126; thousands of them are summed as means.
    let variance = costs.iter().map(|&c| u128::from(c).abs_diff(mean).pow(2) / count).sum::<u128>();
    let calls = u128::from(calls);
    let largest = calls.checked_mul(max.into()).ok_or(AmountError("the cost of so many calls"))?;
    let middle = calls * mean;
    let deviation = variance.isqrt().saturating_mul(calls.isqrt() + 1).saturating_mul(1_645) / 1_000;
    let high = middle.saturating_add(deviation).min(largest);
    Ok(Some((one, Spread { p50: pico(middle)?, p95: pico(high)?, max: pico(largest)? })))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn told(spread: Spread) -> [i128; 3] {
        [spread.p50.0, spread.p95.0, spread.max.0]
    }

    #[test]
    fn ranks_of_one_and_sums_of_many() {
        assert_eq!(quote(Vec::new(), 7), Ok(None));
        let (one, all) = quote((1..=100).rev().collect(), 1).unwrap().unwrap();
        assert_eq!((told(one), told(all)), ([50, 95, 100], [50, 95, 100]));
        let (one, all) = quote(vec![10], 1_000).unwrap().unwrap();
        assert_eq!((told(one), told(all)), ([10, 10, 10], [10_000, 10_000, 10_000]));
        // 0 or 100: the mean is 50, the deviation 50; of 10,000 calls, 1.645 x 50 x 101.
        let (_, all) = quote(vec![0, 100], 10_000).unwrap().unwrap();
        assert_eq!(told(all), [500_000, 500_000 + 8_307, 1_000_000]);
        assert!(quote(vec![u64::MAX >> 1], u64::MAX).is_ok());
        assert!(quote(vec![u64::MAX], u64::MAX).is_err());
    }

    proptest! {
        #[test]
        fn spreads_are_in_order(costs in prop::collection::vec(0u64..1 << 40, 1..50), calls in 1u64..1 << 40) {
            for spread in <[Spread; 2]>::from(quote(costs, calls).unwrap().unwrap()) {
                prop_assert!(spread.p50 <= spread.max && spread.p95 <= spread.max && spread.max.0 >= 0);
            }
        }
    }
}
