use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use wasmeter_ledger::{CheckReport, Reader};

use crate::Format;
use crate::data_dir::ledger_path;

#[derive(Args)]
pub(crate) struct Options {
    /// Data directory of the ledger; a running `serve` is not disturbed
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// How to print the result
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
}

pub(crate) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let path = ledger_path(&options.data);
    let reader = Reader::open(&path).with_context(|| format!("cannot open ledger {}", path.display()))?;
    // Hidden by itself where stderr is no terminal.
    let bar = ProgressBar::new(0)
        .with_style(ProgressStyle::with_template("checking {bar:40} {pos}/{len} entries {eta}")?);
    let report = reader.check(|done, total| {
        if done % 1024 == 0 || done == total {
            bar.set_length(total);
            bar.set_position(done);
        }
    })?;
    bar.finish_and_clear();
    match options.format {
        Format::Text => print_text(&reader, &report),
        Format::Json => println!("{}", serde_json::to_string_pretty(&json(&reader, &report))?),
    }
    Ok(if report.faults == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn print_text(reader: &Reader, report: &CheckReport) {
    println!("stamp       {}", reader.stamp());
    println!("entries     {}", report.entries);
    println!("tenants     {}", report.tenants);
    println!("spools      {}", report.spools);
    println!("commits     {}", report.commits);
    println!("rejected    {}", report.rejected.values().sum::<u64>());
    for (reason, count) in &report.rejected {
        println!("  {reason:<10}{count}");
    }
    println!("list total  {} {}", report.list_total, reader.currency());
    println!("adjustments {} of {} {}", report.adjustments, report.adjusted, reader.currency());
    println!("faults      {}", report.faults);
    for fault in &report.first_faults {
        println!("  {fault}");
    }
}

fn json(reader: &Reader, report: &CheckReport) -> serde_json::Value {
    serde_json::json!({
        "stamp": reader.stamp(),
        "currency": reader.currency(),
        "entries": report.entries,
        "tenants": report.tenants,
        "spools": report.spools,
        "commits": report.commits,
        "rejected": report.rejected,
        "list_total_pico": report.list_total,
        "adjustments": report.adjustments,
        "adjusted_pico": report.adjusted,
        "faults": report.faults,
        "first_faults": report.first_faults,
    })
}
