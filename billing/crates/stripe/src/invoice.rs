use std::collections::BTreeSet;

use serde::Serialize;
use stripe_billing::invoice::{FinalizeInvoiceInvoice, RetrieveInvoice, UpdateInvoice};
use stripe_client_core::{RequestBuilder, StripeMethod, StripeRequest};

use crate::object::{Invoice, Line, Page};
use crate::setup::PAGE;
use crate::{Client, StripeError};

/// The parameters of a list of lines, which the crate has behind a feature that nothing else needs.
#[derive(Serialize)]
struct Paging {
    limit: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    starting_after: Option<String>,
}

impl Client {
    /// An invoice as it is now.
    ///
    /// # Errors
    /// [`StripeError`].
    pub async fn invoice(&self, id: &str) -> Result<Invoice, StripeError> {
        self.call(RetrieveInvoice::new(id).build()).await
    }

    /// The prices of an invoice's lines of usage, each once.
    ///
    /// # Errors
    /// [`StripeError`].
    pub async fn prices_of(&self, id: &str) -> Result<BTreeSet<String>, StripeError> {
        let mut prices = BTreeSet::new();
        let mut last: Option<String> = None;
        loop {
            let paging = Paging { limit: PAGE, starting_after: last };
            let list = RequestBuilder::new(StripeMethod::Get, format!("/invoices/{id}/lines")).query(&paging);
            let page: Page<Line> = self.call(list).await?;
            last = page.data.last().map(|line| line.id.clone());
            let of_usage = |line: &Line| {
                line.parent.as_ref().is_some_and(|parent| parent.kind == "subscription_item_details")
            };
            for line in page.data.into_iter().filter(of_usage) {
                prices.extend(line.pricing.and_then(|of| of.price_details).map(|of| of.price));
            }
            if !page.has_more || last.is_none() {
                return Ok(prices);
            }
        }
    }

    /// Keeps a draft from being finalised by time.
    ///
    /// # Errors
    /// [`StripeError`].
    pub async fn hold(&self, id: &str) -> Result<Invoice, StripeError> {
        self.call(UpdateInvoice::new(id).auto_advance(false).build()).await
    }

    /// Finalises a draft; Stripe goes on with it from there.
    ///
    /// # Errors
    /// [`StripeError`].
    pub async fn finalise(&self, id: &str) -> Result<Invoice, StripeError> {
        self.call(FinalizeInvoiceInvoice::new(id).auto_advance(true).build()).await
    }
}
