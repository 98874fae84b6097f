//! What a worker holds and what it cannot do, seen from outside and from inside.
#![allow(clippy::unwrap_used, reason = "helpers of tests are not seen as tests")]

mod common;

use std::{
    env, fs,
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Stdio},
    thread::{self, sleep},
    time::{Duration, Instant},
};

use common::{backend, i64s, load, options, outputs};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, apply_filter};
use wasmeter_device::{WorkerBackend, WorkerOptions};
use wasmeter_inference::{BackendError, Owner};

fn wait_for(what: &str, condition: impl Fn() -> bool) {
    let until = Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(Instant::now() < until, "{what}");
        sleep(Duration::from_millis(2));
    }
}

#[test]
fn a_worker_holds_nothing_but_models_and_tensors() {
    // A secret and an inheritable descriptor, as a careless host would have them.
    let secret = tempfile::NamedTempFile::new().unwrap();
    rustix::io::fcntl_setfd(secret.as_file(), rustix::io::FdFlags::empty()).unwrap();
    let mut backend = backend();
    load(&mut backend, "slow").unwrap();
    outputs(&mut backend, "slow", vec![i64s(&[], [3])]);
    let pid = backend.worker_pid(&Owner::Operator).unwrap();
    let proc = Path::new("/proc").join(pid.to_string());

    assert_eq!(fs::read(proc.join("environ")).unwrap(), b"", "the environment is not empty");
    assert_eq!(fs::read_link(proc.join("cwd")).unwrap(), Path::new("/"));
    let mut descriptors: Vec<String> = fs::read_dir(proc.join("fd"))
        .unwrap()
        .map(|entry| fs::read_link(entry.unwrap().path()).unwrap().display().to_string())
        .map(|target| target.split(&[':', '['][..]).next().unwrap().to_owned())
        .collect();
    descriptors.sort();
    assert_eq!(
        descriptors,
        ["/dev/null", "/dev/null", "/memfd", "/memfd", "pipe", "socket"],
        "stdin, stdout; inputs, outputs; stderr; the host"
    );
    let maps = fs::read_to_string(proc.join("maps")).unwrap();
    assert!(maps.contains("libonnxruntime"), "the worker has the engine");
    assert!(!maps.contains(secret.path().to_str().unwrap()));
    let status = fs::read_to_string(proc.join("status")).unwrap();
    for line in ["NoNewPrivs:\t1", "Seccomp:\t2"] {
        assert!(status.contains(line), "{line} is not in {status}");
    }
    let limits = fs::read_to_string(proc.join("limits")).unwrap();
    for name in ["Max core file size", "Max file size"] {
        let line = limits.lines().find(|line| line.starts_with(name)).unwrap();
        assert!(line[name.len()..].trim().starts_with('0'), "{line}");
    }

    let own = fs::read_to_string("/proc/self/maps").unwrap();
    assert!(!own.contains("onnxruntime"), "the engine is mapped in the host");
}

#[test]
fn the_sandbox_refuses_everything_it_should() {
    let mut backend = backend();
    let (report, probes) = backend.probe_sandbox().unwrap();
    assert!(report.seccomp);
    assert_eq!(report.landlock, "full", "this kernel should have Landlock");
    assert!(probes.len() > 20);
    let allowed: Vec<_> = probes.iter().filter(|probe| probe.errno == 0).collect();
    assert!(allowed.is_empty(), "the sandbox allows {allowed:?}");
    for probe in &probes {
        assert!(
            [libc::EPERM, libc::EACCES].contains(&probe.errno),
            "{probe:?} was refused for another reason"
        );
    }
    // The worker survives the questions.
    load(&mut backend, "sum").unwrap();
}

/// Runs a test on a thread for which the kernel does not know these system calls, nor for what the thread starts.
fn without(calls: &[i64], test: fn()) {
    let rules = calls.iter().map(|call| (*call, Vec::new())).collect();
    let missing = SeccompAction::Errno(libc::ENOSYS.cast_unsigned());
    let arch = env::consts::ARCH.try_into().unwrap();
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, missing, arch).unwrap();
    let program: BpfProgram = filter.try_into().unwrap();
    let thread = thread::spawn(move || {
        apply_filter(&program).unwrap();
        test();
    });
    thread.join().unwrap();
}

#[test]
fn without_landlock_configuration_decides() {
    let landlock =
        [libc::SYS_landlock_create_ruleset, libc::SYS_landlock_add_rule, libc::SYS_landlock_restrict_self];
    without(&landlock, || {
        let mut strict = WorkerBackend::new("cpu:0", WorkerOptions { require_sandbox: true, ..options() });
        let error = load(&mut strict, "sum").unwrap_err();
        assert!(matches!(error, BackendError::EngineMissing(_)), "{error:?}");
        for word in ["cpu:0", "Landlock none", "require-sandbox", "doctor"] {
            assert!(error.to_string().contains(word), "{error}");
        }
        assert_eq!(strict.worker_pid(&Owner::Operator), None);

        // The filter alone denies the same.
        let mut lenient = backend();
        let (report, probes) = lenient.probe_sandbox().unwrap();
        assert_eq!((report.landlock.as_str(), report.seccomp), ("none", true));
        assert!(probes.iter().all(|probe| probe.errno != 0), "{probes:?}");
        load(&mut lenient, "sum").unwrap();
    });
}

#[test]
fn without_system_call_filters_no_worker_starts() {
    without(&[libc::SYS_seccomp], || {
        let error = load(&mut backend(), "sum").unwrap_err();
        assert!(matches!(error, BackendError::EngineMissing(_)), "{error:?}");
        assert!(error.to_string().contains("cannot be confined"), "{error}");
    });
}

#[test]
fn the_engine_starts_no_telemetry() {
    // The wheel's telemetry is a thread that lives as long as the engine's environment; a worker without models
    // has no other reason for a second thread.
    let mut backend = backend();
    backend.probe_sandbox().unwrap();
    let pid = backend.worker_pid(&Owner::Operator).unwrap();
    assert_eq!(fs::read_dir(format!("/proc/{pid}/task")).unwrap().count(), 1);
}

#[test]
fn a_dropped_backend_leaves_no_process() {
    let mut backend = backend();
    load(&mut backend, "sum").unwrap();
    let pid = backend.worker_pid(&Owner::Operator).unwrap();
    let proc = Path::new("/proc").join(pid.to_string());
    assert!(proc.exists());
    drop(backend);
    assert!(!proc.exists(), "neither alive nor a zombie");
}

#[test]
fn a_worker_dies_with_its_parent() {
    let mut parent = Command::new(env::current_exe().unwrap())
        .args(["--exact", "helper_parent", "--ignored", "--nocapture"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(parent.stdout.take().unwrap()).lines();
    let pid = lines
        .map_while(Result::ok)
        .find_map(|line| line.split("worker=").nth(1).map(str::to_owned))
        .expect("the helper starts a worker");
    let proc = Path::new("/proc").join(pid.trim());
    assert!(proc.exists());
    parent.kill().unwrap();
    parent.wait().unwrap();
    wait_for("the worker outlives its parent", || {
        // Whoever reaps orphans here may be slow: a zombie runs nothing any more.
        fs::read_to_string(proc.join("stat")).map_or(true, |stat| stat.contains(") Z"))
    });
}

#[test]
#[ignore = "the parent of the test above, killed by it"]
fn helper_parent() {
    let mut backend = backend();
    load(&mut backend, "sum").unwrap();
    println!("\nworker={}", backend.worker_pid(&Owner::Operator).unwrap());
    sleep(Duration::from_secs(60));
}
