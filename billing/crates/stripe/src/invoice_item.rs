use std::collections::HashMap;
use std::str::FromStr;

use serde::Deserialize;
use stripe_billing::invoice_item::{CreateInvoiceItem, ListInvoiceItem, UpdateInvoiceItem};
use stripe_client_core::StripeRequest;
use stripe_types::Currency;

use crate::object::{Page, Pricing};
use crate::{Client, StripeError};

/// What tells our items from those of others.
const KIND: &str = "wasmeter_kind";

/// Items of one page.
const PAGE: i64 = 100;

/// A line of an invoice that is not usage.
#[derive(Clone, Debug, Deserialize)]
pub struct Item {
    /// `ii_…`.
    pub id: String,
    /// In the currency's smallest unit; below zero for what is given back.
    pub amount: i64,
    /// Whether it is what Stripe made of a change of prices in the middle of a period.
    #[serde(default)]
    pub proration: bool,
    #[serde(default)]
    pricing: Option<Pricing>,
    #[serde(default)]
    metadata: HashMap<String, String>,
}

impl Item {
    /// What we added it for; `None` of an item that is not ours.
    #[must_use]
    pub fn kind(&self) -> Option<&str> {
        self.metadata.get(KIND).map(String::as_str)
    }

    /// The price that it is at; `None` of a plain amount.
    #[must_use]
    pub fn price(&self) -> Option<&str> {
        Some(self.pricing.as_ref()?.price_details.as_ref()?.price.as_str())
    }
}

/// An item that is to be added to a draft.
#[derive(Clone, Debug)]
pub struct NewItem<'a> {
    /// The draft.
    pub invoice: &'a str,
    /// Its customer.
    pub customer: &'a str,
    /// What for: one of a kind on an invoice.
    pub kind: &'a str,
    /// In the currency's smallest unit.
    pub amount: i64,
    /// ISO 4217.
    pub currency: &'a str,
    /// For the customer.
    pub description: String,
    /// What was asked before with the same key is not done again, for a day.
    pub key: String,
}

impl Client {
    /// All items of an invoice.
    ///
    /// # Errors
    /// [`StripeError`].
    pub async fn items(&self, invoice: &str) -> Result<Vec<Item>, StripeError> {
        let mut all: Vec<Item> = Vec::new();
        loop {
            let mut list = ListInvoiceItem::new().invoice(invoice).limit(PAGE);
            if let Some(last) = all.last() {
                list = list.starting_after(last.id.clone());
            }
            let page: Page<Item> = self.call(list.build()).await?;
            let more = page.has_more && !page.data.is_empty();
            all.extend(page.data);
            if !more {
                return Ok(all);
            }
        }
    }

    /// Adds an item to a draft, in one attempt: whoever does not learn what became of it looks at the items before the next.
    ///
    /// # Errors
    /// [`StripeError`].
    pub async fn add_item(&self, item: &NewItem<'_>) -> Result<Item, StripeError> {
        // Every text is a currency to this type: one that Stripe does not know, Stripe refuses.
        let Ok(currency) = Currency::from_str(&item.currency.to_ascii_lowercase());
        let request = CreateInvoiceItem::new()
            .customer(item.customer)
            .invoice(item.invoice)
            .amount(item.amount)
            .currency(currency)
            .description(item.description.clone())
            .metadata(HashMap::from([(KIND.to_owned(), item.kind.to_owned())]))
            .build();
        self.attempt_as(request, &item.key).await
    }

    /// Gives an item of a draft another amount.
    ///
    /// # Errors
    /// [`StripeError`].
    pub async fn change_item(&self, id: &str, amount: i64) -> Result<Item, StripeError> {
        self.call(UpdateInvoiceItem::new(id).amount(amount).build()).await
    }
}
