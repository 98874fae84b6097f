//! A child process that is killed, or whose disk is full, at any instant.
#![allow(clippy::unwrap_used, reason = "the functions beside the tests are tests too")]

mod support;

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use support::{Billing, Chaos, client, open, record, ship_all};
use tokio_util::sync::CancellationToken;
use wasmeter_metering::{Disk, RealDisk, Shipper, SpoolError};
use wasmeter_usage::InvocationId;

/// Runs one of the ignored tests of this file as a process of its own, with SIGXFSZ ignored.
fn child(test: &str, dir: &Path, ship: bool) -> Child {
    let mut command = Command::new("sh");
    command.args(["-c", "trap '' XFSZ; exec \"$0\" \"$@\""]).arg(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--ignored", "--nocapture", "--test-threads=1"]);
    command.env("WASMETER_TEST_DIR", dir);
    if ship {
        command.env("WASMETER_TEST_SHIP", "1");
    }
    command.stdout(Stdio::piped()).spawn().unwrap()
}

fn say(id: InvocationId) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "\nack {id}").unwrap();
    out.flush().unwrap();
}

fn heard(line: &str) -> Option<InvocationId> {
    line.strip_prefix("ack ").map(|id| id.parse().unwrap())
}

#[test]
#[ignore = "the child of killed_at_any_instant"]
fn child_appends() {
    let Some(dir) = std::env::var_os("WASMETER_TEST_DIR") else { return };
    let dir = Path::new(&dir);
    let spool = open(dir);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    if std::env::var_os("WASMETER_TEST_SHIP").is_some() {
        let shipper = Shipper::new(spool.clone(), client(&dir.join("s")));
        runtime.spawn(shipper.run(CancellationToken::new()));
    }
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                for n in 0.. {
                    let record = record(n);
                    spool.append(&record).unwrap();
                    say(record.invocation);
                }
            });
        }
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_instant() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("s");
    let billing = Billing::start(&socket, Chaos { before: 20, after: 20 });
    let mut acknowledged = HashSet::new();
    for round in 0..20u32 {
        let mut process = child("child_appends", dir.path(), round % 2 == 0);
        let stdout = process.stdout.take().unwrap();
        let most = 1 + (round * 7919) % 400;
        let ids = tokio::task::spawn_blocking(move || {
            let mut ids = Vec::new();
            let mut lines = BufReader::new(stdout).lines();
            for line in &mut lines {
                // A line that the kill cut off says nothing.
                ids.extend(line.ok().filter(|l| l.len() == 40).as_deref().and_then(heard));
                if ids.len() as u32 == most {
                    process.kill().unwrap();
                }
            }
            process.wait().unwrap();
            ids
        });
        let ids = ids.await.unwrap();
        assert!(ids.len() as u32 >= most, "round {round}: only {}", ids.len());
        acknowledged.extend(ids);
    }
    let spool = open(dir.path());
    ship_all(&spool, &socket).await;
    let booked: HashSet<_> = billing.ledger.lock().unwrap().ids().into_iter().collect();
    assert!(acknowledged.is_subset(&booked), "{} are missing", acknowledged.difference(&booked).count());
    assert_eq!(spool.unshipped(), 0);
}

/// Where each record is a write.
#[derive(Debug)]
struct Unmapped;

impl Disk for Unmapped {
    fn reserve(&self, _: &File, _: u64) -> io::Result<bool> {
        Ok(false)
    }

    fn write_at(&self, file: &File, bytes: &[u8], at: u64) -> io::Result<usize> {
        RealDisk.write_at(file, bytes, at)
    }

    fn sync_file(&self, file: &File) -> io::Result<()> {
        RealDisk.sync_file(file)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        RealDisk.sync_dir(dir)
    }
}

#[test]
#[ignore = "the child of full_disk"]
fn child_meets_a_full_disk() {
    let Some(dir) = std::env::var_os("WASMETER_TEST_DIR") else { return };
    let dir = Path::new(&dir);
    let options =
        wasmeter_metering::SpoolOptions { disk: std::sync::Arc::new(Unmapped), ..Default::default() };
    let spool = wasmeter_metering::Spool::open(dir, options).unwrap();
    let hard = getrlimit(Resource::Fsize).maximum;
    for limit in [10_000, 10_001, 20_345, 20_350, 33_333] {
        setrlimit(Resource::Fsize, Rlimit { current: Some(limit), maximum: hard }).unwrap();
        let mut failures = 0;
        while failures < 3 {
            let record = record(limit);
            match spool.append(&record) {
                Ok(_) => say(record.invocation),
                Err(SpoolError::Io { .. }) => failures += 1,
                Err(e) => panic!("{e}"),
            }
        }
        assert!(!spool.accepting(), "admission goes on with a full disk");
    }
    setrlimit(Resource::Fsize, Rlimit { current: hard, maximum: hard }).unwrap();
    let until = Instant::now() + Duration::from_secs(30);
    while !spool.accepting() {
        assert!(Instant::now() < until, "admission never comes back");
        std::thread::sleep(Duration::from_millis(20));
    }
    let record = record(0);
    spool.append(&record).unwrap();
    say(record.invocation);
}

#[tokio::test]
#[ignore = "the child of a_file_system_of_its_own_that_is_full"]
async fn child_fills_a_file_system() {
    let Some(dir) = std::env::var_os("WASMETER_TEST_DIR") else { return };
    let dir = Path::new(&dir);
    let options = wasmeter_metering::SpoolOptions { segment_bytes: 64 << 10, ..Default::default() };
    let spool = wasmeter_metering::Spool::open(&dir.join("spool"), options).unwrap();
    let socket = dir.join("s");
    let billing = Billing::start(&socket, Chaos::default());
    let mut taken = Vec::new();
    for _ in 0..3 {
        let error = loop {
            let record = record(1);
            match spool.append(&record) {
                Ok(_) => taken.push(record.invocation),
                Err(error) => break error,
            }
        };
        assert!(
            matches!(&error, SpoolError::Io { source, .. } if source.raw_os_error() == Some(28)),
            "{error}"
        );
        assert!(!spool.accepting());
        // Billing takes what waits, which makes room, and admission comes back by itself.
        let shipper = Shipper::new(spool.clone(), client(&socket));
        let (handle, stop) = (shipper.handle(), CancellationToken::new());
        let task = tokio::spawn(shipper.run(stop.clone()));
        handle.flush(Duration::from_secs(60)).await.unwrap();
        let until = Instant::now() + Duration::from_secs(30);
        while !spool.accepting() {
            assert!(Instant::now() < until, "admission never comes back");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        stop.cancel();
        task.await.unwrap();
    }
    assert!(taken.len() > 1000, "{}", taken.len());
    assert_eq!(billing.ledger.lock().unwrap().booked, taken);
    say(InvocationId::new());
}

/// A real one, of 1 MiB, in a mount namespace of the child's. Where none can be made, the other tests of a full disk stand.
#[test]
fn a_file_system_of_its_own_that_is_full() {
    let dir = tempfile::tempdir().unwrap();
    let mount = "mount -t tmpfs -o size=1m none \"$WASMETER_TEST_DIR\"";
    let own = |then: &str| {
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "sh", "-c", &format!("{mount} && {then}")])
            .env("WASMETER_TEST_DIR", dir.path());
        command
    };
    let possible = own("true").stderr(Stdio::null()).status().is_ok_and(|s| s.success());
    if !possible {
        eprintln!("no file system can be mounted here: left out");
        return;
    }
    let mut command =
        own("exec \"$0\" --exact child_fills_a_file_system --ignored --nocapture --test-threads=1");
    let output = command.arg(std::env::current_exe().unwrap()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(text.lines().filter_map(heard).count(), 1, "the child ran no test: {text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn full_disk() {
    let dir = tempfile::tempdir().unwrap();
    let process = child("child_meets_a_full_disk", dir.path(), false);
    let output = tokio::task::spawn_blocking(move || process.wait_with_output().unwrap()).await.unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    let ids: Vec<_> = text.lines().filter_map(heard).collect();
    assert!(ids.len() > 50, "{text}");
    let socket = dir.path().join("s");
    let billing = Billing::start(&socket, Chaos::default());
    ship_all(&open(dir.path()), &socket).await;
    assert_eq!(billing.ledger.lock().unwrap().booked, ids);
}
