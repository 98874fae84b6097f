//! Death at any instant: every record is booked exactly once, and nobody outlives its parent.
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod support;

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use support::{Billing, Home, record};
use wasmeter_usage::Pico;
use wasmeter_usage::wire::Reply;

const ROUNDS: u64 = 20;

/// Kills billing in the middle of appends, twenty times; the sender resends from the high-water mark.
#[test]
fn killed_in_the_middle_of_appends() {
    let home = Home::new();
    let mut sent = Vec::new();
    let mut safe = 0;
    for round in 0..ROUNDS {
        let mut billing = home.start();
        let mut client = home.client();
        let high = client.high_water();
        assert!(high >= safe, "acknowledged {safe}, booked only {high}");
        assert!(high <= sent.len() as u64);

        let pid = rustix::process::Pid::from_child(&billing.child);
        let killer = std::thread::spawn(move || {
            // Another instant each round, from the first append on.
            std::thread::sleep(Duration::from_millis(3 + round * 7 % 41));
            rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        });
        let prices = client.prices.clone();
        let mut next = usize::try_from(high).unwrap();
        loop {
            let end = next + 1 + (next + usize::try_from(round).unwrap()) % 50;
            while sent.len() < end {
                sent.push(record(&prices, "dev", sent.len() as u64 * 1_000_003));
            }
            match client.append(next as u64 + 1, &sent[next..end]) {
                Ok(Reply::Acked { acked_seq }) => {
                    assert_eq!(acked_seq, end as u64);
                    safe = acked_seq;
                    next = end;
                }
                Ok(other) => panic!("{other:?}"),
                Err(_) => break,
            }
        }
        killer.join().unwrap();
        billing.wait();
    }

    let _billing = home.start();
    let mut client = home.client();
    let mut next = usize::try_from(client.high_water()).unwrap();
    while next < sent.len() {
        let end = (next + 1000).min(sent.len());
        client.append(next as u64 + 1, &sent[next..end]).unwrap();
        next = end;
    }
    let prices = client.prices.clone();
    let lines = client.receipts("dev", 700);
    assert_eq!(lines.iter().map(|l| l.record.clone()).collect::<Vec<_>>(), sent);
    for line in &lines {
        assert_eq!(Some(line.cost_pico), prices.cost(&line.record));
    }
    let cost: Pico = lines.iter().map(|l| l.cost_pico).sum();
    let report = home.check();
    assert_eq!(report["list_total_pico"], cost.0.to_string());
    assert_eq!((&report["faults"], &report["rejected"]), (&0.into(), &serde_json::json!({})));
    home.assert_quiet(&[]);
    println!("{} records over {ROUNDS} kills", sent.len());
}

/// Several senders at once, and a TERM between: what was acknowledged is there, and the exit is clean.
#[test]
fn a_term_finishes_the_transaction() {
    let home = Home::new();
    let mut billing = home.start();
    home.client();
    let senders: Vec<_> = (0..4u64)
        .map(|epoch| {
            let mut client = home.client();
            std::thread::spawn(move || {
                let (prices, mut acked) = (client.prices.clone(), 0);
                loop {
                    let records: Vec<_> = (0..20).map(|n| record(&prices, "dev", n)).collect();
                    let (node, first_seq) = ("n1".to_owned(), acked + 1);
                    let call = wasmeter_usage::wire::Call::Append { node, epoch, first_seq, records };
                    match client.try_call(&call) {
                        Ok(Reply::Acked { acked_seq }) => acked = acked_seq,
                        Ok(other) => panic!("{other:?}"),
                        Err(_) => return acked,
                    }
                }
            })
        })
        .collect();
    std::thread::sleep(Duration::from_millis(400));
    billing.signal(rustix::process::Signal::TERM);
    assert!(billing.wait().success());
    let acked: u64 = senders.into_iter().map(|s| s.join().unwrap()).sum();
    let report = home.check();
    // An append whose reply was cut off may be booked too, at most one a sender.
    let entries = report["entries"].as_u64().unwrap();
    assert!(acked > 0 && entries >= acked && entries <= acked + 4 * 20, "{entries} {acked}");
    home.assert_quiet(&[]);
}

/// A shell starts billing and is killed: billing dies too.
#[test]
fn dies_with_its_parent() {
    let home = Home::new();
    let serve = home.serve_command();
    let args: Vec<_> = serve.get_args().map(|a| a.to_str().unwrap().to_owned()).collect();
    let script = "\"$0\" \"$@\" --die-with-parent=$$ & wait";
    let shell = Command::new("sh")
        .args(["-c", script, serve.get_program().to_str().unwrap()])
        .args(&args)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut shell = Billing { child: shell };
    home.client();
    shell.child.kill().unwrap();
    shell.wait();
    let deadline = Instant::now() + Duration::from_secs(5);
    while support::Client::connect(&home.socket()).is_ok() {
        assert!(Instant::now() < deadline, "billing outlived its parent");
        std::thread::sleep(Duration::from_millis(5));
    }
    // The dead one's socket file is replaced.
    let _next = home.start();
    home.client();

    let orphan = home.serve_command().arg("--die-with-parent=1").stderr(Stdio::piped()).output().unwrap();
    assert!(String::from_utf8(orphan.stderr).unwrap().contains("the parent, process 1, has ended"));
}
