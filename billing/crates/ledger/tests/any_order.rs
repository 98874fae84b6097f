//! Any order and duplication of batches gives the same ledger.
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod support;

use proptest::prelude::*;
use support::{Fixture, NOW, batch, prices, record};
use wasmeter_ledger::Refusal;
use wasmeter_usage::{Outcome, Pico, UsageRecord};

/// Spool, start and length of a batch, as fractions of what there is.
fn batches() -> impl Strategy<Value = Vec<(usize, usize, usize)>> {
    prop::collection::vec((0usize..3, 0usize..20, 1usize..8), 1..40)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn the_balance_is_that_of_each_record_once(
        fuels in prop::collection::vec(prop::collection::vec((0u64..1 << 40, 0usize..2, 0usize..3), 20), 3),
        order in batches(),
        group in 1usize..6,
    ) {
        let spools: Vec<Vec<UsageRecord>> = fuels
            .iter()
            .map(|spool| {
                spool
                    .iter()
                    .map(|(fuel, tenant, outcome)| UsageRecord {
                        outcome: [Outcome::Ok, Outcome::Trap, Outcome::Platform][*outcome],
                        ..record(["a", "b"][*tenant], "f", *fuel)
                    })
                    .collect()
            })
            .collect();
        let mut f = Fixture::new();
        let mut high = [0usize; 3];
        for chunk in order.chunks(group) {
            let group: Vec<_> = chunk
                .iter()
                .map(|(spool, start, len)| {
                    let end = (start + len).min(20);
                    batch("n", *spool as u64, *start as u64 + 1, &spools[*spool][*start..end])
                })
                .collect();
            for ((spool, start, len), outcome) in chunk.iter().zip(f.ledger.append(&group, NOW).unwrap()) {
                if *start > high[*spool] {
                    let (expected, got) = (high[*spool] as u64 + 1, *start as u64 + 1);
                    prop_assert_eq!(outcome, Err(Refusal::Gap { expected, got }));
                } else {
                    high[*spool] = high[*spool].max((start + len).min(20));
                    prop_assert_eq!(outcome.unwrap().acked_seq, high[*spool] as u64);
                }
            }
        }
        for tenant in ["a", "b"] {
            let booked = spools.iter().zip(high).flat_map(|(spool, high)| &spool[..high]).filter(|r| r.tenant == tenant);
            let sum: Pico = booked.map(|r| prices().cost(r).unwrap()).sum();
            prop_assert_eq!(f.reader.balance(tenant).unwrap(), sum);
            prop_assert_eq!(f.reader.bill(tenant, 0, u64::MAX).unwrap().list_total_pico, sum);
        }
        let report = f.reader.check(|_, _| ()).unwrap();
        prop_assert_eq!(report.first_faults, Vec::<String>::new());
        prop_assert_eq!(report.entries, high.iter().sum::<usize>() as u64);
    }
}
