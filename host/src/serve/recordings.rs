use std::time::Duration;

use anyhow::ensure;
use serde::Deserialize;
use wasmeter_store::RecordingOptions;
use wasmeter_types::{ByteSize, WallTime};

/// `[recordings]`: calls of tenants who have them recorded, for `wasmeter verify --replay`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub(crate) struct RecordingsSection {
    /// Bytes of one tenant's; the oldest make room for new ones.
    pub(crate) tenant_total: ByteSize,
    /// How long one is kept.
    pub(crate) keep: WallTime,
}

impl Default for RecordingsSection {
    fn default() -> Self {
        let options = RecordingOptions::default();
        Self { tenant_total: ByteSize(options.tenant_total), keep: WallTime(options.keep) }
    }
}

impl RecordingsSection {
    /// Everything that can be told before the first port opens.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        ensure!(
            (1 << 20..=1 << 40).contains(&self.tenant_total.0),
            "recordings.tenant-total must be 1MiB to 1TiB, such as \"64MiB\""
        );
        ensure!(
            (Duration::from_secs(60)..=Duration::from_secs(366 * 24 * 3600)).contains(&self.keep.0),
            "recordings.keep is {}: it must be 1m to 8784h",
            self.keep
        );
        Ok(())
    }

    /// As the store takes it.
    pub(crate) fn options(&self) -> RecordingOptions {
        RecordingOptions { tenant_total: self.tenant_total.0, keep: self.keep.0 }
    }
}
