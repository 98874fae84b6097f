//! The floor of the benchmark `deploy/bench/mlp.sh`: hyper and ONNX Runtime and nothing else. `{"input":[784 numbers]}` in,
//! `{"output":[10 numbers]}` out, one session a thread. Arguments: the address, the path of mlp.onnx.
#![allow(clippy::unwrap_used, reason = "a bench ends where something is wrong")]

use std::{cell::RefCell, convert::Infallible, sync::OnceLock};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, header::CONTENT_TYPE};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use ort::{environment::Environment, session::Session, value::TensorRef};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;

#[derive(Deserialize)]
struct Question {
    input: Vec<f32>,
}

#[derive(Serialize)]
struct Scores<'a> {
    output: &'a [f32],
}

static MODEL: OnceLock<Vec<u8>> = OnceLock::new();
static ENGINE: OnceLock<Environment> = OnceLock::new();

thread_local! {
    static SESSION: RefCell<Session> = RefCell::new(
        Session::builder(ENGINE.get().unwrap())
            .unwrap()
            .with_intra_threads(1)
            .unwrap()
            .with_intra_op_spinning(false)
            .unwrap()
            .commit_from_memory(MODEL.get().unwrap())
            .unwrap(),
    );
}

fn answer(body: &[u8]) -> Vec<u8> {
    let Question { input } = serde_json::from_slice(body).unwrap();
    SESSION.with_borrow_mut(|session| {
        let input = TensorRef::from_array_view(([1, input.len()], &input[..])).unwrap();
        let outputs = session.run(ort::inputs![input]).unwrap();
        let (_, output) = outputs[0].try_extract_tensor::<f32>().unwrap();
        serde_json::to_vec(&Scores { output }).unwrap()
    })
}

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let address = arguments.next().expect("the address");
    let model = std::fs::read(arguments.next().expect("the path of mlp.onnx"))?;
    let library = wasmeter_device::find_onnxruntime(None).unwrap();
    let engine = ort::init_from(library).unwrap().with_telemetry(false).build().unwrap();
    let _ = (MODEL.set(model), ENGINE.set(engine));
    let listener = TcpListener::bind(address).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::spawn(async move {
            let service = service_fn(|request: Request<Incoming>| async {
                let body = request.into_body().collect().await.unwrap().to_bytes();
                let mut response = Response::new(Full::new(Bytes::from(answer(&body))));
                response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
                Ok::<_, Infallible>(response)
            });
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}
