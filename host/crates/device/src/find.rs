use std::{
    env,
    path::{Path, PathBuf},
};

use crate::target::Library;

/// File name of the ONNX Runtime library that this build was made for.
pub const ONNXRUNTIME_FILE: &str = "libonnxruntime.so.1.31.1";
/// File name of the OpenVINO library that this build was made for, version 2026.4.1. Its plugins lie beside it.
pub const OPENVINO_FILE: &str = "libopenvino_c.so.2641";

/// The engine's library is not there, or not usable.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{engine} is missing: {reason}; run deploy/setup.sh, or set `{setting}` in [engines] to the path of {file}"
)]
pub struct EngineMissing {
    engine: &'static str,
    setting: &'static str,
    file: &'static str,
    /// What was looked for, and where.
    pub reason: String,
}

impl EngineMissing {
    pub(crate) fn new(library: Library, reason: String) -> Self {
        match library {
            Library::OnnxRuntime => {
                Self { engine: "ONNX Runtime", setting: "onnxruntime", file: ONNXRUNTIME_FILE, reason }
            }
            Library::OpenVino => {
                Self { engine: "OpenVINO", setting: "openvino", file: OPENVINO_FILE, reason }
            }
        }
    }
}

/// Finds the ONNX Runtime library: the configured path and no other, if there is one; else the cache of
/// `deploy/setup.sh` (`$WASMETER_CACHE`, default `$HOME/.cache/wasmeter`), the folder of the running
/// program, and `/usr/lib/wasmeter`.
///
/// # Errors
/// [`EngineMissing`] names the places that were tried.
pub fn find_onnxruntime(configured: Option<&Path>) -> Result<PathBuf, EngineMissing> {
    find(Library::OnnxRuntime, configured)
}

/// Finds OpenVINO's C library as [`find_onnxruntime`] finds its own.
///
/// # Errors
/// [`EngineMissing`] names the places that were tried.
pub fn find_openvino(configured: Option<&Path>) -> Result<PathBuf, EngineMissing> {
    find(Library::OpenVino, configured)
}

pub(crate) fn find(library: Library, configured: Option<&Path>) -> Result<PathBuf, EngineMissing> {
    let missing = |reason| EngineMissing::new(library, reason);
    if let Some(path) = configured {
        return if path.is_file() {
            Ok(path.to_owned())
        } else {
            Err(missing(format!("there is no file {}", path.display())))
        };
    }
    let places = match library {
        Library::OnnxRuntime => places("onnxruntime", ONNXRUNTIME_FILE),
        Library::OpenVino => places("openvino", OPENVINO_FILE),
    };
    first_file(&places).map_err(missing)
}

fn places(folder: &str, file: &str) -> Vec<PathBuf> {
    let cache = env::var_os("WASMETER_CACHE")
        .map(PathBuf::from)
        .or_else(|| env::var_os("HOME").map(|home| Path::new(&home).join(".cache/wasmeter")));
    let beside = env::current_exe().ok().and_then(|exe| exe.parent().map(Path::to_owned));
    let mut places: Vec<PathBuf> = Vec::new();
    places.extend(cache.map(|cache| cache.join(folder).join(file)));
    places.extend(beside.map(|folder| folder.join(file)));
    places.push(Path::new("/usr/lib/wasmeter").join(file));
    places
}

fn first_file(places: &[PathBuf]) -> Result<PathBuf, String> {
    if let Some(found) = places.iter().find(|place| place.is_file()) {
        return Ok(found.clone());
    }
    let tried: Vec<_> = places.iter().map(|place| place.display().to_string()).collect();
    Err(format!("none of these files exists: {}", tried.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configured_path_is_final() {
        let nowhere = Some(Path::new("/nowhere/lib.so"));
        let error = find_onnxruntime(nowhere).unwrap_err().to_string();
        assert!(error.contains("/nowhere/lib.so") && error.contains("deploy/setup.sh"), "{error}");
        let error = find_openvino(nowhere).unwrap_err().to_string();
        assert!(error.contains("OpenVINO") && error.contains("`openvino`"), "{error}");
    }

    #[test]
    fn the_first_place_wins_and_all_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let places = [folder.path().join("a"), folder.path().join("b")];
        let error = first_file(&places).unwrap_err();
        assert!(error.contains("/a") && error.contains("/b"), "{error}");
        std::fs::write(&places[1], b"").unwrap();
        assert_eq!(first_file(&places).unwrap(), places[1]);
    }
}
