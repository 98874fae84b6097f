//! A ledger in a directory of its own, and records for it.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its own part")]

pub mod tamper;

use std::path::PathBuf;

use serde_json::value::{RawValue, to_raw_value};
use tempfile::TempDir;
use wasmeter_ledger::{Batch, Committed, Ledger, Reader, Refusal, Stamp};
use wasmeter_rating::sheet;
use wasmeter_usage::{
    DeviceClass, InvocationId, ModelUse, Outcome, PriceSheet, RECORD_VERSION, Rates, UsageRecord,
};

/// 2026-11-23T00:00:00Z, an hour's beginning.
pub const NOW: u64 = 1_795_392_000_000_000_000;

pub fn prices() -> PriceSheet {
    let rates = Rates {
        fuel_million: 2_400,
        gpu_second: 1_100_000_000,
        cpu_second: 24_000_000,
        request: 200_000,
        ..Rates::default()
    };
    sheet("USD", rates)
}

pub struct Fixture {
    pub dir: TempDir,
    pub ledger: Ledger,
    pub reader: Reader,
}

impl Fixture {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut ledger = Ledger::open(&dir.path().join("ledger.sqlite"), Stamp::Twin, "USD", NOW).unwrap();
        ledger.add_sheet(&prices(), NOW).unwrap();
        let reader = ledger.reader().unwrap();
        Self { dir, ledger, reader }
    }

    pub fn path(&self) -> PathBuf {
        self.dir.path().join("ledger.sqlite")
    }

    pub fn append(&mut self, first_seq: u64, records: &[UsageRecord]) -> Result<Committed, Refusal> {
        self.append_raw(batch("n1", 1, first_seq, records))
    }

    pub fn append_raw(&mut self, batch: Batch) -> Result<Committed, Refusal> {
        self.ledger.append(&[batch], NOW).unwrap().remove(0)
    }
}

pub fn raw(record: &UsageRecord) -> Box<RawValue> {
    to_raw_value(record).unwrap()
}

pub fn batch(node: &str, epoch: u64, first_seq: u64, records: &[UsageRecord]) -> Batch {
    Batch { node: node.into(), epoch, first_seq, records: records.iter().map(raw).collect() }
}

pub fn record(tenant: &str, function: &str, fuel: u64) -> UsageRecord {
    UsageRecord {
        v: RECORD_VERSION,
        invocation: InvocationId::new(),
        tenant: tenant.into(),
        function: Some(function.into()),
        revision: Some("r1".into()),
        outcome: Outcome::Ok,
        status: 200,
        fuel,
        fuel_schedule: "wasmtime-48/2".into(),
        models: vec![ModelUse {
            model: "minilm".into(),
            version: 1,
            device: "cpu:0".into(),
            class: DeviceClass::Cpu,
            computes: 1,
            device_ns: 20_000_001,
        }],
        tokens_in: 0,
        tokens_out: 0,
        ingress_bytes: 10,
        egress_bytes: 20,
        start_ns: NOW - 1_000,
        end_ns: NOW,
        price_book: prices().hash,
        draw: None,
    }
}
