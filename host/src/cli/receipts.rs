use std::io::{BufRead as _, BufReader, Read};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use serde::Deserialize;
use wasmeter_types::InvocationId;
use wasmeter_usage::UsageRecord;

use super::client::{Client, Refused, query};
use super::connect::TenantConnect;
use super::output::{Output, count, data, facts, time};
use super::usage::Window;

#[derive(clap::Args)]
pub(crate) struct ReceiptsArgs {
    /// Only this invocation
    #[arg(conflicts_with_all = ["from", "to"])]
    invocation: Option<InvocationId>,
    /// The public keys that receipts are signed with, for `wasmeter verify --key`
    #[arg(long, conflicts_with_all = ["invocation", "from", "to"])]
    keys: bool,
    #[command(flatten)]
    window: Window,
    #[command(flatten)]
    connect: TenantConnect,
    #[command(flatten)]
    output: Output,
}

#[derive(Deserialize)]
struct Receipt {
    invocation: String,
    entry: u64,
    cost: String,
    record: UsageRecord,
}

#[derive(Deserialize)]
struct Keys {
    keys: Vec<Key>,
}

#[derive(Deserialize)]
struct Key {
    public: String,
    since: String,
    current: bool,
}

/// A receipt is there within so long of its answer (API.md).
const VISIBLE: Duration = Duration::from_secs(2);

/// Waits for what may not be there yet.
fn stream(client: &Client, path: &str, patience: Duration) -> Result<impl Read + 'static> {
    let until = Instant::now() + patience;
    loop {
        match client.get_stream(path) {
            Err(error) if is_unknown(&error) && Instant::now() < until => {
                thread::sleep(Duration::from_millis(100));
            }
            answer => return answer,
        }
    }
}

fn is_unknown(error: &anyhow::Error) -> bool {
    error.downcast_ref::<Refused>().is_some_and(|refused| refused.status == 404)
}

pub(crate) fn run(args: &ReceiptsArgs) -> Result<()> {
    let (client, tenant) = args.connect.client()?;
    if args.keys {
        return args.output.show(client.get("/api/v1/receipt-keys")?, |Keys { keys }| {
            let line = |key: &Key| {
                let note = if key.current { "" } else { ", not in use" };
                format!("{}  since {}{note}\n", key.public, key.since)
            };
            keys.iter().map(line).collect()
        });
    }
    let mut path = format!("/api/v1/tenants/{tenant}/receipts");
    if let Some(invocation) = args.invocation {
        path.push_str(&format!("/{invocation}"));
    } else {
        let window = &args.window;
        path.push_str(&query(&[("from", window.from.as_deref()), ("to", window.to.as_deref())]));
    }
    let patience = if args.invocation.is_some() { VISIBLE } else { Duration::ZERO };
    for line in BufReader::new(stream(&client, &path, patience)?).lines() {
        let line = line.context("the list broke off: it is not complete")?;
        // As it came: what is hashed is among its bytes.
        if args.output.is_json() {
            data(&format!("{line}\n"))?;
            continue;
        }
        let value: serde_json::Value = serde_json::from_str(&line).context("a line of the list")?;
        // A line without `invocation` is not about one.
        if value.get("invocation").is_some() {
            let receipt = serde_json::from_value(value).context("a receipt")?;
            data(&if args.invocation.is_some() { one(receipt) } else { row(&receipt) })?;
        }
    }
    Ok(())
}

fn device_ns(record: &UsageRecord) -> u64 {
    record.models.iter().map(|m| m.device_ns).sum()
}

fn row(receipt: &Receipt) -> String {
    let record = &receipt.record;
    format!(
        "{}  {:<20}  {:>3}  {:<12}  {:>16} fuel  {:>11}  {}\n",
        receipt.invocation,
        record.function.as_deref().unwrap_or("-"),
        record.status,
        outcome(record),
        count(record.fuel),
        time(device_ns(record)),
        receipt.cost
    )
}

fn outcome(record: &UsageRecord) -> String {
    let word = serde_json::to_value(record.outcome).ok();
    word.as_ref().and_then(|w| w.as_str()).unwrap_or_default().to_owned()
}

fn one(receipt: Receipt) -> String {
    let record = &receipt.record;
    let function = record.function.as_deref().unwrap_or("-");
    let models = record.models.iter().map(|m| {
        format!("{}@{} on {}: {} computes, {}", m.model, m.version, m.device, m.computes, time(m.device_ns))
    });
    facts(&[
        ("invocation", receipt.invocation.clone()),
        ("entry", receipt.entry.to_string()),
        ("function", format!("{function} {}", record.revision.as_deref().unwrap_or_default())),
        ("outcome", format!("{} (HTTP {})", outcome(record), record.status)),
        ("took", time(record.end_ns.saturating_sub(record.start_ns))),
        ("fuel", format!("{} (schedule {})", count(record.fuel), record.fuel_schedule)),
        ("models", models.collect::<Vec<_>>().join("; ")),
        ("bytes", format!("{} in, {} out", count(record.ingress_bytes), count(record.egress_bytes))),
        ("cost", receipt.cost.clone()),
        ("price book", record.price_book.clone()),
    ])
}
