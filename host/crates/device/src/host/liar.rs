//! Workers that lie. The liar is this test program, started again as the worker; the name of the file that it is
//! given as the engine's library says how to lie.

use std::{env, fs, os::fd::AsFd, os::fd::FromRawFd, path::Path, time::Duration};

use wasmeter_inference::{Backend, BatchingOptions, DType, Dim, Engine, ModelSpec, Port};

use wasmeter_inference::Signature;

use super::*;
use crate::host::{WorkerBackend, WorkerOptions};

fn argument(name: &str) -> Option<String> {
    env::args().skip_while(|argument| argument != name).nth(1)
}

fn port(name: &str) -> Port {
    Port { name: name.into(), dtype: DType::U8, dims: Some(vec![Dim::Any]) }
}

fn placed(dtype: DType, dims: &[u32], offset: u64) -> Placed {
    Placed { dtype, dims: dims.to_vec(), offset }
}

/// The lying worker.
#[test]
#[ignore = "the other tests of this module start it"]
#[allow(unsafe_code, reason = "the inherited socket")]
fn worker() {
    let (Some(socket), Some(library)) = (argument("--socket"), argument("--onnxruntime")) else { return };
    let lie = Path::new(&library).file_name().unwrap().to_str().unwrap().to_owned();
    // SAFETY: the host has passed this descriptor, and nothing else here knows of it.
    let socket = unsafe { std::os::fd::OwnedFd::from_raw_fd(socket.parse().unwrap()) };
    let mut channel = Channel::new(socket);
    let mut out = Vec::new();
    loop {
        let Ok(packet) = channel.receive() else { return };
        let message = match ToWorker::decode(packet.bytes).unwrap() {
            ToWorker::Hello { .. } => ToHost::Ready(SandboxReport::default()),
            ToWorker::Load { model, .. } => {
                let signature = Signature { inputs: vec![port("x")], outputs: vec![port("y"), port("z")] };
                ToHost::Loaded {
                    model: if lie == "model" { model + 1 } else { model },
                    signature,
                    batching: Batching::Off("lies".into()),
                }
            }
            ToWorker::Run { run, .. } => {
                let good = placed(DType::U8, &[4], 0);
                let outputs = match lie.as_str() {
                    "offset" => vec![good, placed(DType::U8, &[4], 4093)],
                    "wrap" => vec![good, placed(DType::U8, &[4], u64::MAX)],
                    "length" => vec![good, placed(DType::U8, &[u32::MAX; 4], 0)],
                    "overlap" => vec![placed(DType::U8, &[4096], 0), placed(DType::U8, &[4096], 0)],
                    "dtype" => vec![good, placed(DType::F64, &[1], 0)],
                    "count" => vec![good],
                    _ => vec![good.clone(), good],
                };
                let run = if lie == "run" { run + 1 } else { run };
                ToHost::Ran { run, busy_ns: u64::MAX, outputs }
            }
            ToWorker::Unload { model } => ToHost::Unloaded { model },
            ToWorker::Probe => continue,
        };
        let is_run = matches!(message, ToHost::Ran { .. });
        message.encode(&mut out);
        if is_run && lie == "garbage" {
            out.push(0);
        }
        if is_run && lie == "silence" {
            return;
        }
        let own = channel.socket().try_clone_to_owned().unwrap();
        let fds = [own.as_fd()];
        channel.send(&out, if is_run && lie == "descriptor" { &fds } else { &[] }).unwrap();
    }
}

fn liar(folder: &Path, lie: &str) -> WorkerBackend {
    let library = folder.join(lie);
    fs::write(&library, b"").unwrap();
    let arguments = ["--exact", "host::worker::liar::worker", "--ignored", "--"].map(Into::into).to_vec();
    let options = WorkerOptions {
        arguments,
        onnxruntime: Some(library),
        input_bytes: 4096,
        output_bytes: 4096,
        load_timeout: Duration::from_secs(20),
        ..WorkerOptions::default()
    };
    WorkerBackend::new("cpu:0", options)
}

fn run(backend: &mut WorkerBackend, folder: &Path) -> Result<BatchOutput, BackendError> {
    let file = folder.join("model");
    fs::write(&file, b"bytes").unwrap();
    let sha256 = <sha2::Sha256 as sha2::Digest>::digest(b"bytes").into();
    let key = ModelKey::operator("m", 1);
    let spec = ModelSpec {
        key: key.clone(),
        device: "cpu:0".into(),
        engine: Engine::Onnx,
        sha256,
        batching: BatchingOptions::default(),
    };
    backend.load(&spec, fs::File::open(&file).unwrap())?;
    let inputs = vec![Tensor::new(DType::U8, vec![1], vec![1]).unwrap()];
    let entries = [BatchEntry { tenant: "dev".into(), inputs }];
    backend.run(Batch { run: 7, model: &key, entries: &entries })
}

#[test]
fn a_lie_is_the_end_of_the_worker() {
    let folder = tempfile::tempdir().unwrap();
    for (lie, words) in [
        ("model", "out of turn"),
        ("offset", "outside its region"),
        ("wrap", "outside its region"),
        ("length", "outside its region"),
        ("overlap", "outside its region"),
        ("dtype", "not the model's"),
        ("count", "not the model's"),
        ("run", "out of turn"),
        ("garbage", "malformed"),
        ("descriptor", "descriptor"),
        ("silence", "ended with status 0"),
    ] {
        let mut backend = liar(folder.path(), lie);
        let error = run(&mut backend, folder.path()).unwrap_err();
        assert!(matches!(error, BackendError::Lost { .. }), "{lie}: {error:?}");
        assert!(error.to_string().contains(words), "{lie}: {error}");
        assert_eq!(backend.worker_pid(&wasmeter_inference::Owner::Operator), None, "{lie}");
    }
}

#[test]
fn an_overstated_bill_is_cut_to_what_the_host_measured() {
    let folder = tempfile::tempdir().unwrap();
    let mut backend = liar(folder.path(), "honest but greedy");
    let began = std::time::Instant::now();
    let output = run(&mut backend, folder.path()).unwrap();
    let cores = std::thread::available_parallelism().unwrap().get() as u128;
    assert!(u128::from(output.busy_ns) <= began.elapsed().as_nanos() * cores, "{}", output.busy_ns);
    assert!(output.busy_ns < 1_000_000_000);
}
