//! The binary over its socket: booking, questions, refusals, start and stop.
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod support;

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::process::Signal;
use support::{Client, Home, acked, record, refusal};
use wasmeter_usage::wire::{self, Call, PROTOCOL, Reply, UsageBy};
use wasmeter_usage::{InvocationId, Pico};

#[test]
fn books_and_answers() {
    let home = Home::new();
    let mut billing = home.start();
    let mut client = home.client();
    assert_eq!((client.stamp.as_str(), client.prices.currency.as_str()), ("unstamped", "USD"));
    let prices = client.prices.clone();
    let records: Vec<_> = (1..=7).map(|n| record(&prices, "dev", n * 1_000_000_007)).collect();
    let cost: Pico = records.iter().map(|r| prices.cost(r).unwrap()).sum();

    assert_eq!(client.high_water(), 0);
    assert_eq!(acked(client.append(1, &records[..4])), 4);
    assert_eq!(acked(client.append(1, &records[..4])), 4);
    let (code, message) = refusal(client.append(6, &records[5..]).unwrap());
    assert_eq!((code.as_str(), message.contains("resend from 5")), ("gap", true), "{message}");
    assert_eq!(acked(client.append(3, &records[2..])), 7);
    assert_eq!(client.high_water(), 7);

    let window = |by| Call::Usage { tenant: "dev".into(), from_ns: 0, to_ns: u64::MAX, by };
    for (by, key) in [(UsageBy::Function, "f"), (UsageBy::Model, "minilm@1")] {
        let Reply::Usage { rows } = client.call(&window(by)) else { panic!("no usage") };
        assert_eq!((rows.len(), rows[0].key.as_str(), rows[0].requests), (1, key, 7));
    }
    let Reply::Usage { rows } = client.call(&window(UsageBy::Hour)) else { panic!("no usage") };
    assert_eq!(rows.iter().map(|r| r.cost_pico).sum::<Pico>(), cost);
    let Reply::Usage { rows } = client.call(&window(UsageBy::Meter)) else { panic!("no usage") };
    assert_eq!(
        rows.iter().map(|r| r.key.as_str()).collect::<Vec<_>>(),
        ["cpu_time", "egress_bytes", "fuel", "requests"]
    );

    let Reply::Bill(bill) = client.call(&Call::Bill { tenant: "dev".into(), from_ns: 0, to_ns: u64::MAX })
    else {
        panic!("no bill")
    };
    assert_eq!((bill.list_total_pico, bill.invocations, bill.lines.len()), (cost, 7, 4));

    let lines = client.receipts("dev", 3);
    assert_eq!(lines.iter().map(|l| l.cost_pico).sum::<Pico>(), cost);
    assert_eq!(lines.into_iter().map(|l| l.record).collect::<Vec<_>>(), records);
    let mut one =
        |tenant: &str, invocation| match client.call(&Call::Receipt { tenant: tenant.into(), invocation }) {
            Reply::Receipt { receipt } => receipt,
            other => panic!("{other:?}"),
        };
    assert_eq!(one("dev", records[2].invocation).unwrap().record, records[2]);
    assert!(one("other", records[2].invocation).is_none());
    assert!(one("dev", InvocationId::new()).is_none());

    billing.signal(Signal::TERM);
    assert!(billing.wait().success());
    assert!(!home.socket().exists());
    assert!(!home.data().join("ledger.sqlite-wal").exists());
    let report = home.check();
    assert_eq!((&report["entries"], &report["faults"]), (&7.into(), &0.into()));
    assert_eq!(report["list_total_pico"], cost.0.to_string());
    home.assert_quiet(&["append refused"]);
}

#[test]
fn files_are_the_users_alone() {
    let home = Home::new();
    let _billing = home.start();
    let mut client = home.client();
    let prices = client.prices.clone();
    acked(client.append(1, &[record(&prices, "dev", 1)]));
    let mode = |path: &std::path::Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&home.data()), mode(&home.socket())), (0o700, 0o600));
    let keys = home.data().join("keys");
    assert_eq!((mode(&keys), mode(&keys.join("receipt.key"))), (0o700, 0o600));
    for entry in std::fs::read_dir(home.data()).unwrap().map(|entry| entry.unwrap().path()) {
        assert!(entry == keys || mode(&entry) == 0o600, "{}", entry.display());
    }
}

#[test]
fn unbookable_records_do_not_stop_the_spool() {
    let home = Home::new();
    let _billing = home.start();
    let mut client = home.client();
    let good = serde_json::to_string(&record(&client.prices, "dev", 5)).unwrap();
    let body = format!(
        r#"{{"op":"append","node":"n1","epoch":1,"first_seq":1,"records":[{{"v":2,"new":[1.50]}},{good},"x",{good}]}}"#
    );
    client.stream.write_all(&u32::try_from(body.len()).unwrap().to_le_bytes()).unwrap();
    client.stream.write_all(body.as_bytes()).unwrap();
    let reply: Reply = wire::read(&mut client.stream).unwrap().unwrap();
    assert!(matches!(reply, Reply::Acked { acked_seq: 4 }), "{reply:?}");
    assert_eq!(client.receipts("dev", 10).len(), 1);
    let report = home.check();
    assert_eq!(report["rejected"], serde_json::json!({"version": 1, "malformed": 1, "duplicate": 1}));
    home.assert_quiet(&["cannot be booked"]);
    assert_eq!(home.log().matches("cannot be booked").count(), 3);
}

#[test]
fn a_bad_connection_hurts_nobody_else() {
    let home = Home::new();
    let _billing = home.start();
    let mut good = home.client();
    let say = |bytes: &[u8]| {
        let mut stream = UnixStream::connect(home.socket()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        // The other side may hang up before it has read all of it.
        let _ = stream.write_all(bytes);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        match wire::read::<Reply>(&mut answer.as_slice()) {
            Ok(Some(Reply::Refused { code, .. })) => code,
            other => format!("{other:?}"),
        }
    };
    let frame = |text: &[u8]| [&u32::try_from(text.len()).unwrap().to_le_bytes()[..], text].concat();
    assert_eq!(say(&[0xff; 64]), "malformed");
    assert_eq!(say(b"GET / HTTP/1.1\r\n\r\n"), "malformed");
    assert_eq!(say(&frame(b"{\"op\":\"hello\"")), "malformed");
    assert_eq!(say(&frame(b"\x00\x01\x02")), "malformed");
    assert_eq!(say(&wire::encode(&Call::HighWater { node: "n".into(), epoch: 1 }).unwrap()), "protocol");
    assert_eq!(
        say(&wire::encode(&Call::Hello { protocol: PROTOCOL + 1, node: "n".into() }).unwrap()),
        "protocol"
    );
    // A claim of 4 GiB after hello, and a frame that ends early.
    let mut stream = Client::connect(&home.socket()).unwrap().stream;
    stream.write_all(&u32::MAX.to_le_bytes()).unwrap();
    let reply: Reply = wire::read(&mut stream).unwrap().unwrap();
    assert_eq!(refusal(reply).0, "malformed");
    assert!(wire::read::<Reply>(&mut stream).unwrap().is_none());
    drop(stream);
    Client::connect(&home.socket()).unwrap().stream.write_all(&[0, 0, 1, 0, b'{']).unwrap();

    assert_eq!(good.high_water(), 0);
    home.assert_quiet(&["connection closed"]);
}

#[test]
fn records_of_a_node_that_never_said_hello_are_refused() {
    let home = Home::new();
    let mut billing = home.start();
    let mut client = home.client();
    let records = [record(&client.prices.clone(), "dev", 5)];
    let append =
        |node: &str| Call::Append { node: node.into(), epoch: 1, first_seq: 1, records: records.to_vec() };
    let (code, message) = refusal(client.call(&append("stranger")));
    assert_eq!(code, "unknown_node");
    assert!(message.contains("node \"stranger\" is unknown"), "{message}");
    assert!(client.receipts("dev", 10).is_empty());
    // One that has said hello may be spoken for on any connection, and one of which something is booked always.
    let hello = Call::Hello { protocol: PROTOCOL, node: "stranger".into() };
    assert!(matches!(client.call(&hello), Reply::Hello { .. }));
    assert!(matches!(client.call(&append("stranger")), Reply::Acked { acked_seq: 1 }));
    billing.signal(Signal::TERM);
    assert!(billing.wait().success());
    let _billing = home.start();
    assert!(matches!(home.client().call(&append("stranger")), Reply::Acked { acked_seq: 1 }));
    home.assert_quiet(&["unknown node"]);
}

#[test]
fn connections_are_bounded() {
    let home = Home::new();
    let _billing = home.start();
    let mut held = vec![home.client()];
    let error = loop {
        match Client::connect(&home.socket()) {
            Ok(client) => held.push(client),
            Err(error) => break error,
        }
        assert!(held.len() <= 32);
    };
    assert!(error.to_string().contains("busy") || error.kind() == std::io::ErrorKind::BrokenPipe, "{error}");
    drop(held);
    home.client();
    home.assert_quiet(&["turned away"]);
}

#[test]
fn a_second_process_is_refused_and_a_restart_waits() {
    let home = Home::new();
    let mut first = home.start();
    home.client();
    let other = home
        .command()
        .args(["serve", "--socket"])
        .arg(home.socket())
        .arg("--data")
        .arg(home.dir.path().join("other"))
        .output();
    let told = String::from_utf8(other.unwrap().stderr).unwrap();
    assert!(told.contains("a live process listens"), "{told}");

    // The next one waits for the lock and takes over as soon as the first is gone.
    let mut next = home.start();
    std::thread::sleep(Duration::from_millis(300));
    assert!(next.child.try_wait().unwrap().is_none());
    first.child.kill().unwrap();
    first.wait();
    let mut client = home.client();
    assert_eq!(client.high_water(), 0);

    // One that nobody makes room for gives up.
    let output = home
        .command()
        .args(["serve", "--socket"])
        .arg(home.dir.path().join("s2"))
        .arg("--data")
        .arg(home.data())
        .output();
    let told = String::from_utf8(output.unwrap().stderr).unwrap();
    assert!(told.contains("another wasmeter-billing holds data directory"), "{told}");
}

#[test]
fn what_is_wrong_is_said_before_the_socket_opens() {
    let home = Home::new();
    let mut billing = home.start_with(&["--stamp", "test"]);
    home.client();
    billing.signal(Signal::INT);
    assert!(billing.wait().success());

    let say = |args: &[&str]| {
        let mut command = home.command();
        command.args(["serve", "--socket"]).arg(home.socket()).arg("--data").arg(home.data()).args(args);
        let output = command.output().unwrap();
        assert!(!output.status.success() && !home.socket().exists());
        String::from_utf8(output.stderr).unwrap()
    };
    assert!(say(&["--stamp", "live"]).contains("stamped `test` for ever"));
    assert!(say(&["--stamp", "gold"]).contains("use twin, test or live"));
    let prices = home.dir.path().join("prices.toml");
    let path = prices.to_str().unwrap();
    assert!(say(&["--prices", path]).contains("cannot read price book"));
    std::fs::write(
        &prices,
        "[[book]]\neffective = \"2026-01-01T00:00:00Z\"\ncurrency = \"EUR\"\n[book.list]\n",
    )
    .unwrap();
    assert!(say(&["--stamp", "test", "--prices", path]).contains("sums USD for ever"));
    std::fs::write(
        &prices,
        "[[book]]\neffective = \"2099-01-01T00:00:00Z\"\ncurrency = \"USD\"\n[book.list]\n",
    )
    .unwrap();
    assert!(say(&["--stamp", "test", "--prices", path]).contains("no book entry is in force"));
    std::fs::set_permissions(home.data(), std::fs::Permissions::from_mode(0o755)).unwrap();
    assert!(say(&["--stamp", "test"]).contains("open to others"));

    std::fs::set_permissions(home.data(), std::fs::Permissions::from_mode(0o700)).unwrap();
    std::fs::write(home.socket(), "a file").unwrap();
    let output =
        home.serve_command().args(["--stamp", "test"]).stderr(std::process::Stdio::piped()).output().unwrap();
    assert!(String::from_utf8(output.stderr).unwrap().contains("no socket"));
    assert_eq!(std::fs::read_to_string(home.socket()).unwrap(), "a file");
}

#[test]
fn prices_are_checked_and_shown() {
    let home = Home::new();
    let run = |text: &str| {
        let file = home.dir.path().join("prices.toml");
        std::fs::write(&file, text).unwrap();
        let output = home.command().args(["prices", "check"]).arg(&file).output().unwrap();
        (
            output.status.success(),
            String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap(),
        )
    };
    let (ok, told) = run(wasmeter_rating::DEFAULT_PRICES);
    assert!(ok && told.contains("(in force)") && told.contains("fuel_million 0.000000002400"), "{told}");
    let (ok, told) = run(
        "[[book]]\neffective = \"2026-01-01T00:00:00Z\"\ncurrency = \"USD\"\n[book.list]\nrequest = \"-1\"\n",
    );
    assert!(!ok && told.contains("request = \"-1\" is negative"), "{told}");
}

/// Without a Stripe a ledger has no stamp; the first that is asked for is its own for ever, also once nothing is asked for.
#[test]
fn the_first_stamp_is_for_ever() {
    let home = Home::new();
    let stamp_of = |args: &[&str]| {
        let _billing = home.start_with(args);
        home.client().stamp
    };
    assert_eq!(stamp_of(&[]), "unstamped");
    assert_eq!(stamp_of(&["--stamp", "twin"]), "twin");
    assert_eq!(stamp_of(&[]), "twin");
    let output = home.serve_command().args(["--stamp", "live"]).output().unwrap();
    assert!(!output.status.success());
    assert!(home.log().contains("stamped `twin` for ever"), "{}", home.log());
}
