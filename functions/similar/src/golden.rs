//! The golden cases of `tests/golden`, made by the `tokenizers` library with `../reference/similar.py`.

use serde_json::Value;

use crate::tokens::encode;

#[test]
fn tokens_are_those_of_the_reference() {
    let golden: Value = serde_json::from_str(include_str!("../tests/golden/similar.json")).expect("JSON");
    let cases = golden["cases"].as_array().expect("cases");
    assert!(cases.len() > 10);
    for case in cases {
        for side in ["a", "b"] {
            let text = case["request"][side].as_str().expect("a text");
            let want: Vec<u16> = serde_json::from_value(case["tokens"][side].clone()).expect("numbers");
            assert_eq!(encode(text, 256), want, "{text:?}");
        }
    }
}
