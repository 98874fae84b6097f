use std::collections::BTreeMap;

use anyhow::{Context, Result};
use serde::Deserialize;
use serde_json::json;
use wasmeter_types::TenantName;

use super::connect::{Connect, TenantConnect};
use super::output::{Output, facts, table};

#[derive(clap::Subcommand)]
pub(crate) enum BudgetCommand {
    /// Show what may be spent and what is
    Show(ShowArgs),
    /// Set what may be spent in a month; what is not given is not bounded
    Set(SetArgs),
}

#[derive(clap::Args)]
pub(crate) struct ShowArgs {
    #[command(flatten)]
    connect: TenantConnect,
    #[command(flatten)]
    output: Output,
}

#[derive(clap::Args)]
pub(crate) struct SetArgs {
    /// By all callers together, such as 12.50
    #[arg(long, value_name = "AMOUNT")]
    monthly: Option<String>,
    /// By the tokens of one subject and those that they made; may be repeated
    #[arg(long = "key", value_name = "SUBJECT=AMOUNT", value_parser = key)]
    keys: Vec<(String, String)>,
    /// Tell when so much of it, or of the credits, is spent, such as 80,100; with one or both of the next two
    #[arg(long, value_name = "PERCENT", value_delimiter = ',')]
    alert_at: Vec<u16>,
    /// Tell by a signed POST to this https address
    #[arg(long, value_name = "URL")]
    alert_webhook: Option<String>,
    /// Tell by mail to this address
    #[arg(long, value_name = "ADDRESS")]
    alert_email: Option<String>,
    #[command(flatten)]
    connect: TenantConnect,
    #[command(flatten)]
    output: Output,
}

#[derive(clap::Subcommand)]
pub(crate) enum CreditsCommand {
    /// Grant credits to a tenant (operator); from the first grant on, credits pay for everything
    Grant(GrantArgs),
}

#[derive(clap::Args)]
pub(crate) struct GrantArgs {
    /// The tenant
    tenant: TenantName,
    /// Such as 25
    amount: String,
    /// For the books
    #[arg(long, default_value = "")]
    note: String,
    /// Grants once, however often it is repeated
    #[arg(long)]
    id: Option<String>,
    #[command(flatten)]
    connect: Connect,
    #[command(flatten)]
    output: Output,
}

#[derive(Deserialize)]
struct Budget {
    month: String,
    monthly: Option<Amount>,
    spent: Amount,
    reserved: Amount,
    credits: Option<Amount>,
    credits_left: Option<Amount>,
    keys: BTreeMap<String, Key>,
    alerts: Option<Alerts>,
    #[serde(default)]
    fired: Vec<Fired>,
}

#[derive(Deserialize)]
struct Alerts {
    percent: Vec<u16>,
    webhook: Option<String>,
    email: Option<String>,
}

#[derive(Deserialize)]
struct Fired {
    of: String,
    month: Option<String>,
    percent: u16,
    bound: Amount,
    spent: Amount,
    deliveries: Vec<Delivery>,
}

#[derive(Deserialize)]
struct Delivery {
    channel: String,
    state: String,
    #[serde(default)]
    reason: String,
}

#[derive(Deserialize)]
struct Key {
    monthly: Amount,
    spent: Amount,
}

#[derive(Deserialize)]
struct Amount {
    amount: String,
}

fn key(text: &str) -> Result<(String, String)> {
    let (key, amount) = text.split_once('=').context("write SUBJECT=AMOUNT, such as dev/ci=5")?;
    Ok((key.to_owned(), amount.to_owned()))
}

pub(crate) fn budget(command: &BudgetCommand) -> Result<()> {
    match command {
        BudgetCommand::Show(args) => {
            let (client, tenant) = args.connect.client()?;
            args.output.show(client.get(&format!("/api/v1/tenants/{tenant}/budget"))?, show)
        }
        BudgetCommand::Set(args) => {
            let (client, tenant) = args.connect.client()?;
            let keys: BTreeMap<_, _> = args.keys.iter().cloned().collect();
            let alerts = json!({
                "percent": args.alert_at, "webhook": args.alert_webhook, "email": args.alert_email,
            });
            let terms = json!({ "monthly": args.monthly, "keys": keys, "alerts": alerts });
            args.output.show(client.put_json(&format!("/api/v1/tenants/{tenant}/budget"), &terms)?, show)
        }
    }
}

pub(crate) fn credits(CreditsCommand::Grant(args): &CreditsCommand) -> Result<()> {
    let grant = json!({ "amount": args.amount, "note": args.note, "id": args.id });
    let path = format!("/api/v1/tenants/{}/credits", args.tenant);
    args.output.show(args.connect.operator()?.post(&path, &grant)?, show)
}

#[allow(clippy::needless_pass_by_value, reason = "shape of Output::show")]
fn show(budget: Budget) -> String {
    let or_none = |amount: Option<Amount>| amount.map_or_else(|| "none".to_owned(), |a| a.amount);
    let mut text = facts(&[
        ("month", budget.month),
        ("monthly", or_none(budget.monthly)),
        ("spent", budget.spent.amount),
        ("reserved", budget.reserved.amount),
        ("credits", or_none(budget.credits)),
        ("left", or_none(budget.credits_left)),
    ]);
    if !budget.keys.is_empty() {
        let row = |(key, cap): (String, Key)| vec![key, cap.monthly.amount, cap.spent.amount];
        let rows: Vec<_> = budget.keys.into_iter().map(row).collect();
        text.push_str(&table(&["key", "monthly>", "spent>"], &rows));
    }
    if let Some(alerts) = budget.alerts {
        let at: Vec<_> = alerts.percent.iter().map(|percent| format!("{percent} %")).collect();
        let whom: Vec<_> = alerts.webhook.into_iter().chain(alerts.email).collect();
        text.push_str(&facts(&[("alerts", format!("{} to {}", at.join(", "), whom.join(", ")))]));
    }
    if !budget.fired.is_empty() {
        let row = |alert: Fired| {
            let told = alert.deliveries.into_iter().map(|d| {
                let reason = if d.reason.is_empty() { String::new() } else { format!(" ({})", d.reason) };
                format!("{} {}{reason}", d.channel, d.state)
            });
            vec![
                alert.month.unwrap_or(alert.of),
                format!("{} %", alert.percent),
                alert.spent.amount,
                alert.bound.amount,
                told.collect::<Vec<_>>().join(", "),
            ]
        };
        let rows: Vec<_> = budget.fired.into_iter().map(row).collect();
        text.push_str(&table(&["alert", "at>", "spent>", "of>", "told"], &rows));
    }
    text
}
