//! Booking: once, in order, or rejected and kept.
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod support;

use serde_json::value::RawValue;
use support::{Fixture, NOW, batch, prices, raw, record};
use wasmeter_ledger::{Batch, Committed, Ledger, LedgerError, Reader, Reason, Refusal, Stamp};
use wasmeter_usage::wire::UsageBy;
use wasmeter_usage::{Outcome, Pico, UsageRecord};

fn acked(outcome: &Result<Committed, Refusal>) -> (u64, u64) {
    let done = outcome.as_ref().unwrap();
    (done.acked_seq, done.booked)
}

#[test]
fn books_once_and_refuses_gaps() {
    let mut f = Fixture::new();
    let records: Vec<_> = (1..=5).map(|n| record("dev", "f", n * 1_000_000)).collect();
    assert_eq!(f.reader.high_water("n1", 1).unwrap(), 0);
    assert_eq!(f.append(2, &records[1..]), Err(Refusal::Gap { expected: 1, got: 2 }));
    assert_eq!(acked(&f.append(1, &records[..3])), (3, 3));
    assert_eq!(acked(&f.append(1, &records[..3])), (3, 0));
    assert_eq!(acked(&f.append(2, &records[1..])), (5, 2));
    assert_eq!(acked(&f.append(6, &[])), (5, 0));
    assert_eq!(f.append(7, &records[..1]), Err(Refusal::Gap { expected: 6, got: 7 }));
    assert_eq!(f.reader.high_water("n1", 1).unwrap(), 5);

    let cost: Pico = records.iter().map(|r| prices().cost(r).unwrap()).sum();
    assert_eq!(f.reader.balance("dev").unwrap(), cost);
    let bill = f.reader.bill("dev", 0, u64::MAX).unwrap();
    assert_eq!((bill.list_total_pico, bill.invocations), (cost, 5));
    assert_eq!(f.reader.receipts("dev", 0, u64::MAX, 0, 10).unwrap().0.len(), 5);
    assert_eq!(f.reader.check(|_, _| ()).unwrap().first_faults, [""; 0]);
}

#[test]
fn a_group_shares_a_transaction_and_refuses_alone() {
    let mut f = Fixture::new();
    let records: Vec<_> = (0..6).map(|_| record("dev", "f", 1)).collect();
    let group = [
        batch("a", 1, 1, &records[..2]),
        batch("b", u64::MAX, 1, &records[2..4]),
        batch("a", 1, 4, &records[4..5]),
        batch("a", 1, 3, &records[4..]),
        batch("", 1, 1, &records[..1]),
        batch("c", 1, 0, &records[..1]),
        batch("c", 1, u64::MAX, &records[..1]),
    ];
    let outcomes = f.ledger.append(&group, NOW).unwrap();
    assert_eq!(acked(&outcomes[0]), (2, 2));
    assert_eq!(acked(&outcomes[1]), (2, 2));
    assert_eq!(outcomes[2], Err(Refusal::Gap { expected: 3, got: 4 }));
    assert_eq!(acked(&outcomes[3]), (4, 2));
    assert!(outcomes[4..].iter().all(|o| matches!(o, Err(Refusal::Malformed(_)))));
    assert_eq!(f.reader.high_water("b", u64::MAX).unwrap(), 2);
    let report = f.reader.check(|_, _| ()).unwrap();
    assert_eq!((report.entries, report.spools, report.faults), (6, 2, 0));
}

const DAY: u64 = 86_400_000_000_000;

#[test]
fn what_cannot_be_booked_is_kept_and_acknowledged() {
    let mut f = Fixture::new();
    let good = record("dev", "f", 7);
    let change = |edit: fn(&mut UsageRecord)| {
        let mut record = record("dev", "f", 7);
        edit(&mut record);
        raw(&record)
    };
    let text = |text: &str| RawValue::from_string(text.to_owned()).unwrap();
    let cases = [
        (text("{\"v\":2,\"what\":\"ever\"}"), Some(Reason::Version)),
        (text("17"), Some(Reason::Malformed)),
        (text("{\"v\":1}"), Some(Reason::Malformed)),
        (raw(&good), None),
        (raw(&good), Some(Reason::Duplicate)),
        (change(|r| r.tenant.clear()), Some(Reason::Malformed)),
        (change(|r| r.price_book = "beef".into()), Some(Reason::PriceSheet)),
        (change(|r| r.fuel = u64::MAX), Some(Reason::Amount)),
        (change(|r| r.egress_bytes = 1 << 63), Some(Reason::Amount)),
        (change(|r| r.models[0].device_ns = i64::MAX as u64 / 2), None),
        (change(|r| r.models = vec![r.models[0].clone(); 1]), None),
        (
            change(|r| {
                (r.models[0].class, r.models[0].device_ns) =
                    (wasmeter_usage::DeviceClass::Gpu, i64::MAX as u64)
            }),
            Some(Reason::Amount),
        ),
        (change(|r| r.start_ns = r.end_ns + 1), Some(Reason::Interval)),
        (change(|r| (r.start_ns, r.end_ns) = (0, 1)), Some(Reason::Clock)),
        // A clock that is an hour ahead, one within five minutes; 40 days old, and 35.
        (change(|r| r.end_ns += 3_600_000_000_000), Some(Reason::Clock)),
        (change(|r| r.end_ns += 300_000_000_001), Some(Reason::Clock)),
        (change(|r| r.end_ns += 300_000_000_000), None),
        (change(|r| (r.start_ns, r.end_ns) = (NOW - 40 * DAY, NOW - 40 * DAY)), Some(Reason::Clock)),
        (change(|r| (r.start_ns, r.end_ns) = (NOW - 35 * DAY, NOW - 35 * DAY)), None),
        (change(|r| r.function = Some("f".repeat(300_000))), Some(Reason::TooLarge)),
        (change(|r| (r.outcome, r.fuel) = (Outcome::Platform, u64::MAX)), None),
    ];
    let last = cases.len() as u64;
    let records = cases.iter().map(|(raw, _)| raw.clone()).collect();
    let done = f.append_raw(Batch { node: "n1".into(), epoch: 1, first_seq: 1, records }).unwrap();
    let told: Vec<_> = done.rejected.iter().map(|r| (r.seq, r.reason)).collect();
    let wanted: Vec<_> =
        (1u64..).zip(&cases).filter_map(|(seq, (_, reason))| Some((seq, (*reason)?))).collect();
    assert_eq!(told, wanted);
    assert_eq!((done.acked_seq, done.booked), (last, last - wanted.len() as u64));

    let report = f.reader.check(|_, _| ()).unwrap();
    assert_eq!(report.first_faults, [""; 0]);
    assert_eq!(report.rejected.values().sum::<u64>(), wanted.len() as u64);
    // The whole record lies in the ledger.
    let conn = rusqlite::Connection::open(f.path()).unwrap();
    let kept: String =
        conn.query_row("SELECT raw FROM rejected WHERE seq = 1", [], |row| row.get(0)).unwrap();
    assert_eq!(kept, "{\"v\":2,\"what\":\"ever\"}");
    // Our own failure is in the ledger, free of charge.
    let free = f.reader.receipts("dev", 0, u64::MAX, 0, 100).unwrap().0.pop().unwrap();
    assert_eq!((free.cost_pico, free.record.outcome), (Pico::ZERO, Outcome::Platform));
}

#[test]
fn an_invocation_is_booked_once_whatever_the_spool() {
    let mut f = Fixture::new();
    let records = [record("dev", "f", 1), record("dev", "f", 2)];
    f.append(1, &records).unwrap();
    let again = f.append_raw(batch("n1", 2, 1, &records)).unwrap();
    assert_eq!((again.acked_seq, again.booked, again.rejected.len()), (2, 0, 2));
    assert!(again.rejected.iter().all(|r| r.reason == Reason::Duplicate));
    assert_eq!(f.reader.usage("dev", 0, u64::MAX, UsageBy::Function).unwrap()[0].fuel, 3);
    assert_eq!(f.reader.check(|_, _| ()).unwrap().faults, 0);
}

/// Many rows go in at once: those before one that cannot, and those behind it, are booked all the same.
#[test]
fn a_duplicate_or_a_broken_record_among_many_is_alone() {
    for odd in [0u64, 1, 62, 63, 64, 65, 127, 128, 190, 199] {
        let mut f = Fixture::new();
        let first = record("dev", "f", 1);
        f.append(1, std::slice::from_ref(&first)).unwrap();
        let mut records: Vec<_> =
            (0..200).map(|n| raw(&record(["dev", "acme"][n % 2], "f", n as u64))).collect();
        records[odd as usize] = raw(&first);
        let broken = (odd + 70) % 200;
        records[broken as usize] = RawValue::from_string("{\"v\":1}".to_owned()).unwrap();
        // Twice in the same batch.
        records[150] = records[149].clone();
        let batch = Batch { node: "n1".into(), epoch: 1, first_seq: 2, records };
        let done = f.append_raw(batch.clone()).unwrap();
        let mut told: Vec<_> =
            [(odd, Reason::Duplicate), (broken, Reason::Malformed), (150, Reason::Duplicate)].into();
        told.sort_unstable();
        let rejected: Vec<_> = done.rejected.iter().map(|r| (r.seq - 2, r.reason)).collect();
        assert_eq!((done.acked_seq, done.booked, rejected), (201, 197, told), "{odd}");
        let report = f.reader.check(|_, _| ()).unwrap();
        assert_eq!((report.first_faults.as_slice(), report.entries), ([].as_slice(), 198), "{odd}");
        assert_eq!(acked(&f.append_raw(batch)), (201, 0));
    }
}

#[test]
fn a_price_change_keeps_old_records_bookable() {
    let mut f = Fixture::new();
    let old = record("dev", "f", 1_000_000);
    let new_sheet =
        wasmeter_rating::sheet("USD", wasmeter_usage::Rates { fuel_million: 5_000, ..prices().rates });
    f.ledger.add_sheet(&new_sheet, NOW).unwrap();
    drop(f.ledger);
    f.ledger = Ledger::open(&f.dir.path().join("ledger.sqlite"), Stamp::Twin, "USD", NOW).unwrap();
    let new = UsageRecord { price_book: new_sheet.hash.clone(), ..record("dev", "f", 1_000_000) };
    f.append(1, &[old.clone(), new.clone()]).unwrap();
    let bill = f.reader.bill("dev", 0, u64::MAX).unwrap();
    let sum = prices().cost(&old).unwrap() + new_sheet.cost(&new).unwrap();
    assert_eq!(bill.list_total_pico, sum);
    let fuel: Vec<_> =
        bill.lines.iter().filter(|l| l.price_unit == "million fuel").map(|l| l.rate_pico.0).collect();
    assert_eq!(fuel, [2_400, 5_000]);
}

#[test]
fn check_finds_what_was_tampered_with() {
    let mut f = Fixture::new();
    f.append(1, &[record("dev", "f", 1_000_000), record("dev", "f", 2_000_000)]).unwrap();
    let conn = rusqlite::Connection::open(f.path()).unwrap();
    assert!(conn.execute("UPDATE entry SET cost_pico = 0", []).is_err());
    conn.execute_batch("DROP TRIGGER entry_append_1; UPDATE entry SET cost_pico = 1 WHERE position = 2")
        .unwrap();
    conn.execute("UPDATE high_water SET seq = 3", []).unwrap();
    let report = Reader::open(&f.path()).unwrap().check(|_, _| ()).unwrap();
    let told = report.first_faults.join("\n");
    assert!(told.contains("entry 2: the cost is not"), "{told}");
    assert!(told.contains("balance of \"dev\""), "{told}");
    assert!(told.contains("the last sequence is 2, the mark 3"), "{told}");
}

#[test]
fn check_finds_sequences_that_lack_or_stand_twice() {
    for (edit, told) in [
        ("UPDATE entry SET seq = 9 WHERE position = 2", "sequence 9 follows 1"),
        ("UPDATE entry SET seq = 1 WHERE position = 2", "sequence 1 follows 1"),
        ("UPDATE entry SET spool = 7 WHERE position = 4", "spool 7 has entries and no mark"),
        ("DELETE FROM rejected WHERE seq = 3", "sequence 4 follows 2"),
        ("DELETE FROM rejected WHERE seq = 6", "the last sequence is 5, the mark 6"),
        ("UPDATE rejected SET seq = 2 WHERE seq = 6", "the last sequence is 5, the mark 6"),
        ("UPDATE rejected SET seq = 7 WHERE seq = 6", "the last sequence is 7, the mark 6"),
        (
            "INSERT INTO rejected VALUES (9, 1, 2, 'malformed', '', '', 0)",
            "a sequence is booked and rejected",
        ),
    ] {
        let mut f = Fixture::new();
        let mut records: Vec<_> = (1..=6).map(|n| raw(&record("dev", "f", n * 1_000_000))).collect();
        for broken in [2, 5] {
            records[broken] = RawValue::from_string("17".to_owned()).unwrap();
        }
        f.append_raw(Batch { node: "n1".into(), epoch: 1, first_seq: 1, records }).unwrap();
        assert_eq!(f.reader.check(|_, _| ()).unwrap().first_faults, [""; 0]);
        let conn = rusqlite::Connection::open(f.path()).unwrap();
        conn.execute_batch(
            "PRAGMA foreign_keys = off; DROP TRIGGER entry_append_1; DROP TRIGGER rejected_append_1;
             DROP TRIGGER rejected_append_2",
        )
        .unwrap();
        conn.execute(edit, []).unwrap();
        let report = f.reader.check(|_, _| ()).unwrap();
        let faults = report.first_faults.join("\n");
        assert!(faults.contains(told), "{edit}: {faults}");
    }
}

#[test]
fn a_missing_ledger_is_not_made_by_reading() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("none");
    assert!(matches!(Reader::open(&path), Err(LedgerError::Sqlite(_))));
    assert!(!path.exists());
}
