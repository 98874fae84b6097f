use serde_json::{Value, json};

use super::lay_texts;
use crate::context::Context;
use crate::error::{ApiError, Result};
use crate::kind::Kind;
use crate::list::page;

pub(crate) const CREATE: &[&str] = &[
    "id",
    "name",
    "description",
    "active",
    "metadata.*",
    "unit_label",
    "statement_descriptor",
    "url",
    "tax_code",
];
pub(crate) const UPDATE: &[&str] =
    &["name", "description", "active", "metadata.*", "unit_label", "statement_descriptor", "url", "tax_code"];
pub(crate) const LIST: &[&str] = &["limit", "starting_after", "ending_before", "active", "ids.#"];

const TEXTS: &[&str] = &["description", "unit_label", "statement_descriptor", "url", "tax_code"];

pub(crate) fn create(cx: &mut Context<'_>) -> Result<Value> {
    cx.state.room(Kind::Product)?;
    let p = cx.params;
    let name = p.need("name")?;
    let id = match p.short("id", 255)? {
        Some(id) if cx.state.get(Kind::Product, id).is_some() => {
            return Err(ApiError::invalid("Product already exists.")
                .code("resource_already_exists")
                .param("id")
                .executed());
        }
        Some(id) => id.to_owned(),
        None => cx.state.id(Kind::Product),
    };
    let mut product = json!({
        "id": id,
        "object": "product",
        "active": p.bool("active")?.unwrap_or(true),
        "created": cx.now,
        "default_price": null,
        "description": null,
        "images": [],
        "livemode": false,
        "marketing_features": [],
        "metadata": p.metadata("metadata", &json!({}))?,
        "name": name,
        "package_dimensions": null,
        "shippable": null,
        "statement_descriptor": null,
        "tax_code": null,
        "type": "service",
        "unit_label": null,
        "updated": cx.now,
        "url": null,
    });
    lay_texts(p, &mut product, TEXTS)?;
    cx.state.put(Kind::Product, product.clone());
    cx.emit("product.created", &product);
    Ok(product)
}

pub(crate) fn retrieve(cx: &mut Context<'_>) -> Result<Value> {
    Ok(cx.state.find(Kind::Product, cx.id())?.clone())
}

pub(crate) fn update(cx: &mut Context<'_>) -> Result<Value> {
    let before = cx.state.find(Kind::Product, cx.id())?.clone();
    let mut product = before.clone();
    let p = cx.params;
    lay_texts(p, &mut product, TEXTS)?;
    if let Some(name) = p.text("name")? {
        product["name"] = json!(name);
    }
    if let Some(active) = p.bool("active")? {
        product["active"] = json!(active);
    }
    product["metadata"] = p.metadata("metadata", &before["metadata"])?;
    product["updated"] = json!(cx.now);
    cx.state.put(Kind::Product, product.clone());
    cx.emit_update("product.updated", &before, &product);
    Ok(product)
}

pub(crate) fn delete(cx: &mut Context<'_>) -> Result<Value> {
    let product = cx.state.find(Kind::Product, cx.id())?.clone();
    if cx.state.all(Kind::Price).any(|price| price["product"] == product["id"]) {
        return Err(ApiError::invalid(
            "This product cannot be deleted because it has one or more user-created prices.",
        )
        .executed());
    }
    cx.state.remove(Kind::Product, cx.id());
    cx.emit("product.deleted", &product);
    Ok(json!({ "id": product["id"], "object": "product", "deleted": true }))
}

pub(crate) fn list(cx: &mut Context<'_>) -> Result<Value> {
    let active = cx.params.bool("active")?;
    let ids = cx.params.texts("ids");
    let rows = cx.state.all(Kind::Product).rev();
    let rows = rows.filter(|product| {
        active.is_none_or(|active| product["active"] == active)
            && (ids.is_empty() || product["id"].as_str().is_some_and(|id| ids.contains(&id)))
    });
    page(cx.params, "/v1/products", rows, "product")
}
