use serde_json::{Value, json};

use crate::error::{ApiError, Result};
use crate::form::clip;
use crate::kind::Kind;
use crate::state::{State, shown};

/// Longest path of `expand[]`.
const DEPTH: usize = 4;

/// Kinds that answers name by id.
const NAMED: [Kind; 10] = [
    Kind::Customer,
    Kind::PaymentMethod,
    Kind::Product,
    Kind::Price,
    Kind::Checkout,
    Kind::Subscription,
    Kind::Invoice,
    Kind::CreditGrant,
    Kind::TestClock,
    Kind::PortalConfiguration,
];

/// Puts objects in the place of their ids, as `expand[]` asks (Stripe documentation, "Expanding responses").
pub(crate) fn expand(state: &State, answer: &mut Value, paths: &[&str]) -> Result<()> {
    for path in paths {
        let parts: Vec<&str> = path.split('.').collect();
        if parts.len() > DEPTH {
            return Err(ApiError::invalid(format!(
                "You cannot expand more than {DEPTH} levels of a property."
            )));
        }
        at(state, answer, &parts, path)?;
    }
    Ok(())
}

fn at(state: &State, value: &mut Value, parts: &[&str], path: &str) -> Result<()> {
    let Some((part, rest)) = parts.split_first() else { return Ok(()) };
    if let Value::Array(list) = value {
        return list.iter_mut().try_for_each(|item| at(state, item, parts, path));
    }
    if value.is_null() {
        return Ok(());
    }
    // Only shown where it is asked for.
    if *part == "tiers" && value["object"] == "price" {
        let tiers =
            value["id"].as_str().and_then(|id| state.get(Kind::Price, id)).map(|p| p["_tiers"].clone());
        value["tiers"] = tiers.unwrap_or_default();
        return Ok(());
    }
    let Some(inner) = value.get_mut(*part) else {
        return Err(ApiError::invalid(format!(
            "This property cannot be expanded ({}). You may want to try expanding a different property.",
            clip(path)
        )));
    };
    if let Some(id) = inner.as_str() {
        let named = NAMED.iter().filter(|kind| id.starts_with(kind.prefix()) || **kind == Kind::Product);
        if let Some(object) = named.filter_map(|kind| state.get(*kind, id)).next() {
            *inner = shown(object);
        }
    }
    at(state, inner, rest, path)
}

/// A list that lies within an object.
pub(crate) fn inner_list(data: &[Value], url: &str) -> Value {
    json!({ "object": "list", "data": data, "has_more": false, "total_count": data.len(), "url": url })
}
