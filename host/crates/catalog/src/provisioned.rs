use std::sync::Arc;

use wasmeter_types::{FunctionName, TenantName};

use crate::catalog::CatalogError;
use crate::snapshot::Snapshot;

/// How many invocations at one time functions may have provisioned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Provisionable {
    /// All functions of the host together.
    pub host: u64,
    /// Those of one tenant together.
    pub tenant: u64,
}

impl Provisionable {
    /// No bound, for a catalog that admits nothing.
    pub const ANY: Self = Self { host: u64::MAX, tenant: u64::MAX };

    /// Refuses a change that provisions more than there is. What is over already, since the configuration has shrunk or
    /// another host wrote it, is no reason to refuse other changes.
    pub(crate) fn check(&self, before: &Snapshot, after: &Snapshot) -> Result<(), CatalogError> {
        let over = |had: u64, has: u64, most: u64, whose: &str| {
            if has <= had || has <= most {
                return Ok(());
            }
            Err(CatalogError::Conflict(format!(
                "limits.provisioned asks for {} more than now, and {whose} has {} left of {most}: provision less, or remove what is provisioned elsewhere",
                has - had,
                most.saturating_sub(had),
            )))
        };
        over(before.provisioned, after.provisioned, self.host, "the host")?;
        // One event changes one tenant: all others are the same object.
        for (name, tenant) in &after.tenants {
            let had = before.tenants.get(name);
            if had.is_some_and(|had| Arc::ptr_eq(had, tenant)) {
                continue;
            }
            let whose = format!("tenant {name}");
            over(had.map_or(0, |t| t.provisioned), tenant.provisioned, self.tenant, &whose)?;
        }
        Ok(())
    }
}

impl Snapshot {
    /// Invocations at one time for which the host keeps room for a function.
    #[must_use]
    pub fn provisioned(&self, tenant: &str, function: &str) -> u32 {
        self.function(tenant, function).map_or(0, |f| f.provisioned)
    }

    /// After a change of a function: what its aliases' revisions ask for.
    pub(crate) fn count_provisioned(&mut self, tenant: &TenantName, function: &FunctionName) {
        let Some(tenant) = self.tenants.get_mut(tenant) else { return };
        let Some(content) = tenant.functions.get(function) else { return };
        let parts = content.aliases.values().flat_map(|alias| alias.parts());
        let most = parts.map(|part| part.revision.manifest.limits.provisioned).max().unwrap_or(0);
        let had = content.provisioned;
        if most == had {
            return;
        }
        let tenant = Arc::make_mut(tenant);
        if let Some(content) = tenant.functions.get_mut(function) {
            Arc::make_mut(content).provisioned = most;
        }
        let moved = |all: u64| all.saturating_sub(had.into()).saturating_add(most.into());
        (tenant.provisioned, self.provisioned) = (moved(tenant.provisioned), moved(self.provisioned));
    }
}

#[cfg(test)]
mod tests {
    use wasmeter_types::{AliasName, Digest, FunctionManifest};

    use super::*;
    use crate::deploy::tests::Memory;
    use crate::{Catalog, Deployment};

    fn deployment(tenant: &str, function: &str, alias: &str, provisioned: u32) -> Deployment {
        let mut manifest = FunctionManifest::new(function.parse().unwrap());
        manifest.limits.provisioned = provisioned;
        Deployment {
            tenant: tenant.parse().unwrap(),
            manifest,
            digest: Digest::of(b"component"),
            size: 9,
            imports: vec![],
            exports: vec![],
            alias: alias.parse().unwrap(),
        }
    }

    #[tokio::test]
    async fn no_more_is_provisioned_than_there_is() {
        let log = Memory::default();
        let room = Provisionable { host: 10, tenant: 6 };
        let catalog = Catalog::open_within(Box::new(log.clone()), room).await.unwrap();
        for tenant in ["a", "b"] {
            catalog.put_tenant(tenant.parse().unwrap()).await.unwrap();
        }
        let text = |result: Result<_, CatalogError>| result.map(drop).unwrap_err().to_string();
        catalog.deploy(deployment("a", "f", "live", 4)).await.unwrap();
        let refused = text(catalog.deploy(deployment("a", "g", "live", 3)).await);
        assert!(refused.contains("asks for 3 more than now, and tenant a has 2 left of 6"), "{refused}");
        assert!(catalog.snapshot().function("a", "g").is_none(), "nothing is left of what was refused");
        catalog.deploy(deployment("b", "f", "live", 6)).await.unwrap();
        let refused = text(catalog.deploy(deployment("a", "g", "live", 1)).await);
        assert!(refused.contains("the host has 0 left of 10"), "{refused}");
        // A second alias asks for what is more than the first; a smaller revision under both gives it back.
        catalog.deploy(deployment("a", "f", "canary", 3)).await.unwrap();
        assert_eq!(catalog.snapshot().provisioned("a", "f"), 4);
        catalog.deploy(deployment("a", "f", "live", 1)).await.unwrap();
        assert_eq!((catalog.snapshot().provisioned("a", "f"), catalog.snapshot().provisioned), (3, 9));
        let (a, f): (TenantName, FunctionName) = ("a".parse().unwrap(), "f".parse().unwrap());
        catalog.roll_back(a.clone(), f.clone(), AliasName::live()).await.unwrap();
        assert_eq!(catalog.snapshot().provisioned, 10);
        // A restart counts the same, and what is over a smaller room hinders nobody.
        let small = Provisionable { host: 2, tenant: 2 };
        let catalog = Catalog::open_within(Box::new(log), small).await.unwrap();
        assert_eq!(catalog.snapshot().provisioned, 10);
        catalog.deploy(deployment("a", "f", "live", 2)).await.unwrap();
        catalog.deploy(deployment("a", "plain", "live", 0)).await.unwrap();
        catalog.delete_function(a.clone(), f).await.unwrap();
        assert_eq!(catalog.snapshot().provisioned, 6);
        catalog.delete_tenant("b".parse().unwrap()).await.unwrap();
        assert_eq!(catalog.snapshot().provisioned, 0);
    }
}
