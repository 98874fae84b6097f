//! The golden cases of `tests/golden`, made by magika itself with `../reference/filetype.py`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::kinds::KINDS;
use crate::{decide, features};

/// FNV-1a, 64 bits, over the numbers as little-endian i32.
fn hash(features: &[i32]) -> String {
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    let hash = features.iter().flat_map(|f| f.to_le_bytes()).fold(0xcbf2_9ce4_8422_2325, step);
    format!("{hash:016x}")
}

#[test]
fn features_are_those_of_magika() {
    let golden: Value = serde_json::from_str(include_str!("../tests/golden/filetype.json")).expect("JSON");
    let cases = golden["cases"].as_array().expect("cases");
    assert!(cases.len() > 10);
    for case in cases {
        let name = case["name"].as_str().expect("a name");
        let bytes = STANDARD.decode(case["base64"].as_str().expect("base64")).expect("base64");
        match (decide::without_model(&bytes), case["features_fnv1a64"].as_str()) {
            (Some(kind), None) => assert_eq!(KINDS[kind].label, case["answer"]["label"], "{name}"),
            (None, Some(want)) => assert_eq!(hash(&features::features(&bytes)), want, "{name}"),
            (got, want) => panic!("{name}: without the model {got:?}, features {want:?}"),
        }
    }
}
