use std::collections::HashMap;

use stripe_billing::billing_portal_session::CreateBillingPortalSession;
use stripe_billing::subscription::RetrieveSubscription;
use stripe_checkout::checkout_session::{CreateCheckoutSession, CreateCheckoutSessionLineItems};
use stripe_client_core::StripeRequest;
use stripe_core::customer::{CreateCustomer, RetrieveCustomer};
use stripe_shared::CheckoutSessionMode;

use crate::object::{Named, Session, Subscription};
use crate::{Client, StripeError};

impl Client {
    /// A customer for a tenant; its id. Called twice with the same idempotency key within a day it makes one.
    ///
    /// # Errors
    /// [`StripeError`].
    pub async fn create_customer(
        &self,
        tenant: &str,
        ledger: &str,
        key: &str,
    ) -> Result<String, StripeError> {
        let request = CreateCustomer::new()
            .name(tenant)
            .metadata(HashMap::from([
                ("wasmeter_tenant".to_owned(), tenant.to_owned()),
                ("wasmeter_ledger".to_owned(), ledger.to_owned()),
            ]))
            .build();
        self.call_as::<Named>(request, key).await.map(|customer| customer.id)
    }

    /// Whether a customer is there and not deleted.
    ///
    /// # Errors
    /// [`StripeError`].
    pub async fn customer_exists(&self, customer: &str) -> Result<bool, StripeError> {
        match self.call::<Named>(RetrieveCustomer::new(customer).build()).await {
            Ok(found) => Ok(!found.deleted),
            Err(error) if error.is_missing() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The page on which a customer subscribes to metered prices; its address.
    ///
    /// # Errors
    /// [`StripeError`].
    pub async fn checkout(
        &self,
        tenant: &str,
        customer: &str,
        prices: &[String],
        success_url: &str,
        cancel_url: &str,
    ) -> Result<String, StripeError> {
        let items: Vec<_> = prices
            .iter()
            .map(|price| {
                let mut item = CreateCheckoutSessionLineItems::new();
                item.price = Some(price.clone());
                item
            })
            .collect();
        let request = CreateCheckoutSession::new()
            .mode(CheckoutSessionMode::Subscription)
            .customer(customer)
            .client_reference_id(tenant)
            .line_items(items)
            .success_url(success_url)
            .cancel_url(cancel_url)
            .build();
        self.session(request).await
    }

    /// The page on which a customer manages subscription, cards and invoices; its address.
    ///
    /// # Errors
    /// [`StripeError`].
    pub async fn portal(&self, customer: &str, return_url: &str) -> Result<String, StripeError> {
        self.session(CreateBillingPortalSession::new().customer(customer).return_url(return_url).build())
            .await
    }

    async fn session(&self, request: stripe_client_core::RequestBuilder) -> Result<String, StripeError> {
        let what = crate::client::describe(&request);
        let Session { url } = self.call(request).await?;
        url.ok_or(StripeError::Shape { what, reason: "the session has no url".to_owned() })
    }

    /// A subscription as it is now; `None` if there is no such.
    ///
    /// # Errors
    /// [`StripeError`].
    pub async fn subscription(&self, id: &str) -> Result<Option<Subscription>, StripeError> {
        match self.call(RetrieveSubscription::new(id).build()).await {
            Ok(found) => Ok(Some(found)),
            Err(error) if error.is_missing() => Ok(None),
            Err(error) => Err(error),
        }
    }
}
