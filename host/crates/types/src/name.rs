use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A text that is not a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{what} name {got:?} is not valid: use 1 to 40 of a-z, 0-9 and '-', without '--' and no '-' at either end"
)]
pub struct NameError {
    what: &'static str,
    got: String,
}

/// `[a-z0-9-]{1,40}` without `--`: a name is also a label of a host name (`{function}--{tenant}.{domain}`).
fn check(what: &'static str, s: &str) -> Result<(), NameError> {
    let byte_ok = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let ok = (1..=40).contains(&s.len())
        && s.bytes().all(byte_ok)
        && !s.contains("--")
        && !s.starts_with('-')
        && !s.ends_with('-');
    // The echo is bounded: a refused name may be megabytes long.
    if ok { Ok(()) } else { Err(NameError { what, got: s.chars().take(64).collect() }) }
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(std::sync::Arc<str>);

        impl $name {
            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = NameError;

            fn from_str(s: &str) -> Result<Self, NameError> {
                check($what, s)?;
                Ok(Self(s.into()))
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;

            fn try_from(s: String) -> Result<Self, NameError> {
                s.parse()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.as_str().to_owned()
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                self.as_str()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

name!(
    /// A paying account.
    TenantName, "tenant"
);
name!(
    /// A function of a tenant.
    FunctionName, "function"
);
name!(
    /// A model, of the operator or of a tenant.
    ModelName, "model"
);
name!(
    /// A movable pointer to revisions.
    AliasName, "alias"
);

name!(
    /// A secret of a tenant.
    SecretName, "secret"
);
name!(
    /// A key-value bucket of a function.
    BucketName, "bucket"
);
name!(
    /// A movable pointer to one version of a model, such as `stable` or `canary`.
    LabelName, "label"
);

impl LabelName {
    /// The label that a model's name alone stands for, where it is set.
    pub const STABLE: &'static str = "stable";

    /// Whether it would read as a version number, as in `minilm@3`.
    #[must_use]
    pub fn is_number(&self) -> bool {
        self.0.bytes().all(|b| b.is_ascii_digit())
    }
}

impl AliasName {
    /// The alias that every deployment moves and that a trigger without `@alias` takes.
    #[must_use]
    pub fn live() -> Self {
        Self("live".into())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn refuses_what_would_leave_a_path_or_a_host_label() {
        for bad in ["", "../x", "a/b", "A", "a--b", "-a", "a-", "a.b", "ä", "a b", &"x".repeat(41)] {
            assert!(bad.parse::<FunctionName>().is_err(), "{bad:?}");
        }
        for good in ["a", "efficientnet-lite0", "0", &"x".repeat(40)] {
            assert!(good.parse::<FunctionName>().is_ok(), "{good:?}");
        }
    }

    proptest! {
        #[test]
        fn an_accepted_name_is_one_path_segment(s in ".{0,50}") {
            if let Ok(name) = s.parse::<TenantName>() {
                prop_assert!(!name.as_str().contains(['/', '.', '\0', '%']));
            }
        }
    }
}
