use serde::{Deserialize, Serialize};

use crate::SecretName;
use crate::manifest::ManifestError;

/// Names of one list.
const NAMES: usize = 100;

/// `[secrets]`: none by default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SecretsSection {
    /// The tenant's secrets that the guest may ask for.
    pub allow: Vec<SecretName>,
}

impl SecretsSection {
    /// Whether the name is listed.
    #[must_use]
    pub fn allows(&self, name: &str) -> bool {
        self.allow.iter().any(|allowed| allowed.as_str() == name)
    }

    /// Whether nothing is listed, which is as if the section were not there.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.allow.is_empty()
    }

    pub(crate) fn check(&self) -> Result<(), ManifestError> {
        if self.allow.len() > NAMES {
            return Err(ManifestError::new(format!("secrets.allow has more than {NAMES} entries")));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::FunctionManifest;

    #[test]
    fn names_are_names_and_no_list_is_no_content() {
        let text = |secrets: &str| format!("[function]\nname = \"a\"\n[secrets]\nallow = {secrets}");
        let manifest = FunctionManifest::from_toml(&text("[\"api-key\"]")).unwrap();
        assert!(manifest.secrets.allows("api-key") && !manifest.secrets.allows("other"));
        let error = FunctionManifest::from_toml(&text("[\"../key\"]")).unwrap_err().to_string();
        assert!(error.contains("secret name \"../key\" is not valid"), "{error}");
        let many: Vec<String> = (0..101).map(|n| format!("s{n}")).collect();
        let error = FunctionManifest::from_toml(&text(&format!("{many:?}"))).unwrap_err().to_string();
        assert!(error.contains("secrets.allow has more than 100"), "{error}");
        let none = FunctionManifest::from_toml(&text("[]")).unwrap();
        assert!(!serde_json::to_string(&none).unwrap().contains("secrets"));
    }
}
