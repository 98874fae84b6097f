use stripe_billing::invoice::{FinalizeInvoiceInvoice, RetrieveInvoice, UpdateInvoice};
use stripe_client_core::StripeRequest;

use crate::object::Invoice;
use crate::{Client, StripeError};

impl Client {
    /// An invoice as it is now.
    ///
    /// # Errors
    /// [`StripeError`].
    pub async fn invoice(&self, id: &str) -> Result<Invoice, StripeError> {
        self.call(RetrieveInvoice::new(id).build()).await
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
