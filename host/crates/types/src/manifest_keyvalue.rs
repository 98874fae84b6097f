use serde::{Deserialize, Serialize};

use crate::manifest::ManifestError;
use crate::{BucketName, ByteSize};

/// Buckets of one function.
const BUCKETS: usize = 16;

/// `[keyvalue]`: what the function may keep; nothing by default. What is not written here is not part of the manifest's
/// content, so that a later default makes no new revision of an old one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KeyValueSection {
    /// Buckets that the guest may open. They are the function's own: no other function has them, all of its revisions do.
    pub allow: Vec<BucketName>,
    /// Keys in all of the function's buckets; 10,000 if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keys: Option<u32>,
    /// Bytes of one value; 64 KiB if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<ByteSize>,
    /// Bytes of keys and values in all of the function's buckets; 16 MiB if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total: Option<ByteSize>,
    /// Calls of one invocation, a batch being one for each of its keys; 1000 if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub calls: Option<u32>,
}

/// What `[keyvalue]` limits, with the defaults in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyValueLimits {
    /// Keys of the function.
    pub keys: u64,
    /// Bytes of one value.
    pub value: u64,
    /// Bytes of the function.
    pub total: u64,
    /// Calls of one invocation.
    pub calls: u64,
}

/// The plan's ceilings.
const MOST: KeyValueLimits =
    KeyValueLimits { keys: 1_000_000, value: 1 << 20, total: 1 << 30, calls: 100_000 };

impl KeyValueSection {
    /// The limits, with the defaults where the manifest says nothing.
    #[must_use]
    pub fn limits(&self) -> KeyValueLimits {
        KeyValueLimits {
            keys: self.keys.unwrap_or(10_000).into(),
            value: self.value.map_or(64 << 10, |size| size.0),
            total: self.total.map_or(16 << 20, |size| size.0),
            calls: self.calls.unwrap_or(1000).into(),
        }
    }

    /// The listed bucket of this name.
    #[must_use]
    pub fn bucket(&self, name: &str) -> Option<&BucketName> {
        self.allow.iter().find(|bucket| bucket.as_str() == name)
    }

    /// Whether nothing is written, which is as if the section were not there.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    pub(crate) fn check(&self) -> Result<(), ManifestError> {
        if self.allow.len() > BUCKETS {
            return Err(ManifestError::new(format!("keyvalue.allow has more than {BUCKETS} buckets")));
        }
        let limits = self.limits();
        for (name, got, most) in [
            ("keys", limits.keys, MOST.keys),
            ("value (bytes)", limits.value, MOST.value),
            ("total (bytes)", limits.total, MOST.total),
            ("calls", limits.calls, MOST.calls),
        ] {
            if got == 0 || got > most {
                return Err(ManifestError::new(format!("keyvalue.{name} is {got}; it must be 1 to {most}")));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::{FunctionManifest, ManifestError};

    fn manifest(lines: &str) -> Result<FunctionManifest, ManifestError> {
        FunctionManifest::from_toml(&format!("[function]\nname = \"a\"\n[keyvalue]\n{lines}"))
    }

    #[test]
    fn buckets_and_quotas() {
        let section = manifest("allow = [\"default\"]\nvalue = \"1MiB\"").unwrap().keyvalue;
        assert!(section.bucket("default").is_some() && section.bucket("other").is_none());
        assert_eq!((section.limits().value, section.limits().keys), (1 << 20, 10_000));
        let error = |lines: &str| manifest(lines).unwrap_err().to_string();
        assert!(error("allow = [\"\"]").contains("bucket name \"\" is not valid"));
        assert!(error("keys = 0").contains("keyvalue.keys is 0"));
        assert!(error("value = \"2MiB\"").contains("keyvalue.value"));
        assert!(error("total = \"2GiB\"").contains("keyvalue.total"));
        assert!(error("calls = 100001").contains("keyvalue.calls"));
        let none = manifest("").unwrap();
        assert!(!serde_json::to_string(&none).unwrap().contains("keyvalue"));
    }
}
