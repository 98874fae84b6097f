use serde_json::Value;

use super::decimal;

/// One line's worth of a price: how much of the quantity it covers, and the amount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    /// Which tier, from one; zero without tiers.
    pub(crate) tier: usize,
    pub(crate) quantity: u128,
    /// Parts of 10^-12 of the smallest currency unit.
    pub(crate) unit: u128,
    /// The same for a tier's fixed amount; zero without.
    pub(crate) flat: u128,
    /// Rounded once, halves up.
    pub(crate) amount: i64,
}

/// What a quantity costs. With graduated tiers each tier that is reached is a line of its own, as on Stripe's invoices
/// (documentation, "Tiered pricing"); otherwise there is one line.
pub(crate) fn parts(price: &Value, quantity: u128) -> Vec<Part> {
    let quantity = transformed(price, quantity);
    let unit = |of: &Value, decimal: &str| of[decimal].as_str().and_then(decimal::parse).unwrap_or(0);
    let part = |tier, quantity: u128, unit: u128, flat: u128| {
        let exact = quantity.saturating_mul(unit).saturating_add(flat);
        Part { tier, quantity, unit, flat, amount: decimal::round(exact) }
    };
    let Some(tiers) = price["_tiers"].as_array() else {
        return vec![part(0, quantity, unit(price, "unit_amount_decimal"), 0)];
    };
    let of = |tier: &Value| (unit(tier, "unit_amount_decimal"), unit(tier, "flat_amount_decimal"));
    let up_to = |tier: &Value| tier["up_to"].as_u64().map(u128::from);
    if price["tiers_mode"] == "volume" {
        // All of it at the price of the tier that the whole quantity falls in.
        let at = tiers.iter().position(|tier| up_to(tier).is_none_or(|up_to| quantity <= up_to)).unwrap_or(0);
        let (unit, flat) = tiers.get(at).map(of).unwrap_or_default();
        return vec![part(at + 1, quantity, unit, flat)];
    }
    let mut lines = Vec::new();
    let mut below = 0;
    for (at, tier) in tiers.iter().enumerate() {
        let here = up_to(tier).map_or(quantity, |up_to| quantity.min(up_to)).saturating_sub(below);
        if here == 0 && at > 0 {
            break;
        }
        let (unit, flat) = of(tier);
        lines.push(part(at + 1, here, unit, flat));
        below += here;
    }
    lines
}

/// `transform_quantity`: packages, begun or full.
fn transformed(price: &Value, quantity: u128) -> u128 {
    let transform = &price["transform_quantity"];
    match transform["divide_by"].as_u64() {
        Some(by) if by > 0 && transform["round"] == "up" => quantity.div_ceil(by.into()),
        Some(by) if by > 0 => quantity / u128::from(by),
        _ => quantity,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn amounts(price: &Value, quantity: u128) -> Vec<(u128, i64)> {
        parts(price, quantity).into_iter().map(|part| (part.quantity, part.amount)).collect()
    }

    #[test]
    fn flat_rates_round_once() {
        let price = json!({"unit_amount_decimal": "0.00002"});
        // 24,999 at 0.00002 are 0.49998; one more is 0.5.
        assert_eq!(amounts(&price, 24_999), [(24_999, 0)]);
        assert_eq!(amounts(&price, 25_000), [(25_000, 1)]);
        let fine = json!({"unit_amount_decimal": "0.000000000001"});
        assert_eq!(amounts(&fine, 999_999_999_999_999), [(999_999_999_999_999, 1000)]);
        let packed =
            json!({"unit_amount_decimal": "3", "transform_quantity": {"divide_by": 10, "round": "up"}});
        assert_eq!(amounts(&packed, 11), [(2, 6)]);
    }

    #[test]
    fn tiers_are_lines() {
        let tiers = json!([
            {"up_to": 100, "unit_amount_decimal": "0"},
            {"up_to": 200, "unit_amount_decimal": "0.5", "flat_amount_decimal": "7"},
            {"up_to": null, "unit_amount_decimal": "0.25"},
        ]);
        let graduated = json!({"tiers_mode": "graduated", "_tiers": tiers});
        assert_eq!(amounts(&graduated, 0), [(0, 0)]);
        assert_eq!(amounts(&graduated, 100), [(100, 0)]);
        assert_eq!(amounts(&graduated, 101), [(100, 0), (1, 8)]);
        assert_eq!(amounts(&graduated, 302), [(100, 0), (100, 57), (102, 26)]);
        let volume = json!({"tiers_mode": "volume", "_tiers": tiers});
        assert_eq!(amounts(&volume, 100), [(100, 0)]);
        assert_eq!(amounts(&volume, 101), [(101, 58)]);
        assert_eq!(amounts(&volume, 302), [(302, 76)]);
    }

    proptest::proptest! {
        #[test]
        fn no_unit_is_lost_between_tiers(quantity in 0u128..2000, a in 1u64..500, b in 501u64..1000) {
            let price = json!({"tiers_mode": "graduated", "_tiers": [
                {"up_to": a, "unit_amount_decimal": "1"}, {"up_to": b, "unit_amount_decimal": "1"},
                {"up_to": null, "unit_amount_decimal": "1"}]});
            let lines = parts(&price, quantity);
            proptest::prop_assert_eq!(lines.iter().map(|line| line.quantity).sum::<u128>(), quantity);
            proptest::prop_assert_eq!(lines.iter().map(|line| i128::from(line.amount)).sum::<i128>(), quantity as i128);
        }
    }
}
