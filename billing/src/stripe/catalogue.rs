use std::sync::Arc;

use tokio::sync::Mutex;
use wasmeter_stripe::{Catalogue, SetupError};
use wasmeter_usage::Meter;

use super::Stripe;

/// Product, meters and prices at Stripe, found or made at first need.
#[derive(Default)]
pub(crate) struct Kept(Mutex<Option<Arc<Catalogue>>>);

impl Stripe {
    /// What the price sheet is at Stripe.
    pub(crate) async fn catalogue(&self) -> Result<Arc<Catalogue>, SetupError> {
        let mut kept = self.catalogue.0.lock().await;
        if let Some(found) = &*kept {
            return Ok(Arc::clone(found));
        }
        let found = Arc::new(self.client.set_up(&self.sheet).await?);
        for what in &found.created {
            tracing::info!(what, "made at stripe");
        }
        *kept = Some(Arc::clone(&found));
        Ok(found)
    }
}

/// Stripe's id of a meter.
pub(crate) fn meter_id(catalogue: &Catalogue, meter: Meter) -> Option<&str> {
    catalogue.meters.iter().find(|(ours, _)| *ours == meter).map(|(_, id)| id.as_str())
}
