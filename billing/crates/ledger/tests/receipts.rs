//! Receipts that are checked by whoever holds them: what is whole passes, what is not is found.
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod support;

use std::path::Path;

use serde_json::Value;
use support::tamper::{Source, tamper};
use support::{Fixture, NOW, batch, prices, record};
use wasmeter_ledger::{AdjustmentAsk, Ledger, LedgerError, Reader, SCHEMA_VERSION, Stamp};
use wasmeter_rating::sheet;
use wasmeter_receipt::{Fault, PublicKey, Report, Verifier, Wrong};
use wasmeter_usage::wire::UsageBy;
use wasmeter_usage::{Outcome, Pico, Rates, UsageRecord};

const HOUR: u64 = 3_600_000_000_000;

fn export(reader: &Reader, tenant: &str, window: (u64, u64), limit: u32) -> String {
    let (mut text, mut cursor) = reader.export(tenant, window, None, limit, NOW).unwrap();
    while let Some(at) = cursor {
        let (page, next) = reader.export(tenant, window, Some(at), limit, NOW).unwrap();
        text.push_str(&page);
        cursor = next;
    }
    text
}

fn verify(text: &str, pinned: Option<&[PublicKey]>) -> Result<Report, Fault> {
    let mut verifier = Verifier::new(pinned);
    for line in text.split_inclusive('\n') {
        let whole = line.strip_suffix('\n').ok_or(Fault {
            line: 0,
            invocation: None,
            wrong: Wrong::Shape,
            message: "cut off in the line".into(),
        });
        verifier.line(whole?)?;
    }
    verifier.finish()
}

fn keys(reader: &Reader) -> Vec<PublicKey> {
    reader.receipt_keys().unwrap().iter().map(|key| PublicKey::parse(&key.public).unwrap()).collect()
}

fn key_file(f: &Fixture) -> std::path::PathBuf {
    f.dir.path().join("keys/receipt.key")
}

fn reopen(f: &mut Fixture) {
    f.ledger = Ledger::open(&f.path(), Stamp::Twin, "USD", NOW).unwrap();
    f.reader = f.ledger.reader().unwrap();
}

/// Three tenants, two price sheets, two keys, entries in and out of an hour, transactions of many sizes.
fn busy() -> (Fixture, Vec<UsageRecord>) {
    let mut f = Fixture::new();
    let dearer = sheet("USD", Rates { fuel_million: 5_000, ..prices().rates });
    f.ledger.add_sheet(&dearer, NOW).unwrap();
    let mut all = Vec::new();
    for n in 0..120u64 {
        let mut one = record(["a", "b", "c"][(n * n % 7 % 3) as usize], "f", 1_000_003 * n);
        one.end_ns = NOW - if n % 5 == 3 { 2 * HOUR } else { n };
        one.start_ns = one.end_ns - 5;
        if n >= 60 {
            one.price_book.clone_from(&dearer.hash);
        }
        if n % 11 == 0 {
            one.outcome = Outcome::Platform;
        }
        all.push(one);
    }
    let mut seq = 0;
    for size in [1usize, 7, 2, 30, 1, 1, 18, 40, 5, 15] {
        if seq == 60 {
            std::fs::rename(key_file(&f), f.dir.path().join("old.key")).unwrap();
            reopen(&mut f);
        }
        f.append(seq as u64 + 1, &all[seq..seq + size]).unwrap();
        seq += size;
        // Corrections by either key: refunds, and amounts both ways.
        for tenant in ["a", "b"] {
            let id = format!("c{seq}");
            let own = all[..seq].iter().rev().find(|r| r.tenant == tenant && r.outcome.is_charged());
            let (invocation, amount) = match own.filter(|_| seq % 2 == 0) {
                Some(own) => (Some(own.invocation), None),
                None => (None, Some(Pico(seq as i128 - 30))),
            };
            let (tenant, reason) = (tenant.to_owned(), "an outage".to_owned());
            let ask = AdjustmentAsk { tenant, id, invocation, amount, reason };
            // The same call is refunded once.
            let _ = f.ledger.adjust(&ask, NOW - 200 + seq as u64).unwrap();
        }
    }
    (f, all)
}

fn total(records: &[&UsageRecord]) -> Pico {
    let dearer = sheet("USD", Rates { fuel_million: 5_000, ..prices().rates });
    records
        .iter()
        .map(|r| if r.price_book == dearer.hash { dearer.cost(r) } else { prices().cost(r) }.unwrap())
        .sum()
}

#[test]
fn exports_of_every_window_and_page_size_verify() {
    let (f, all) = busy();
    let keys = keys(&f.reader);
    assert_eq!(keys.len(), 2);
    for tenant in ["a", "b", "c"] {
        for window in [(0, u64::MAX), (NOW - HOUR, NOW + 1), (NOW - 50, NOW - 20), (0, NOW - HOUR), (5, 6)] {
            let within: Vec<_> = all
                .iter()
                .filter(|r| r.tenant == tenant && (window.0..window.1).contains(&r.end_ns))
                .collect();
            let whole = export(&f.reader, tenant, window, 2000);
            for limit in [1, 2, 7] {
                assert_eq!(export(&f.reader, tenant, window, limit), whole);
            }
            let report = verify(&whole, Some(&keys)).unwrap();
            assert_eq!(report.receipts, within.len() as u64);
            assert_eq!(report.cost, total(&within));
            assert_eq!((report.tenant.as_str(), report.stamp.as_str()), (tenant, "twin"));
            let bill = f.reader.bill(tenant, window.0, window.1).unwrap();
            let adjusted = bill.adjustments.map_or((0, Pico::ZERO), |all| (all.count, all.amount_pico));
            assert_eq!((report.adjustments, report.adjusted), adjusted);
            assert_eq!(adjusted.0 > 0, tenant != "c" && window.1 > NOW - 200 && window.0 < NOW - 80);
            // Nothing of the others.
            for line in whole.lines().map(|l| serde_json::from_str::<Value>(l).unwrap()) {
                assert!(line.get("record").is_none_or(|record| record["tenant"] == tenant));
            }
            for other in all.iter().filter(|r| r.tenant != tenant) {
                assert!(!whole.contains(&other.invocation.to_string()));
            }
        }
    }
    let nobody = verify(&export(&f.reader, "nobody", (0, u64::MAX), 9), Some(&keys)).unwrap();
    assert_eq!((nobody.receipts, nobody.cost), (0, Pico::ZERO));
    let without = Reader::open(&f.path()).unwrap();
    assert!(matches!(without.export("a", (0, 9), None, 9, NOW), Err(LedgerError::NoSigner)));
    assert_eq!(f.reader.check(|_, _| ()).unwrap().first_faults, [""; 0]);
}

#[test]
fn a_receipt_stands_alone() {
    let (f, all) = busy();
    let keys = keys(&f.reader);
    let mut file = String::new();
    for one in all.iter().filter(|r| r.tenant == "b") {
        let text = f.reader.receipt_alone("b", one.invocation).unwrap().unwrap() + "\n";
        assert_eq!(f.reader.receipt_alone("a", one.invocation).unwrap(), None);
        assert_eq!(verify(&text, Some(&keys)).unwrap().cost, total(&[one]));
        assert!(text.contains(&serde_json::to_string(one).unwrap()), "the record is not as it was sent");
        // Each number and each text of it counts.
        for (edit, wrong) in [
            ("\"fuel\":", Wrong::Cost),
            ("\"status\":", Wrong::Chain),
            ("\"entry\":", Wrong::Commit),
            ("\"index\":", Wrong::Chain),
            ("\"committed_ns\":", Wrong::Signature),
            ("\"request\":", Wrong::Sheet),
            ("\"cost_pico\":\"", Wrong::Cost),
        ] {
            let edited = text.replacen(edit, &format!("{edit}1"), 1);
            assert_ne!(edited, text);
            let found = verify(&edited, Some(&keys)).unwrap_err().wrong;
            // Fuel of a call that is not charged costs nothing, and is in the link all the same.
            let free = one.outcome == Outcome::Platform && edit == "\"fuel\":";
            assert_eq!(found, if free { Wrong::Chain } else { wrong }, "{edit}");
        }
        file.push_str(&text);
    }
    let report = verify(&file, Some(&keys)).unwrap();
    assert!(report.receipts > 20 && report.statement.is_none());
    let twice = file.lines().next().unwrap().to_owned() + "\n" + &file;
    assert_eq!(verify(&twice, None).unwrap_err().wrong, Wrong::Order);
    assert_eq!(verify(&file, Some(&[PublicKey([7; 32])])).unwrap_err().wrong, Wrong::Key);
}

/// Issue 5: finds 1,000 of 1,000 random tamperings.
#[test]
fn finds_every_one_of_a_thousand_tamperings() {
    let (f, _) = busy();
    let keys = keys(&f.reader);
    let source = |tenant: &str, window| Source {
        own: export(&f.reader, tenant, window, 2000),
        other: export(&f.reader, if tenant == "a" { "b" } else { "a" }, window, 2000),
    };
    let sources =
        [source("a", (0, u64::MAX)), source("b", (NOW - HOUR, NOW + 1)), source("c", (NOW - 60, NOW - 5))];
    for source in &sources {
        verify(&source.own, Some(&keys)).unwrap();
    }
    let mut found = std::collections::BTreeMap::<&str, u32>::new();
    for seed in 0..1000u64 {
        let source = &sources[(seed % 3) as usize];
        let (what, text) = tamper(source, seed);
        assert_ne!(text, source.own, "seed {seed}: {what} changed nothing");
        if let Ok(report) = verify(&text, Some(&keys)) {
            panic!("seed {seed}: {what} was not found: {report:?}");
        }
        *found.entry(what).or_default() += 1;
    }
    assert_eq!(found.values().sum::<u32>(), 1000);
    println!("{found:#?}");
}

#[test]
fn check_finds_tampered_links_commits_and_signatures() {
    for (edit, told) in [
        (
            "UPDATE signed_commit SET links = unhex(substr(hex(links), 1, 16) || hex(zeroblob(32)) || substr(hex(links), 81))
             WHERE number = 3",
            "entry 9: link",
        ),
        (
            "UPDATE signed_commit SET links = unhex('00000000000000ff' || substr(hex(links), 17)) WHERE number = 3",
            "entry 9: link 255",
        ),
        ("UPDATE signed_commit SET links = substr(links, 1, 40) WHERE number = 3", "entry 10 has no link"),
        ("UPDATE signed_commit SET links = zeroblob(0) WHERE number = 3", "commit 3 has 0 links of 2 entries"),
        ("UPDATE signed_commit SET committed_ns = 7 WHERE number = 3", "commit 3: the signature"),
        ("UPDATE signed_commit SET root = zeroblob(32) WHERE number = 2", "commit 2: the root"),
        ("DELETE FROM signed_commit WHERE number = 4", "in no commit"),
        ("DELETE FROM signed_commit WHERE number = 10", "in no commit"),
        ("UPDATE signed_commit SET signature = zeroblob(64) WHERE number = 5", "commit 5: the signature"),
        ("UPDATE signed_commit SET entries = 6 WHERE number = 2", "commit 3 begins at"),
        ("UPDATE receipt_key SET public = replace(public, substr(public, 1, 1), 'a')", "the signature"),
        ("UPDATE chain_start SET previous = zeroblob(32) WHERE tenant = 'a'", "of \"a\" is not made"),
    ] {
        let (f, _) = busy();
        let conn = rusqlite::Connection::open(f.path()).unwrap();
        assert!(conn.execute(edit, []).is_err(), "{edit} is allowed");
        for table in ["signed_commit", "receipt_key", "chain_start"] {
            conn.execute_batch(&format!("DROP TRIGGER {table}_append_1; DROP TRIGGER {table}_append_2"))
                .unwrap();
        }
        conn.execute(edit, []).unwrap();
        let report = Reader::open(&f.path()).unwrap().check(|_, _| ()).unwrap();
        let faults = report.first_faults.join("\n");
        assert!(faults.contains(told), "{edit}: {faults}");
    }
}

/// A ledger as the released program of a schema version left it.
fn released(path: &Path, version: usize, rows: &str) {
    let conn = rusqlite::Connection::open(path).unwrap();
    let scripts = [
        include_str!("../migrations/0001.sql"),
        include_str!("../migrations/0002.sql"),
        include_str!("../migrations/0003.sql"),
        include_str!("../migrations/0004.sql"),
        include_str!("../migrations/0005.sql"),
        include_str!("../migrations/0006.sql"),
        include_str!("../migrations/0007.sql"),
        include_str!("../migrations/0008.sql"),
    ];
    for script in scripts[..version].iter().chain([&rows]) {
        conn.execute_batch(script).unwrap();
    }
    conn.pragma_update(None, "application_id", 0x776d_7472).unwrap();
    conn.pragma_update(None, "user_version", version as i64).unwrap();
}

/// What was signed before an entry's link stood in its commit is shown as it was.
#[test]
fn links_go_into_their_commits() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ledger.sqlite");
    released(&path, 8, include_str!("released/version-8.sql"));
    let old_links: Vec<(String, String)> = {
        let old = rusqlite::Connection::open(&path).unwrap();
        let mut statement = old
            .prepare(
                "SELECT lower(hex(l.link)), e.invocation FROM link l JOIN entry e ON e.position = l.position
                 ORDER BY l.position",
            )
            .unwrap();
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
        rows.map(Result::unwrap).collect()
    };

    let now = 1_795_946_000_000_000_000;
    let mut ledger = Ledger::open(&path, None::<Stamp>, "USD", now).unwrap();
    let reader = ledger.reader().unwrap();
    let report = reader.check(|_, _| ()).unwrap();
    assert_eq!((report.first_faults.as_slice(), report.entries, report.commits), ([].as_slice(), 13, 6));
    let text = export(&reader, "dev", (0, u64::MAX), 5);
    assert_eq!(verify(&text, Some(&keys(&reader))).unwrap().receipts, 13);
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let shown: Vec<(String, String)> = lines
        .iter()
        .filter(|line| line["chain"]["link"].is_string())
        .map(|line| {
            let text = |value: &Value| value.as_str().unwrap().to_owned();
            (text(&line["chain"]["link"]), text(&line["invocation"]))
        })
        .collect();
    assert_eq!(shown, old_links);
    assert_eq!(reader.usage("dev", 0, u64::MAX, UsageBy::Model).unwrap()[0].requests, 5);

    // The chain and the spool go on where they were.
    let (last, old_sheet) = {
        let records = reader.receipts("dev", 0, u64::MAX, 0, 100).unwrap().0;
        (records.len() as u64, records[0].record.price_book.clone())
    };
    let conn = rusqlite::Connection::open(&path).unwrap();
    let (node, epoch): (String, i64) = conn
        .query_row("SELECT node, epoch FROM high_water", [], |row| Ok((row.get(0)?, row.get(1)?)))
        .unwrap();
    let mut next = UsageRecord { price_book: old_sheet, ..record("dev", "f", 7) };
    (next.start_ns, next.end_ns) = (now - 5, now);
    ledger.append(&[batch(&node, epoch as u64, last + 1, &[next])], now).unwrap().remove(0).unwrap();
    let report = verify(&export(&reader, "dev", (0, u64::MAX), 5), Some(&keys(&reader))).unwrap();
    assert_eq!((report.receipts, report.commits), (14, 7));
    assert_eq!(reader.check(|_, _| ()).unwrap().first_faults, [""; 0]);
}

#[test]
fn a_released_ledger_opens_and_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ledger.sqlite");
    released(&path, 2, include_str!("released/version-2.sql"));
    let found = Reader::open(&path);
    assert!(matches!(found, Err(LedgerError::OlderSchema { found: 2, known: SCHEMA_VERSION })));
    let now = 1_795_841_100_000_000_000;
    let mut ledger = Ledger::open(&path, Stamp::Twin, "USD", now).unwrap();
    let reader = ledger.reader().unwrap();
    let report = reader.check(|_, _| ()).unwrap();
    assert_eq!((report.first_faults.as_slice(), report.entries, report.commits), ([].as_slice(), 9, 1));
    assert_eq!(reader.balance("dev").unwrap(), Pico(3_276_000));
    assert_eq!(reader.high_water("n2", u64::MAX).unwrap(), 3);

    // Its spools go on where they were, and its leases hold.
    let old_sheet = reader.receipts("dev", 0, u64::MAX, 0, 1).unwrap().0.remove(0).record.price_book;
    let next = UsageRecord { price_book: old_sheet, ..record("dev", "f", 7) };
    ledger.append(&[batch("n1", 7, 8, &[next])], now).unwrap().remove(0).unwrap();
    assert_eq!(ledger.budget("dev", now).unwrap().reserved, Pico(500_000_000));

    let text = export(&reader, "dev", (0, u64::MAX), 2);
    let report = verify(&text, Some(&keys(&reader))).unwrap();
    assert_eq!((report.receipts, report.commits), (8, 2));
    assert!(report.unknown.iter().any(|what| what.contains("when the ledger was migrated")), "{report:?}");
    // Records of version 1 are hashed as they were written then.
    assert!(text.contains("\"record\":{\"v\":1,\"invocation\":\"01890a5d-ac96-774b-bcce-b302099a0001\""));
    drop((ledger, reader));
    let again = Ledger::open(&path, Stamp::Twin, "USD", now).unwrap().reader().unwrap();
    assert_eq!(again.check(|_, _| ()).unwrap().commits, 2);
}

/// A ledger that nobody charges from has no stamp; who charges first stamps it for ever, and what was signed before
/// stays good.
#[test]
fn a_ledger_is_stamped_by_who_charges_first() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ledger.sqlite");
    let mut records: Vec<_> = (1..=6).map(|n| record("a", "f", n * 1_000_000)).collect();
    let late = records.split_off(3);
    let mut ledger = Ledger::open(&path, None::<Stamp>, "USD", NOW).unwrap();
    ledger.add_sheet(&prices(), NOW).unwrap();
    ledger.append(&[batch("n1", 1, 1, &records)], NOW).unwrap();
    let refund = |ledger: &mut Ledger, of: &UsageRecord, id: &str| {
        let (tenant, reason) = ("a".to_owned(), "an outage".to_owned());
        let invocation = Some(of.invocation);
        let ask = AdjustmentAsk { tenant, id: id.to_owned(), invocation, amount: None, reason };
        ledger.adjust(&ask, NOW).unwrap().unwrap();
    };
    refund(&mut ledger, &records[0], "one");
    let reader = ledger.reader().unwrap();
    assert_eq!((ledger.stamp(), reader.stamp()), (None, "unstamped"));
    let before = verify(&export(&reader, "a", (0, u64::MAX), 2), None).unwrap();
    assert_eq!((before.stamp.as_str(), before.receipts, before.adjustments), ("unstamped", 3, 1));
    let early = reader.receipt_alone("a", records[0].invocation).unwrap().unwrap();
    drop((ledger, reader));

    let mut ledger = Ledger::open(&path, Stamp::Test, "USD", NOW).unwrap();
    ledger.append(&[batch("n1", 1, 4, &late)], NOW).unwrap();
    refund(&mut ledger, &late[0], "two");
    drop(ledger);
    assert!(matches!(Ledger::open(&path, Stamp::Twin, "USD", NOW), Err(LedgerError::Stamp { .. })));
    let ledger = Ledger::open(&path, None::<Stamp>, "USD", NOW).unwrap();
    let reader = ledger.reader().unwrap();
    assert_eq!((ledger.stamp(), reader.stamp()), (Some(Stamp::Test), "test"));
    let report = verify(&export(&reader, "a", (0, u64::MAX), 2), Some(&keys(&reader))).unwrap();
    assert_eq!((report.stamp.as_str(), report.receipts, report.adjustments), ("test", 6, 2));
    assert!(report.unknown.iter().any(|what| what.contains("before it was chosen")), "{:?}", report.unknown);
    assert_eq!(reader.check(|_, _| ()).unwrap().first_faults, [""; 0]);
    let now = reader.receipt_alone("a", late[0].invocation).unwrap().unwrap();
    assert_eq!(reader.receipt_alone("a", records[0].invocation).unwrap().unwrap(), early);
    for text in [format!("{early}\n{now}\n"), format!("{now}\n{early}\n")] {
        assert_eq!(verify(&text, None).unwrap().stamp, "test");
    }
}

/// Corrections of a ledger from before they were signed are signed when it is opened, and say so.
#[test]
fn corrections_from_before_are_adopted() {
    let (mut f, _) = busy();
    let conn = rusqlite::Connection::open(f.path()).unwrap();
    conn.execute_batch("DROP TRIGGER adjustment_seal_append_2; DELETE FROM adjustment_seal").unwrap();
    drop(conn);
    let report = f.reader.check(|_, _| ()).unwrap();
    assert!(report.first_faults.iter().any(|fault| fault.contains("adjustments are not signed")));
    reopen(&mut f);
    assert_eq!(f.reader.check(|_, _| ()).unwrap().first_faults, [""; 0]);
    for tenant in ["a", "b"] {
        let report = verify(&export(&f.reader, tenant, (0, u64::MAX), 3), None).unwrap();
        assert!(report.adjustments > 1);
        assert!(
            report.unknown.iter().any(|what| what.contains("after they were made")),
            "{:?}",
            report.unknown
        );
    }
}
