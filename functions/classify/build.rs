//! Makes the table of class names from the model's own `$WASMETER_CACHE/models/efficientnet-lite0/labels.txt`.

use std::path::PathBuf;
use std::{env, fs, process};

/// Classes of ImageNet-1k.
const CLASSES: usize = 1000;

fn main() {
    if let Err(message) = run() {
        // Cargo shows what a failed build script wrote.
        eprintln!("classify: {message}");
        process::exit(1);
    }
}

fn run() -> Result<(), String> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=WASMETER_CACHE");
    let cache = match env::var_os("WASMETER_CACHE") {
        Some(cache) => PathBuf::from(cache),
        None => PathBuf::from(env::var_os("HOME").ok_or("neither WASMETER_CACHE nor HOME is set")?)
            .join(".cache/wasmeter"),
    };
    let path = cache.join("models/efficientnet-lite0/labels.txt");
    println!("cargo::rerun-if-changed={}", path.display());
    let text = fs::read_to_string(&path)
        .map_err(|e| format!("cannot read {}: {e}; run deploy/setup.sh first", path.display()))?;
    let labels: Vec<&str> = text.lines().collect();
    if labels.len() != CLASSES {
        return Err(format!("{} has {} lines, not {CLASSES}", path.display(), labels.len()));
    }
    let target = PathBuf::from(env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?).join("labels.rs");
    let table = format!("pub(crate) static LABELS: [&str; {CLASSES}] = {labels:?};\n");
    fs::write(&target, table).map_err(|e| format!("cannot write {}: {e}", target.display()))
}
