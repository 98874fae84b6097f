//! OpenVINO in a real worker: types, confinement, bad models, missing devices, IR.
#![allow(clippy::unwrap_used, reason = "helpers of tests are not seen as tests")]

mod common;

use std::{fs::File, io::Write};

use common::{
    as_f32, f32s, for_openvino, i64s, key, load, load_openvino, openvino, options, outputs, run, spec,
};
use sha2::{Digest, Sha256};
use wasmeter_device::{WorkerBackend, WorkerOptions};
use wasmeter_inference::{
    Backend, BackendError, BundlePart, DType, Dim, Engine, IrBundle, Loaded, ModelSpec, Owner, Precision,
    Tensor,
};

#[test]
fn types_come_back_bit_for_bit_or_are_refused() {
    let mut backend = openvino();
    for dtype in DType::ALL {
        let name = format!("identity-{dtype}");
        if dtype == DType::F64 {
            let error = load_openvino(&mut backend, &name).unwrap_err().to_string();
            assert!(error.contains("f64") && error.contains("\"onnx\""), "{error}");
            continue;
        }
        let signature = load_openvino(&mut backend, &name).unwrap().signature;
        assert_eq!(signature.inputs[0].dtype, dtype);
        assert_eq!(signature.inputs[0].dims, Some(vec![Dim::Named("n".into()), Dim::Fixed(2)]));
        for rows in [1u32, 3, 1000] {
            let len = dtype.bytes(&[rows, 2]).unwrap();
            let mask = if dtype == DType::Bool { 1 } else { 0xff };
            let byte = |i: usize| u8::try_from(i * 37 % 256).unwrap() & mask;
            let data: Vec<u8> = match dtype {
                // What fits into 32 bits, of both signs.
                DType::I64 => (0..len / 8)
                    .flat_map(|i| {
                        i64::from(i32::from_le_bytes([i, i + 1, i + 2, i + 3].map(byte))).to_le_bytes()
                    })
                    .collect(),
                _ => (0..len).map(byte).collect(),
            };
            let tensor = Tensor::new(dtype, vec![rows, 2], data).unwrap();
            assert_eq!(outputs(&mut backend, &name, vec![tensor.clone()]), [tensor], "{name}");
        }
    }
}

#[test]
fn a_number_beyond_32_bits_is_an_error_and_not_another_number() {
    let mut backend = openvino();
    load_openvino(&mut backend, "identity-i64").unwrap();
    let error = run(&mut backend, "identity-i64", "dev", vec![i64s(&[1, 2], [1, 1 << 31])]).unwrap_err();
    assert!(
        matches!(&error, BackendError::InvalidInput { message, .. } if message.contains("2147483648")),
        "{error:?}"
    );
    let fits = i64s(&[1, 2], [i64::from(i32::MIN), i64::from(i32::MAX)]);
    assert_eq!(outputs(&mut backend, "identity-i64", vec![fits.clone()]), [fits]);
}

#[test]
fn several_inputs_and_outputs_and_a_scalar() {
    let mut backend = openvino();
    let loaded = load_openvino(&mut backend, "sum").unwrap();
    common::adds_and_multiplies(&mut backend, &loaded);
}

#[test]
fn bad_inputs_and_models_are_clean_errors() {
    let mut backend = openvino();
    load_openvino(&mut backend, "mismatch").unwrap();
    let wrong = vec![f32s(&[1, 2], [1., 2.]), f32s(&[3, 1], [1., 2., 3.])];
    let error = run(&mut backend, "mismatch", "dev", wrong).unwrap_err();
    assert!(matches!(error, BackendError::InvalidInput { .. } | BackendError::Engine { .. }), "{error:?}");
    let right = vec![f32s(&[1, 2], [1., 2.]), f32s(&[2, 1], [3., 4.])];
    assert_eq!(as_f32(&outputs(&mut backend, "mismatch", right)[0]), [11.]);
    load_openvino(&mut backend, "identity-f32").unwrap();
    let error = run(&mut backend, "identity-f32", "dev", vec![f32s(&[1, 3], [1., 2., 3.])]).unwrap_err();
    assert!(matches!(error, BackendError::InvalidInput { .. }), "{error:?}");

    let pid = backend.worker_pid(&Owner::Operator).unwrap();
    for name in ["external", "string"] {
        let error = load_openvino(&mut backend, name).unwrap_err();
        assert!(matches!(&error, BackendError::InvalidModel { .. }), "{error:?}");
    }
    for garbage in [
        &b"not a model at all"[..],
        b"<?xml version=\"1.0\"?><net/>",
        b"WMTR-IR2",
        &[&b"WMTR-IR2"[..], &[0xff; 16]].concat(),
    ] {
        let error = load_bytes(&mut backend, garbage, Precision::F32).unwrap_err();
        assert!(matches!(&error, BackendError::InvalidModel { .. }), "{error:?}");
    }
    // A model of the other engine, and this engine's on the other device.
    let error = load(&mut backend, "sum").unwrap_err().to_string();
    assert!(error.contains("openvino:CPU") && error.contains("onnx"), "{error}");
    let error = load_openvino(&mut common::backend(), "sum").unwrap_err().to_string();
    assert!(error.contains("cpu:0") && error.contains("openvino"), "{error}");
    assert_eq!(backend.worker_pid(&Owner::Operator), Some(pid), "the worker survived all of it");
}

fn load_bytes(
    backend: &mut WorkerBackend,
    bytes: &[u8],
    precision: Precision,
) -> Result<Loaded, BackendError> {
    load_hashed(backend, bytes, Sha256::digest(bytes).into(), precision)
}

fn load_hashed(
    backend: &mut WorkerBackend,
    bytes: &[u8],
    sha256: [u8; 32],
    precision: Precision,
) -> Result<Loaded, BackendError> {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    let engine = Engine::OpenVino(precision);
    let spec = ModelSpec { key: key("bytes"), device: "openvino:CPU".into(), engine, sha256, ..spec("sum") };
    backend.load(&spec, File::open(file.path()).unwrap())
}

/// Loads an IR as the host does.
fn load_ir(
    backend: &mut WorkerBackend,
    xml: &str,
    weights: &[u8],
    precision: Precision,
) -> Result<Loaded, BackendError> {
    let part = |bytes: &[u8]| BundlePart { sha256: Sha256::digest(bytes).into(), bytes: bytes.len() as u64 };
    let bundle = IrBundle { xml: part(xml.as_bytes()), weights: part(weights) };
    let mut bytes = Vec::new();
    bundle.write(&mut bytes, xml.as_bytes(), weights).unwrap();
    load_hashed(backend, &bytes, Sha256::digest(bundle.head()).into(), precision)
}

/// `y = x · w` with x f32 [?, 4] and w f32 [4, 2].
fn ir() -> String {
    let port = |id: u32, name: &str, dims: &[i32]| {
        let dims: String = dims.iter().map(|dim| format!("<dim>{dim}</dim>")).collect();
        let names = if name.is_empty() { String::new() } else { format!(" names=\"{name}\"") };
        format!("<port id=\"{id}\" precision=\"FP32\"{names}>{dims}</port>")
    };
    format!(
        "<?xml version=\"1.0\"?><net name=\"product\" version=\"11\"><layers>\
         <layer id=\"0\" name=\"x\" type=\"Parameter\" version=\"opset1\"><data shape=\"?,4\" element_type=\"f32\"/><output>{}</output></layer>\
         <layer id=\"1\" name=\"w\" type=\"Const\" version=\"opset1\"><data element_type=\"f32\" shape=\"4, 2\" offset=\"0\" size=\"32\"/><output>{}</output></layer>\
         <layer id=\"2\" name=\"m\" type=\"MatMul\" version=\"opset1\"><data transpose_a=\"false\" transpose_b=\"false\"/><input>{}{}</input><output>{}</output></layer>\
         <layer id=\"3\" name=\"r\" type=\"Result\" version=\"opset1\"><input>{}</input></layer></layers>\
         <edges><edge from-layer=\"0\" from-port=\"0\" to-layer=\"2\" to-port=\"0\"/><edge from-layer=\"1\" from-port=\"0\" to-layer=\"2\" to-port=\"1\"/>\
         <edge from-layer=\"2\" from-port=\"2\" to-layer=\"3\" to-port=\"0\"/></edges></net>",
        port(0, "x", &[-1, 4]),
        port(0, "w", &[4, 2]),
        port(0, "", &[-1, 4]),
        port(1, "", &[4, 2]),
        port(2, "y", &[-1, 2]),
        port(0, "", &[-1, 2]),
    )
}

fn weights() -> Vec<u8> {
    [1., 0.001, 2., 0.01, 3., 0.1, 4., 1.].into_iter().flat_map(f32::to_le_bytes).collect()
}

#[test]
fn an_ir_runs_from_memory_in_the_precision_asked_for() {
    let mut backend = openvino();
    let loaded = load_ir(&mut backend, &ir(), &weights(), Precision::F32).unwrap();
    assert_eq!(loaded.signature.inputs[0].name, "x");
    assert_eq!(loaded.signature.outputs[0].name, "y");
    assert_eq!(loaded.signature.inputs[0].dims, Some(vec![Dim::Any, Dim::Fixed(4)]));
    let x = || f32s(&[2, 4], [1.001, 1., 1., 1., 0., 0., 0., 7.]);
    let exact = as_f32(&outputs(&mut backend, "bytes", vec![x()])[0]);
    for (got, right) in exact.iter().zip([10.001, 1.111_001, 28., 7.]) {
        assert!((got - right).abs() < 1e-5, "{exact:?}");
    }
    load_ir(&mut backend, &ir(), &weights(), Precision::Bf16).unwrap();
    let coarse = as_f32(&outputs(&mut backend, "bytes", vec![x()])[0]);
    assert!(coarse.iter().zip(&exact).all(|(a, b)| (a - b).abs() <= 0.02 * b.abs()), "{coarse:?}");
}

#[test]
fn what_openvinos_own_tools_write_answers_as_the_onnx_file() {
    // The folder of the functions' fixtures; `functions/reference/tiny_models.py --ir` makes them.
    let path = |end: &str| {
        let folder = common::package().join("../../../functions/_fixtures/models");
        std::fs::read(folder.join(format!("tiny.{end}"))).unwrap()
    };
    let xml = String::from_utf8(path("xml")).unwrap();
    let x = || f32s(&[3, 8], (0..24).map(|i| (i as f32 - 11.) / 7.));
    let mut backend = openvino();
    let loaded = load_ir(&mut backend, &xml, &path("bin"), Precision::F32).unwrap();
    let names = (&*loaded.signature.inputs[0].name, &*loaded.signature.outputs[0].name);
    assert_eq!(names, ("x", "y"));
    let ir = as_f32(&outputs(&mut backend, "bytes", vec![x()])[0]);
    load_bytes(&mut backend, &path("onnx"), Precision::F32).unwrap();
    assert_eq!(as_f32(&outputs(&mut backend, "bytes", vec![x()])[0]), ir, "the same engine, both forms");
    let mut onnx = common::backend();
    let spec = ModelSpec { sha256: Sha256::digest(path("onnx")).into(), ..spec("sum") };
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("m"), path("onnx")).unwrap();
    onnx.load(&spec, File::open(folder.path().join("m")).unwrap()).unwrap();
    let other = as_f32(&outputs(&mut onnx, "sum", vec![x()])[0]);
    assert!(ir.iter().zip(&other).all(|(a, b)| (a - b).abs() < 1e-6), "{ir:?} {other:?}");
}

#[test]
fn operators_that_could_work_in_place_leave_the_inputs_alone() {
    // The inputs are mapped read-only: an engine that wrote its result over them would die.
    let mut backend = openvino();
    let port = |dims: &str| format!("<port id=\"0\" precision=\"FP32\">{dims}</port>");
    for (shape, dims) in [("?,4", "<dim>-1</dim><dim>4</dim>"), ("2,4", "<dim>2</dim><dim>4</dim>")] {
        let port = port(dims);
        let result = port.replace("id=\"0\"", "id=\"1\"");
        let xml = format!(
            "<net name=\"n\" version=\"11\"><layers>\
             <layer id=\"0\" name=\"x\" type=\"Parameter\" version=\"opset1\"><data shape=\"{shape}\" element_type=\"f32\"/><output>{port}</output></layer>\
             <layer id=\"1\" name=\"a\" type=\"ReLU\" version=\"opset1\"><input>{port}</input><output>{result}</output></layer>\
             <layer id=\"2\" name=\"b\" type=\"Sqrt\" version=\"opset1\"><input>{port}</input><output>{result}</output></layer>\
             <layer id=\"3\" name=\"r\" type=\"Result\" version=\"opset1\"><input>{port}</input></layer></layers>\
             <edges><edge from-layer=\"0\" from-port=\"0\" to-layer=\"1\" to-port=\"0\"/><edge from-layer=\"1\" from-port=\"1\" to-layer=\"2\" to-port=\"0\"/>\
             <edge from-layer=\"2\" from-port=\"1\" to-layer=\"3\" to-port=\"0\"/></edges></net>"
        );
        load_ir(&mut backend, &xml, b"", Precision::F32).unwrap();
        for scale in [1., 4.] {
            let x = f32s(&[2, 4], [-1., 1., 4., 9., -2., 16., 25., 0.].map(|x| x * scale));
            let roots = [0., 1., 2., 3., 0., 4., 5., 0.].map(|x: f32| x * scale.sqrt());
            assert_eq!(as_f32(&outputs(&mut backend, "bytes", vec![x])[0]), roots);
        }
    }
}

#[test]
fn an_ir_that_reaches_outside_is_refused() {
    let mut backend = openvino();
    for (from, to, word) in [
        ("size=\"32\"", "size=\"33\"", "weights have 32"),
        ("version=\"opset1\"><data transpose_a", "version=\"extension\"><data transpose_a", "extension"),
        ("offset=\"0\"", "offset=\"0\" path=\"/etc/passwd\"", "names a file"),
        ("shape=\"4, 2\"", "shape=\"4294967296, 4294967296\"", "2^40"),
    ] {
        let xml = ir().replacen(from, to, 1);
        let error = load_ir(&mut backend, &xml, &weights(), Precision::F32).unwrap_err();
        assert!(
            matches!(&error, BackendError::InvalidModel { message, .. } if message.contains(word)),
            "{error:?}"
        );
    }
    // An edge to nowhere passes the gate and is the engine's to refuse.
    let xml = ir().replacen("from-layer=\"1\"", "from-layer=\"9\"", 1);
    let error = load_ir(&mut backend, &xml, &weights(), Precision::F32).unwrap_err();
    assert!(matches!(&error, BackendError::InvalidModel { .. }), "{error:?}");
}

#[test]
fn the_sandbox_holds() {
    let mut backend = openvino();
    let (report, probes) = backend.probe_sandbox().unwrap();
    assert!(report.seccomp);
    assert_eq!(report.landlock, "full", "this kernel should have Landlock");
    let allowed: Vec<_> = probes.iter().filter(|probe| probe.errno == 0).collect();
    assert!(allowed.is_empty(), "the sandbox allows {allowed:?}");
    let pid = backend.worker_pid(&Owner::Operator).unwrap();
    let tasks = || std::fs::read_dir(format!("/proc/{pid}/task")).unwrap().count();
    assert_eq!(tasks(), 1, "a thread from before the lock is not confined");
    load_openvino(&mut backend, "efficientnet-lite0").unwrap();
    let image = f32s(&[1, 3, 224, 224], (0..3 * 224 * 224).map(|i| (i % 255) as f32 / 255. - 0.5));
    let result = run(&mut backend, "efficientnet-lite0", "dev", vec![image]).unwrap();
    assert_eq!(result.entries[0][0].dims(), [1, 1000]);
    assert!(result.busy_ns > 100_000, "{} ns", result.busy_ns);
    assert!(tasks() > 1, "two threads were asked for");
    for task in std::fs::read_dir(format!("/proc/{pid}/task")).unwrap() {
        let status = std::fs::read_to_string(task.unwrap().path().join("status")).unwrap();
        assert!(status.contains("Seccomp:\t2") && status.contains("NoNewPrivs:\t1"), "{status}");
    }
    assert_eq!(std::fs::read(format!("/proc/{pid}/environ")).unwrap(), b"");
    let own = std::fs::read_to_string("/proc/self/maps").unwrap();
    assert!(!own.contains("openvino/lib"), "the engine is mapped in the host");
}

#[test]
fn a_device_that_is_not_there_is_named_and_never_replaced() {
    for (device, engine, words) in [
        ("openvino:GPU.3", Engine::OpenVino(Precision::F32), &["openvino:GPU.3", "CPU"][..]),
        ("openvino:GPU", Engine::OpenVino(Precision::F32), &["openvino:GPU", "CPU"]),
        ("cuda:5", Engine::Onnx, &["cuda:5", "libonnxruntime_providers_cuda.so", "deploy/gpu.md"]),
        ("tpu:0", Engine::Onnx, &["tpu:0", "cuda:N"]),
    ] {
        let mut backend = WorkerBackend::new(device, options());
        let spec = ModelSpec { device: device.into(), engine, ..spec("sum") };
        let error = backend.load(&spec, File::open(common::model_path("sum")).unwrap()).unwrap_err();
        assert!(matches!(error, BackendError::EngineMissing(_)), "{error:?}");
        for word in words {
            assert!(error.to_string().contains(word), "{error} has no {word}");
        }
    }
}

#[test]
fn cuda_says_when_only_the_device_is_missing() {
    if std::path::Path::new("/dev/nvidia63").exists() {
        return;
    }
    // As the GPU build lies there, but with a provider that is no library.
    let folder = tempfile::tempdir().unwrap();
    let library = folder.path().join("libonnxruntime.so");
    std::os::unix::fs::symlink(wasmeter_device::find_onnxruntime(None).unwrap(), &library).unwrap();
    std::fs::write(folder.path().join("libonnxruntime_providers_cuda.so"), b"").unwrap();
    let mut backend =
        WorkerBackend::new("cuda:63", WorkerOptions { onnxruntime: Some(library), ..options() });
    let error = load(&mut backend, "sum").unwrap_err().to_string();
    assert!(error.contains("cuda:63") && error.contains("/dev/nvidia63"), "{error}");
}

#[test]
fn auto_runs_and_is_confined() {
    let mut backend = WorkerBackend::new("openvino:AUTO", options());
    let spec = ModelSpec { device: "openvino:AUTO".into(), ..for_openvino("sum") };
    backend.load(&spec, File::open(common::model_path("sum")).unwrap()).unwrap();
    let result = outputs(&mut backend, "sum", vec![f32s(&[1, 3], [1., 2., 3.]), f32s(&[], [10.])]);
    assert_eq!(as_f32(&result[0]), [11., 12., 13.]);
    let (report, _) = backend.probe_sandbox().unwrap();
    assert!(report.seccomp);
}

#[test]
fn a_missing_library_says_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let nothing = folder.path().join("libopenvino_c.so");
    let try_library = || {
        let options = WorkerOptions { openvino: Some(nothing.clone()), ..options() };
        let error = load_openvino(&mut WorkerBackend::new("openvino:CPU", options), "sum").unwrap_err();
        assert!(matches!(&error, BackendError::EngineMissing(_)), "{error:?}");
        let text = error.to_string();
        assert!(text.contains("deploy/setup.sh") && text.contains(nothing.to_str().unwrap()), "{text}");
    };
    try_library();
    std::fs::write(&nothing, b"no library").unwrap();
    try_library();
}
