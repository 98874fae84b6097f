//! Makes the tokeniser's table from the model's own `$WASMETER_CACHE/models/minilm/vocab.txt`: a hash table in
//! read-only memory, so that a call parses nothing.

use std::path::{Path, PathBuf};
use std::{env, fs, process};

// One text of the hash for both sides.
#[path = "src/tokens/hash.rs"]
mod hash;

/// Slots of the table, a power of two: at 30,522 tokens more than half of them are free.
const SLOTS: usize = 1 << 16;

fn main() {
    if let Err(message) = run() {
        // Cargo shows what a failed build script wrote.
        eprintln!("similar: {message}");
        process::exit(1);
    }
}

fn run() -> Result<(), String> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=src/tokens/hash.rs");
    let path = models()?.join("minilm/vocab.txt");
    println!("cargo::rerun-if-changed={}", path.display());
    let vocabulary = fs::read_to_string(&path)
        .map_err(|e| format!("cannot read {}: {e}; run deploy/setup.sh first", path.display()))?;
    let tokens: Vec<&str> = vocabulary.lines().collect();
    if tokens.len() > SLOTS * 3 / 4 {
        return Err(format!("{} has {} tokens, too many for this table", path.display(), tokens.len()));
    }

    let mut text = String::new();
    let mut ends = Vec::with_capacity(tokens.len());
    let mut slots = vec![u16::MAX; SLOTS];
    let mut longest = 0;
    for (id, token) in tokens.iter().enumerate() {
        let id = u16::try_from(id).map_err(|_| "more than 65,535 tokens")?;
        let (continues, piece) = match token.strip_prefix("##") {
            // The token "##" alone is two hash signs.
            Some(piece) if !piece.is_empty() => (true, piece),
            _ => (false, *token),
        };
        let mut slot = hash::hash(continues, piece.as_bytes()) as usize % SLOTS;
        while slots[slot] != u16::MAX {
            slot = (slot + 1) % SLOTS;
        }
        slots[slot] = id;
        text.push_str(piece);
        let end = u32::try_from(text.len()).map_err(|_| "the vocabulary is too long")?;
        ends.push(end << 1 | u32::from(continues));
        longest = longest.max(piece.chars().count());
    }
    let special = |token: &str| {
        let id = tokens.iter().position(|t| *t == token);
        id.ok_or_else(|| format!("{} has no token {token}", path.display()))
    };
    let table = format!(
        "pub(super) static TEXT: &str = include_str!(\"vocabulary.txt\");\n\
         pub(super) static ENDS: [u32; {}] = {ends:?};\n\
         pub(super) static SLOTS: [u16; {SLOTS}] = {slots:?};\n\
         pub(super) const LONGEST: usize = {longest};\n\
         pub(super) const UNKNOWN: u16 = {};\n\
         pub(super) const BEGIN: u16 = {};\n\
         pub(super) const END: u16 = {};\n",
        ends.len(),
        special("[UNK]")?,
        special("[CLS]")?,
        special("[SEP]")?,
    );
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?);
    write(&out.join("vocabulary.txt"), &text)?;
    write(&out.join("vocabulary.rs"), &table)
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

fn write(path: &Path, text: &str) -> Result<(), String> {
    fs::write(path, text).map_err(|e| format!("cannot write {}: {e}", path.display()))
}
