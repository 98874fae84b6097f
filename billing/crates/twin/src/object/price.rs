use serde_json::{Value, json};

use crate::bill::decimal;
use crate::context::Context;
use crate::error::{ApiError, Result};
use crate::kind::Kind;
use crate::list::page;
use crate::params::Params;

pub(crate) const CREATE: &[&str] = &[
    "currency",
    "product",
    "product_data.name",
    "product_data.metadata.*",
    "unit_amount",
    "unit_amount_decimal",
    "nickname",
    "lookup_key",
    "transfer_lookup_key",
    "metadata.*",
    "active",
    "billing_scheme",
    "tiers_mode",
    "tax_behavior",
    "recurring.interval",
    "recurring.interval_count",
    "recurring.meter",
    "recurring.usage_type",
    "tiers.#.up_to",
    "tiers.#.unit_amount",
    "tiers.#.unit_amount_decimal",
    "tiers.#.flat_amount",
    "tiers.#.flat_amount_decimal",
    "transform_quantity.divide_by",
    "transform_quantity.round",
];
pub(crate) const UPDATE: &[&str] =
    &["active", "nickname", "lookup_key", "transfer_lookup_key", "metadata.*", "tax_behavior"];
pub(crate) const LIST: &[&str] = &[
    "limit",
    "starting_after",
    "ending_before",
    "active",
    "lookup_keys.#",
    "product",
    "currency",
    "type",
    "recurring.interval",
    "recurring.meter",
    "recurring.usage_type",
];

/// Currencies that we sell in, or that differ in their digits.
const CURRENCIES: [&str; 12] =
    ["usd", "eur", "gbp", "chf", "jpy", "kwd", "cad", "aud", "sek", "nok", "dkk", "pln"];

/// Longest interval, in its own unit (three years).
fn longest(interval: &str) -> i64 {
    match interval {
        "day" => 1095,
        "week" => 156,
        "month" => 36,
        _ => 3,
    }
}

pub(crate) fn create(cx: &mut Context<'_>) -> Result<Value> {
    cx.state.room(Kind::Price)?;
    let p = cx.params;
    let currency = p.need("currency")?;
    if !CURRENCIES.contains(&currency) {
        return Err(ApiError::invalid(format!(
            "Invalid currency: {}. Stripe currently supports these currencies: {}",
            crate::form::clip(currency),
            CURRENCIES.join(", ")
        ))
        .param("currency"));
    }
    let product = match p.text("product")? {
        Some(product) => {
            let found = cx.state.find_param(Kind::Product, product, "product")?;
            if found["active"] == false {
                return Err(ApiError::invalid("The product is not active.").param("product").executed());
            }
            product.to_owned()
        }
        None => {
            let name = p.text("product_data.name")?.ok_or_else(|| ApiError::needed("product"))?.to_owned();
            let metadata = p.metadata("product_data.metadata", &json!({}))?;
            let id = cx.state.id(Kind::Product);
            let product = json!({"id": id, "object": "product", "active": true, "created": cx.now, "livemode": false,
                "metadata": metadata, "name": name, "type": "service", "updated": cx.now});
            cx.state.put(Kind::Product, product.clone());
            cx.emit("product.created", &product);
            id
        }
    };
    let recurring = recurring(cx)?;
    let tiered = p.word("billing_scheme", &["per_unit", "tiered"])? == Some("tiered");
    let tiers = if tiered { Some(tiers(p)?) } else { None };
    let unit = amount(p, "unit_amount")?;
    match (tiered, unit.is_some()) {
        (true, true) => {
            return Err(ApiError::invalid("unit_amount cannot be set where billing_scheme is tiered.")
                .code("parameters_exclusive"));
        }
        (false, false) => return Err(ApiError::needed("unit_amount")),
        (false, true) if p.has("tiers") || p.has("tiers_mode") => {
            return Err(ApiError::invalid("tiers need billing_scheme tiered.").param("tiers"));
        }
        _ => {}
    }
    let transform = match (
        p.int("transform_quantity.divide_by")?,
        p.word("transform_quantity.round", &["up", "down"])?,
    ) {
        (None, None) => Value::Null,
        (Some(by), Some(round)) if by > 0 && !tiered => json!({ "divide_by": by, "round": round }),
        _ => {
            return Err(ApiError::invalid("transform_quantity needs divide_by and round, and no tiers.")
                .param("transform_quantity"));
        }
    };
    let id = cx.state.id(Kind::Price);
    let lookup_key = lookup_key(cx, &id)?;
    let p = cx.params;
    let price = json!({
        "id": id,
        "object": "price",
        "active": p.bool("active")?.unwrap_or(true),
        "billing_scheme": if tiered { "tiered" } else { "per_unit" },
        "created": cx.now,
        "currency": currency,
        "custom_unit_amount": null,
        "livemode": false,
        "lookup_key": lookup_key,
        "metadata": p.metadata("metadata", &json!({}))?,
        "nickname": p.text("nickname")?,
        "product": product,
        "tax_behavior": p.word("tax_behavior", &["exclusive", "inclusive", "unspecified"])?.unwrap_or("unspecified"),
        "tiers_mode": if tiered { p.text("tiers_mode")? } else { None },
        "transform_quantity": transform,
        "type": if recurring.is_null() { "one_time" } else { "recurring" },
        "recurring": recurring,
        "unit_amount": unit.and_then(|unit| unit.is_multiple_of(decimal::ONE).then(|| decimal::round(unit))),
        "unit_amount_decimal": unit.map(decimal::format),
        "_tiers": tiers,
    });
    cx.state.put(Kind::Price, price.clone());
    cx.emit("price.created", &price);
    Ok(price)
}

fn recurring(cx: &Context<'_>) -> Result<Value> {
    let p = cx.params;
    if !p.has("recurring") {
        return Ok(Value::Null);
    }
    p.need("recurring.interval")?;
    let interval = p.word("recurring.interval", &["day", "week", "month", "year"])?.unwrap_or("month");
    let count = p.int("recurring.interval_count")?.unwrap_or(1);
    if !(1..=longest(interval)).contains(&count) {
        return Err(
            ApiError::invalid("The interval is longer than three years.").param("recurring[interval_count]")
        );
    }
    let usage = p.word("recurring.usage_type", &["licensed", "metered"])?.unwrap_or("licensed");
    let meter = p.text("recurring.meter")?;
    match (usage, meter) {
        ("metered", None) => {
            return Err(
                ApiError::invalid("Metered prices must be backed by a meter.").param("recurring[meter]")
            );
        }
        ("licensed", Some(_)) => {
            return Err(ApiError::invalid("A meter needs usage_type metered.").param("recurring[usage_type]"));
        }
        _ => {}
    }
    if let Some(meter) = meter {
        let found = cx.state.find_param(Kind::Meter, meter, "recurring[meter]")?;
        if found["status"] != "active" {
            return Err(ApiError::invalid("The meter is not active.").param("recurring[meter]").executed());
        }
    }
    Ok(
        json!({ "interval": interval, "interval_count": count, "meter": meter, "trial_period_days": null, "usage_type": usage }),
    )
}

/// `NAME` or `NAME_decimal`, as parts of 10^-12.
fn amount(p: &Params, name: &str) -> Result<Option<u128>> {
    let decimal_name = format!("{name}_decimal");
    let (whole, fine) = (p.text(name)?, p.text(&decimal_name)?);
    let text = match (whole, fine) {
        (Some(_), Some(_)) => {
            return Err(ApiError::invalid(format!("Only one of {name} and {decimal_name} can be set."))
                .code("parameters_exclusive"));
        }
        (Some(whole), None) => {
            p.int(name)?;
            whole
        }
        (None, Some(fine)) => fine,
        (None, None) => return Ok(None),
    };
    decimal::parse(text).map(Some).ok_or_else(|| {
        ApiError::invalid(format!(
            "Invalid decimal: {}; it must be positive with at most 12 decimal places",
            crate::form::clip(text)
        ))
        .param(decimal_name)
    })
}

fn tiers(p: &Params) -> Result<Value> {
    p.need("tiers_mode")?;
    p.word("tiers_mode", &["graduated", "volume"])?;
    let count = p.len("tiers");
    if count == 0 {
        return Err(ApiError::needed("tiers"));
    }
    let mut tiers = Vec::new();
    let mut below = 0;
    for at in 0..count {
        let name = |field: &str| format!("tiers.{at}.{field}");
        let wrong = |why: &str| ApiError::invalid(why.to_owned()).param(format!("tiers[{at}][up_to]"));
        let last = at + 1 == count;
        let up_to = match p.need(&name("up_to"))? {
            "inf" if last => None,
            "inf" => return Err(wrong("Only the last tier may be open.")),
            _ if last => return Err(wrong("The last tier must be open: up_to inf.")),
            _ => Some(p.need_int(&name("up_to"))?),
        };
        if up_to.is_some_and(|up_to| up_to <= below) {
            return Err(wrong("Tiers must rise."));
        }
        below = up_to.unwrap_or(below);
        let (unit, flat) = (amount(p, &name("unit_amount"))?, amount(p, &name("flat_amount"))?);
        if unit.is_none() && flat.is_none() {
            return Err(ApiError::needed(&format!("tiers[{at}][unit_amount]")));
        }
        let whole = |parts: Option<u128>| {
            parts.and_then(|parts| parts.is_multiple_of(decimal::ONE).then(|| decimal::round(parts)))
        };
        tiers.push(json!({
            "flat_amount": whole(flat),
            "flat_amount_decimal": flat.map(decimal::format),
            "unit_amount": whole(unit),
            "unit_amount_decimal": unit.map(decimal::format),
            "up_to": up_to,
        }));
    }
    Ok(Value::Array(tiers))
}

/// The lookup key that a request names, taken from the price that has it if the request says so.
fn lookup_key(cx: &mut Context<'_>, id: &str) -> Result<Option<String>> {
    let Some(key) = cx.params.short("lookup_key", 200)? else { return Ok(None) };
    let holder = cx.state.price_by_lookup_key(key).and_then(|price| price["id"].as_str()).map(str::to_owned);
    match holder {
        Some(holder) if holder != id => {
            if cx.params.bool("transfer_lookup_key")? != Some(true) {
                return Err(ApiError::invalid(format!(
                    "A price (`{holder}`) already uses that lookup key. It must be unique, or transfer_lookup_key be set."
                ))
                .param("lookup_key")
                .executed());
            }
            cx.state.change(Kind::Price, &holder, |price| price["lookup_key"] = Value::Null);
        }
        _ => {}
    }
    Ok(Some(key.to_owned()))
}

pub(crate) fn retrieve(cx: &mut Context<'_>) -> Result<Value> {
    Ok(cx.state.find(Kind::Price, cx.id())?.clone())
}

/// Amounts of a price never change.
pub(crate) fn update(cx: &mut Context<'_>) -> Result<Value> {
    let before = cx.state.find(Kind::Price, cx.id())?.clone();
    let mut price = before.clone();
    if cx.params.has("lookup_key") {
        price["lookup_key"] = json!(lookup_key(cx, cx.id())?);
    }
    let p = cx.params;
    if let Some(active) = p.bool("active")? {
        price["active"] = json!(active);
    }
    super::lay_texts(p, &mut price, &["nickname"])?;
    price["metadata"] = p.metadata("metadata", &before["metadata"])?;
    cx.state.put(Kind::Price, price.clone());
    cx.emit_update("price.updated", &before, &price);
    Ok(price)
}

pub(crate) fn list(cx: &mut Context<'_>) -> Result<Value> {
    let p = cx.params;
    let keys = p.texts("lookup_keys");
    if keys.len() > 10 {
        return Err(ApiError::invalid("At most 10 lookup keys.").param("lookup_keys"));
    }
    let active = p.bool("active")?;
    let same = |path: &str| -> Result<Option<String>> { Ok(p.text(path)?.map(str::to_owned)) };
    let (product, currency, kind) = (same("product")?, same("currency")?, same("type")?);
    let meter = same("recurring.meter")?;
    let rows = cx.state.all(Kind::Price).rev();
    let rows = rows.filter(|price| {
        (keys.is_empty() || price["lookup_key"].as_str().is_some_and(|key| keys.contains(&key)))
            && active.is_none_or(|active| price["active"] == active)
            && product.as_ref().is_none_or(|product| price["product"] == *product)
            && currency.as_ref().is_none_or(|currency| price["currency"] == *currency)
            && kind.as_ref().is_none_or(|kind| price["type"] == *kind)
            && meter.as_ref().is_none_or(|meter| price["recurring"]["meter"] == *meter)
    });
    page(p, "/v1/prices", rows, "price")
}
