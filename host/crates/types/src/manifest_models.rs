use serde::{Deserialize, Serialize};

use crate::manifest::ManifestError;
use crate::{ByteSize, ModelName};

/// `[models]`: what a function may use of wasi:nn. The counts are of one invocation; the host bounds what all
/// invocations of a tenant hold together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct ModelsSection {
    /// Models that `load-by-name` may name.
    pub allow: Vec<ModelName>,
    /// Graphs at one time.
    pub graphs: u32,
    /// Execution contexts at one time.
    pub contexts: u32,
    /// Tensors that live at one time, their dimensions too.
    pub tensors: ByteSize,
    /// Computes.
    pub computes: u32,
    /// Computes under way at one time, beside one that the guest waits for.
    pub in_flight: u32,
}

impl Default for ModelsSection {
    fn default() -> Self {
        Self {
            allow: Vec::new(),
            graphs: 64,
            contexts: 64,
            tensors: ByteSize(128 << 20),
            computes: 10_000,
            in_flight: 32,
        }
    }
}

impl ModelsSection {
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
        range("graphs", self.graphs.into(), 1024)?;
        range("contexts", self.contexts.into(), 1024)?;
        range("tensors (bytes)", self.tensors.0, 1 << 30)?;
        range("computes", self.computes.into(), 1_000_000)?;
        range("in-flight", self.in_flight.into(), 256)
    }
}
