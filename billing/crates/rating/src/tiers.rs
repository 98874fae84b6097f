use wasmeter_usage::wire::BillPart;
use wasmeter_usage::{Band, Meter, MeterTerms, Pico, PriceSheet, TierMode};

use crate::{AmountError, due_minor};

/// What a quantity of one meter costs in one period: a part for each tier that it reaches, whose quantities sum to it.
///
/// # Errors
/// [`AmountError`] if an amount passes what a bill can carry.
pub fn rate(sheet: &PriceSheet, meter: Meter, quantity: u64) -> Result<Vec<BillPart>, AmountError> {
    let (list, per) = sheet.rates.of(meter);
    let mut parts = Vec::new();
    let mut part = |quantity, band: Band, included| {
        let amount_pico = amount(quantity, band.rate, per)?;
        parts.push(BillPart {
            quantity,
            up_to: band.up_to,
            included,
            rate_pico: Pico(i128::from(band.rate)),
            amount_pico,
            due_minor: due_minor(amount_pico, &sheet.currency)?,
        });
        Ok(())
    };
    let Some(MeterTerms { mode, included, bands }) = sheet.terms.meters.get(&meter) else {
        part(quantity, Band { up_to: None, rate: list }, false)?;
        return Ok(parts);
    };
    let holds = |band: &Band| band.up_to.is_none_or(|up_to| quantity <= up_to);
    match mode {
        TierMode::Volume => {
            // The last band has no bound, so that one of them holds every quantity.
            if let Some(band) = bands.iter().find(|band| holds(band)) {
                part(quantity, *band, false)?;
            }
        }
        TierMode::Graduated => {
            let mut below = 0;
            if *included > 0 {
                below = quantity.min(*included);
                part(below, Band { up_to: Some(*included), rate: 0 }, true)?;
            }
            for band in bands {
                if below == quantity {
                    break;
                }
                let end = band.up_to.map_or(quantity, |up_to| quantity.min(up_to));
                part(end - below, *band, false)?;
                below = end;
            }
        }
    }
    Ok(parts)
}

/// `quantity` units at `rate` pico for `per` of them, rounded down to a pico.
pub(crate) fn amount(quantity: u64, rate: u64, per: u64) -> Result<Pico, AmountError> {
    let amount = u128::from(quantity) * u128::from(rate) / u128::from(per);
    i128::try_from(amount).map(Pico).map_err(|_| AmountError("an amount"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use wasmeter_usage::{Rates, Terms};

    use super::*;
    use crate::sheet_with;

    fn priced(mode: TierMode, included: u64, bands: &[(Option<u64>, u64)]) -> PriceSheet {
        let bands = bands.iter().map(|&(up_to, rate)| Band { up_to, rate }).collect();
        let meters = [(Meter::Requests, MeterTerms { mode, included, bands })].into_iter().collect();
        sheet_with("USD", Rates { request: 9, ..Rates::default() }, Terms { meters, minimum_minor: 0 })
    }

    /// Quantity, whether included, and amount of each part.
    fn told(sheet: &PriceSheet, quantity: u64) -> Vec<(u64, bool, i128)> {
        let parts = rate(sheet, Meter::Requests, quantity).unwrap();
        parts.iter().map(|p| (p.quantity, p.included, p.amount_pico.0)).collect()
    }

    #[test]
    fn graduated_units_have_the_price_of_their_own_band() {
        let sheet = priced(TierMode::Graduated, 10, &[(Some(100), 5), (Some(1000), 3), (None, 1)]);
        assert_eq!(told(&sheet, 0), [(0, true, 0)]);
        assert_eq!(told(&sheet, 10), [(10, true, 0)]);
        assert_eq!(told(&sheet, 11), [(10, true, 0), (1, false, 5)]);
        assert_eq!(told(&sheet, 100), [(10, true, 0), (90, false, 450)]);
        assert_eq!(
            told(&sheet, 2000),
            [(10, true, 0), (90, false, 450), (900, false, 2700), (1000, false, 1000)]
        );
    }

    #[test]
    fn volume_units_have_the_price_of_the_last_ones_band() {
        let sheet = priced(TierMode::Volume, 0, &[(Some(100), 5), (None, 1)]);
        assert_eq!(told(&sheet, 100), [(100, false, 500)]);
        assert_eq!(told(&sheet, 101), [(101, false, 101)]);
    }

    #[test]
    fn without_terms_the_list_price_holds() {
        let sheet = priced(TierMode::Volume, 0, &[(None, 1)]);
        assert_eq!(rate(&sheet, Meter::TokensIn, 7).unwrap()[0].amount_pico, Pico::ZERO);
        let plain = crate::sheet("USD", Rates { request: 9, ..Rates::default() });
        assert_eq!(told(&plain, 7), [(7, false, 63)]);
    }

    #[test]
    fn every_part_is_rounded_once_half_up() {
        let cent = 10_000_000_000;
        let sheet =
            priced(TierMode::Graduated, 0, &[(Some(1), cent / 2), (Some(2), cent / 2 - 1), (None, cent)]);
        let parts = rate(&sheet, Meter::Requests, 5).unwrap();
        assert_eq!(parts.iter().map(|p| p.due_minor).collect::<Vec<_>>(), [1, 0, 3]);
    }

    /// Bounds that rise, each with a rate.
    fn scheme() -> impl Strategy<Value = PriceSheet> {
        (
            any::<bool>(),
            prop::option::of(1u64..1000),
            prop::collection::btree_map(1001u64..1 << 50, 0u64..1 << 40, 0..6),
            0u64..1 << 40,
        )
            .prop_map(|(volume, included, bands, last)| {
                let mode = if volume { TierMode::Volume } else { TierMode::Graduated };
                let included = if volume { 0 } else { included.unwrap_or(0) };
                let mut bands: Vec<_> = bands.into_iter().map(|(up_to, rate)| (Some(up_to), rate)).collect();
                bands.push((None, last));
                priced(mode, included, &bands)
            })
    }

    fn total(sheet: &PriceSheet, quantity: u64) -> (u64, i128) {
        let parts = rate(sheet, Meter::Requests, quantity).unwrap();
        (parts.iter().map(|p| p.quantity).sum(), parts.iter().map(|p| p.amount_pico.0).sum())
    }

    proptest! {
        #[test]
        fn parts_sum_to_the_quantity(sheet in scheme(), quantity in 0u64..1 << 52) {
            prop_assert_eq!(total(&sheet, quantity).0, quantity);
        }

        /// Volume prices may fall where a bound is passed: that is what the book says. Within a band they do not.
        #[test]
        fn more_never_costs_less(sheet in scheme(), quantity in 0u64..1 << 51, more in 0u64..1 << 51) {
            let terms = &sheet.terms.meters[&Meter::Requests];
            let band = |q| terms.bands.iter().position(|b| b.up_to.is_none_or(|up_to| q <= up_to));
            if terms.mode == TierMode::Graduated || band(quantity) == band(quantity + more) {
                prop_assert!(total(&sheet, quantity + more).1 >= total(&sheet, quantity).1);
            }
        }

        /// A unit more costs the price of the band that it falls into, and no band is skipped.
        #[test]
        fn one_more_costs_its_band(sheet in scheme(), quantity in 0u64..1 << 51) {
            let terms = &sheet.terms.meters[&Meter::Requests];
            if terms.mode == TierMode::Graduated {
                let last = quantity + 1;
                let rate = match terms.bands.iter().find(|b| b.up_to.is_none_or(|up_to| last <= up_to)) {
                    _ if last <= terms.included => 0,
                    Some(band) => i128::from(band.rate),
                    None => unreachable!("the last band has no bound"),
                };
                prop_assert_eq!(total(&sheet, last).1 - total(&sheet, quantity).1, rate);
            }
        }
    }
}
