//! Refunds and other corrections: entries of their own, in bills, balances and budgets; and quotes.
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod support;

use support::{Fixture, NOW, batch, prices, record};
use wasmeter_ledger::AdjustmentAsk;
use wasmeter_usage::wire::Adjustment;
use wasmeter_usage::{BudgetTerms, Draw, InvocationId, Outcome, Pico, UsageRecord};

const CENT: i128 = 10_000_000_000;

fn ask(id: &str, invocation: Option<InvocationId>, amount: Option<i128>) -> AdjustmentAsk {
    let (tenant, reason) = ("dev".to_owned(), "an outage".to_owned());
    AdjustmentAsk { tenant, id: id.into(), invocation, amount: amount.map(Pico), reason }
}

fn adjust(f: &mut Fixture, ask: &AdjustmentAsk) -> Result<Adjustment, String> {
    f.ledger.adjust(ask, NOW).unwrap().map_err(|refused| refused.to_string())
}

#[test]
fn an_invocation_is_refunded_once_and_at_most_what_it_cost() {
    let mut f = Fixture::new();
    let records = [record("dev", "f", 7_000_000), record("dev", "f", 5_000_000)];
    f.append(1, &records).unwrap();
    let cost = prices().cost(&records[0]).unwrap();
    let total = f.reader.balance("dev").unwrap();
    let before = f.reader.receipts("dev", 0, u64::MAX, 0, 10).unwrap();
    let first = Some(records[0].invocation);
    for amount in [0, 1, -cost.0 - 1] {
        assert!(adjust(&mut f, &ask("a", first, Some(amount))).unwrap_err().contains("is not possible"));
    }
    assert!(
        adjust(&mut f, &ask("a", Some(InvocationId::new()), None)).unwrap_err().contains("has no invocation")
    );
    assert_eq!(f.reader.balance("dev").unwrap(), total);

    let made = adjust(&mut f, &ask("a", first, None)).unwrap();
    assert_eq!(made.amount_pico, Pico(-cost.0));
    assert_eq!(adjust(&mut f, &ask("a", first, None)).unwrap(), made, "repeated");
    assert!(adjust(&mut f, &ask("a", None, Some(5))).unwrap_err().contains("take a new id"));
    assert!(adjust(&mut f, &ask("b", first, Some(-1))).unwrap_err().contains("refunded before, as a"));
    assert_eq!(f.reader.balance("dev").unwrap(), total + made.amount_pico);
    // The entry is what it was, and only the bill of the time of the refund shows it.
    assert_eq!(f.reader.receipts("dev", 0, u64::MAX, 0, 10).unwrap(), before);
    let bill = f.reader.bill("dev", 0, NOW + 1).unwrap();
    let shown = bill.adjustments.unwrap();
    assert_eq!((shown.count, shown.amount_pico, &shown.entries[..]), (1, made.amount_pico, &[made][..]));
    assert_eq!(f.reader.bill("dev", 0, NOW).unwrap().adjustments, None);
    assert_eq!(f.reader.check(|_, _| ()).unwrap().first_faults, [""; 0]);
    let conn = rusqlite::Connection::open(f.path()).unwrap();
    assert!(conn.execute("UPDATE adjustment SET amount_pico = '0'", []).is_err());
    assert!(conn.execute("DELETE FROM adjustment", []).is_err());
}

#[test]
fn a_bill_is_due_less_by_what_is_given_back() {
    let mut f = Fixture::new();
    let mut dear = record("dev", "f", 0);
    dear.models[0].device_ns = 1_000_000_000_000;
    f.append(1, &[dear]).unwrap();
    let due = f.reader.bill("dev", 0, NOW + 1).unwrap().due_minor;
    adjust(&mut f, &ask("a", None, Some(-CENT / 4))).unwrap();
    adjust(&mut f, &ask("b", None, Some(-CENT / 4))).unwrap();
    let bill = f.reader.bill("dev", 0, NOW + 1).unwrap();
    // One line, rounded once.
    assert_eq!((bill.adjustments.unwrap().due_minor, bill.due_minor), (-1, due - 1));
    for wrong in [
        ask("", None, Some(1)),
        ask("c", None, None),
        ask("c", None, Some(0)),
        ask("c", None, Some(i128::MAX)),
    ] {
        assert!(f.ledger.adjust(&wrong, NOW).unwrap().is_err());
    }
}

#[test]
fn budgets_and_credits_get_back_what_is_refunded() {
    let mut f = Fixture::new();
    let keys = [("ci".to_owned(), Pico(CENT))].into_iter().collect();
    let terms = BudgetTerms { monthly: Some(Pico(CENT)), keys, ..BudgetTerms::default() };
    f.ledger.set_budget("dev", &terms, NOW).unwrap().unwrap();
    let drawn =
        UsageRecord { draw: Some(Draw { key: Some("ci".into()) }), ..record("dev", "f", 1_000_000_000) };
    let cost = prices().cost(&drawn).unwrap();
    f.append(1, std::slice::from_ref(&drawn)).unwrap();
    // Before credits pay: this one does not change what is left of them.
    adjust(&mut f, &ask("early", None, Some(7))).unwrap();
    let state = f.ledger.budget("dev", NOW).unwrap();
    assert_eq!((state.spent, state.keys_spent["ci"]), (Pico(cost.0 + 7), cost));
    let state = f.ledger.grant_credit("dev", "g", Pico(CENT), "", NOW).unwrap().unwrap();
    assert_eq!(state.credit_left, Pico(CENT));
    adjust(&mut f, &ask("refund", Some(drawn.invocation), None)).unwrap();
    let state = f.ledger.budget("dev", NOW).unwrap();
    assert_eq!((state.spent, state.keys_spent["ci"]), (Pico(7), Pico(0)));
    assert_eq!(state.credit_left, Pico(CENT + cost.0));
    // Summing up goes on from what was booked, not from what was given back.
    f.append_raw(batch("n1", 1, 2, &[UsageRecord { draw: None, ..record("dev", "f", 1_000_000_000) }]))
        .unwrap();
    let state = f.ledger.budget("dev", NOW).unwrap();
    assert_eq!((state.spent, state.credit_left), (Pico(cost.0 + 7), Pico(CENT)));
}

#[test]
fn a_quote_stands_on_the_functions_own_charged_calls() {
    let mut f = Fixture::new();
    let nothing = f.reader.quote("dev", "f", 10).unwrap();
    assert_eq!((nothing.stands_on, nothing.one.max), (0, Pico(0)));
    let mut records: Vec<_> = (1..=20).map(|n| record("dev", "f", n * 1_000_000)).collect();
    records.push(UsageRecord { outcome: Outcome::Platform, ..record("dev", "f", 1) });
    records.push(record("dev", "other", 1_000_000_000_000));
    records.push(record("somebody", "f", 1_000_000_000_000));
    f.append(1, &records).unwrap();
    let quote = f.reader.quote("dev", "f", 100).unwrap();
    let cost = |n: usize| prices().cost(&records[n - 1]).unwrap();
    assert_eq!((quote.stands_on, quote.of_latest), (20, 22));
    assert_eq!((quote.one.p50, quote.one.p95, quote.one.max), (cost(10), cost(19), cost(20)));
    assert_eq!(quote.all.max, Pico(cost(20).0 * 100));
    assert!(quote.all.p50 < quote.all.p95 && quote.all.p95 < quote.all.max, "{quote:?}");
}

/// Whoever has the file and not the key cannot change a correction unseen.
#[test]
fn a_changed_correction_is_found() {
    let changes = [
        ("UPDATE adjustment SET amount_pico = '-1' WHERE name = 'refund'", "does not hash"),
        ("UPDATE adjustment SET amount_pico = '-999999999999999' WHERE name = 'refund'", "gives back more"),
        ("UPDATE adjustment SET reason = 'another' WHERE name = 'other'", "does not hash"),
        ("UPDATE adjustment SET month = '2027-01' WHERE name = 'other'", "the month is not"),
        ("UPDATE adjustment SET draw_key = 'ci' WHERE name = 'refund'", "the key is not the one"),
        ("DELETE FROM adjustment_seal WHERE chain = 2", "not signed"),
        ("UPDATE adjustment_seal SET head = zeroblob(32) WHERE chain = 1", "not in the chain of entries"),
        ("UPDATE adjustment_seal SET signature = zeroblob(64) WHERE chain = 1", "the signature is not"),
    ];
    for (sql, told) in changes {
        let mut f = Fixture::new();
        let records = [record("dev", "f", 7_000_000), record("dev", "f", 5_000_000)];
        f.append(1, &records).unwrap();
        adjust(&mut f, &ask("refund", Some(records[0].invocation), None)).unwrap();
        adjust(&mut f, &ask("other", None, Some(5))).unwrap();
        let before = f.reader.check(|_, _| ()).unwrap();
        assert_eq!((before.faults, before.adjustments), (0, 2));
        let conn = rusqlite::Connection::open(f.path()).unwrap();
        for table in ["adjustment", "adjustment_seal"] {
            conn.execute_batch(&format!("DROP TRIGGER {table}_append_1; DROP TRIGGER {table}_append_2"))
                .unwrap();
        }
        assert_eq!(conn.execute(sql, []).unwrap(), 1, "{sql}");
        let after = f.reader.check(|_, _| ()).unwrap();
        assert!(
            after.first_faults.iter().any(|fault| fault.contains(told)),
            "{sql}: {:?}",
            after.first_faults
        );
    }
}
