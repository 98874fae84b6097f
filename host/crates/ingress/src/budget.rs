use http::{HeaderMap, HeaderName};
use wasmeter_admission::{Opening, Purse};
use wasmeter_catalog::Revision;
use wasmeter_types::{Error, ErrorKind, TenantName};
use wasmeter_usage::Pico;

use crate::server::Deps;
use crate::trigger::Caller;

/// What a call may cost at most, such as `0.000001 USD`, or without the currency.
const MAX_COST: HeaderName = HeaderName::from_static("x-wasmeter-max-cost");

/// Money for an invocation; `None` if nothing bounds what it costs.
pub(crate) async fn purse(
    deps: &Deps,
    tenant: &TenantName,
    revision: &Revision,
    caller: &Caller,
    headers: &HeaderMap,
) -> Result<Option<Purse>, Error> {
    let asked = headers.get(&MAX_COST);
    if asked.is_none() && !deps.budgets.bounds(tenant.as_str()) {
        return Ok(None);
    }
    // Without prices no work is accepted, so there are some.
    let prices = deps.invoker.prices().ok_or_else(Error::internal)?;
    let most = asked.map(|value| max_cost(value.to_str().unwrap_or(""), &prices.currency)).transpose()?;
    let limits = &revision.manifest.limits;
    let opening = Opening {
        tenant: tenant.as_str(),
        key: caller.subject(),
        most,
        rates: prices.rates,
        fuel: limits.fuel,
        egress: limits.response_body.0,
        models: !revision.manifest.models.allow.is_empty(),
    };
    deps.budgets.open(&opening).await
}

fn max_cost(text: &str, currency: &str) -> Result<Pico, Error> {
    let (amount, unit) = text.trim().split_once(' ').unwrap_or((text.trim(), currency));
    match Pico::from_units(amount).filter(|_| unit == currency) {
        Some(most) => Ok(most),
        None => Err(Error::new(
            ErrorKind::Malformed,
            format!("x-wasmeter-max-cost is an amount of {currency}, such as `0.000001 {currency}`"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_amounts_with_and_without_the_currency() {
        assert_eq!(max_cost("0.000001 USD", "USD").ok(), Some(Pico(1_000_000)));
        assert_eq!(max_cost(" 2", "USD").ok(), Some(Pico(2 * Pico::UNIT)));
        for bad in ["", "1 EUR", "-1", "1e-6", "USD", "0.1  USD", "1,5"] {
            assert_eq!(max_cost(bad, "USD").err().map(|e| e.kind), Some(ErrorKind::Malformed), "{bad:?}");
        }
    }
}
