//! The tenant's secrets that the manifest lists in `[secrets] allow`.

use std::fmt;

use crate::raw::wasmeter::function::secrets as raw;

/// Why there is no value. Like every error it answers 500 by `?`; it never holds the value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// The manifest does not list the name.
    Denied(String),
    /// The manifest lists it, but the tenant does not have it (any more).
    Missing(String),
    /// The platform cannot read it.
    Unavailable(String),
    /// It is not UTF-8: take [`bytes`].
    NotText(String),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Denied(name) => write!(f, "secret {name} is not in the manifest's [secrets] allow"),
            Self::Missing(name) => write!(f, "secret {name} is not set"),
            Self::Unavailable(name) => write!(f, "secret {name} cannot be read"),
            Self::NotText(name) => write!(f, "secret {name} is not text"),
        }
    }
}

impl std::error::Error for Error {}

/// The value of a secret, as it is now.
///
/// # Errors
/// If it is not listed, not set, or not text.
pub fn get(name: &str) -> Result<String, Error> {
    String::from_utf8(bytes(name)?).map_err(|_| Error::NotText(name.to_owned()))
}

/// The value of a secret that need not be text.
///
/// # Errors
/// If it is not listed or not set.
pub fn bytes(name: &str) -> Result<Vec<u8>, Error> {
    raw::get(name).map_err(|error| {
        let name = name.to_owned();
        match error {
            raw::Error::Denied => Error::Denied(name),
            raw::Error::Missing => Error::Missing(name),
            raw::Error::Unavailable => Error::Unavailable(name),
        }
    })
}
