use wasmeter_types::{LabelName, ModelName, TenantName};

use crate::catalog::{Catalog, CatalogError};
use crate::{Event, Granted};

impl Catalog {
    /// Points a label of the operator's model, or of a tenant's own, to a version.
    ///
    /// # Errors
    /// `NotFound`, or the log's.
    pub async fn set_label(
        &self,
        tenant: Option<TenantName>,
        model: ModelName,
        label: LabelName,
        version: u32,
    ) -> Result<(), CatalogError> {
        let writer = self.writer().await;
        let now = writer.now();
        let owner = tenant.as_ref().map(TenantName::as_str);
        if now.model_version(owner, model.as_str(), version).is_none() {
            return Err(CatalogError::NotFound(format!("model {model} version {version}")));
        }
        let entry = now.models_of(owner).and_then(|models| models.get(&model));
        if entry.and_then(|e| e.labels.get(&label)) == Some(&version) {
            return Ok(());
        }
        writer.commit(Event::ModelLabelSet { tenant, model, label, version }).await
    }

    /// Removes a label.
    ///
    /// # Errors
    /// `NotFound`, or the log's.
    pub async fn remove_label(
        &self,
        tenant: Option<TenantName>,
        model: ModelName,
        label: LabelName,
    ) -> Result<(), CatalogError> {
        let writer = self.writer().await;
        let now = writer.now();
        let models = now.models_of(tenant.as_ref().map(TenantName::as_str));
        if !models.and_then(|m| m.get(&model)).is_some_and(|e| e.labels.contains_key(&label)) {
            return Err(CatalogError::NotFound(format!("label {label} of model {model}")));
        }
        writer.commit(Event::ModelLabelRemoved { tenant, model, label }).await
    }

    /// Says who may use the operator's models of this name; it may be said before the first version is there.
    ///
    /// # Errors
    /// `NotFound` for a tenant that is not there; the log's.
    pub async fn grant_model(&self, model: ModelName, granted: Granted) -> Result<(), CatalogError> {
        let writer = self.writer().await;
        let now = writer.now();
        if let Granted::Tenants(tenants) = &granted
            && let Some(missing) = tenants.iter().find(|t| !now.tenants.contains_key(*t))
        {
            return Err(CatalogError::NotFound(format!("tenant {missing}")));
        }
        if now.granted(&model) == granted {
            return Ok(());
        }
        writer.commit(Event::ModelGranted { model, granted }).await
    }
}
