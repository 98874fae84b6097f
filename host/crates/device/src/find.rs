use std::{
    env,
    path::{Path, PathBuf},
};

/// File name of the ONNX Runtime library that this build was made for.
pub const ONNXRUNTIME_FILE: &str = "libonnxruntime.so.1.31.1";

/// The engine's library is not there, or not usable.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "ONNX Runtime is missing: {reason}; run deploy/setup.sh, or set `onnxruntime` in [engines] to the path of {ONNXRUNTIME_FILE}"
)]
pub struct EngineMissing {
    /// What was looked for, and where.
    pub reason: String,
}

/// Finds the ONNX Runtime library: the configured path and no other, if there is one; else the cache of
/// `deploy/setup.sh` (`$WASMETER_CACHE`, default `$HOME/.cache/wasmeter`), the folder of the running
/// program, and `/usr/lib/wasmeter`.
///
/// # Errors
/// [`EngineMissing`] names the places that were tried.
pub fn find_onnxruntime(configured: Option<&Path>) -> Result<PathBuf, EngineMissing> {
    if let Some(path) = configured {
        return if path.is_file() {
            Ok(path.to_owned())
        } else {
            Err(EngineMissing { reason: format!("there is no file {}", path.display()) })
        };
    }
    first_file(&places())
}

fn places() -> Vec<PathBuf> {
    let cache = env::var_os("WASMETER_CACHE")
        .map(PathBuf::from)
        .or_else(|| env::var_os("HOME").map(|home| Path::new(&home).join(".cache/wasmeter")));
    let beside = env::current_exe().ok().and_then(|exe| exe.parent().map(Path::to_owned));
    let mut places: Vec<PathBuf> = Vec::new();
    places.extend(cache.map(|cache| cache.join("onnxruntime").join(ONNXRUNTIME_FILE)));
    places.extend(beside.map(|folder| folder.join(ONNXRUNTIME_FILE)));
    places.push(Path::new("/usr/lib/wasmeter").join(ONNXRUNTIME_FILE));
    places
}

fn first_file(places: &[PathBuf]) -> Result<PathBuf, EngineMissing> {
    if let Some(found) = places.iter().find(|place| place.is_file()) {
        return Ok(found.clone());
    }
    let tried: Vec<_> = places.iter().map(|place| place.display().to_string()).collect();
    Err(EngineMissing { reason: format!("none of these files exists: {}", tried.join(", ")) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configured_path_is_final() {
        let error = find_onnxruntime(Some(Path::new("/nowhere/lib.so"))).unwrap_err().to_string();
        assert!(error.contains("/nowhere/lib.so") && error.contains("deploy/setup.sh"), "{error}");
    }

    #[test]
    fn the_first_place_wins_and_all_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let places = [folder.path().join("a"), folder.path().join("b")];
        let error = first_file(&places).unwrap_err().to_string();
        assert!(error.contains("/a") && error.contains("/b"), "{error}");
        std::fs::write(&places[1], b"").unwrap();
        assert_eq!(first_file(&places).unwrap(), places[1]);
    }
}
