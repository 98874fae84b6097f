use wasmeter_usage::wire::BillLine;
use wasmeter_usage::{Meter, Pico, Quantities, Rates};

use crate::minor_digits;

/// An amount or a quantity is beyond what a bill can carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0} does not fit a bill; ask for a shorter window")]
pub struct AmountError(pub &'static str);

/// Rate of one meter, how many of its units that buys, and the name of that amount.
fn rate(rates: &Rates, meter: Meter) -> (u64, u64, &'static str) {
    const GIGA: u64 = 1_000_000_000;
    match meter {
        Meter::Fuel => (rates.fuel_million, 1_000_000, "million fuel"),
        Meter::GpuTime => (rates.gpu_second, GIGA, "second"),
        Meter::CpuTime => (rates.cpu_second, GIGA, "second"),
        Meter::Requests => (rates.request, 1, "request"),
        Meter::TokensIn => (rates.token_in, 1, "token"),
        Meter::TokensOut => (rates.token_out, 1, "token"),
        Meter::EgressBytes => (rates.egress_gb, GIGA, "GB"),
    }
}

/// One line for each meter that was used and each rate it was used at, in the order of [`Meter::ALL`] and then of
/// `used`. `used` holds the booked quantities under each price sheet.
///
/// # Errors
/// [`AmountError`] if a quantity passes 64 bits or an amount 127.
pub fn bill_lines(used: &[(Rates, Quantities)]) -> Result<Vec<BillLine>, AmountError> {
    let mut lines: Vec<BillLine> = Vec::new();
    for meter in Meter::ALL {
        let first = lines.len();
        for (rates, quantities) in used {
            let quantity = quantities.get(meter);
            let (rate, per, unit) = rate(rates, meter);
            let rate_pico = Pico(i128::from(rate));
            if quantity == 0 {
                continue;
            }
            let known = lines[first..].iter().position(|line| line.rate_pico == rate_pico);
            let line = match known {
                Some(index) => &mut lines[first + index],
                None => {
                    let (amount_pico, price_unit) = (Pico::ZERO, unit.to_owned());
                    lines.push(BillLine { meter, quantity: 0, rate_pico, price_unit, amount_pico });
                    let last = lines.len() - 1;
                    &mut lines[last]
                }
            };
            line.quantity = line.quantity.checked_add(quantity).ok_or(AmountError("a quantity"))?;
            let amount = u128::from(line.quantity) * u128::from(rate) / u128::from(per);
            line.amount_pico = i128::try_from(amount).map(Pico).map_err(|_| AmountError("an amount"))?;
        }
    }
    Ok(lines)
}

/// What is due in the currency's smallest unit: the bill's only rounding to money that exists, half to even.
///
/// # Errors
/// [`AmountError`] if it passes 63 bits.
pub fn due_minor(total: Pico, currency: &str) -> Result<i64, AmountError> {
    let pico_per_minor = Pico::UNIT / 10i128.pow(minor_digits(currency));
    let (floor, rest) = (total.0.div_euclid(pico_per_minor), total.0.rem_euclid(pico_per_minor));
    let up = match (rest * 2).cmp(&pico_per_minor) {
        std::cmp::Ordering::Less => false,
        std::cmp::Ordering::Equal => floor % 2 != 0,
        std::cmp::Ordering::Greater => true,
    };
    i64::try_from(floor + i128::from(up)).map_err(|_| AmountError("the amount due"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn rounds_half_to_even_by_currency() {
        let cent = 10_000_000_000;
        let due = |pico, currency| due_minor(Pico(pico), currency).unwrap();
        assert_eq!(due(cent / 2, "USD"), 0);
        assert_eq!(due(cent / 2 + 1, "USD"), 1);
        assert_eq!(due(cent * 3 / 2, "USD"), 2);
        assert_eq!(due(cent * 5 / 2, "USD"), 2);
        assert_eq!(due(-cent / 2, "USD"), 0);
        assert_eq!(due(-cent * 3 / 2, "USD"), -2);
        assert_eq!(due(Pico::UNIT * 7 / 2, "JPY"), 4);
        assert_eq!(due(Pico::UNIT, "KWD"), 1000);
        assert_eq!(due_minor(Pico(i128::MAX), "USD"), Err(AmountError("the amount due")));
    }

    #[test]
    fn a_changed_rate_is_a_line_of_its_own() {
        let old = Rates { request: 10, fuel_million: 3, ..Rates::default() };
        let new = Rates { request: 20, ..old };
        let used = Quantities { requests: 2, fuel: 500_000, ..Quantities::default() };
        let lines = bill_lines(&[(old, used), (new, used)]).unwrap();
        let told: Vec<_> =
            lines.iter().map(|l| (l.meter, l.quantity, l.rate_pico.0, l.amount_pico.0)).collect();
        assert_eq!(
            told,
            [(Meter::Requests, 2, 10, 20), (Meter::Requests, 2, 20, 40), (Meter::Fuel, 1_000_000, 3, 3)]
        );
    }

    #[test]
    fn refuses_what_does_not_fit() {
        let rates = Rates { request: u64::MAX, ..Rates::default() };
        let used = Quantities { requests: u64::MAX, ..Quantities::default() };
        assert_eq!(bill_lines(&[(rates, used)]), Err(AmountError("an amount")));
        let free = Rates::default();
        assert_eq!(bill_lines(&[(free, used), (free, used)]), Err(AmountError("a quantity")));
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
            let sum = |meter| calls.iter().map(|q| q.get(meter)).sum();
            let total = Quantities {
                fuel: sum(Meter::Fuel),
                gpu_ns: sum(Meter::GpuTime),
                cpu_ns: sum(Meter::CpuTime),
                requests: sum(Meter::Requests),
                tokens_in: sum(Meter::TokensIn),
                tokens_out: sum(Meter::TokensOut),
                egress_bytes: sum(Meter::EgressBytes),
            };
            let lines: i128 = bill_lines(&[(rates, total)]).unwrap().iter().map(|l| l.amount_pico.0).sum();
            let booked: i128 = calls.iter().map(|q| rates.cost(q).unwrap().0).sum();
            prop_assert!(lines > booked - 7);
            prop_assert!(lines < booked + calls.len() as i128 + 7);
        }

        #[test]
        fn due_is_the_nearest(total in -1i128 << 80..1 << 80) {
            let due = i128::from(due_minor(Pico(total), "USD").unwrap());
            prop_assert!((total - due * 10_000_000_000).abs() <= 5_000_000_000);
        }

        #[test]
        fn splitting_a_window_by_sheet_changes_no_line(rates in rates(), a in quantities(), b in quantities()) {
            let both = bill_lines(&[(rates, a), (rates, b)]).unwrap();
            for line in both {
                prop_assert_eq!(line.quantity, a.get(line.meter) + b.get(line.meter));
            }
        }
    }
}
