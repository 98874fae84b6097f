use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use clap::Args;
use wasmeter_ledger::Stamp;
use wasmeter_stripe::{Client, Delivery, MeterEvent};
use wasmeter_usage::PriceSheet;

use super::{Access, block_on, client};
use crate::now::{follow, now_ns, now_s};
use crate::prices;

#[derive(Args)]
pub(crate) struct Options {
    #[command(flatten)]
    access: Access,
    /// Price book, TOML [default: built in]
    #[arg(long, value_name = "FILE")]
    prices: Option<PathBuf>,
    /// Seconds until Stripe has to have counted an event
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    patience: u32,
    /// The clock runs ahead of the machine's by the seconds in this file (tests)
    #[arg(long, value_name = "FILE", hide = true)]
    clock_file: Option<PathBuf>,
}

/// Units of the event that is sent.
const VALUE: u64 = 3;

pub(crate) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    if let Some(file) = &options.clock_file {
        follow(file);
    }
    ensure!(
        options.access.stripe != Some(Stamp::Live),
        "a selftest makes a customer and usage: not with a live key"
    );
    let book = prices::load(options.prices.as_deref())?;
    let sheet = &book.at(now_ns())?.sheet;
    let (client, stamp) = client(&options.access, None)?;
    block_on(prove(&client, sheet, Duration::from_secs(options.patience.into())))?;
    println!("selftest against {stamp} passed");
    Ok(ExitCode::SUCCESS)
}

async fn prove(client: &Client, sheet: &PriceSheet, patience: Duration) -> anyhow::Result<()> {
    let first = client.set_up(sheet).await.context("set-up")?;
    let again = client.set_up(sheet).await.context("set-up, once more")?;
    ensure!(again.created.is_empty(), "a second set-up made {:?}", again.created);
    println!("ok   set-up: {} meters and prices, {} objects made", first.meters.len(), first.created.len());

    let run = now_ns();
    let key = format!("wasmeter-selftest-{run}");
    let customer = client.create_customer("wasmeter-selftest", &key, &key).await.context("customer")?;
    let same =
        client.create_customer("wasmeter-selftest", &key, &key).await.context("customer, once more")?;
    ensure!(customer == same, "one idempotency key made two customers: {customer} and {same}");
    println!("ok   customer {customer}, made once by two calls");

    let back = "https://example.com/";
    let page = client.checkout("wasmeter-selftest", &customer, &first.prices, back, back).await;
    println!("ok   checkout page {}", page.context("checkout")?);
    match client.portal(&customer, back).await {
        Ok(page) => println!("ok   portal page {page}"),
        Err(error) => bail!("portal: {error}; save the customer portal's settings in the dashboard once"),
    }

    let (meter, meter_id) = first.meters.first().context("the price book prices nothing")?;
    let event = MeterEvent {
        meter: *meter,
        customer: customer.clone(),
        value: VALUE,
        identifier: key.clone(),
        timestamp: now_s(),
    };
    deliver(client, &event).await.context("meter event")?;
    deliver(client, &event).await.context("meter event, sent twice")?;
    println!("ok   meter event delivered; its repetition was recognised");

    let hour = event.timestamp.div_euclid(3_600) * 3_600;
    let deadline = tokio::time::Instant::now() + patience;
    loop {
        let hours = client.counted(meter_id, &customer, hour, hour + 3_600).await.context("sums")?;
        let counted: u64 = hours.iter().map(|(_, value)| value).sum();
        if counted == VALUE {
            break;
        }
        ensure!(counted == 0, "stripe counts {counted}, sent was {VALUE}");
        ensure!(
            tokio::time::Instant::now() < deadline,
            "stripe has not counted the event yet; see --patience"
        );
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
    println!("ok   stripe counts {VALUE}, once");
    Ok(())
}

async fn deliver(client: &Client, event: &MeterEvent) -> anyhow::Result<()> {
    for _ in 0..5 {
        match client.send_event(event).await {
            Delivery::Delivered => return Ok(()),
            Delivery::Refused(reason) => bail!(reason),
            Delivery::Later { .. } | Delivery::Unknown(_) => tokio::time::sleep(Duration::from_secs(1)).await,
        }
    }
    bail!("not delivered in five attempts")
}
