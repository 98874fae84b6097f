//! Questions: usage, bill, receipts.
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod support;

use support::{Fixture, NOW, prices, record};
use wasmeter_usage::wire::UsageBy;
use wasmeter_usage::{DeviceClass, InvocationId, ModelUse, Pico, UsageRecord};

const HOUR: u64 = 3_600_000_000_000;

fn filled() -> (Fixture, Vec<UsageRecord>) {
    let mut f = Fixture::new();
    let mut records = Vec::new();
    for n in 0..9u64 {
        let mut r = record("dev", if n % 3 == 0 { "a" } else { "b" }, 1_000_000 * n);
        r.end_ns = NOW - HOUR * (n % 2);
        r.start_ns = r.end_ns - 5;
        if n == 4 {
            (r.function, r.revision) = (None, None);
        }
        if n >= 6 {
            let gpu = ModelUse { class: DeviceClass::Gpu, device: "gpu:0".into(), ..r.models[0].clone() };
            r.models.push(gpu);
            r.tokens_out = 3;
        }
        records.push(r);
    }
    records.push(record("other", "a", 99));
    f.append(1, &records).unwrap();
    records.pop();
    (f, records)
}

fn total(records: &[UsageRecord]) -> Pico {
    records.iter().map(|r| prices().cost(r).unwrap()).sum()
}

#[test]
fn usage_by_each_key() {
    let (f, records) = filled();
    let usage = |by| f.reader.usage("dev", 0, u64::MAX, by).unwrap();
    let rows = usage(UsageBy::Function);
    let told: Vec<_> = rows.iter().map(|r| (r.key.as_str(), r.requests, r.fuel)).collect();
    assert_eq!(told, [("(direct)", 1, 4_000_000), ("a", 3, 9_000_000), ("b", 5, 23_000_000)]);
    assert_eq!(rows.iter().map(|r| r.cost_pico).sum::<Pico>(), total(&records));

    let rows = usage(UsageBy::Hour);
    let told: Vec<_> = rows.iter().map(|r| (r.key.as_str(), r.requests)).collect();
    assert_eq!(told, [("2026-11-22T23:00:00Z", 4), ("2026-11-23T00:00:00Z", 5)]);
    assert_eq!(rows.iter().map(|r| r.cost_pico).sum::<Pico>(), total(&records));

    let rows = usage(UsageBy::Model);
    assert_eq!(rows.len(), 1);
    assert_eq!((rows[0].key.as_str(), rows[0].requests), ("minilm@1", 9));
    assert_eq!((rows[0].cpu_ns, rows[0].gpu_ns), (9 * 20_000_001, 3 * 20_000_001));

    let rows = usage(UsageBy::Meter);
    let told: Vec<_> = rows.iter().map(|r| r.key.as_str()).collect();
    assert_eq!(told, ["cpu_time", "egress_bytes", "fuel", "gpu_time", "requests", "tokens_out"]);
    assert_eq!((rows[2].fuel, rows[2].requests, rows[2].cost_pico), (36_000_000, 0, Pico(36 * 2_400)));
    assert_eq!(rows[5].tokens_out, 9);
    assert!(f.reader.usage("nobody", 0, u64::MAX, UsageBy::Meter).unwrap().is_empty());
}

#[test]
fn a_bill_covers_its_window() {
    let (f, records) = filled();
    let bill = f.reader.bill("dev", NOW, NOW + 1).unwrap();
    let within: Vec<_> = records.iter().filter(|r| r.end_ns == NOW).cloned().collect();
    assert_eq!((bill.invocations, bill.list_total_pico), (5, total(&within)));
    let halves = f.reader.bill("dev", 0, NOW).unwrap().list_total_pico + bill.list_total_pico;
    assert_eq!(halves, total(&records));
    assert_eq!(f.reader.balance("dev").unwrap(), total(&records));
    let nothing = f.reader.bill("dev", NOW + 1, u64::MAX).unwrap();
    assert_eq!((nothing.lines.len(), nothing.list_total_pico, nothing.due_minor), (0, Pico::ZERO, 0));
}

#[test]
fn receipts_page_through_the_window() {
    let (f, records) = filled();
    let mut all = Vec::new();
    let mut after = 0;
    loop {
        let (lines, next) = f.reader.receipts("dev", NOW, NOW + 1, after, 2).unwrap();
        assert!(lines.len() <= 2);
        all.extend(lines);
        match next {
            Some(next) => after = next,
            None => break,
        }
    }
    let within: Vec<_> = records.iter().filter(|r| r.end_ns == NOW).cloned().collect();
    assert_eq!(all.iter().map(|l| l.record.clone()).collect::<Vec<_>>(), within);
    for line in &all {
        assert_eq!((line.invocation, line.currency.as_str()), (line.record.invocation, "USD"));
        assert_eq!(Some(line.cost_pico), prices().cost(&line.record));
        assert_eq!(f.reader.receipt("dev", line.invocation).unwrap().as_ref(), Some(line));
        assert_eq!(f.reader.receipt("other", line.invocation).unwrap(), None);
    }
    assert_eq!(f.reader.receipt("dev", InvocationId::new()).unwrap(), None);
}

#[test]
fn sums_beyond_64_bits_are_exact_or_refused() {
    let mut f = Fixture::new();
    // Each costs 4.6e18 pico, half of what fits an entry: five pass 64 bits.
    let records: Vec<_> = (0..5)
        .map(|_| {
            let mut r = record("dev", "f", 0);
            (r.models[0].class, r.models[0].device_ns) = (DeviceClass::Gpu, 4_200_000_000_000_000_000);
            r
        })
        .collect();
    f.append(1, &records).unwrap();
    assert_eq!(f.reader.balance("dev").unwrap(), total(&records));
    assert!(f.reader.bill("dev", 0, u64::MAX).unwrap_err().to_string().contains("shorter window"));
    assert_eq!(f.reader.check(|_, _| ()).unwrap().list_total, total(&records));
}
