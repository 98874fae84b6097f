//! The parts of Stripe's objects that are used, read by name, so that what Stripe adds changes nothing.

use std::collections::HashMap;

use serde::Deserialize;

/// A page of a list.
#[derive(Debug, Deserialize)]
pub(crate) struct Page<T> {
    pub(crate) data: Vec<T>,
    #[serde(default)]
    pub(crate) has_more: bool,
}

/// Anything of which only the id matters.
#[derive(Debug, Deserialize)]
pub(crate) struct Named {
    pub(crate) id: String,
    #[serde(default)]
    pub(crate) deleted: bool,
}

/// A product.
#[derive(Debug, Deserialize)]
pub(crate) struct Product {
    pub(crate) id: String,
    #[serde(default)]
    pub(crate) active: bool,
    #[serde(default)]
    pub(crate) deleted: bool,
}

/// A billing meter.
#[derive(Debug, Deserialize)]
pub(crate) struct MeterObject {
    pub(crate) id: String,
    pub(crate) event_name: String,
    pub(crate) default_aggregation: Aggregation,
    pub(crate) customer_mapping: Mapping,
    pub(crate) value_settings: ValueSettings,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Aggregation {
    pub(crate) formula: String,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Mapping {
    pub(crate) event_payload_key: String,
}

#[derive(Debug, Deserialize)]
pub(crate) struct ValueSettings {
    pub(crate) event_payload_key: String,
}

/// A price.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Price {
    pub(crate) id: String,
    #[serde(default)]
    pub(crate) active: bool,
    pub(crate) currency: String,
    pub(crate) unit_amount_decimal: Option<String>,
    pub(crate) recurring: Option<Recurring>,
    #[serde(default)]
    metadata: HashMap<String, String>,
}

impl Price {
    /// The hash of the price sheet that it was made of; `None` of a price that is not ours.
    pub(crate) fn sheet(&self) -> Option<&str> {
        self.metadata.get(crate::setup::SHEET_KEY).map(String::as_str)
    }

    /// The meter whose usage it is for.
    pub(crate) fn meter(&self) -> Option<&str> {
        self.recurring.as_ref().and_then(|recurring| recurring.meter.as_deref())
    }
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Recurring {
    pub(crate) meter: Option<String>,
}

/// A page of Stripe's that a customer is sent to.
#[derive(Debug, Deserialize)]
pub(crate) struct Session {
    pub(crate) url: Option<String>,
}

/// What a customer used within a window, as Stripe counted it.
#[derive(Debug, Deserialize)]
pub(crate) struct Summary {
    pub(crate) id: String,
    pub(crate) aggregated_value: serde_json::Number,
    pub(crate) start_time: i64,
}

/// A subscription. Since 2025 the period is that of its items.
#[derive(Clone, Debug, Deserialize)]
pub struct Subscription {
    /// `sub_…`.
    pub id: String,
    /// `cus_…`.
    pub customer: String,
    /// `active`, `trialing`, `past_due`, `unpaid`, `canceled`, `incomplete`, `incomplete_expired` or `paused`.
    pub status: String,
    /// When it ended, seconds since the Unix epoch.
    #[serde(default)]
    pub ended_at: Option<i64>,
    /// ISO 4217, in lower case.
    #[serde(default)]
    pub currency: String,
    #[serde(default)]
    start_date: Option<i64>,
    #[serde(default)]
    created: Option<i64>,
    #[serde(default)]
    current_period_start: Option<i64>,
    #[serde(default)]
    current_period_end: Option<i64>,
    #[serde(default)]
    items: Option<Items>,
}

#[derive(Clone, Debug, Deserialize)]
struct Items {
    data: Vec<Item>,
    #[serde(default)]
    has_more: bool,
}

/// What a subscription is charged for.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Item {
    pub(crate) id: String,
    pub(crate) price: Price,
    #[serde(default)]
    current_period_start: Option<i64>,
    #[serde(default)]
    current_period_end: Option<i64>,
}

impl Subscription {
    /// When it began, seconds since the Unix epoch.
    #[must_use]
    pub fn start(&self) -> i64 {
        self.start_date.or(self.created).or(self.period().map(|(start, _)| start)).unwrap_or(0)
    }

    /// What it is charged for; `None` where Stripe shows a part of it.
    pub(crate) fn items(&self) -> Option<&[Item]> {
        self.items.as_ref().filter(|items| !items.has_more).map(|items| &items.data[..])
    }

    /// Start and end of the current period, seconds since the Unix epoch.
    #[must_use]
    pub fn period(&self) -> Option<(i64, i64)> {
        let item = self.items.as_ref().and_then(|items| items.data.first());
        let start = item.and_then(|i| i.current_period_start).or(self.current_period_start)?;
        let end = item.and_then(|i| i.current_period_end).or(self.current_period_end)?;
        Some((start, end))
    }
}

/// An invoice.
#[derive(Clone, Debug, Deserialize)]
pub struct Invoice {
    /// `in_…`.
    pub id: String,
    /// `cus_…`.
    pub customer: String,
    /// `draft`, `open`, `paid`, `void` or `uncollectible`.
    pub status: Option<String>,
    /// Start of the period that it bills, seconds since the Unix epoch.
    pub period_start: i64,
    /// End of that period.
    pub period_end: i64,
    /// What is due, in the currency's smallest unit.
    #[serde(default)]
    pub total: i64,
    /// The sum of its lines, before credits.
    #[serde(default)]
    pub subtotal: i64,
    /// Whether Stripe goes on with it by itself.
    #[serde(default)]
    pub auto_advance: bool,
    /// Such as `subscription_cycle`.
    #[serde(default)]
    pub billing_reason: Option<String>,
    #[serde(default)]
    status_transitions: Transitions,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct Transitions {
    #[serde(default)]
    finalized_at: Option<i64>,
}

impl Invoice {
    /// When it was finalised, seconds since the Unix epoch.
    #[must_use]
    pub fn finalised(&self) -> Option<i64> {
        self.status_transitions.finalized_at
    }
}

/// A line of an invoice.
#[derive(Debug, Deserialize)]
pub(crate) struct Line {
    pub(crate) id: String,
    #[serde(default)]
    pub(crate) pricing: Option<Pricing>,
    #[serde(default)]
    pub(crate) parent: Option<Parent>,
}

/// What a line or an item is at.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Pricing {
    #[serde(default)]
    pub(crate) price_details: Option<PriceDetails>,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct PriceDetails {
    pub(crate) price: String,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Parent {
    #[serde(rename = "type")]
    pub(crate) kind: String,
}
