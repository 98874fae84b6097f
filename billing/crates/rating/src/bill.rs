use wasmeter_usage::wire::{BillLine, BillMinimum};
use wasmeter_usage::{Meter, Pico, PriceSheet, Quantities};

use crate::tiers::{amount, rate};

/// An amount or a quantity is beyond what a bill can carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0} does not fit a bill; ask for a shorter window")]
pub struct AmountError(pub &'static str);

/// What the quantities of one period cost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Charges {
    /// One line for each meter that was used and each way it was priced, in the order of [`Meter::ALL`] and then of the
    /// sheets.
    pub lines: Vec<BillLine>,
    /// What the lines lack of the minimum.
    pub minimum: Option<BillMinimum>,
    /// What lines and minimum say is due.
    pub due_minor: i64,
}

/// The name of what a price is for.
fn unit(meter: Meter) -> &'static str {
    match meter {
        Meter::Fuel => "million fuel",
        Meter::GpuTime | Meter::CpuTime => "second",
        Meter::Requests => "request",
        Meter::TokensIn | Meter::TokensOut => "token",
        Meter::EgressBytes => "GB",
    }
}

/// Prices one period. `used` holds the booked quantities under each price sheet, the oldest sheet first.
///
/// What two sheets price alike is one quantity and goes through its tiers as one. What they price differently is a line
/// each, and each begins at its first tier, as two prices at Stripe do. The minimum is that of the last sheet; a period
/// without a charged call has none.
///
/// # Errors
/// [`AmountError`] if a quantity passes 64 bits or an amount 127.
pub fn charge(used: &[(PriceSheet, Quantities)]) -> Result<Charges, AmountError> {
    let mut lines = Vec::new();
    for meter in Meter::ALL {
        let mut sums: Vec<(&PriceSheet, u64)> = Vec::new();
        for (sheet, quantities) in used {
            let quantity = quantities.get(meter);
            if quantity == 0 {
                continue;
            }
            match sums.iter_mut().find(|(known, _)| alike(known, sheet, meter)) {
                Some((_, sum)) => *sum = sum.checked_add(quantity).ok_or(AmountError("a quantity"))?,
                None => sums.push((sheet, quantity)),
            }
        }
        for (sheet, quantity) in sums {
            lines.push(line(sheet, meter, quantity)?);
        }
    }
    let mut due_minor = sum(lines.iter().map(|line| line.due_minor))?;
    let last = used.iter().rev().find(|(_, quantities)| quantities.requests > 0);
    let mut minimum = None;
    if let Some((sheet, _)) = last {
        let minimum_minor =
            i64::try_from(sheet.terms.minimum_minor).map_err(|_| AmountError("the minimum"))?;
        if due_minor < minimum_minor {
            minimum = Some(BillMinimum { minimum_minor, due_minor: minimum_minor - due_minor });
            due_minor = minimum_minor;
        }
    }
    Ok(Charges { lines, minimum, due_minor })
}

/// Whether two sheets price a meter alike.
fn alike(a: &PriceSheet, b: &PriceSheet, meter: Meter) -> bool {
    a.currency == b.currency
        && a.rates.of(meter) == b.rates.of(meter)
        && a.terms.meters.get(&meter) == b.terms.meters.get(&meter)
}

fn line(sheet: &PriceSheet, meter: Meter, quantity: u64) -> Result<BillLine, AmountError> {
    let (list, per) = sheet.rates.of(meter);
    let parts = rate(sheet, meter, quantity)?;
    let amount_pico = parts
        .iter()
        .try_fold(Pico::ZERO, |sum, part| sum.checked_add(part.amount_pico))
        .ok_or(AmountError("an amount"))?;
    Ok(BillLine {
        meter,
        quantity,
        rate_pico: Pico(i128::from(list)),
        price_unit: unit(meter).to_owned(),
        list_pico: amount(quantity, list, per)?,
        amount_pico,
        due_minor: sum(parts.iter().map(|part| part.due_minor))?,
        parts,
    })
}

fn sum(mut amounts: impl Iterator<Item = i64>) -> Result<i64, AmountError> {
    amounts.try_fold(0i64, i64::checked_add).ok_or(AmountError("the amount due"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use wasmeter_usage::{Band, MeterTerms, Rates, Terms, TierMode};

    use super::*;
    use crate::{sheet, sheet_with};

    const CENT: u64 = 10_000_000_000;

    fn graduated(included: u64, bands: &[(Option<u64>, u64)]) -> Terms {
        let bands = bands.iter().map(|&(up_to, rate)| Band { up_to, rate }).collect();
        let requests = MeterTerms { mode: TierMode::Graduated, included, bands };
        Terms { meters: [(Meter::Requests, requests)].into_iter().collect(), minimum_minor: 0 }
    }

    fn requests(requests: u64) -> Quantities {
        Quantities { requests, ..Quantities::default() }
    }

    #[test]
    fn a_changed_rate_is_a_line_of_its_own() {
        let old = Rates { request: 10, fuel_million: 3, ..Rates::default() };
        let new = Rates { request: 20, ..old };
        let used = Quantities { requests: 2, fuel: 500_000, ..Quantities::default() };
        let lines = charge(&[(sheet("USD", old), used), (sheet("USD", new), used)]).unwrap().lines;
        let told: Vec<_> =
            lines.iter().map(|l| (l.meter, l.quantity, l.rate_pico.0, l.amount_pico.0)).collect();
        assert_eq!(
            told,
            [(Meter::Requests, 2, 10, 20), (Meter::Requests, 2, 20, 40), (Meter::Fuel, 1_000_000, 3, 3)]
        );
    }

    #[test]
    fn tiers_go_on_over_a_sheet_that_changes_another_price() {
        let terms = graduated(3, &[(Some(10), CENT), (None, CENT / 2)]);
        let rates = Rates { request: CENT, ..Rates::default() };
        let old = sheet_with("USD", rates, terms.clone());
        let new = sheet_with("USD", Rates { gpu_second: 7, ..rates }, terms);
        let charges = charge(&[(old.clone(), requests(8)), (new, requests(8))]).unwrap();
        let [line] = &charges.lines[..] else { panic!("{charges:?}") };
        let told: Vec<_> = line.parts.iter().map(|p| (p.quantity, p.included, p.due_minor)).collect();
        assert_eq!(told, [(3, true, 0), (7, false, 7), (6, false, 3)]);
        assert_eq!((line.due_minor, line.list_pico.0), (10, i128::from(16 * CENT)));
        // Another tier is another price, which begins anew.
        let dearer = sheet_with("USD", rates, graduated(3, &[(None, 2 * CENT)]));
        let charges = charge(&[(old, requests(8)), (dearer, requests(8))]).unwrap();
        assert_eq!(charges.lines.iter().map(|l| l.due_minor).collect::<Vec<_>>(), [5, 10]);
    }

    #[test]
    fn the_minimum_is_a_line_of_its_own() {
        let rates = Rates { request: CENT, ..Rates::default() };
        let minimum = |minimum_minor| sheet_with("USD", rates, Terms { minimum_minor, ..Terms::default() });
        let charges = charge(&[(minimum(500), requests(10))]).unwrap();
        assert_eq!(charges.minimum, Some(BillMinimum { minimum_minor: 500, due_minor: 490 }));
        assert_eq!(charges.due_minor, 500);
        let reached = charge(&[(minimum(500), requests(501))]).unwrap();
        assert_eq!((reached.minimum, reached.due_minor), (None, 501));
        // The last sheet's minimum; none without a call.
        let changed = charge(&[(minimum(500), requests(10)), (minimum(20), requests(1))]).unwrap();
        assert_eq!(changed.due_minor, 20);
        let idle = charge(&[(minimum(500), requests(0))]).unwrap();
        assert_eq!((idle.minimum, idle.due_minor), (None, 0));
        assert_eq!(charge(&[]).unwrap().due_minor, 0);
    }

    #[test]
    fn refuses_what_does_not_fit() {
        let rates = Rates { request: u64::MAX, ..Rates::default() };
        let dear = (sheet("USD", rates), requests(u64::MAX));
        assert_eq!(charge(&[dear]), Err(AmountError("an amount")));
        let free = (sheet("USD", Rates::default()), requests(u64::MAX));
        assert_eq!(charge(&[free.clone(), free]), Err(AmountError("a quantity")));
    }

    fn quantities() -> impl Strategy<Value = Quantities> {
        [0u64..1 << 45, 0..1 << 45, 0..1 << 45, 0..1 << 20, 0..1 << 20, 0..1 << 45].prop_map(
            |[fuel, gpu_ns, cpu_ns, tokens_in, tokens_out, egress_bytes]| Quantities {
                fuel,
                gpu_ns,
                cpu_ns,
                requests: 1,
                tokens_in,
                tokens_out,
                egress_bytes,
            },
        )
    }

    fn add(calls: &[Quantities]) -> Quantities {
        let sum = |meter| calls.iter().map(|q| q.get(meter)).sum();
        Quantities {
            fuel: sum(Meter::Fuel),
            gpu_ns: sum(Meter::GpuTime),
            cpu_ns: sum(Meter::CpuTime),
            requests: sum(Meter::Requests),
            tokens_in: sum(Meter::TokensIn),
            tokens_out: sum(Meter::TokensOut),
            egress_bytes: sum(Meter::EgressBytes),
        }
    }

    fn rates() -> impl Strategy<Value = Rates> {
        any::<[u32; 7]>().prop_map(|r| {
            let [fuel_million, gpu_second, cpu_second, request, token_in, token_out, egress_gb] =
                r.map(u64::from);
            Rates { fuel_million, gpu_second, cpu_second, request, token_in, token_out, egress_gb }
        })
    }

    proptest! {
        /// Each call is rounded down once over its seven meters, each line once over its calls.
        #[test]
        fn lines_and_calls_differ_by_roundings_only(rates in rates(), calls in prop::collection::vec(quantities(), 1..20)) {
            let charges = charge(&[(sheet("USD", rates), add(&calls))]).unwrap();
            let list: i128 = charges.lines.iter().map(|l| l.list_pico.0).sum();
            let lines: i128 = charges.lines.iter().map(|l| l.amount_pico.0).sum();
            let booked: i128 = calls.iter().map(|q| rates.cost(q).unwrap().0).sum();
            prop_assert_eq!(lines, list);
            prop_assert!(lines > booked - 7);
            prop_assert!(lines < booked + calls.len() as i128 + 7);
            // And each line is within half a cent of what is due for it.
            for line in &charges.lines {
                prop_assert!((line.amount_pico.0 - i128::from(line.due_minor) * i128::from(CENT)).abs() <= i128::from(CENT / 2));
            }
        }

        /// Whatever sheets a period's calls were booked under: as long as they price a meter alike, its line is the same.
        #[test]
        fn splitting_a_period_by_sheet_changes_no_line(
            rates in rates(),
            included in 0u64..100,
            calls in prop::collection::vec((quantities(), any::<bool>()), 1..40),
        ) {
            let terms = graduated(included, &[(Some(100), u64::from(u32::MAX)), (None, 5)]);
            let one = sheet_with("USD", rates, terms.clone());
            let two = sheet_with("USD", rates, Terms { minimum_minor: 1, ..terms });
            prop_assert_ne!(&one.hash, &two.hash);
            let of = |which| {
                let some: Vec<_> = calls.iter().filter(|c| c.1 == which).map(|c| c.0).collect();
                add(&some)
            };
            let all: Vec<_> = calls.iter().map(|c| c.0).collect();
            let split = charge(&[(one.clone(), of(false)), (two, of(true))]).unwrap();
            let whole = charge(&[(one, add(&all))]).unwrap();
            prop_assert_eq!(&split.lines, &whole.lines);
            for line in &whole.lines {
                prop_assert_eq!(line.parts.iter().map(|p| p.quantity).sum::<u64>(), line.quantity);
                prop_assert_eq!(line.parts.iter().map(|p| p.amount_pico).sum::<Pico>(), line.amount_pico);
                prop_assert_eq!(line.parts.iter().map(|p| p.due_minor).sum::<i64>(), line.due_minor);
            }
        }
    }
}
