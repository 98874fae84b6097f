//! What models take of a worker's memory, with the shipped models.
#![allow(clippy::unwrap_used, reason = "helpers of tests are not seen as tests")]

mod common;

use std::{fs, sync::Arc};

use common::{Files, for_openvino, key, model_path, options, spec};
use tokio::sync::oneshot;
use wasmeter_device::WorkerBackend;
use wasmeter_inference::{DeviceOptions, Handle, ModelKey, ModelSpec, Options, Service};

const MODELS: [&str; 3] = ["minilm", "efficientnet-lite0", "magika"];

/// Private memory of the one child of this process: the worker.
fn worker_memory() -> u64 {
    let own = std::process::id().to_string();
    let status = |entry: fs::DirEntry| {
        let status = fs::read_to_string(entry.path().join("status")).ok()?;
        let parent = status.lines().find_map(|line| line.strip_prefix("PPid:"))?;
        (parent.trim() == own).then_some(status)
    };
    let status = fs::read_dir("/proc").unwrap().flatten().find_map(status).expect("a worker");
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() * 1024
}

fn bytes(handle: &Handle, key: &ModelKey) -> u64 {
    handle.status().models.into_iter().find(|model| model.key == *key).unwrap().bytes
}

async fn measured(device: &str, mapped: bool, spec: impl Fn(&str) -> ModelSpec) {
    let backend = Box::new(WorkerBackend::new(device, options()));
    let devices = vec![DeviceOptions { name: device.into(), backend }];
    let mut settings = Options::new(devices, Arc::new(Files));
    settings.warm_up = true;
    let service = Service::new(settings);
    let handle = service.handle();
    let (stop, stopped) = oneshot::channel::<()>();
    let service = tokio::spawn(service.run(async {
        let _ = stopped.await;
    }));
    // The engine's own memory, which no model is charged with.
    handle.load(spec("mlp")).await.unwrap();
    let empty = worker_memory();
    let mut books = 0;
    for name in MODELS {
        handle.load(spec(name)).await.unwrap();
        let (file, took) = (fs::metadata(model_path(name)).unwrap().len(), bytes(&handle, &key(name)));
        println!("{device} {name}: file {file}, takes {took}, {}%", took * 100 / file);
        assert!(took >= file, "{name}");
        books += if mapped { took - file } else { took };
    }
    let full = worker_memory() - empty;
    // A page here and there, and what an engine keeps for all models.
    assert!(books * 10 >= full * 9, "the books have {books} bytes, the worker took {full}");
    for name in MODELS {
        handle.unload(&key(name)).await;
    }
    let left = worker_memory().saturating_sub(empty);
    println!("{device}: books {books}, worker {full}, left after all were unloaded {left}");
    assert!(left * 2 < full, "{left} of {full} bytes stayed after all were unloaded");
    let _ = stop.send(());
    service.await.unwrap().unwrap();
}

#[tokio::test]
async fn the_books_have_what_the_worker_takes() {
    measured("cpu:0", false, spec).await;
}

#[tokio::test]
async fn the_books_have_what_the_other_engine_takes() {
    measured("openvino:CPU", true, for_openvino).await;
}
