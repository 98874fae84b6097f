use serde_json::{Value, json};

use crate::context::Context;
use crate::error::{ApiError, Result};
use crate::kind::Kind;
use crate::list::page;

pub(crate) const CREATE: &[&str] =
    &["url", "enabled_events.#", "description", "metadata.*", "api_version", "connect"];
pub(crate) const UPDATE: &[&str] = &["url", "enabled_events.#", "description", "metadata.*", "disabled"];

/// Endpoints at most (Stripe documentation, "Webhooks").
const MOST: usize = 16;

pub(crate) fn create(cx: &mut Context<'_>) -> Result<Value> {
    let p = cx.params;
    let url = address(p.need("url")?)?;
    let events = p.texts("enabled_events");
    if events.is_empty() {
        return Err(ApiError::needed("enabled_events"));
    }
    if cx.state.count(Kind::WebhookEndpoint) >= MOST {
        return Err(ApiError::invalid(format!(
            "You have reached the maximum of {MOST} test webhook endpoints."
        ))
        .executed());
    }
    let id = cx.state.id(Kind::WebhookEndpoint);
    let secret = format!("whsec_{}", cx.state.token(32));
    let mut endpoint = json!({
        "id": id,
        "object": "webhook_endpoint",
        "api_version": p.text("api_version")?,
        "application": null,
        "created": cx.now,
        "description": p.text("description")?,
        "enabled_events": events,
        "livemode": false,
        "metadata": p.metadata("metadata", &json!({}))?,
        "status": "enabled",
        "url": url,
        "_secret": secret,
    });
    cx.state.put(Kind::WebhookEndpoint, endpoint.clone());
    // Shown this once.
    endpoint["secret"] = json!(secret);
    Ok(endpoint)
}

/// An address on this machine: the twin's news are for nobody else.
pub(crate) fn address(text: &str) -> Result<String> {
    let authority =
        text.strip_prefix("http://").map(|rest| rest.split(['/', '?']).next().unwrap_or_default());
    let loopback = authority
        .and_then(|authority| authority.parse::<std::net::SocketAddr>().ok())
        .is_some_and(|address| address.ip().is_loopback());
    if loopback && text.len() <= 2000 && text.parse::<hyper::Uri>().is_ok() {
        return Ok(text.to_owned());
    }
    Err(ApiError::invalid(
        "Invalid URL: the twin sends webhooks to addresses such as http://127.0.0.1:8080/stripe/webhook only.",
    )
    .code("url_invalid")
    .param("url"))
}

pub(crate) fn retrieve(cx: &mut Context<'_>) -> Result<Value> {
    Ok(cx.state.find(Kind::WebhookEndpoint, cx.id())?.clone())
}

pub(crate) fn update(cx: &mut Context<'_>) -> Result<Value> {
    let mut endpoint = cx.state.find(Kind::WebhookEndpoint, cx.id())?.clone();
    let p = cx.params;
    if let Some(url) = p.text("url")? {
        endpoint["url"] = json!(address(url)?);
    }
    if p.has("enabled_events") {
        endpoint["enabled_events"] = json!(p.texts("enabled_events"));
    }
    if let Some(disabled) = p.bool("disabled")? {
        endpoint["status"] = json!(if disabled { "disabled" } else { "enabled" });
    }
    super::lay_texts(p, &mut endpoint, &["description"])?;
    endpoint["metadata"] = p.metadata("metadata", &endpoint["metadata"])?;
    cx.state.put(Kind::WebhookEndpoint, endpoint.clone());
    Ok(endpoint)
}

pub(crate) fn delete(cx: &mut Context<'_>) -> Result<Value> {
    cx.state.find(Kind::WebhookEndpoint, cx.id())?;
    let id = cx.id().to_owned();
    cx.state.remove(Kind::WebhookEndpoint, &id);
    Ok(json!({ "id": id, "object": "webhook_endpoint", "deleted": true }))
}

pub(crate) fn list(cx: &mut Context<'_>) -> Result<Value> {
    let rows = cx.state.all(Kind::WebhookEndpoint).rev();
    page(cx.params, "/v1/webhook_endpoints", rows, "webhook endpoint")
}
