//! The same guests, the same models and the same engine on wasmtime's own wasi-nn and here.
//!
//! Upstream runs in this process ([`wasmeter_upstream`]), ours on a real host with its worker. Whatever a guest tells must
//! be equal, but for the text of errors, the names of outputs (upstream calls them by their number) and what the tables
//! below list: each row states both answers, so that it fails too when one of the two changes.

use std::path::Path;

use serde_json::{Value, json};
use wasmeter_device::find_openvino;
use wasmeter_testkit::{Host, component, manifest, tiny_model};
use wasmeter_upstream::{Outcome, Upstream};

const MODELS: [&str; 9] = [
    "mlp",
    "pair",
    "identity-f16",
    "identity-bf16",
    "identity-f32",
    "identity-f64",
    "identity-u8",
    "identity-i32",
    "identity-i64",
];

/// Ours with these on OpenVINO is refused, since it computes them in 32 bits (see [`every_type`]).
const WIDE: [&str; 2] = ["identity-f64", "identity-i64"];

/// Upstream cannot be told to compute in f32, and takes bf16 where the processor has it: 8 bits of mantissa, on numbers of
/// up to 3. All other models have integers that bf16 holds, and are compared exactly.
const TOLERANCE: f64 = 1.0 / 64.0;
const INEXACT: [&str; 2] = ["ok", "ramp"];

/// What upstream answers, what is answered here, for these cases, and why.
type Difference = (&'static str, &'static str, &'static [&'static str], &'static str);

const OF_COMPONENTS: &[Difference] = &[
    (
        "runtime-error",
        "invalid-argument",
        &[
            "pair-crossed",
            "wrong-shape",
            "wrong-rank",
            "wrong-type",
            "overflow",
            "unknown-input",
            "load-nothing",
        ],
        "upstream says runtime-error of all that its backend refuses",
    ),
    ("runtime-error", "ok", &["ok&input=0", "pair-index"], "upstream finds inputs by name only"),
    (
        "ok",
        "invalid-argument",
        &["pair-missing", "no-input"],
        "upstream takes a missing input as an empty one",
    ),
    ("ok", "invalid-argument", &["zero-rows"], "nothing is computed of nothing here"),
    ("ok", "invalid-argument", &["twice-named"], "upstream takes the last of two inputs of one name"),
    (
        "panic",
        "invalid-argument",
        &["short-bytes", "long-bytes"],
        "upstream copies without a look at the lengths",
    ),
    (
        "invalid-encoding",
        "security",
        &["load", "load-auto"],
        "OpenVINO is all that this upstream has; see load-ir",
    ),
    (
        "runtime-error",
        "security",
        &["load-ir"],
        "a guest loads no bytes here: upstream's engine has read them",
    ),
    ("runtime-error", "unsupported-operation", &["load-tpu"], "upstream looks at the target after the bytes"),
];

const COMPONENTS_AGREE: &[&str] = &[
    "ok",
    "ramp",
    "pair",
    "pair-rows",
    "pair-turned",
    "pair-uneven",
    "pair-again",
    "pair-contexts",
    "pair-after-error",
    "by-name",
    "load-tensorflow",
];

const OF_MODULES: &[Difference] = &[
    (
        "Runtime Error",
        "Caller module passed an invalid argument",
        &["wrong-shape", "no-output", "pair-wrong-type", "pair-unknown-input"],
        "upstream says runtime error of all that its backend refuses",
    ),
    (
        "ok",
        "Caller module passed an invalid argument",
        &["no-input"],
        "upstream takes a missing input as an empty one",
    ),
    ("ok", "Unsupported Operation", &["not-computed"], "upstream gives outputs that were never computed"),
    (
        "Runtime Error",
        "Unsupported Operation",
        &["load-ir"],
        "a guest loads no bytes here: upstream's engine has read them",
    ),
    ("Unsupported Operation", "Not Found", &["by-name"], "upstream has one number for all wrong use"),
    (
        "Unsupported Operation",
        "Invalid Encoding",
        &["load-tensorflow"],
        "upstream has one number for all wrong use",
    ),
    (
        "6",
        "1",
        &["raw-handle", "raw-negative-handle", "raw-context"],
        "upstream has one number for all wrong use",
    ),
    (
        "6",
        "1",
        &["raw-no-parts", "raw-parts-outside"],
        "upstream has no ONNX, and does not look at the parts",
    ),
    ("6", "7", &["raw-many-parts"], "upstream has no ONNX, and does not look at the parts"),
    (
        "trap",
        "1",
        &["raw-encoding", "raw-target", "raw-type"],
        "a number that is in no enumeration ends upstream's guests",
    ),
    (
        "trap",
        "Unsupported Operation",
        &["load-auto"],
        "the target AUTO of the guest crate is in no enumeration upstream",
    ),
    (
        "panic",
        "1",
        &[
            "raw-name-outside",
            "raw-name-huge",
            "raw-name-no-text",
            "raw-dims-outside",
            "raw-dims-unaligned",
            "raw-dims-many",
            "raw-data-outside",
            "raw-output-outside",
        ],
        "upstream has no answer to a bad pointer",
    ),
    (
        "panic",
        "7",
        &["raw-data-huge"],
        "upstream has no answer to a bad pointer; ours meets the limit of bytes first",
    ),
    ("panic", "1", &["raw-data-short"], "upstream copies without a look at the lengths"),
];

const MODULES_AGREE: &[&str] = &[
    "ok",
    "steps",
    "pair",
    "pair-rows",
    "pair-again",
    "small-buffer",
    "load",
    "load-tpu",
    "raw-result-outside",
    "raw-tensor-outside",
];

/// One guest in both places.
struct Both {
    guest: &'static str,
    host: Host,
    upstream: Upstream,
}

impl Both {
    async fn start(guest: &'static str) -> Self {
        let host = Host::builder(env!("CARGO_BIN_EXE_wasmeter")).start().await;
        for name in MODELS {
            let backend = if WIDE.contains(&name) { "onnx" } else { "openvino" };
            let card =
                format!("[model]\nname = \"{name}\"\nbackend = \"{backend}\"\nfiles = [\"model.onnx\"]\n");
            let files = [("model.onnx".to_owned(), tiny_model(name))];
            let answer = host.try_push(name, 1, &card, &files).await;
            assert_eq!(answer.status, 201, "{name}: {}", answer.text());
        }
        host.deploy(guest, &manifest(guest).public().models(&MODELS)).await;
        let library = find_openvino(None).expect("deploy/setup.sh brings it");
        let upstream = upstream(&library, guest);
        Self { guest, host, upstream }
    }

    /// What upstream's guest told, and ours.
    async fn ask(&self, case: &str) -> (Value, Value) {
        let there = match self.upstream.call(&format!("case={case}"), b"").await {
            Outcome::Body(body) => serde_json::from_slice(&body).expect("a guest tells JSON"),
            Outcome::Trap(_) => json!("trap"),
            Outcome::Panic(_) => json!("panic"),
        };
        let path = format!("/fn/dev/{}?case={case}", self.guest);
        let answer = self.host.anonymous().post(&path, "").send().await;
        let here = match (answer.status, answer.header("x-wasmeter-error-source")) {
            (200, _) => answer.json(),
            (502, Some("function")) => json!("trap"),
            _ => panic!("{case}: {} {}", answer.status, answer.text()),
        };
        (comparable(there), by_number(comparable(here)))
    }

    async fn agree(&self, cases: &[&str]) {
        for case in cases {
            let (there, here) = self.ask(case).await;
            let tolerance = if INEXACT.contains(case) { TOLERANCE } else { 0.0 };
            assert!(
                same(&there, &here, tolerance),
                "{} {case}:\nupstream {there}\nhere     {here}",
                self.guest
            );
        }
    }

    async fn differ(&self, differences: &[Difference]) {
        for (upstream, ours, cases, why) in differences {
            for case in *cases {
                let (there, here) = self.ask(case).await;
                let told = (summary(&there), summary(&here));
                let listed = ((*upstream).to_owned(), (*ours).to_owned());
                assert_eq!(told, listed, "{} {case} ({why}):\nupstream {there}\nhere     {here}", self.guest);
            }
        }
    }
}

fn upstream(library: &Path, guest: &str) -> Upstream {
    let models: Vec<_> = MODELS.iter().map(|name| (*name, tiny_model(name))).collect();
    Upstream::new(library, &models, &component(guest)).expect("upstream takes the guest and the models")
}

/// Without the text of an error, which is each host's own.
fn comparable(mut told: Value) -> Value {
    if let Some(object) = told.as_object_mut() {
        object.remove("message");
    }
    told
}

/// Outputs by number, as upstream calls them.
fn by_number(mut told: Value) -> Value {
    match &mut told {
        Value::Array(items) => items.iter_mut().for_each(|item| *item = by_number(item.take())),
        Value::Object(object) => {
            for (key, value) in object.iter_mut() {
                *value = match (key.as_str(), value.as_str()) {
                    ("name", Some("y" | "double")) => json!("0"),
                    ("name", Some("total")) => json!("1"),
                    _ => by_number(value.take()),
                };
            }
        }
        _ => {}
    }
    told
}

fn same(a: &Value, b: &Value, tolerance: f64) -> bool {
    match (a, b) {
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b, tolerance))
        }
        (Value::Object(a), Value::Object(b)) => {
            let known = |(key, a): (&String, &Value)| b.get(key).is_some_and(|b| same(a, b, tolerance));
            a.len() == b.len() && a.iter().all(known)
        }
        (Value::Number(a), Value::Number(b)) if a.is_f64() && b.is_f64() => {
            let distance = a.as_f64().zip(b.as_f64()).map(|(a, b)| (a - b).abs());
            distance.is_some_and(|distance| distance <= tolerance)
        }
        (a, b) => a == b,
    }
}

/// `ok`, an error code, the crate's word for a number, a number, `trap` or `panic`.
fn summary(told: &Value) -> String {
    match (told, &told["code"], &told["error"], &told["value"]) {
        (Value::String(end), ..) => end.clone(),
        (_, Value::String(code), ..) => code.clone(),
        (_, _, Value::String(error), _) => error.rsplit(": ").next().unwrap_or_default().to_owned(),
        (_, _, _, Value::Number(number)) => number.to_string(),
        _ if told["ok"] == true => "ok".to_owned(),
        _ => told.to_string(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn components_are_told_what_upstream_tells() {
    let both = Both::start("nn-raw").await;
    both.agree(COMPONENTS_AGREE).await;
    both.differ(OF_COMPONENTS).await;
    every_type(&both).await;
}

/// Bits come back as they went in, but for i64: the engine keeps 32 of them, upstream as well. Ours runs on ONNX Runtime
/// then, and a guest that gives larger numbers to OpenVINO is told so.
async fn every_type(both: &Both) {
    let (there, here) = both.ask("all-types").await;
    let mut all =
        json!({ "bf16": true, "f16": true, "f32": true, "f64": true, "i32": true, "i64": true, "u8": true });
    assert_eq!(here["outputs"], all, "{here}");
    all["i64"] = json!(false);
    assert_eq!(there["outputs"], all, "{there}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn core_modules_are_told_what_upstream_tells() {
    let both = Both::start("nn-p1").await;
    both.agree(MODULES_AGREE).await;
    both.differ(OF_MODULES).await;
}
