use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::open;
use crate::Format;

#[derive(Subcommand)]
pub(crate) enum OutboxCommand {
    /// Count buckets by state, list those that a person may have to look at, and invoices that are held
    List(ListOptions),
}

#[derive(Args)]
pub(crate) struct ListOptions {
    /// Data directory of the ledger; a running `serve` is not disturbed
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Buckets of this state: open, waiting, ready, sending, delivered, parked or refused [default: parked and refused]
    #[arg(long, value_name = "STATE")]
    state: Option<String>,
    /// Buckets listed, at most
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    limit: u32,
    /// How to print the result
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
}

pub(crate) fn list(options: &ListOptions) -> anyhow::Result<ExitCode> {
    let reader = open(&options.data)?;
    let counts = reader.outbox_counts()?;
    let states = match &options.state {
        Some(state) => vec![state.as_str()],
        None => vec!["parked", "refused"],
    };
    let mut rows = Vec::new();
    for state in states {
        rows.extend(reader.outbox_rows(Some(state), options.limit)?);
    }
    let held = reader.held_invoices()?;
    if options.format == Format::Json {
        let invoices: Vec<_> = held
            .iter()
            .map(|i| {
                serde_json::json!({
                    "invoice": i.seen.invoice, "tenant": i.tenant, "state": i.state, "detail": i.detail,
                    "period_start": i.seen.period_start, "period_end": i.seen.period_end,
                })
            })
            .collect();
        let json = serde_json::json!({
            "states": counts.states, "uncounted": counts.uncounted, "buckets": rows, "held_invoices": invoices,
        });
        println!("{}", serde_json::to_string_pretty(&json)?);
        return Ok(ExitCode::SUCCESS);
    }
    for (state, count) in &counts.states {
        println!("{state:<10} {count}");
    }
    println!("uncounted  {}", counts.uncounted);
    for row in &rows {
        println!(
            "{} {}/{} hour {} value {} after {} attempts: {}",
            row.state,
            row.tenant,
            row.meter,
            row.hour,
            row.value.unwrap_or(0),
            row.attempts,
            row.reason
        );
    }
    for invoice in &held {
        println!(
            "invoice {} of {} {}: {}",
            invoice.seen.invoice, invoice.tenant, invoice.state, invoice.detail
        );
    }
    Ok(ExitCode::SUCCESS)
}
