//! Makes the table of content types from magika's own files: `$WASMETER_CACHE/models/magika/`.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs, process};

use serde_json::Value;

fn main() {
    if let Err(message) = run() {
        // Cargo shows what a failed build script wrote.
        eprintln!("filetype: {message}");
        process::exit(1);
    }
}

fn run() -> Result<(), String> {
    println!("cargo::rerun-if-changed=build.rs");
    let folder = models()?.join("magika");
    let config = read(&folder.join("config.json"))?;
    let kinds = read(&folder.join("content_types.json"))?;
    let kinds = kinds.as_object().ok_or("content_types.json is no object")?;

    let index = |label: &str| {
        kinds.keys().position(|k| k == label).ok_or_else(|| format!("content_types.json lacks {label:?}"))
    };
    let mut out = String::from("pub(crate) static KINDS: &[Kind] = &[\n");
    for (label, kind) in kinds {
        let is_text = kind["is_text"].as_bool().ok_or_else(|| format!("{label}: is_text is missing"))?;
        let mime = if is_text { "text/plain" } else { "application/octet-stream" };
        let mime = kind["mime_type"].as_str().unwrap_or(mime);
        let description = kind["description"].as_str().unwrap_or(label);
        put(
            &mut out,
            format_args!(
                "Kind {{ label: {label:?}, description: {description:?}, mime: {mime:?}, is_text: {is_text} }},"
            ),
        );
    }
    out.push_str("];\npub(crate) static CLASSES: &[Class] = &[\n");
    let default = &config["medium_confidence_threshold"];
    let labels = config["target_labels_space"].as_array().ok_or("config.json lacks target_labels_space")?;
    for label in labels {
        let label = label.as_str().ok_or("a target label is no text")?;
        let output = config["overwrite_map"][label].as_str().unwrap_or(label);
        let threshold = config["thresholds"].get(label).unwrap_or(default);
        let threshold = threshold.as_f64().ok_or_else(|| format!("{label}: its threshold is no number"))?;
        let output = index(output)?;
        put(&mut out, format_args!("Class {{ output: {output}, threshold: {threshold:?} }},"));
    }
    out.push_str("];\n");
    for (name, label) in [("EMPTY", "empty"), ("TXT", "txt"), ("UNKNOWN", "unknown")] {
        put(&mut out, format_args!("pub(crate) const {name}: usize = {};", index(label)?));
    }
    let sizes = [
        ("BEGIN", "beg_size"),
        ("END", "end_size"),
        ("BLOCK", "block_size"),
        ("ENOUGH", "min_file_size_for_dl"),
    ];
    for (name, key) in sizes {
        put(&mut out, format_args!("pub(crate) const {name}: usize = {};", number(&config, key)?));
    }
    put(&mut out, format_args!("pub(crate) const PADDING: i32 = {};", number(&config, "padding_token")?));
    if number(&config, "mid_size")? != 0 || config["use_inputs_at_offsets"] != Value::Bool(false) {
        return Err(
            "this model wants features that this function does not make; use magika standard_v3_3".into()
        );
    }
    let target = PathBuf::from(env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?).join("kinds.rs");
    fs::write(&target, out).map_err(|e| format!("cannot write {}: {e}", target.display()))
}

/// Where the models are.
fn models() -> Result<PathBuf, String> {
    println!("cargo::rerun-if-env-changed=WASMETER_CACHE");
    let cache = match env::var_os("WASMETER_CACHE") {
        Some(cache) => PathBuf::from(cache),
        None => PathBuf::from(env::var_os("HOME").ok_or("neither WASMETER_CACHE nor HOME is set")?)
            .join(".cache/wasmeter"),
    };
    Ok(cache.join("models"))
}

fn read(path: &Path) -> Result<Value, String> {
    println!("cargo::rerun-if-changed={}", path.display());
    let text = fs::read_to_string(path)
        .map_err(|e| format!("cannot read {}: {e}; run deploy/setup.sh first", path.display()))?;
    serde_json::from_str(&text).map_err(|e| format!("{} is not JSON: {e}", path.display()))
}

fn number(config: &Value, key: &str) -> Result<u64, String> {
    config[key].as_u64().ok_or_else(|| format!("config.json: {key} is no number"))
}

fn put(out: &mut String, line: std::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    let _ = writeln!(out, "{line}");
}
