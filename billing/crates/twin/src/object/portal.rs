use serde_json::{Value, json};

use crate::context::Context;
use crate::error::{ApiError, Result};
use crate::kind::Kind;
use crate::list::page;

pub(crate) const CONFIGURE: &[&str] = &[
    "active",
    "business_profile.headline",
    "business_profile.privacy_policy_url",
    "business_profile.terms_of_service_url",
    "default_return_url",
    "metadata.*",
    "name",
    "login_page.enabled",
    "features.customer_update.enabled",
    "features.customer_update.allowed_updates.#",
    "features.invoice_history.enabled",
    "features.payment_method_update.enabled",
    "features.subscription_cancel.enabled",
    "features.subscription_cancel.mode",
    "features.subscription_cancel.proration_behavior",
    "features.subscription_cancel.cancellation_reason.enabled",
    "features.subscription_cancel.cancellation_reason.options.#",
    "features.subscription_update.enabled",
];
pub(crate) const LIST: &[&str] = &["limit", "starting_after", "ending_before", "active", "is_default"];
pub(crate) const CREATE: &[&str] = &["customer", "return_url", "configuration", "locale", "flow_data.type"];

/// How long a page may be opened.
const OPEN: i64 = 3600;

fn lay(cx: &Context<'_>, configuration: &mut Value) -> Result<()> {
    let p = cx.params;
    super::lay_texts(p, configuration, &["default_return_url", "name"])?;
    for name in ["headline", "privacy_policy_url", "terms_of_service_url"] {
        if let Some(text) = p.raw(&format!("business_profile.{name}"))? {
            configuration["business_profile"][name] = json!(text);
        }
    }
    for feature in [
        "customer_update",
        "invoice_history",
        "payment_method_update",
        "subscription_cancel",
        "subscription_update",
    ] {
        if let Some(enabled) = p.bool(&format!("features.{feature}.enabled"))? {
            configuration["features"][feature]["enabled"] = json!(enabled);
        } else if p.has(&format!("features.{feature}"))
            && configuration["features"][feature]["enabled"].is_null()
        {
            return Err(ApiError::needed(&format!("features[{feature}][enabled]")));
        }
    }
    if let Some(mode) = p.word("features.subscription_cancel.mode", &["at_period_end", "immediately"])? {
        configuration["features"]["subscription_cancel"]["mode"] = json!(mode);
    }
    if let Some(active) = p.bool("active")? {
        configuration["active"] = json!(active);
    }
    configuration["metadata"] = p.metadata("metadata", &configuration["metadata"].clone())?;
    configuration["updated"] = json!(cx.now);
    Ok(())
}

pub(crate) fn configure(cx: &mut Context<'_>) -> Result<Value> {
    cx.state.room(Kind::PortalConfiguration)?;
    if !cx.params.has("features") {
        return Err(ApiError::needed("features"));
    }
    let id = cx.state.id(Kind::PortalConfiguration);
    let mut configuration = json!({
        "id": id,
        "object": "billing_portal.configuration",
        "active": true,
        "application": null,
        "business_profile": { "headline": null, "privacy_policy_url": null, "terms_of_service_url": null },
        "created": cx.now,
        "default_return_url": null,
        "features": {
            "customer_update": { "allowed_updates": [], "enabled": false },
            "invoice_history": { "enabled": false },
            "payment_method_update": { "enabled": false },
            "subscription_cancel": { "enabled": false, "mode": "at_period_end", "proration_behavior": "none" },
            "subscription_update": { "enabled": false },
        },
        "is_default": false,
        "livemode": false,
        "login_page": { "enabled": false, "url": null },
        "metadata": {},
        "name": null,
    });
    lay(cx, &mut configuration)?;
    cx.state.put(Kind::PortalConfiguration, configuration.clone());
    cx.emit("billing_portal.configuration.created", &configuration);
    Ok(configuration)
}

pub(crate) fn reconfigure(cx: &mut Context<'_>) -> Result<Value> {
    let before = cx.state.find(Kind::PortalConfiguration, cx.id())?.clone();
    let mut configuration = before.clone();
    lay(cx, &mut configuration)?;
    cx.state.put(Kind::PortalConfiguration, configuration.clone());
    cx.emit_update("billing_portal.configuration.updated", &before, &configuration);
    Ok(configuration)
}

pub(crate) fn retrieve(cx: &mut Context<'_>) -> Result<Value> {
    Ok(cx.state.find(Kind::PortalConfiguration, cx.id())?.clone())
}

pub(crate) fn list(cx: &mut Context<'_>) -> Result<Value> {
    let active = cx.params.bool("active")?;
    let default = cx.params.bool("is_default")?;
    let rows = cx.state.all(Kind::PortalConfiguration).rev();
    let rows = rows.filter(|c| {
        active.is_none_or(|active| c["active"] == active)
            && default.is_none_or(|default| c["is_default"] == default)
    });
    page(cx.params, "/v1/billing_portal/configurations", rows, "configuration")
}

pub(crate) fn create(cx: &mut Context<'_>) -> Result<Value> {
    cx.state.room(Kind::PortalSession)?;
    let p = cx.params;
    let customer = cx.customer("customer")?["id"].clone();
    let configuration = match p.text("configuration")? {
        Some(id) => {
            let found = cx.state.find_param(Kind::PortalConfiguration, id, "configuration")?;
            if found["active"] != true {
                return Err(ApiError::invalid("The configuration is not active.")
                    .param("configuration")
                    .executed());
            }
            Some(found.clone())
        }
        None => None,
    };
    let settings = cx.state.get(Kind::Setting, "faults");
    if configuration.is_none() && settings.is_some_and(|settings| settings["portal_default"] == false) {
        return Err(ApiError::invalid(
            "No configuration provided and your test mode default configuration has not been created. Provide a configuration or create your default by saving your customer portal settings in test mode.",
        )
        .executed());
    }
    let default_return = configuration.as_ref().and_then(|c| c["default_return_url"].as_str());
    let return_url = match p.text("return_url")?.or(default_return) {
        Some(text) => Some(super::checkout::url(text, "return_url")?),
        None => None,
    };
    let id = cx.state.id(Kind::PortalSession);
    let session = json!({
        "id": id,
        "object": "billing_portal.session",
        "configuration": configuration.as_ref().map_or(json!("bpc_default"), |c| c["id"].clone()),
        "created": cx.now,
        "customer": customer,
        "flow": null,
        "livemode": false,
        "locale": p.text("locale")?,
        "on_behalf_of": null,
        "return_url": return_url,
        "url": format!("{}/p/session/{id}", cx.base),
        "_due": cx.now + OPEN,
    });
    cx.state.put(Kind::PortalSession, session.clone());
    cx.emit("billing_portal.session.created", &session);
    Ok(session)
}
