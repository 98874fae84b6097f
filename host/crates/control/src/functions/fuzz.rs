//! The body of an upload, from bytes to a component and a manifest, under a million mutations (`deploy/bench/fuzz.sh`).

use axum::body::Body;
use axum::extract::Request;
use wasmeter_types::{ErrorKind, FunctionManifest};

use super::deploy::read;
use crate::upload::Upload;

const CORPUS: [&[u8]; 5] = [
    b"multipart/form-data; boundary=b\n--b\r\ncontent-disposition: form-data; name=\"manifest\"\r\n\r\n[function]\nname = \"f\"\n[limits]\nmemory = \"64MiB\"\nfuel = 5\ndeadline = \"10s\"\r\n--b\r\ncontent-disposition: form-data; name=\"component\"\r\n\r\n\0asm\x0d\0\x01\0\r\n--b--\r\n",
    b"multipart/form-data; boundary=b\n--b\r\ncontent-disposition: form-data; name=\"component\"; filename=\"x\"\r\ncontent-type: application/wasm\r\n\r\n\0asm\r\n--b\r\ncontent-disposition: form-data; name=\"manifest\"\r\n\r\n[function]\nname = \"f\"\npublic = true\n[models]\nallow = [\"m\"]\n[http]\nallow = [\"https://a.b\"]\n[env]\nA = \"b\"\n[idempotency]\nkeep-answers = \"1h\"\n[websocket]\nidle = \"60s\"\r\n--b--",
    b"application/wasm\n\0asm\x0d\0\x01\0",
    b"multipart/form-data; boundary=\"b\"\n--b--\r\n",
    b"text/html\n<html>",
];

const WORDS: [&[u8]; 20] = [
    b"--b",
    b"\r\n",
    b"\r\n\r\n",
    b"--b--",
    b"name=\"",
    b"manifest",
    b"component",
    b"content-disposition: ",
    b"form-data; ",
    b"\0",
    b"\xff",
    b"[limits]\n",
    b"[[",
    b" = ",
    b"18446744073709551616",
    b"\"-1\"",
    b"GiB",
    b"h",
    b"'''",
    b"boundary=",
];

#[test]
fn an_upload_takes_anything() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let function = "f".parse().unwrap();
    wasmeter_testkit::fuzz(&CORPUS, &WORDS, |data| {
        let end = data.iter().position(|b| *b == b'\n').unwrap_or(data.len());
        let (kind, body) = (&data[..end], data.get(end + 1..).unwrap_or_default());
        let Ok(request) = Request::put("/").header("content-type", kind).body(Body::from(body.to_vec()))
        else {
            return false;
        };
        let read = runtime.block_on(async {
            match Upload::new(request, 1 << 10) {
                Ok(upload) => read(upload, &function).await,
                Err(refused) => Err(refused),
            }
        });
        match read {
            Ok((component, manifest)) => {
                assert!(!component.is_empty() && component.len() <= data.len());
                assert_eq!(manifest.function.name, function);
                manifest.check().unwrap();
                // What is stored can be read again.
                let text = serde_json::to_string(&manifest).unwrap();
                assert_eq!(serde_json::from_str::<FunctionManifest>(&text).unwrap(), manifest);
                true
            }
            Err(refused) => {
                assert!((400..500).contains(&refused.0.kind.status()), "{}", refused.0.message);
                assert!(refused.0.message.len() < 16 << 10, "{} bytes", refused.0.message.len());
                // As far as the manifest was read.
                refused.0.kind == ErrorKind::Invalid
            }
        }
    });
}
