//! Models and inputs that mean harm: clear errors, bounded time and memory, no effect on the neighbour.
#![allow(clippy::unwrap_used, reason = "helpers of tests are not seen as tests")]

mod common;

use std::{
    fs::File,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use common::{as_f32, backend, f32s, i64s, load, model_path, options, outputs, run, spec};
use wasmeter_device::{WorkerBackend, WorkerOptions};
use wasmeter_inference::{
    Backend, BackendError, Batch, BatchEntry, DType, DeviceControl, ModelKey, ModelSpec, Owner, Tensor,
};

#[test]
fn the_gate_speaks_before_the_engine() {
    let mut backend = backend();
    for (name, words) in [
        ("external", "external files"),
        ("cyclic", "before any node produces it"),
        ("huge-claim", "larger than 2147483648 bytes"),
    ] {
        let began = Instant::now();
        let error = load(&mut backend, name).unwrap_err();
        assert!(matches!(&error, BackendError::InvalidModel { .. }), "{error:?}");
        assert!(error.to_string().contains(words), "{error}");
        assert!(began.elapsed() < Duration::from_secs(20));
    }
    // The worker that refused them goes on.
    load(&mut backend, "sum").unwrap();
}

/// Ends a run after a while, as the lane does at a deadline.
fn interrupted(name: &str, inputs: Vec<Tensor>) {
    let mut backend = backend();
    load(&mut backend, name).unwrap();
    let control: Arc<dyn DeviceControl> = backend.control();
    let killer = thread::spawn(move || {
        thread::sleep(Duration::from_millis(300));
        control.interrupt(1);
    });
    let began = Instant::now();
    let error = run(&mut backend, name, "dev", inputs).unwrap_err();
    let took = began.elapsed();
    killer.join().unwrap();
    assert!(matches!(error, BackendError::Lost { .. }), "{error:?}");
    assert!(took >= Duration::from_millis(250) && took < Duration::from_secs(5), "{took:?}");
    // The next call finds another worker.
    load(&mut backend, "sum").unwrap();
    outputs(&mut backend, "sum", vec![f32s(&[1, 3], [0.; 3]), f32s(&[], [1.])]);
}

#[test]
fn an_endless_loop_ends_at_its_deadline() {
    interrupted("endless-loop", vec![f32s(&[4], [1.; 4])]);
}

#[test]
fn one_giant_product_ends_at_its_deadline() {
    interrupted("giant-matmul", vec![f32s(&[1, 1], [1.]), i64s(&[2], [9000, 9000])]);
}

#[test]
fn a_tensor_of_2_to_the_40_is_an_error() {
    let mut backend = WorkerBackend::new("cpu:0", WorkerOptions { memory_limit: 2 << 30, ..options() });
    load(&mut backend, "tera").unwrap();
    let began = Instant::now();
    let error = run(&mut backend, "tera", "dev", vec![i64s(&[1], [1 << 40])]).unwrap_err();
    assert!(!matches!(error, BackendError::InvalidInput { .. }), "{error:?}");
    assert!(began.elapsed() < Duration::from_secs(10));
    load(&mut backend, "sum").unwrap();
}

#[test]
fn odd_inputs_are_clean() {
    let mut backend = backend();
    load(&mut backend, "identity-f32").unwrap();
    let nan = f32s(&[1, 2], [f32::NAN, f32::NEG_INFINITY]);
    assert_eq!(outputs(&mut backend, "identity-f32", vec![nan.clone()]), [nan]);
    let empty = f32s(&[0, 2], []);
    assert_eq!(outputs(&mut backend, "identity-f32", vec![empty.clone()]), [empty]);
    let wrong = run(&mut backend, "identity-f32", "dev", vec![i64s(&[1, 2], [1, 2])]).unwrap_err();
    assert!(matches!(wrong, BackendError::InvalidInput { .. }), "{wrong:?}");
    assert_eq!(as_f32(&outputs(&mut backend, "identity-f32", vec![f32s(&[1, 2], [1., 2.])])[0]), [1., 2.]);
}

#[test]
fn an_idle_worker_of_a_tenant_ends_and_comes_back() {
    let options = WorkerOptions { idle_after: Duration::from_millis(150), ..options() };
    let mut backend = WorkerBackend::new("cpu:0", options);
    load(&mut backend, "sum").unwrap();
    let owner = Owner::Tenant("acme".into());
    let key = ModelKey { owner: owner.clone(), name: "sum".into(), version: 1 };
    let own = ModelSpec { key: key.clone(), ..spec("sum") };
    backend.load(&own, File::open(model_path("sum")).unwrap()).unwrap();
    let first = backend.worker_pid(&owner).unwrap();
    let entries =
        [BatchEntry { tenant: "acme".into(), inputs: vec![f32s(&[1, 3], [0.; 3]), f32s(&[], [1.])] }];
    let ask = |backend: &mut WorkerBackend| backend.run(Batch { run: 2, model: &key, entries: &entries });
    // While it is called, it lives.
    for _ in 0..6 {
        thread::sleep(Duration::from_millis(60));
        ask(&mut backend).unwrap();
    }
    let until = Instant::now() + Duration::from_secs(5);
    while backend.worker_pid(&owner).is_some() {
        assert!(Instant::now() < until, "the idle worker lives on");
        thread::sleep(Duration::from_millis(10));
    }
    assert!(backend.worker_pid(&Owner::Operator).is_some(), "the operator's worker stays");
    assert_eq!(ask(&mut backend).unwrap_err(), BackendError::NotLoaded);
    // No death to learn from: it comes back at once.
    let began = Instant::now();
    backend.load(&own, File::open(model_path("sum")).unwrap()).unwrap();
    ask(&mut backend).unwrap();
    assert!(began.elapsed() < Duration::from_secs(5));
    assert_ne!(backend.worker_pid(&owner), Some(first));
    assert_eq!(
        DType::F32,
        backend.load(&own, File::open(model_path("sum")).unwrap()).unwrap().signature.inputs[0].dtype
    );
}
