use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::{Access, block_on, client};
use crate::now::now_ns;
use crate::{Format, prices};

#[derive(Args)]
pub(crate) struct Options {
    #[command(flatten)]
    access: Access,
    /// Data directory: its ledger's stamp must be the same word
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Price book, TOML [default: built in]
    #[arg(long, value_name = "FILE")]
    prices: Option<PathBuf>,
    /// How to print the result
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
}

pub(crate) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let book = prices::load(options.prices.as_deref())?;
    let sheet = &book.at(now_ns())?.sheet;
    let (client, stamp) = client(&options.access, options.data.as_deref())?;
    let done = block_on(async { Ok(client.set_up(sheet).await?) })?;
    if options.format == Format::Json {
        let meters: Vec<_> = done
            .meters
            .iter()
            .zip(&done.prices)
            .map(|((meter, id), price)| {
                serde_json::json!({ "meter": meter.as_str(), "stripe_meter": id, "price": price })
            })
            .collect();
        let json = serde_json::json!({
            "stripe": stamp.as_str(), "sheet": sheet.hash, "skus": meters, "created": done.created,
        });
        println!("{}", serde_json::to_string_pretty(&json)?);
        return Ok(ExitCode::SUCCESS);
    }
    for ((meter, id), price) in done.meters.iter().zip(&done.prices) {
        println!("{:<13} {id} {price}", meter.as_str());
    }
    for what in &done.created {
        eprintln!("made {what}");
    }
    if done.created.is_empty() {
        eprintln!("all was there");
    }
    Ok(ExitCode::SUCCESS)
}
