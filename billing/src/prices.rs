use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use wasmeter_rating::{DEFAULT_PRICES, PriceBook, price_name};
use wasmeter_usage::{Meter, MeterTerms, Pico, PriceSheet, TierMode};

use crate::Format;
use crate::now::now_ns;

/// No price book is longer.
const MAX_BOOK: u64 = 1 << 20;

#[derive(Args)]
pub(crate) struct CheckOptions {
    /// The price book, TOML
    file: PathBuf,
    /// How to print it
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
}

/// Reads the price book of a file, or the one that is built in.
pub(crate) fn load(file: Option<&Path>) -> anyhow::Result<PriceBook> {
    let Some(file) = file else { return Ok(PriceBook::parse(DEFAULT_PRICES)?) };
    let shown = file.display();
    let length = file.metadata().with_context(|| format!("cannot read price book {shown}"))?.len();
    anyhow::ensure!(length <= MAX_BOOK, "price book {shown} has {length} bytes, at most {MAX_BOOK}");
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read price book {shown}"))?;
    PriceBook::parse(&text).with_context(|| format!("price book {shown}"))
}

pub(crate) fn check(options: &CheckOptions) -> anyhow::Result<ExitCode> {
    let book = load(Some(&options.file))?;
    // A book of the future is valid; that nothing is in force yet is said by `serve`.
    let in_force = book.at(now_ns()).ok();
    if options.format == Format::Json {
        let entries: Vec<_> = book
            .entries()
            .iter()
            .map(|entry| {
                serde_json::json!({
                    "effective": entry.effective(),
                    "in_force": Some(entry) == in_force,
                    "sheet": entry.sheet,
                })
            })
            .collect();
        println!("{}", serde_json::to_string_pretty(&entries)?);
        return Ok(ExitCode::SUCCESS);
    }
    for entry in book.entries() {
        let note = if Some(entry) == in_force { " (in force)" } else { "" };
        println!("{} {} {}{note}", entry.effective(), entry.sheet.currency, entry.sheet.hash);
        show(&entry.sheet);
    }
    Ok(ExitCode::SUCCESS)
}

/// Prices and terms, in the units that prices are for.
fn show(sheet: &PriceSheet) {
    for meter in Meter::ALL {
        let (list, per) = sheet.rates.of(meter);
        println!("  {:<13}{}", price_name(meter), pico(list));
        let Some(MeterTerms { mode, included, bands }) = sheet.terms.meters.get(&meter) else { continue };
        if *included > 0 {
            println!("    included   {}", included / per);
        }
        let mode = match mode {
            TierMode::Graduated => "graduated",
            TierMode::Volume => "volume",
        };
        for band in bands {
            let up_to = band.up_to.map_or_else(|| "beyond".to_owned(), |up_to| format!("to {}", up_to / per));
            println!("    {mode:<11}{up_to:<20} {}", pico(band.rate));
        }
    }
    if sheet.terms.minimum_minor > 0 {
        println!("  minimum      {} of the smallest unit of {}", sheet.terms.minimum_minor, sheet.currency);
    }
}

fn pico(rate: u64) -> Pico {
    Pico(i128::from(rate))
}
