use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::super::reconcile::{Invoices, Report, all};
use super::{Access, block_on, client, open};
use crate::now::{follow, now_ns};
use crate::readers::Readers;
use crate::{Format, prices};

#[derive(Args)]
pub(crate) struct Options {
    #[command(flatten)]
    access: Access,
    /// Data directory of the ledger; a running `serve` is not disturbed
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Price book, TOML [default: built in]
    #[arg(long, value_name = "FILE")]
    prices: Option<PathBuf>,
    /// Hours at hand that are left out, because Stripe counts with a delay
    #[arg(long, value_name = "HOURS", default_value_t = 2, value_parser = clap::value_parser!(i64).range(-1..=24))]
    settled: i64,
    /// How to print the result
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
    /// The clock runs ahead of the machine's by the seconds in this file (tests)
    #[arg(long, value_name = "FILE", hide = true)]
    clock_file: Option<PathBuf>,
}

/// Exits 1 on a difference.
pub(crate) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    if let Some(file) = &options.clock_file {
        follow(file);
    }
    let book = prices::load(options.prices.as_deref())?;
    let sheet = &book.at(now_ns())?.sheet;
    let (client, _) = client(&options.access, Some(&options.data))?;
    let readers = Readers::of(vec![open(&options.data)?]);
    let report = block_on(async {
        let catalogue = client.set_up(sheet).await?;
        Ok(all(&client, &catalogue, &readers, options.settled * 3_600, Invoices::All).await?)
    })?;
    match options.format {
        Format::Json => println!("{}", serde_json::to_string_pretty(&report)?),
        Format::Text => print_text(&report),
    }
    Ok(if report.agrees() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn print_text(report: &Report) {
    println!("hours compared  {}", report.hours);
    println!("unsure          {}", report.unsure);
    println!("differences     {}", report.differences.len());
    for d in &report.differences {
        println!(
            "  {} {} {} hour {}: ledger {} (+{} unsure), stripe {}",
            d.tenant, d.customer, d.meter, d.hour, d.ledger, d.unsure, d.stripe
        );
    }
    println!("periods         {}", report.periods);
    println!("items compared  {}", report.items);
    println!("differences     {}", report.item_differences.len());
    for d in &report.item_differences {
        println!(
            "  {} {} {}: ledger {}, noted {}, stripe {}",
            d.tenant, d.invoice, d.kind, d.ledger, d.noted, d.stripe
        );
    }
}
