use anyhow::Result;
use serde::Deserialize;

use super::client::query;
use super::connect::TenantConnect;
use super::output::{Output, count, size, table, talk, time};

#[derive(clap::Args)]
pub(crate) struct UsageArgs {
    /// What a row is about
    #[arg(long, value_enum, default_value_t = By::Function)]
    by: By,
    #[command(flatten)]
    window: Window,
    #[command(flatten)]
    connect: TenantConnect,
    #[command(flatten)]
    output: Output,
}

/// The time that an answer is about.
#[derive(clap::Args)]
pub(crate) struct Window {
    /// First instant, RFC 3339, such as 2026-11-01 or 2026-11-01T00:00:00Z
    #[arg(long)]
    pub(crate) from: Option<String>,
    /// The instant after the last
    #[arg(long)]
    pub(crate) to: Option<String>,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum By {
    Function,
    Model,
    Meter,
    Hour,
}

impl By {
    fn as_str(self) -> &'static str {
        match self {
            By::Function => "function",
            By::Model => "model",
            By::Meter => "meter",
            By::Hour => "hour",
        }
    }
}

#[derive(Deserialize)]
struct Usage {
    from: String,
    to: String,
    by: String,
    currency: Option<String>,
    rows: Vec<Row>,
}

#[derive(Deserialize)]
struct Row {
    key: String,
    requests: u64,
    fuel: u64,
    cpu_ns: u64,
    gpu_ns: u64,
    egress_bytes: u64,
    cost: String,
}

pub(crate) fn run(args: &UsageArgs) -> Result<()> {
    let (client, tenant) = args.connect.client()?;
    let query = query(&[
        ("from", args.window.from.as_deref()),
        ("to", args.window.to.as_deref()),
        ("by", Some(args.by.as_str())),
    ]);
    args.output.show(client.get(&format!("/api/v1/tenants/{tenant}/usage{query}"))?, |usage: Usage| {
        talk(&format!("{tenant}, {} to {}", usage.from, usage.to));
        let row = |r: Row| {
            let (cpu, gpu) = (time(r.cpu_ns), time(r.gpu_ns));
            vec![r.key, count(r.requests), count(r.fuel), cpu, gpu, size(r.egress_bytes), r.cost]
        };
        let rows: Vec<_> = usage.rows.into_iter().map(row).collect();
        let cost = format!("cost {}>", usage.currency.unwrap_or_default());
        table(&[&usage.by, "requests>", "fuel>", "cpu time>", "gpu time>", "egress>", &cost], &rows)
    })
}
