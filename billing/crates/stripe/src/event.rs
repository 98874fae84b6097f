use serde::Deserialize;
use stripe_client_core::{RequestBuilder, StripeMethod};

use crate::{Client, StripeError};

/// No webhook is longer.
pub const MAX_WEBHOOK: usize = 1 << 20;

/// A webhook that was believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// `evt_…`, the same each time it is sent.
    pub id: String,
    /// Such as `invoice.created`.
    pub kind: String,
    /// Whether it counts for money that customers pay.
    pub live: bool,
    /// When Stripe made it, seconds since the Unix epoch; 0 for a thin event.
    pub created: i64,
    /// What it is about.
    pub about: About,
}

/// What an event is about, by id: its content may be older than what is there now, so that is fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum About {
    /// A customer subscribed: the customer, and the subscription where the session made one.
    Checkout {
        /// `cus_…`.
        customer: Option<String>,
        /// `sub_…`.
        subscription: Option<String>,
    },
    /// A subscription changed.
    Subscription {
        /// `sub_…`.
        id: String,
        /// Its status when the event was made.
        status: Option<String>,
    },
    /// An invoice changed.
    Invoice {
        /// `in_…`.
        id: String,
        /// The subscription that it is for.
        subscription: Option<String>,
    },
    /// A customer is gone.
    CustomerDeleted(String),
    /// Stripe could not use meter events.
    MeterErrors {
        /// Its words.
        summary: String,
        /// Whether the rest has to be fetched ([`Client::thin_event`]).
        thin: bool,
    },
    /// Nothing that matters here.
    Other,
}

/// A body that is no event.
#[derive(Debug, thiserror::Error)]
#[error("the webhook is no event: {0}")]
pub struct EventError(String);

#[derive(Deserialize)]
struct Raw {
    id: String,
    object: String,
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    livemode: bool,
    /// A number in snapshot events, text in thin ones.
    #[serde(default)]
    created: serde_json::Value,
    #[serde(default)]
    data: serde_json::Value,
    #[serde(default)]
    related_object: Option<serde_json::Value>,
}

impl Event {
    /// Reads a snapshot event (`object: event`) or a thin one (`object: v2.core.event`).
    ///
    /// # Errors
    /// [`EventError`].
    pub fn parse(body: &[u8]) -> Result<Self, EventError> {
        let raw: Raw = serde_json::from_slice(body).map_err(|e| EventError(e.to_string()))?;
        if raw.object != "event" && raw.object != "v2.core.event" {
            return Err(EventError(format!("its object is {:?}", raw.object)));
        }
        if raw.id.is_empty() || raw.id.len() > 255 {
            return Err(EventError("its id is empty or too long".to_owned()));
        }
        let object = &raw.data["object"];
        let text = |value: &serde_json::Value| match value {
            serde_json::Value::String(text) => Some(text.clone()),
            // An expanded object.
            serde_json::Value::Object(fields) => {
                fields.get("id").and_then(|id| id.as_str()).map(str::to_owned)
            }
            _ => None,
        };
        let id = || text(object).ok_or_else(|| EventError(format!("{} without the object's id", raw.kind)));
        let about = match raw.kind.as_str() {
            "checkout.session.completed" => About::Checkout {
                customer: text(&object["customer"]),
                subscription: text(&object["subscription"]),
            },
            kind if kind.starts_with("customer.subscription.") => {
                About::Subscription { id: id()?, status: object["status"].as_str().map(str::to_owned) }
            }
            kind if kind.starts_with("invoice.") && object["object"] == "invoice" => About::Invoice {
                id: id()?,
                // Since 2025 it stands with the invoice's parent.
                subscription: text(&object["subscription"])
                    .or_else(|| text(&object["parent"]["subscription_details"]["subscription"])),
            },
            "customer.deleted" => About::CustomerDeleted(id()?),
            kind if kind.starts_with("v1.billing.meter.") => {
                let meter = raw.related_object.as_ref().and_then(|o| o["id"].as_str()).unwrap_or("unknown");
                let summary =
                    raw.data["developer_message_summary"].as_str().unwrap_or("no summary").to_owned();
                let summary = format!("meter {meter}: {summary}").chars().take(1000).collect();
                About::MeterErrors { summary, thin: raw.object != "event" }
            }
            _ => About::Other,
        };
        let created = raw.created.as_i64().unwrap_or(0);
        Ok(Self { id: raw.id, kind: raw.kind, live: raw.livemode, created, about })
    }
}

#[derive(Deserialize)]
struct Thin {
    #[serde(default)]
    data: serde_json::Value,
}

impl Client {
    /// What a thin event left out.
    ///
    /// # Errors
    /// [`StripeError`].
    pub async fn thin_event(&self, id: &str) -> Result<serde_json::Value, StripeError> {
        let request = RequestBuilder::new(StripeMethod::Get, format!("/v2/core/events/{id}"));
        let Thin { data } = self.call(request).await?;
        Ok(data)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_snapshot_and_thin_events() {
        let parse = |text: &str| Event::parse(text.as_bytes());
        let about = |kind: &str, object: &str| {
            let text =
                format!(r#"{{"id":"evt_1","object":"event","type":"{kind}","data":{{"object":{object}}}}}"#);
            parse(&text).map(|e| e.about)
        };
        assert_eq!(
            about("checkout.session.completed", r#"{"customer":"cus_1","subscription":{"id":"sub_1"}}"#)
                .unwrap(),
            About::Checkout { customer: Some("cus_1".into()), subscription: Some("sub_1".into()) }
        );
        assert_eq!(
            about("customer.subscription.updated", r#"{"id":"sub_1","status":"past_due"}"#).unwrap(),
            About::Subscription { id: "sub_1".into(), status: Some("past_due".into()) }
        );
        let invoice =
            r#"{"id":"in_1","object":"invoice","parent":{"subscription_details":{"subscription":"sub_1"}}}"#;
        assert_eq!(
            about("invoice.created", invoice).unwrap(),
            About::Invoice { id: "in_1".into(), subscription: Some("sub_1".into()) }
        );
        assert_eq!(
            about("customer.deleted", r#"{"id":"cus_1"}"#).unwrap(),
            About::CustomerDeleted("cus_1".into())
        );
        assert_eq!(about("charge.refunded", "{}").unwrap(), About::Other);
        assert!(about("customer.deleted", "{}").is_err());
        let thin = r#"{"id":"evt_2","object":"v2.core.event","type":"v1.billing.meter.no_meter_found",
            "livemode":true,"data":{"developer_message_summary":"2 invalid"},"related_object":null}"#;
        let event = parse(thin).unwrap();
        assert!(event.live);
        assert_eq!(
            event.about,
            About::MeterErrors { summary: "meter unknown: 2 invalid".into(), thin: true }
        );
        for bad in [
            "",
            "[]",
            "{}",
            r#"{"id":"","object":"event","type":"x"}"#,
            r#"{"id":"e","object":"charge","type":"x"}"#,
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
