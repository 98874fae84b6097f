use serde::{Deserialize, Serialize};

use crate::manifest::ManifestError;
use crate::{ByteSize, ModelName};

/// `[models]`: what a function may use of wasi:nn. The counts are of one invocation; the host bounds what all
/// invocations of a tenant hold together. What is not written here is not part of the manifest's content, as in `[http]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct ModelsSection {
    /// Models that `load-by-name` may name.
    pub allow: Vec<ModelName>,
    /// Graphs at one time; 64 if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub graphs: Option<u32>,
    /// Execution contexts at one time; 64 if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub contexts: Option<u32>,
    /// Tensors that live at one time, their dimensions too; 128 MiB if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tensors: Option<ByteSize>,
    /// Computes; 10,000 if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub computes: Option<u32>,
    /// Computes under way at one time, beside one that the guest waits for; 32 if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub in_flight: Option<u32>,
}

/// What `[models]` limits, with the defaults in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModelsLimits {
    /// Graphs at one time.
    pub graphs: u32,
    /// Execution contexts at one time.
    pub contexts: u32,
    /// Bytes of tensors that live.
    pub tensors: u64,
    /// Computes.
    pub computes: u32,
    /// Computes under way at one time.
    pub in_flight: u32,
}

impl ModelsSection {
    /// The limits, with the defaults where the manifest says nothing.
    #[must_use]
    pub fn limits(&self) -> ModelsLimits {
        ModelsLimits {
            graphs: self.graphs.unwrap_or(64),
            contexts: self.contexts.unwrap_or(64),
            tensors: self.tensors.map_or(128 << 20, |tensors| tensors.0),
            computes: self.computes.unwrap_or(10_000),
            in_flight: self.in_flight.unwrap_or(32),
        }
    }

    pub(crate) fn check(&self) -> Result<(), ManifestError> {
        if self.allow.len() > 100 {
            return Err(ManifestError::new("models.allow has more than 100 entries"));
        }
        let range = |name: &str, got: u64, most: u64| {
            if got == 0 || got > most {
                return Err(ManifestError::new(format!("models.{name} is {got}; it must be 1 to {most}")));
            }
            Ok(())
        };
        let limits = self.limits();
        range("graphs", limits.graphs.into(), 1024)?;
        range("contexts", limits.contexts.into(), 1024)?;
        range("tensors (bytes)", limits.tensors, 1 << 30)?;
        range("computes", limits.computes.into(), 1_000_000)?;
        range("in-flight", limits.in_flight.into(), 256)
    }
}
