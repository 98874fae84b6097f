use anyhow::Result;
use serde::Deserialize;

use super::client::query;
use super::connect::TenantConnect;
use super::output::{Output, count, table, talk};
use super::usage::Window;

#[derive(clap::Args)]
pub(crate) struct BillArgs {
    #[command(flatten)]
    window: Window,
    #[command(flatten)]
    connect: TenantConnect,
    #[command(flatten)]
    output: Output,
}

#[derive(Deserialize)]
struct Bill {
    tenant: String,
    from: String,
    to: String,
    currency: String,
    invocations: u64,
    lines: Vec<Line>,
    list_total: String,
    due_minor: i64,
}

#[derive(Deserialize)]
struct Line {
    meter: String,
    quantity: u64,
    rate_pico: String,
    price_unit: String,
    amount: String,
}

pub(crate) fn run(args: &BillArgs) -> Result<()> {
    let (client, tenant) = args.connect.client()?;
    let query = query(&[("from", args.window.from.as_deref()), ("to", args.window.to.as_deref())]);
    args.output.show(client.get(&format!("/api/v1/tenants/{tenant}/bill{query}"))?, |bill: Bill| {
        talk(&format!("{}, {} to {}", bill.tenant, bill.from, bill.to));
        show(bill)
    })
}

fn show(bill: Bill) -> String {
    let row = |line: Line| {
        let rate = rate(&line.rate_pico, &bill.currency);
        vec![line.meter, count(line.quantity), format!("{rate} per {}", line.price_unit), line.amount]
    };
    let mut rows: Vec<_> = bill.lines.into_iter().map(row).collect();
    let calls = format!("{} calls", count(bill.invocations));
    rows.push(vec!["list total".to_owned(), calls, String::new(), bill.list_total]);
    let mut text = table(&["meter", "quantity>", "price", "amount>"], &rows);
    let due = bill.due_minor;
    text.push_str(&format!("due, rounded once to the smallest unit of {}: {due}\n", bill.currency));
    text
}

/// A rate without the zeros at its end, such as `0.0000004 USD`.
fn rate(pico: &str, currency: &str) -> String {
    match pico.parse::<wasmeter_usage::Pico>() {
        Ok(pico) => {
            let text = pico.to_string();
            format!("{} {currency}", text.trim_end_matches('0').trim_end_matches('.'))
        }
        Err(_) => pico.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_exact_and_short() {
        assert_eq!(rate("400000", "USD"), "0.0000004 USD");
        assert_eq!(rate("20000000000000", "EUR"), "20 EUR");
        assert_eq!(rate("0", "USD"), "0 USD");
        assert_eq!(rate("x", "USD"), "x");
    }

    #[test]
    fn golden_bill() {
        let line = |meter: &str, quantity, unit: &str| Line {
            meter: meter.into(),
            quantity,
            rate_pico: "400000".into(),
            price_unit: unit.into(),
            amount: "0.000004000000 USD".into(),
        };
        let bill = Bill {
            tenant: "dev".into(),
            from: String::new(),
            to: String::new(),
            currency: "USD".into(),
            invocations: 10,
            lines: vec![line("requests", 10, "request"), line("fuel", 10_000_000, "million fuel")],
            list_total: "0.000008000000 USD".into(),
            due_minor: 0,
        };
        let expected = "\
meter         quantity  price                           amount
requests            10  0.0000004 USD per request       0.000004000000 USD
fuel        10,000,000  0.0000004 USD per million fuel  0.000004000000 USD
list total    10 calls                                  0.000008000000 USD
due, rounded once to the smallest unit of USD: 0
";
        assert_eq!(
            show(bill),
            expected.replace(
                "price                           amount",
                "price                                       amount"
            )
        );
    }
}
