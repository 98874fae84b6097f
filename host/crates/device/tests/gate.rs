//! The gate over real models, and over what is left of them after damage.
#![allow(clippy::unwrap_used, reason = "helpers of tests are not seen as tests")]

mod common;

use std::sync::OnceLock;

use common::model_path;
use proptest::prelude::*;
use wasmeter_device::gate::check_onnx;
use wasmeter_inference::Batching;

#[test]
fn the_shipped_models_pass() {
    for name in ["efficientnet-lite0", "magika", "minilm", "mlp"] {
        let checked = check_onnx(&std::fs::read(model_path(name)).unwrap()).unwrap();
        assert_eq!(checked.batching, Batching::Rows, "{name}");
    }
    // A reshape by sizes that the walk does not follow, and an input without rows.
    for (name, word) in [("ocr-rec", "Reshape"), ("silero-vad", "scalar")] {
        let checked = check_onnx(&std::fs::read(model_path(name)).unwrap()).unwrap();
        let Batching::Off(reason) = checked.batching else { panic!("{name} is batched") };
        assert!(reason.contains(word), "{name}: {reason}");
    }
}

/// Models whose damage says something about all readers: weights are cut, so that it hits the structure.
fn seeds() -> &'static [Vec<u8>] {
    static SEEDS: OnceLock<Vec<Vec<u8>>> = OnceLock::new();
    SEEDS.get_or_init(|| {
        let read = |name: &str| std::fs::read(model_path(name)).unwrap();
        let tail = |bytes: Vec<u8>, from: usize| bytes[from.min(bytes.len())..].to_vec();
        vec![
            read("slow"),
            read("expand"),
            read("sum"),
            read("magika"),
            tail(read("minilm"), 0).into_iter().take(200_000).collect(),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 20_000, ..ProptestConfig::default() })]

    #[test]
    fn damaged_models_never_panic(
        seed in 0usize..5,
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..12),
        cut in proptest::option::weighted(0.2, any::<prop::sample::Index>()),
        twice in proptest::option::weighted(0.2, (any::<prop::sample::Index>(), any::<prop::sample::Index>())),
    ) {
        let mut bytes = seeds()[seed].clone();
        // Most of a real model is weights; the structure is at its two ends.
        let len = bytes.len();
        let ends: usize = 60_000;
        for (index, byte) in damage {
            let at = index.index(len.min(2 * ends));
            let at = if at < ends || len <= 2 * ends { at } else { len - 2 * ends + at };
            bytes[at] = byte;
        }
        if let Some((from, to)) = twice {
            let part = bytes[from.index(len)..].iter().take(200).copied().collect::<Vec<_>>();
            let at = to.index(len);
            bytes.splice(at..at, part);
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(len));
        }
        let _ = check_onnx(&bytes);
    }
}
