use anyhow::Result;
use serde::Deserialize;
use serde_json::json;
use wasmeter_types::TenantName;

use super::connect::Connect;
use super::output::{Output, facts, harmless};

#[derive(clap::Args)]
pub(crate) struct RefundArgs {
    /// The tenant
    tenant: TenantName,
    /// The invocation whose cost is given back, once
    #[arg(long, value_name = "ID", required_unless_present = "amount")]
    invocation: Option<String>,
    /// How much is given back, such as 1.50 [default: all that the invocation cost]
    #[arg(long)]
    amount: Option<String>,
    /// Why, for the books and the bill
    #[arg(long)]
    reason: String,
    /// Refunds once, however often it is repeated
    #[arg(long)]
    id: Option<String>,
    #[command(flatten)]
    connect: Connect,
    #[command(flatten)]
    output: Output,
}

#[derive(Deserialize)]
struct Adjustment {
    id: String,
    invocation: Option<String>,
    amount: String,
    reason: String,
    made: String,
}

pub(crate) fn run(args: &RefundArgs) -> Result<()> {
    // What is given back is below zero in the books.
    let amount = args.amount.as_ref().map(|amount| format!("-{amount}"));
    let body =
        json!({ "invocation": args.invocation, "amount": amount, "reason": args.reason, "id": args.id });
    let path = format!("/api/v1/tenants/{}/adjustments", args.tenant);
    args.output.show(args.connect.operator()?.post(&path, &body)?, show)
}

fn show(made: Adjustment) -> String {
    facts(&[
        ("id", made.id),
        ("invocation", made.invocation.unwrap_or_else(|| "none".to_owned())),
        ("amount", made.amount),
        ("reason", harmless(&made.reason)),
        ("made", made.made),
    ])
}
