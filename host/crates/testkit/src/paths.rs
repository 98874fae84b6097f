use std::path::{Path, PathBuf};

/// The root of the repository. Where cargo runs the test it says which one: two checkouts that share a build folder may
/// share the binary.
#[must_use]
pub fn repository() -> PathBuf {
    let built = || env!("CARGO_MANIFEST_DIR").into();
    let package: PathBuf = std::env::var_os("CARGO_MANIFEST_DIR").map_or_else(built, Into::into);
    let root = package.ancestors().find(|folder| folder.join("Cargo.lock").is_file());
    root.unwrap_or(&package).to_owned()
}

/// `$WASMETER_CACHE`, or `$HOME/.cache/wasmeter`.
#[must_use]
pub fn cache() -> PathBuf {
    match std::env::var_os("WASMETER_CACHE") {
        Some(path) => path.into(),
        None => Path::new(&std::env::var_os("HOME").unwrap_or_default()).join(".cache/wasmeter"),
    }
}

/// Where the component of a shipped function or of a fixture lies.
#[must_use]
pub fn component_path(name: &str) -> PathBuf {
    let path = repository().join("functions/target/components").join(format!("{name}.wasm"));
    assert!(path.is_file(), "{} is not there: run functions/build.sh", path.display());
    path
}

/// The bytes of the component of a shipped function or of a fixture.
#[must_use]
pub fn component(name: &str) -> Vec<u8> {
    read(&component_path(name))
}

/// The folder of a demo model.
#[must_use]
pub fn model(name: &str) -> PathBuf {
    let path = cache().join("models").join(name);
    assert!(path.join("model.toml").is_file(), "{} is not there: run deploy/setup.sh", path.display());
    path
}

/// The graph of a tiny model of the fixtures, such as `mlp` or `identity-f32`.
#[must_use]
pub fn tiny_model(name: &str) -> Vec<u8> {
    fixture(&format!("models/{name}.onnx"))
}

/// A file of the fixtures, such as `models/tiny.xml`.
#[must_use]
pub fn fixture(path: &str) -> Vec<u8> {
    read(&repository().join("functions/_fixtures").join(path))
}

pub(crate) fn read(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap_or_else(|e| panic!("cannot read {}: {e}", path.display()))
}
