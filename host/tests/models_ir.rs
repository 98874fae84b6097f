//! OpenVINO IRs from push to answer, on a real host with both real engines.

use serde_json::{Value, json};
use wasmeter_testkit::{Answer, Host, fixture, manifest};

const PROGRAM: &str = env!("CARGO_BIN_EXE_wasmeter");

fn card(name: &str) -> String {
    format!(
        "[model]\nname = \"{name}\"\nbackend = \"openvino\"\nfiles = [\"model.xml\", \"model.bin\", \"labels.txt\"]\n"
    )
}

async fn push(host: &Host, name: &str, xml: &str, weights: &[u8]) -> Answer {
    let files = [
        ("model.xml".to_owned(), xml.as_bytes().to_vec()),
        ("model.bin".to_owned(), weights.to_vec()),
        ("labels.txt".to_owned(), b"a\nb\nc\nd\n".to_vec()),
    ];
    host.try_push(name, 1, &card(name), &files).await
}

async fn answer(host: &Host, model: &str) -> Vec<f64> {
    let numbers = json!([0.5, -1.0, 2.0, 0.25, 0.0, 3.0, -0.5, 1.0]).to_string();
    let path = format!("/fn/dev/nn-raw?case=echo&model={model}");
    let json = host.dev().post(&path, numbers).send().await.expect(200).json();
    let values = json["outputs"][0]["values"].as_array().unwrap_or_else(|| panic!("{json}"));
    values.iter().filter_map(Value::as_f64).collect()
}

#[tokio::test]
async fn an_ir_answers_as_the_onnx_file_also_after_a_restart() {
    let mut host = Host::builder(PROGRAM).start().await;
    let (xml, weights) = (String::from_utf8(fixture("models/tiny.xml")).unwrap(), fixture("models/tiny.bin"));
    let pushed = push(&host, "tiny-ir", &xml, &weights).await.expect(201).json();
    assert_eq!(pushed["state"], "ready");
    assert_eq!(pushed["signature"]["inputs"][0], json!({ "name": "x", "type": "f32", "dims": ["?", "8"] }));
    // The same again is the same; other weights are another model.
    assert_eq!(push(&host, "tiny-ir", &xml, &weights).await.status, 200);
    let mut other = weights.clone();
    other[0] ^= 1;
    assert_eq!(push(&host, "tiny-ir", &xml, &other).await.status, 409);
    let onnx = [("model.onnx".to_owned(), fixture("models/tiny.onnx"))];
    let on = |name: &str, backend: &str| {
        format!("[model]\nname = \"{name}\"\nbackend = \"{backend}\"\nfiles = [\"model.onnx\"]\n")
    };
    for (name, backend) in [("tiny-onnx", "onnx"), ("tiny-vino", "openvino")] {
        drop(host.try_push(name, 1, &on(name, backend), &onnx).await.expect(201));
    }
    let models = ["tiny-ir", "tiny-onnx", "tiny-vino"];
    host.deploy("nn-raw", &manifest("nn-raw").models(&models)).await;
    for _ in 0..2 {
        let ir = answer(&host, "tiny-ir").await;
        assert_eq!(ir.len(), 4);
        assert!((ir.iter().sum::<f64>() - 1.).abs() < 1e-5, "{ir:?}");
        assert_eq!(answer(&host, "tiny-vino").await, ir, "one engine, two forms");
        for (a, b) in answer(&host, "tiny-onnx").await.iter().zip(&ir) {
            assert!((a - b).abs() < 1e-6, "{a} and {b}");
        }
        // Now from the store, whose files are checked against the catalog's digests.
        host.restart().await;
    }
    assert!(host.term().await.success());
}

#[tokio::test]
async fn bad_irs_are_refused_with_reasons_and_leave_nothing() {
    let mut host = Host::builder(PROGRAM).start().await;
    let (xml, weights) = (String::from_utf8(fixture("models/tiny.xml")).unwrap(), fixture("models/tiny.bin"));
    let offset = "offset=\"0\"";
    let huge = xml.replacen("shape=\"?,8\"", "shape=\"4294967296,4294967296\"", 1);
    let cases = [
        (xml.replacen(offset, "offset=\"0\" path=\"/etc/passwd\"", 1), "names a file"),
        (xml.replacen(offset, "offset=\"4000000000\"", 1), "the weights have 832 bytes"),
        (xml.replacen("version=\"opset1\"", "version=\"extension\"", 1), "extension"),
        (xml.replacen("<net ", "<!DOCTYPE net [<!ENTITY a \"b\">]>\n<net ", 1), "document type"),
        (xml.replacen("<dim>-1</dim>", "<dim>&xxe;</dim>", 1), "entity"),
        (huge, "2^40"),
        (xml[..xml.len() / 2].to_owned(), "XML is broken"),
        ("\x08\x07not xml".to_owned(), "OpenVINO IR"),
    ];
    for (bad, says) in cases {
        assert_ne!(bad, xml, "{says}: the case changes nothing");
        let refused = push(&host, "bad", &bad, &weights).await;
        assert_eq!(refused.status, 422, "{says}: {}", refused.text());
        assert!(refused.message().contains(says), "{says}: {}", refused.message());
    }
    let short = push(&host, "bad", &xml, &weights[..800]).await;
    assert_eq!((short.status, short.message().contains("800 bytes")), (422, true), "{}", short.text());
    assert_eq!(host.operator().get("/api/v1/models/bad").send().await.status, 404);
    // The worker that refused them takes a good one.
    drop(push(&host, "good", &xml, &weights).await.expect(201));
    assert!(host.term().await.success());
}
