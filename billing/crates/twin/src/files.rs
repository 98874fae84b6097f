use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::twin::TwinError;

/// Writes a file of one line, mode 0600, in one step: a reader sees the old or the new.
pub(crate) fn write(path: &Path, line: &str) -> Result<(), TwinError> {
    let fail = |error| TwinError::Io { what: path.display().to_string(), error };
    let fresh = path.with_extension("new");
    let mut file =
        OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&fresh).map_err(fail)?;
    file.write_all(format!("{line}\n").as_bytes()).map_err(fail)?;
    drop(file);
    std::fs::rename(&fresh, path).map_err(fail)
}
