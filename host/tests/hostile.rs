//! Guests that mean it ill: each alone, sixty-four at once, and beside a quiet neighbour. Of each the table says what
//! the caller sees, what is billed, and what the function's log says; the host's own log must stay without an alarm.

mod hostile_parts;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use hostile_parts::case::{Pass, check};
use hostile_parts::held::Held;
use hostile_parts::table::{TABLE, deploy};
use hostile_parts::uploads::{functions, locals, nested, padded};
use wasmeter_testkit::{Host, component, manifest};

async fn host() -> Host {
    // A function may call itself, which is at a loopback address here.
    let config = "[outbound]\nallow-private = [\"127.0.0.1/32\"]\n";
    let host = Host::builder(env!("CARGO_BIN_EXE_wasmeter")).config(config).start().await;
    deploy(&host).await;
    host
}

/// Runs all of them, so that one failure does not hide another; says which failed.
#[tokio::test]
async fn each_alone() {
    let host = host().await;
    let mut failed = Vec::new();
    for (row, case) in TABLE.iter().enumerate() {
        let began = Instant::now();
        if AssertUnwindSafe(check(&host, row, Pass::Alone)).catch_unwind().await.is_err() {
            failed.push(format!("{}{}", case.function, case.path));
        }
        println!("{}{}: {:?}", case.function, case.path, began.elapsed());
    }
    assert!(failed.is_empty(), "see above: {failed:?}");
}

/// Sixty-four at once, of the rows of the table in turn: the third crowd finds what two left, which were all rows.
#[tokio::test]
async fn sixty_four_at_once() {
    let host = Arc::new(host().await);
    let mut held = None;
    for round in 0..3 {
        let calls: Vec<_> = (0..64)
            .map(|n| ((n + 64 * round) % TABLE.len(), host.clone()))
            .map(|(row, host)| tokio::spawn(async move { check(&host, row, Pass::Crowd).await }))
            .collect();
        for call in calls {
            call.await.expect("a call of the crowd");
        }
        held = Some(match held {
            None if round == 0 => continue,
            None => Held::by(&host),
            Some(before) => Held::comes_back(&host, before, 32 << 10).await,
        });
        println!("after round {round}: {held:?}");
    }
    // All threads and places are free again.
    host.deploy("echo", &manifest("echo").public()).await;
    assert_eq!(host.anonymous().get("/fn/dev/echo/hello").send().await.expect(200).text(), "hello\n");
}

/// Another tenant's calls are all right, whatever runs beside them; how long they take is only said.
#[tokio::test]
async fn beside_a_quiet_neighbour() {
    let host = Arc::new(host().await);
    host.put_tenant("quiet").await;
    host.try_deploy("quiet", component("echo"), &manifest("echo").public()).await.expect(201);
    let alone = quiet_calls(&host, Duration::from_millis(500)).await;
    let calls: Vec<_> = (0..8)
        .map(|first| {
            let host = host.clone();
            tokio::spawn(async move {
                for row in (first..TABLE.len()).step_by(8) {
                    check(&host, row, Pass::Crowd).await;
                }
            })
        })
        .collect();
    let beside = quiet_calls(&host, Duration::from_secs(2)).await;
    for call in calls {
        call.await.expect("a call of the crowd");
    }
    let p99 = |times: &[Duration]| times[times.len() * 99 / 100];
    println!("p99 of {} calls alone {:?}", alone.len(), p99(&alone));
    println!("p99 of {} calls beside the crowd {:?}", beside.len(), p99(&beside));
}

/// One after the other for so long; sorted times.
async fn quiet_calls(host: &Host, long: Duration) -> Vec<Duration> {
    let (began, mut times) = (Instant::now(), Vec::new());
    while began.elapsed() < long {
        let call = Instant::now();
        let answer = host.anonymous().get("/fn/quiet/echo/hello").send().await;
        assert_eq!((answer.status, answer.text()), (200, "hello\n"));
        times.push(call.elapsed());
    }
    times.sort_unstable();
    times
}

#[tokio::test]
async fn uploads_that_are_bombs() {
    let host = Host::builder(env!("CARGO_BIN_EXE_wasmeter")).start().await;
    let tiny = [0, 0x0b];
    let uploads = [
        ("ten thousand functions", functions(10_000, &tiny), Ok(())),
        ("sixty megabytes", padded(functions(1, &tiny), 60_000_000), Ok(())),
        ("ten thousand blocks in each other", functions(1, &nested(10_000)), Ok(())),
        ("more functions than there may be", functions(200_001, &tiny), Err("200001 functions")),
        ("too many locals", functions(1, &locals(20_001)), Err("20001 locals in one function")),
        ("a giant function", functions(1, &nested(2_000_000)), Err("bytes in one function")),
    ];
    let before = Held::by(&host);
    for (what, bytes, expected) in uploads {
        let began = Instant::now();
        let answer = host.try_deploy("dev", bytes, &manifest("bomb").public()).await;
        println!("{what}: {} after {:?}", answer.status, began.elapsed());
        match expected {
            Ok(()) => {
                assert_eq!(answer.status, 201, "{what}: {}", answer.text());
                let answer = host.anonymous().get("/fn/dev/bomb").send().await;
                assert_eq!((answer.status, answer.text()), (200, ""), "{what}");
            }
            Err(part) => {
                assert_eq!((answer.status, answer.code().as_str()), (422, "invalid"), "{what}");
                assert!(answer.message().contains(part), "{what}: {}", answer.message());
            }
        }
    }
    // The artifacts of the three that were taken may stay in memory.
    let after = Held::comes_back(&host, before, 256 << 10).await;
    println!("before {before:?}, after {after:?}");
}
