/// Splits the busy time of a batch over its entries by what each would cost alone.
///
/// `costs` are the calibrated batch-1 costs, `waste` is the part of the work that nobody asked for (padding).
/// Nobody pays more than its cost alone; what is left is the platform's. Where the batch cost at least as much
/// as all its parts alone, everybody pays exactly that. Otherwise the shares follow the costs, and single
/// nanoseconds go to the largest remainders, so that without waste the shares add up to `busy_ns`.
pub(crate) fn split(busy_ns: u64, costs: &[u64], waste: u64) -> Vec<u64> {
    let total = costs.iter().map(|cost| u128::from(*cost)).sum::<u128>() + u128::from(waste);
    if u128::from(busy_ns) >= total {
        return costs.to_vec();
    }
    let parts = |cost: u64| {
        let product = u128::from(busy_ns) * u128::from(cost);
        (product / total, product % total)
    };
    let mut shares: Vec<u64> = Vec::with_capacity(costs.len());
    let mut remainders: Vec<(u128, usize)> = Vec::with_capacity(costs.len() + 1);
    let mut left = u128::from(busy_ns);
    for (index, cost) in costs.iter().enumerate() {
        let (share, remainder) = parts(*cost);
        left -= share;
        // `busy_ns < total`, so that a share is below its cost and fits; so does one nanosecond more.
        shares.push(u64::try_from(share).unwrap_or(*cost));
        remainders.push((remainder, index));
    }
    let (share, remainder) = parts(waste);
    left -= share;
    remainders.push((remainder, costs.len()));
    // The largest first; among equals the later, so that the platform is served before any caller.
    remainders.sort_unstable_by(|a, b| b.cmp(a));
    for (_, index) in remainders.into_iter().take(usize::try_from(left).unwrap_or(usize::MAX)) {
        if let Some(share) = shares.get_mut(index) {
            *share += 1;
        }
    }
    shares
}

/// What one entry of a batch owes for `busy_ns` of it: never more than [`split`] will ask for the whole.
pub(crate) fn part(busy_ns: u64, cost: u64, total: u128) -> u64 {
    if u128::from(busy_ns) >= total {
        return cost;
    }
    u64::try_from(u128::from(busy_ns) * u128::from(cost) / total).unwrap_or(cost)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn known_splits() {
        assert_eq!(split(10, &[5, 5, 5], 0), [3, 3, 4]);
        assert_eq!(split(100, &[5, 7], 3), [5, 7]);
        assert_eq!(split(10, &[10, 10], 20), [2, 3]);
        assert_eq!(split(0, &[10, 10], 0), [0, 0]);
        assert_eq!(split(7, &[0, 0], 0), [0, 0]);
        assert_eq!(split(9, &[], 0), Vec::<u64>::new());
        assert_eq!(split(u64::MAX - 1, &[u64::MAX, u64::MAX], 0), [u64::MAX / 2, u64::MAX / 2]);
    }

    proptest! {
        /// Never more than alone, never more than there is, all of it where nothing was wasted, and who leaves
        /// early never owes more than who stays.
        #[test]
        fn shares_are_bounded(
            busy in prop_oneof![0..2_000u64, any::<u64>()],
            costs in prop::collection::vec(prop_oneof![0..1_000u64, any::<u64>()], 1..33),
            waste in prop_oneof![Just(0u64), 0..1_000u64, any::<u64>()],
            early in 0..=1_000u64,
        ) {
            let shares = split(busy, &costs, waste);
            let total = costs.iter().map(|cost| u128::from(*cost)).sum::<u128>() + u128::from(waste);
            let sum: u128 = shares.iter().map(|share| u128::from(*share)).sum();
            prop_assert!(sum <= u128::from(busy));
            let before = u64::try_from(u128::from(busy) * u128::from(early) / 1_000).unwrap();
            for (share, cost) in shares.iter().zip(&costs) {
                prop_assert!(share <= cost);
                let exact = u128::from(busy) * u128::from(*cost) / total.max(1);
                prop_assert!(u128::from(*share) + 1 >= exact.min(u128::from(*cost)));
                prop_assert!(part(before, *cost, total) <= *share);
            }
            if waste == 0 {
                prop_assert_eq!(sum, u128::from(busy).min(total));
            }
        }
    }
}
