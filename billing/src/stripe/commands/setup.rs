use std::collections::HashMap;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, ensure};
use clap::Args;
use wasmeter_ledger::{Reader, Stamp};
use wasmeter_stripe::{Catalogue, Change, Client, Move, Subscription};
use wasmeter_usage::PriceSheet;

use super::{Access, block_on, client, open};
use crate::now::{follow, now_ns};
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
    /// Also bring the subscriptions of the ledger's customers to the prices in force, from now on
    #[arg(long = "move", requires = "data")]
    moves: bool,
    /// Say what would be made and moved, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// How to print the result
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
    /// The clock runs ahead of the machine's by the seconds in this file (tests)
    #[arg(long, value_name = "FILE", hide = true)]
    clock_file: Option<PathBuf>,
}

/// A subscription, and what is to become of it.
struct Planned {
    tenant: String,
    subscription: Subscription,
    plan: Move,
    moved: bool,
}

pub(crate) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    if let Some(file) = &options.clock_file {
        follow(file);
    }
    let book = prices::load(options.prices.as_deref())?;
    let sheet = &book.at(now_ns())?.sheet;
    let (client, stamp) = client(&options.access, options.data.as_deref())?;
    let reader = options.data.as_deref().map(open).transpose()?;
    block_on(async {
        // Before anything is made.
        let ours = match &reader {
            Some(reader) => subscriptions(&client, reader, sheet).await?,
            None => Vec::new(),
        };
        let catalogue =
            if options.dry_run { client.survey(sheet).await? } else { client.set_up(sheet).await? };
        let mut planned: Vec<Planned> = ours
            .into_iter()
            .map(|(tenant, subscription)| {
                let plan = catalogue.moves(&subscription);
                Planned { tenant, subscription, plan, moved: false }
            })
            .filter(|one| one.plan != Move::default())
            .collect();
        if options.format == Format::Text {
            print_text(options, &catalogue, &planned);
        }
        if options.moves && !options.dry_run {
            for one in &mut planned {
                let id = &one.subscription.id;
                one.moved = client.move_to(&catalogue, &one.subscription).await.with_context(|| {
                    format!("subscription {id} of {} is not moved; run this again", one.tenant)
                })?;
                if one.moved && options.format == Format::Text {
                    println!("moved {id}");
                }
            }
        }
        if options.format == Format::Json {
            print_json(stamp, sheet, &catalogue, &planned)?;
        }
        Ok(())
    })?;
    Ok(ExitCode::SUCCESS)
}

/// The subscriptions of the ledger's customers, with their tenants.
async fn subscriptions(
    client: &Client,
    reader: &Reader,
    sheet: &PriceSheet,
) -> anyhow::Result<Vec<(String, Subscription)>> {
    let currency = reader.currency();
    ensure!(
        currency == sheet.currency,
        "the ledger counts in {currency} for ever and the price book is in {}: nothing was changed",
        sheet.currency
    );
    let tenants: HashMap<String, String> =
        reader.customers()?.into_iter().map(|one| (one.customer, one.tenant)).collect();
    let mut ours = Vec::new();
    for subscription in client.subscriptions().await? {
        let Some(tenant) = tenants.get(&subscription.customer) else { continue };
        ensure!(
            subscription.currency.eq_ignore_ascii_case(&sheet.currency),
            "subscription {} of {tenant} is in {} and the price book in {}: nothing was changed; cancel it, and subscribe anew",
            subscription.id,
            subscription.currency.to_ascii_uppercase(),
            sheet.currency
        );
        ours.push((tenant.clone(), subscription));
    }
    ours.sort_by(|(a, x), (b, y)| (a, &x.id).cmp(&(b, &y.id)));
    Ok(ours)
}

fn print_text(options: &Options, catalogue: &Catalogue, planned: &[Planned]) {
    for ((meter, id), price) in catalogue.meters.iter().zip(&catalogue.prices) {
        println!("{:<13} {id} {price}", meter.as_str());
    }
    for what in &catalogue.created {
        eprintln!("{} {what}", if options.dry_run { "would make" } else { "made" });
    }
    if catalogue.created.is_empty() {
        eprintln!("all was there");
    }
    for Planned { tenant, subscription, plan, .. } in planned {
        println!("subscription {} of {tenant} ({})", subscription.id, subscription.status);
        for change in &plan.changes {
            match change {
                Change::Exchange { meter, from, to, .. } => {
                    println!("  {:<13} {from} -> {to}", meter.as_str())
                }
                Change::Add { meter, to } => println!("  {:<13} + {to}", meter.as_str()),
                Change::Remove { item, from } => println!("  {item} - {from}"),
            }
        }
        for why in &plan.left {
            println!("  stays: {why}");
        }
    }
    let open = planned.iter().filter(|one| !one.plan.changes.is_empty()).count();
    if options.data.is_some() && open == 0 {
        eprintln!("all subscriptions are at these prices");
    } else if open > 0 && !options.moves {
        eprintln!("{open} subscriptions are at other prices; --move brings them to these");
    }
}

fn print_json(
    stamp: Stamp,
    sheet: &PriceSheet,
    catalogue: &Catalogue,
    planned: &[Planned],
) -> anyhow::Result<()> {
    let skus: Vec<_> = catalogue
        .meters
        .iter()
        .zip(&catalogue.prices)
        .map(|((meter, id), price)| {
            serde_json::json!({ "meter": meter.as_str(), "stripe_meter": id, "price": price })
        })
        .collect();
    let change = |change: &Change| match change {
        Change::Exchange { item, meter, from, to } => {
            serde_json::json!({ "do": "exchange", "item": item, "meter": meter.as_str(), "from": from, "to": to })
        }
        Change::Add { meter, to } => serde_json::json!({ "do": "add", "meter": meter.as_str(), "to": to }),
        Change::Remove { item, from } => serde_json::json!({ "do": "remove", "item": item, "from": from }),
    };
    let subscriptions: Vec<_> = planned
        .iter()
        .map(|Planned { tenant, subscription, plan, moved }| {
            serde_json::json!({
                "subscription": subscription.id, "tenant": tenant, "status": subscription.status,
                "changes": plan.changes.iter().map(change).collect::<Vec<_>>(), "left": plan.left, "moved": moved,
            })
        })
        .collect();
    let json = serde_json::json!({
        "stripe": stamp.as_str(), "sheet": sheet.hash, "skus": skus, "created": catalogue.created,
        "subscriptions": subscriptions,
    });
    println!("{}", serde_json::to_string_pretty(&json)?);
    Ok(())
}
