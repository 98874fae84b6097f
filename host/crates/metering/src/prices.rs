use std::fs;
use std::io;
use std::path::Path;

use wasmeter_usage::PriceSheet;

use crate::atomic::replace;

/// The kept price sheet; `None` if there is none or it is not readable.
pub(crate) fn load(path: &Path) -> Option<PriceSheet> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return None,
        Err(error) => {
            tracing::warn!(file = %path.display(), %error, "cannot read the kept price sheet");
            return None;
        }
    };
    serde_json::from_slice(&bytes)
        .inspect_err(
            |error| tracing::warn!(file = %path.display(), %error, "the kept price sheet is damaged"),
        )
        .ok()
}

/// Keeps the sheet durably. Blocking.
pub(crate) fn store(path: &Path, prices: &PriceSheet) -> io::Result<()> {
    replace(path, &serde_json::to_vec(prices)?)
}
