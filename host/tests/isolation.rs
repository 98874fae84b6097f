//! What each process holds and does not hold, as /proc shows it.
#![allow(clippy::unwrap_used, reason = "helpers of tests are not seen as tests")]

mod crash_parts;

use std::collections::BTreeSet;
use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use crash_parts::load::{Load, call};
use crash_parts::{Process, altered, builder, loaded, process};
use rustix::process::Signal;
use wasmeter_testkit::{Host, component};

/// In the host's environment; nobody else may have it.
const SECRET: &str = "the-operators-own-secret-5d1f";
const ENGINES: [&str; 3] = ["onnxruntime", "openvino", "libcuda"];

fn builder_with_secret() -> wasmeter_testkit::Builder {
    builder().env("SECRET_OF_THE_OPERATOR", SECRET)
}

/// Files that a process has mapped.
fn mapped(process: Process) -> BTreeSet<String> {
    let maps = process.text("maps");
    // Address, rights, offset, device, inode, and what is left is the path (proc_pid_maps(5)).
    maps.lines().filter_map(|l| Some(l[l.find('/')?..].to_owned())).collect()
}

/// What descriptors stand for, without numbers.
fn kinds(process: Process) -> Vec<String> {
    let kind = |target: String| match target.split_once(":[") {
        Some((kind, _)) => kind.to_owned(),
        None => target.trim_end_matches(" (deleted)").to_owned(),
    };
    let mut kinds: Vec<_> = process.descriptors().into_iter().collect();
    kinds.sort();
    kinds.into_iter().map(|(_, target)| kind(target)).collect()
}

/// No environment, no file of the data directory, no way to get more rights.
fn assert_confined(process: Process, host: &Host) {
    assert_eq!(process.text("environ"), "", "the environment is not empty");
    assert!(!process.text("cmdline").contains(SECRET));
    assert_eq!(fs::read_link(process.dir().join("cwd")).unwrap(), Path::new("/"));
    let data = host.data().display().to_string();
    for path in mapped(process).into_iter().chain(kinds(process)) {
        assert!(!path.starts_with(&data), "it holds {path}");
    }
    assert_eq!((process.status("NoNewPrivs"), process.status("Seccomp")), ("1".to_owned(), "2".to_owned()));
    let key = |name: &str| fs::read(host.data().join("keys").join(name)).unwrap();
    let secrets = [SECRET.as_bytes().to_vec(), key("token-issuer.pk8"), key("artifacts.key")];
    match process.remembers(&secrets) {
        Some(found) => assert!(!found, "a secret of the host is in its memory"),
        None => println!("skipped: this machine does not let the test read the memory of another process"),
    }
    let limits = process.text("limits");
    let core = limits.lines().find(|l| l.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().nth(4), Some("0"), "{core}");
}

/// A descriptor that everything this process starts inherits, as a careless parent would have it.
fn inheritable() -> (tempfile::NamedTempFile, String) {
    let file = tempfile::NamedTempFile::new().unwrap();
    rustix::io::fcntl_setfd(file.as_file(), rustix::io::FdFlags::empty()).unwrap();
    let path = fs::read_link(format!("/proc/self/fd/{}", file.as_file().as_raw_fd())).unwrap();
    (file, path.display().to_string())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_device_worker_holds_models_and_nothing_else() {
    let (_file, path) = inheritable();
    let host = loaded(builder_with_secret()).await;
    assert!(kinds(process(&host)).contains(&path), "the host was to inherit it");
    assert_eq!(call(host.dev(), "/fn/dev/nn-raw?case=ok").await.unwrap().status, 200);
    let worker = process(&host).wait_for_child("device-worker");
    assert_confined(worker, &host);
    // Standard input and output; the log; the host; tensors in and out.
    let mut kinds = kinds(worker);
    kinds.sort();
    assert_eq!(kinds, ["/dev/null", "/dev/null", "/memfd:inputs", "/memfd:outputs", "pipe", "socket"]);
    assert!(mapped(worker).iter().any(|m| m.contains("onnxruntime")), "the engine belongs here");
    let sockets = worker.descriptors().into_values().filter_map(|t| {
        let inode = t.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned();
        Some(inode)
    });
    for inode in sockets {
        for table in ["net/tcp", "net/tcp6", "net/udp", "net/udp6", "net/raw"] {
            let found = process(&host).text(table);
            assert!(!found.split_whitespace().any(|w| w == inode), "its socket is in {table}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_compile_child_holds_one_component() {
    let (_file, path) = inheritable();
    let host = builder_with_secret().start().await;
    assert!(kinds(process(&host)).contains(&path), "the host was to inherit it");
    let until = Instant::now() + Duration::from_secs(30);
    for number in 0.. {
        assert!(Instant::now() < until, "no compile child was caught at its work");
        let upload =
            host.dev().put("/api/v1/tenants/dev/functions/big", altered(component("similar"), number));
        let upload = tokio::spawn(upload.try_send());
        let caught = watch_compile(&host).await;
        let answer = upload.await.unwrap().unwrap();
        assert!(matches!(answer.status, 200 | 201), "{}", answer.text());
        if caught {
            break;
        }
    }
}

/// Looks at the compile child in the middle of its work, while it stands still; whether that was in time.
async fn watch_compile(host: &Host) -> bool {
    let child = process(host).wait_for_child("compile");
    // Before the filter it is our own code, which has read nothing of the tenant's.
    while child.status("Seccomp") != "2" || child.used() < 5 {
        if !child.lives() {
            return false;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    child.signal(Signal::STOP);
    while child.lives() && !child.status("State").starts_with('T') {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    if !child.lives() {
        return false;
    }
    assert_confined(child, host);
    assert_eq!(kinds(child), ["/memfd:component", "/memfd:artifact", "pipe"]);
    let program = fs::canonicalize(env!("CARGO_BIN_EXE_wasmeter")).unwrap().display().to_string();
    let foreign = |m: &String| *m != program && !m.starts_with("/usr/lib/") && !m.starts_with("/lib/");
    let foreign: Vec<_> = mapped(child).into_iter().filter(foreign).collect();
    assert!(foreign.is_empty(), "it has mapped {foreign:?}");
    child.signal(Signal::CONT);
    true
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn host_and_billing_hold_what_is_theirs() {
    let host = loaded(builder_with_secret()).await;
    let load = Load::start(&host, 4, 80);
    load.wait_for(40).await;
    let (own, billing) = (process(&host), process(&host).wait_for_child("billing"));
    let data = host.data().display().to_string();
    let inside = |process: Process| {
        let all = kinds(process).into_iter().chain(mapped(process));
        all.filter_map(|p| Some(p.strip_prefix(&data)?.trim_start_matches('/').to_owned()))
            .collect::<BTreeSet<_>>()
    };
    assert_eq!(load.join().await.broken, 0);

    for path in mapped(own).into_iter().chain(kinds(own)) {
        assert!(!ENGINES.iter().any(|e| path.contains(e)), "the host holds {path}");
    }
    // The search finds what is there.
    assert_ne!(own.remembers(&[SECRET.as_bytes().to_vec()]), Some(false));
    let held = inside(own);
    assert!(held.iter().any(|p| p.starts_with("spool/")), "{held:?}");
    assert!(!held.iter().any(|p| p.starts_with("ledger")), "the host holds the ledger: {held:?}");

    let held = inside(billing);
    assert!(held.iter().any(|p| p.starts_with("ledger/")), "{held:?}");
    assert!(held.iter().all(|p| p.starts_with("ledger/")), "billing holds {held:?}");
    let environment = billing.text("environ");
    let names: Vec<_> = environment.split('\0').filter_map(|v| Some(v.split_once('=')?.0)).collect();
    assert!(names.iter().all(|n| n.starts_with("WASMETER_LOG")), "{names:?}");
    assert!(!environment.contains(SECRET));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_data_directory_is_the_owners_alone() {
    let host = loaded(builder()).await;
    assert_eq!(Load::start(&host, 4, 24).join().await.broken, 0);
    let mut folders = vec![host.data()];
    let mut open = Vec::new();
    while let Some(path) = folders.pop() {
        let metadata = fs::symlink_metadata(&path).unwrap();
        let mode = metadata.permissions().mode() & 0o777;
        let most = if metadata.is_dir() { 0o700 } else { 0o600 };
        if mode & !most != 0 {
            open.push(format!("{} {mode:o}", path.display()));
        }
        if metadata.is_dir() {
            folders.extend(fs::read_dir(&path).unwrap().map(|e| e.unwrap().path()));
        }
    }
    assert!(open.is_empty(), "others may enter {open:?}");
}
