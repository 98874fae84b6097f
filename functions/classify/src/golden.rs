//! The golden cases of `tests/golden`, made by Pillow with `../reference/classify.py`.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::picture::input;

fn golden() -> (PathBuf, Value) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let text = fs::read(folder.join("classify.json")).expect("the golden file");
    (folder, serde_json::from_slice(&text).expect("JSON"))
}

/// Where the set-up puts its sample pictures.
fn samples() -> PathBuf {
    let cache = std::env::var_os("WASMETER_CACHE").map(PathBuf::from);
    let home = || PathBuf::from(std::env::var_os("HOME").expect("HOME")).join(".cache/wasmeter");
    cache.unwrap_or_else(home).join("samples")
}

#[test]
fn pictures_become_what_pillow_makes_of_them() {
    let (folder, golden) = golden();
    for case in golden["cases"].as_array().expect("cases") {
        let path = match (case["file"].as_str(), case["sample"].as_str()) {
            (Some(file), _) => folder.join(file),
            (None, sample) => samples().join(sample.expect("file or sample")),
        };
        let bytes = fs::read(&path).expect("the picture");
        let tensor = input(&bytes).expect("a picture");
        let want: Vec<f32> = serde_json::from_value(case["tensor"].clone()).expect("numbers");
        let stride = case["tensor_every"].as_u64().expect("a number") as usize;
        let differences: Vec<f32> =
            tensor.iter().step_by(stride).zip(&want).map(|(got, want)| (got - want).abs()).collect();
        assert_eq!(differences.len(), want.len());
        let greatest = differences.iter().copied().fold(0.0, f32::max);
        let mean = differences.iter().sum::<f32>() / differences.len() as f32;
        println!("{}: greatest difference {greatest}, mean {mean}", path.display());
        let tolerance = |key: &str| case["tolerance"][key].as_f64().expect("a tolerance") as f32;
        assert!(greatest <= tolerance("tensor"), "{}: {greatest}", path.display());
        assert!(mean <= tolerance("tensor_mean"), "{}: {mean}", path.display());
    }
}

#[test]
fn broken_pictures_are_refused() {
    let (folder, golden) = golden();
    for case in golden["refused"].as_array().expect("refused") {
        let bytes = fs::read(folder.join(case["file"].as_str().expect("a file"))).expect("the file");
        let message = input(&bytes).expect_err(case["file"].as_str().unwrap_or_default()).to_string();
        println!("{}: {message}", case["name"]);
    }
}
