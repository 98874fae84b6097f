//! The manifest's `[config]` (`wasi:config`).

use crate::raw::wasi::config::store;
use crate::{Error, Result};

/// The value of a key; nothing if the manifest does not have it.
///
/// # Errors
/// If the platform cannot tell.
pub fn get(key: &str) -> Result<Option<String>> {
    store::get(key).map_err(failed)
}

/// All keys and values, in order of the keys.
///
/// # Errors
/// If the platform cannot tell.
pub fn all() -> Result<Vec<(String, String)>> {
    store::get_all().map_err(failed)
}

fn failed(error: store::Error) -> Error {
    Error::internal(format!("the configuration cannot be read: {error:?}"))
}
