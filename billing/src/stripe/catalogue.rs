use std::sync::Arc;

use tokio::sync::Mutex;
use wasmeter_rating::BookError;
use wasmeter_stripe::{Catalogue, SetupError};
use wasmeter_usage::Meter;

use super::Stripe;
use crate::now::now_ns;

/// Product, meters and prices at Stripe, found or made at first need, with the hash of the sheet that they are of.
#[derive(Default)]
pub(crate) struct Kept(Mutex<Option<(String, Arc<Catalogue>)>>);

/// Why the prices in force are not at Stripe.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CatalogueError {
    #[error(transparent)]
    Book(#[from] BookError),
    #[error(transparent)]
    Setup(#[from] SetupError),
}

impl Stripe {
    /// Whether the price sheet in force is known to be at Stripe.
    pub(crate) fn has_catalogue(&self) -> bool {
        let Ok(entry) = self.book.at(now_ns()) else { return false };
        // Held by somebody who is about to know.
        let Ok(kept) = self.catalogue.0.try_lock() else { return false };
        kept.as_ref().is_some_and(|(hash, _)| *hash == entry.sheet.hash)
    }

    /// What the price sheet in force is at Stripe.
    pub(crate) async fn catalogue(&self) -> Result<Arc<Catalogue>, CatalogueError> {
        let sheet = &self.book.at(now_ns())?.sheet;
        let mut kept = self.catalogue.0.lock().await;
        if let Some((hash, found)) = &*kept
            && *hash == sheet.hash
        {
            return Ok(Arc::clone(found));
        }
        let found = Arc::new(self.client.set_up(sheet).await?);
        for what in &found.created {
            tracing::info!(what, "made at stripe");
        }
        *kept = Some((sheet.hash.clone(), Arc::clone(&found)));
        Ok(found)
    }
}

/// Stripe's id of a meter.
pub(crate) fn meter_id(catalogue: &Catalogue, meter: Meter) -> Option<&str> {
    catalogue.all_meters().find(|(ours, _)| *ours == meter).map(|(_, id)| id.as_str())
}
