use std::collections::BTreeSet;

use wasmeter_catalog::{BlobKey, BlobKind, Revision, Snapshot};
use wasmeter_types::{Digest, TenantName};

use crate::shared::Shared;

/// The owner of operator models.
pub(crate) const OPERATOR: &str = "_operator";

/// The key of a tenant's component.
pub(crate) fn component(tenant: &TenantName, digest: Digest) -> BlobKey {
    BlobKey { owner: tenant.to_string(), kind: BlobKind::Component, id: digest }
}

/// The key of a file of the operator's model, or of a tenant's own.
pub(crate) fn model_file(owner: Option<&TenantName>, digest: Digest) -> BlobKey {
    let owner = owner.map_or(OPERATOR, TenantName::as_str).to_owned();
    BlobKey { owner, kind: BlobKind::Model, id: digest }
}

/// Deletes the components among these that no revision of the tenant uses any more.
pub(crate) async fn sweep_components<'a>(
    shared: &Shared,
    tenant: &TenantName,
    revisions: impl IntoIterator<Item = &'a Revision>,
) {
    let digests: BTreeSet<Digest> = revisions.into_iter().map(|r| r.digest).collect();
    let keys = digests.into_iter().map(|digest| component(tenant, digest)).collect();
    sweep(shared, keys, component_used).await;
}

/// Deletes a component that no revision uses.
pub(crate) async fn sweep_component(shared: &Shared, key: BlobKey) {
    sweep(shared, vec![key], component_used).await;
}

fn component_used(now: &Snapshot, key: &BlobKey) -> bool {
    now.uses_component(&key.owner, &key.id)
}

/// Deletes the files among these that no model version of the owner uses any more.
pub(crate) async fn sweep_models(shared: &Shared, owner: Option<&TenantName>, digests: BTreeSet<Digest>) {
    let keys = digests.into_iter().map(|digest| model_file(owner, digest)).collect();
    sweep(shared, keys, |now, key| {
        let Some(models) = now.models_of(owner.map(TenantName::as_str)) else { return false };
        let mut versions = models.values().flat_map(|m| m.versions.values());
        versions.any(|v| v.files.values().any(|(digest, _)| *digest == key.id))
    })
    .await;
}

async fn sweep(shared: &Shared, keys: Vec<BlobKey>, used: impl Fn(&Snapshot, &BlobKey) -> bool) {
    let _alone = shared.blobs_in_use.write().await;
    let now = shared.deps.catalog.snapshot();
    for key in keys.iter().filter(|key| !used(&now, key)) {
        if let Err(error) = shared.deps.blobs.delete(key).await {
            // The change itself has happened; the bytes are only waste.
            tracing::warn!(%error, owner = key.owner, blob = %key.id, "an unused blob could not be deleted");
        }
    }
}
