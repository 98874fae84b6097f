use anyhow::ensure;
use serde::Deserialize;
use wasmeter_store::KeyValueOptions;
use wasmeter_types::ByteSize;

use super::config::DurabilityLevel;

/// `[keyvalue]`: what functions may keep, beside the quotas in their manifests.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub(crate) struct KeyValueConfig {
    /// Bytes of keys and values of one tenant.
    pub(crate) tenant_total: ByteSize,
}

impl Default for KeyValueConfig {
    fn default() -> Self {
        Self { tenant_total: ByteSize(KeyValueOptions::default().tenant_total) }
    }
}

impl KeyValueConfig {
    /// Everything that can be told before the first port opens.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        ensure!(
            (1 << 20..=1 << 40).contains(&self.tenant_total.0),
            "keyvalue.tenant-total must be 1MiB to 1TiB, such as \"4GiB\""
        );
        Ok(())
    }

    /// As the store takes it: what functions keep is as durable as what is billed for them.
    pub(crate) fn options(&self, durability: DurabilityLevel) -> KeyValueOptions {
        KeyValueOptions { tenant_total: self.tenant_total.0, power: durability == DurabilityLevel::Power }
    }
}
