use anyhow::Result;
use serde::Deserialize;
use wasmeter_types::TenantName;

use super::client::{Client, Refused, query};
use super::connect::TenantConnect;
use super::output::{Output, count, harmless, table, talk};
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
    minimum: Option<Minimum>,
    adjustments: Option<Adjustments>,
    due_minor: i64,
}

#[derive(Deserialize)]
struct Standing {
    state: String,
    since: Option<String>,
    grace_ends: Option<String>,
}

#[derive(Deserialize)]
struct Line {
    meter: String,
    quantity: u64,
    price_unit: String,
    amount: String,
    parts: Vec<Part>,
    due_minor: i64,
}

#[derive(Deserialize)]
struct Part {
    quantity: u64,
    up_to: Option<u64>,
    included: bool,
    rate_pico: String,
    amount: String,
    due_minor: i64,
}

#[derive(Deserialize)]
struct Minimum {
    minimum_minor: i64,
    due_minor: i64,
}

#[derive(Deserialize)]
struct Adjustments {
    count: u64,
    amount: String,
    due_minor: i64,
    entries: Vec<Adjustment>,
}

#[derive(Deserialize)]
struct Adjustment {
    id: String,
    invocation: Option<String>,
    amount: String,
    reason: String,
}

pub(crate) fn run(args: &BillArgs) -> Result<()> {
    let (client, tenant) = args.connect.client()?;
    let query = query(&[("from", args.window.from.as_deref()), ("to", args.window.to.as_deref())]);
    let answer = client.get(&format!("/api/v1/tenants/{tenant}/bill{query}"))?;
    let standing = if args.output.is_json() { String::new() } else { standing(&client, &tenant)? };
    args.output.show(answer, |bill: Bill| {
        talk(&format!("{}, {} to {}", bill.tenant, bill.from, bill.to));
        show(bill) + &standing
    })
}

/// Who collects the bill, and whether it is paid; nothing where nobody does.
fn standing(client: &Client, tenant: &TenantName) -> Result<String> {
    match client.get(&format!("/api/v1/tenants/{tenant}/billing")) {
        Ok(answer) => Ok(stands(&Standing::deserialize(answer)?)),
        // No Stripe, or billing or Stripe is away: the bill is true without.
        Err(error) => match error.downcast_ref::<Refused>() {
            Some(refused) if refused.error.code == "stripe_off" => Ok(String::new()),
            Some(refused) => Ok(format!("subscription: not known ({})\n", refused.error.message)),
            None => Err(error),
        },
    }
}

fn stands(standing: &Standing) -> String {
    let advice = match standing.state.as_str() {
        "none" | "canceled" => "; `wasmeter checkout` subscribes",
        "grace" | "unpaid" => "; `wasmeter portal` shows what to pay",
        _ => "",
    };
    let since = standing.since.as_ref().map(|t| format!(" since {t}")).unwrap_or_default();
    let until = standing.grace_ends.as_ref().map(|t| format!(", until {t}")).unwrap_or_default();
    format!("subscription: {}{since}{until}{advice}\n", standing.state)
}

fn show(bill: Bill) -> String {
    let mut rows = Vec::new();
    for line in &bill.lines {
        lines(line, &bill.currency, &mut rows);
    }
    let row = |cells: [&str; 5]| cells.map(str::to_owned).to_vec();
    if let Some(minimum) = &bill.minimum {
        let of = format!("up to {} in all", minimum.minimum_minor);
        rows.push(row(["minimum", "", &of, "", &minimum.due_minor.to_string()]));
    }
    if let Some(all) = &bill.adjustments {
        let made = format!("{} made", count(all.count));
        rows.push(row(["adjustments", &made, "", &all.amount, &all.due_minor.to_string()]));
        for one in &all.entries {
            let about = one.invocation.as_ref().unwrap_or(&one.id);
            rows.push(row(["", "", &harmless(&format!("{about} {}", one.reason)), &one.amount, ""]));
        }
    }
    let calls = format!("{} calls", count(bill.invocations));
    rows.push(row(["list total", &calls, "", &bill.list_total, ""]));
    let mut text = table(&["meter", "quantity>", "price", "amount>", "due>"], &rows);
    text.push_str(&format!(
        "due, in the smallest unit of {}, to which each price's line is rounded once: {}\n",
        bill.currency, bill.due_minor
    ));
    text
}

/// One row for a line of one price; for tiers, a row for each below that of the whole.
fn lines(line: &Line, currency: &str, rows: &mut Vec<Vec<String>>) {
    let price = |part: &Part| format!("{} per {}", rate(&part.rate_pico, currency), line.price_unit);
    let mut head = vec![line.meter.clone(), count(line.quantity)];
    let one = match &line.parts[..] {
        [part] if part.up_to.is_none() => price(part),
        _ => String::new(),
    };
    let tiers = one.is_empty();
    head.extend([one, line.amount.clone(), line.due_minor.to_string()]);
    rows.push(head);
    if !tiers {
        return;
    }
    for part in &line.parts {
        let name = match part.up_to {
            _ if part.included => "  included".to_owned(),
            Some(up_to) => format!("  to {}", count(up_to)),
            None => "  beyond".to_owned(),
        };
        let due = part.due_minor.to_string();
        rows.push(vec![name, count(part.quantity), price(part), part.amount.clone(), due]);
    }
}

/// A rate without the zeros at its end, such as `0.0000004 USD`.
pub(super) fn rate(pico: &str, currency: &str) -> String {
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

    fn part(quantity: u64, up_to: Option<u64>, included: bool, due_minor: i64) -> Part {
        let rate_pico = if included { "0" } else { "10000000000" }.into();
        Part {
            quantity,
            up_to,
            included,
            rate_pico,
            amount: format!("0.0{due_minor}0000000000 USD"),
            due_minor,
        }
    }

    #[test]
    fn golden_bill() {
        let line = |meter: &str, quantity, unit: &str, parts: Vec<Part>| Line {
            meter: meter.into(),
            quantity,
            price_unit: unit.into(),
            amount: format!("0.0{}0000000000 USD", parts.iter().map(|p| p.due_minor).sum::<i64>()),
            due_minor: parts.iter().map(|p| p.due_minor).sum(),
            parts,
        };
        let tiers =
            vec![part(1_000, Some(1_000), true, 0), part(2, Some(1_002), false, 2), part(1, None, false, 1)];
        let refund = Adjustment {
            id: "a".into(),
            invocation: None,
            amount: "-0.010000000000 USD".into(),
            reason: "an outage".into(),
        };
        let bill = Bill {
            tenant: "dev".into(),
            from: String::new(),
            to: String::new(),
            currency: "USD".into(),
            invocations: 1_003,
            lines: vec![
                line("requests", 1_003, "request", tiers),
                line("fuel", 4_000_000, "million fuel", vec![part(4_000_000, None, false, 4)]),
            ],
            list_total: "0.110000000000 USD".into(),
            minimum: Some(Minimum { minimum_minor: 10, due_minor: 3 }),
            adjustments: Some(Adjustments {
                count: 1,
                amount: "-0.010000000000 USD".into(),
                due_minor: -1,
                entries: vec![refund],
            }),
            due_minor: 9,
        };
        let expected = "\
meter           quantity  price                                   amount  due
requests           1,003                              0.030000000000 USD    3
  included         1,000  0 USD per request           0.000000000000 USD    0
  to 1,002             2  0.01 USD per request        0.020000000000 USD    2
  beyond               1  0.01 USD per request        0.010000000000 USD    1
fuel           4,000,000  0.01 USD per million fuel   0.040000000000 USD    4
minimum                   up to 10 in all                                   3
adjustments       1 made                             -0.010000000000 USD   -1
                          a an outage                -0.010000000000 USD
list total   1,003 calls                              0.110000000000 USD
due, in the smallest unit of USD, to which each price's line is rounded once: 9
";
        assert_eq!(show(bill), expected);
    }

    #[test]
    fn how_it_stands() {
        let say = |state: &str, grace_ends: Option<&str>| {
            stands(&Standing {
                state: state.into(),
                since: Some("T".into()),
                grace_ends: grace_ends.map(Into::into),
            })
        };
        assert_eq!(say("active", None), "subscription: active since T\n");
        assert_eq!(
            say("grace", Some("U")),
            "subscription: grace since T, until U; `wasmeter portal` shows what to pay\n"
        );
        assert!(say("canceled", None).contains("wasmeter checkout"));
    }
}
