//! A billing that keeps the rules of the wire and fails on demand, and records for it.
#![allow(dead_code, reason = "each test file uses its own part")]

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use wasmeter_metering::{BillingClient, BillingOptions, Shipper, Spool, SpoolError, SpoolOptions};
use wasmeter_usage::wire::{self, Call, PROTOCOL, Reply};
use wasmeter_usage::{InvocationId, Outcome, PriceSheet, RECORD_VERSION, Rates, UsageRecord};

pub(crate) fn record(fuel: u64) -> UsageRecord {
    UsageRecord {
        v: RECORD_VERSION,
        invocation: InvocationId::new(),
        tenant: "dev".into(),
        function: Some("classify".into()),
        revision: Some("r1".into()),
        outcome: Outcome::Ok,
        status: 200,
        fuel,
        fuel_schedule: "wasmtime-48/2".into(),
        models: vec![],
        tokens_in: 0,
        tokens_out: 0,
        ingress_bytes: 1,
        egress_bytes: 2,
        start_ns: 1,
        end_ns: 2,
        price_book: "5f1c".into(),
        draw: None,
    }
}

pub(crate) fn prices(request: u64) -> PriceSheet {
    let rates = Rates { request, ..Rates::default() };
    PriceSheet {
        hash: request.to_string(),
        currency: "USD".into(),
        rates,
        terms: wasmeter_usage::Terms::default(),
    }
}

/// Small segments, so that every test meets their ends.
pub(crate) fn open(dir: &Path) -> Spool {
    try_open(dir).unwrap()
}

pub(crate) fn try_open(dir: &Path) -> Result<Spool, SpoolError> {
    Spool::open(dir, SpoolOptions { segment_bytes: 4096, ..SpoolOptions::default() })
}

pub(crate) fn client(socket: &Path) -> BillingClient {
    BillingClient::new(BillingOptions::new(socket, "n1"))
}

/// Ships everything, then gives the spool back.
pub(crate) async fn ship_all(spool: &Spool, socket: &Path) {
    let shipper = Shipper::new(spool.clone(), client(socket));
    let (handle, stop) = (shipper.handle(), CancellationToken::new());
    let task = tokio::spawn(shipper.run(stop.clone()));
    handle.flush(Duration::from_secs(60)).await.unwrap();
    stop.cancel();
    task.await.unwrap();
}

#[derive(Default)]
pub(crate) struct Ledger {
    pub(crate) high_water: HashMap<(String, u64), u64>,
    pub(crate) booked: Vec<InvocationId>,
    pub(crate) appends: usize,
}

impl Ledger {
    /// The ids, after a check that none is there twice.
    pub(crate) fn ids(&self) -> Vec<InvocationId> {
        let mut ids = self.booked.clone();
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), self.booked.len(), "a record was booked twice");
        ids
    }

    fn append(&mut self, node: String, epoch: u64, first: u64, records: Vec<UsageRecord>) -> Reply {
        self.appends += 1;
        let high = self.high_water.entry((node, epoch)).or_default();
        if first > *high + 1 {
            let message = format!("{first} after {high}");
            return Reply::Refused { code: "gap".into(), message };
        }
        for (seq, record) in (first..).zip(records) {
            if seq > *high {
                self.booked.push(record.invocation);
                *high = seq;
            }
        }
        Reply::Acked { acked_seq: *high }
    }
}

/// How often, of 1000 calls, the connection ends before or after the call was carried out.
#[derive(Clone, Copy, Default)]
pub(crate) struct Chaos {
    pub(crate) before: u64,
    pub(crate) after: u64,
}

pub(crate) struct Billing {
    pub(crate) ledger: Arc<Mutex<Ledger>>,
    pub(crate) most_connections: Arc<AtomicUsize>,
    pub(crate) connected: Arc<AtomicUsize>,
    task: JoinHandle<()>,
    connections: Arc<Mutex<Vec<JoinHandle<()>>>>,
}

impl Billing {
    pub(crate) fn start(socket: &Path, chaos: Chaos) -> Self {
        Self::resume(socket, chaos, Arc::default(), prices(1))
    }

    pub(crate) fn resume(
        socket: &Path,
        chaos: Chaos,
        ledger: Arc<Mutex<Ledger>>,
        prices: PriceSheet,
    ) -> Self {
        let _ = std::fs::remove_file(socket);
        let listener = UnixListener::bind(socket).unwrap();
        let connections: Arc<Mutex<Vec<JoinHandle<()>>>> = Arc::default();
        let (most, connected) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let random = Arc::new(Mutex::new(0x2545_f491_4f6c_dd1d_u64));
        let task = {
            let (ledger, connections) = (ledger.clone(), connections.clone());
            let (most, connected) = (most.clone(), connected.clone());
            tokio::spawn(async move {
                loop {
                    let (stream, _) = listener.accept().await.unwrap();
                    let (ledger, random, prices) = (ledger.clone(), random.clone(), prices.clone());
                    let (most, connected) = (most.clone(), connected.clone());
                    let serve = async move {
                        most.fetch_max(connected.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                        serve(stream, chaos, &ledger, &random, &prices).await;
                        connected.fetch_sub(1, Ordering::SeqCst);
                    };
                    connections.lock().unwrap().push(tokio::spawn(serve));
                }
            })
        };
        Self { ledger, most_connections: most, connected, task, connections }
    }

    /// As after kill -9: every connection ends.
    pub(crate) fn kill(self) -> Arc<Mutex<Ledger>> {
        self.task.abort();
        for connection in self.connections.lock().unwrap().drain(..) {
            connection.abort();
        }
        self.ledger
    }
}

async fn serve(
    mut stream: UnixStream,
    chaos: Chaos,
    ledger: &Mutex<Ledger>,
    random: &Mutex<u64>,
    prices: &PriceSheet,
) {
    loop {
        let mut prefix = [0; 4];
        if stream.read_exact(&mut prefix).await.is_err() {
            return;
        }
        let mut body = vec![0; wire::body_length(prefix).unwrap()];
        if stream.read_exact(&mut body).await.is_err() {
            return;
        }
        let dice = {
            let mut x = random.lock().unwrap();
            *x ^= *x << 13;
            *x ^= *x >> 7;
            *x ^= *x << 17;
            *x % 1000
        };
        if dice < chaos.before {
            return;
        }
        let reply = match serde_json::from_slice(&body).unwrap() {
            Call::Hello { .. } => {
                Reply::Hello { protocol: PROTOCOL, stamp: "twin".into(), prices: prices.clone() }
            }
            Call::HighWater { node, epoch } => {
                let acked_seq = ledger.lock().unwrap().high_water.get(&(node, epoch)).copied().unwrap_or(0);
                Reply::Acked { acked_seq }
            }
            Call::Append { node, epoch, first_seq, records } => {
                ledger.lock().unwrap().append(node, epoch, first_seq, records)
            }
            Call::Usage { .. } => Reply::Usage { rows: vec![] },
            _ => Reply::Refused { code: "malformed".into(), message: "not here".into() },
        };
        if dice >= 1000 - chaos.after {
            return;
        }
        if stream.write_all(&wire::encode(&reply).unwrap()).await.is_err() {
            return;
        }
    }
}
