use anyhow::Result;
use serde::Deserialize;
use serde_json::{Value, json};
use wasmeter_types::{FunctionName, TenantName};

use super::client::Client;
use super::connect::TenantConnect;
use super::output::{Output, count, table, talk};

#[derive(clap::Args)]
pub(crate) struct QuoteArgs {
    /// The function
    function: FunctionName,
    /// How many calls
    #[arg(long, value_name = "N", default_value = "1")]
    calls: u64,
    #[command(flatten)]
    connect: TenantConnect,
    #[command(flatten)]
    output: Output,
}

#[derive(Deserialize)]
pub(super) struct Quote {
    calls: u64,
    pub(super) stands_on: u64,
    of_latest: u64,
    pub(super) one: Option<Spread>,
    pub(super) all: Option<Spread>,
    pub(super) bound: Bound,
}

#[derive(Deserialize)]
pub(super) struct Spread {
    pub(super) p50: String,
    p95: String,
    max: String,
}

#[derive(Deserialize)]
pub(super) struct Bound {
    pub(super) one: String,
    pub(super) all: String,
}

pub(crate) fn run(args: &QuoteArgs) -> Result<()> {
    let (client, tenant) = args.connect.client()?;
    args.output.show(ask(&client, &tenant, &args.function, args.calls)?, |quote: Quote| {
        talk(&format!(
            "stands on {} charged calls of {}, among the tenant's latest {}; the bound on its limits",
            count(quote.stands_on),
            args.function,
            count(quote.of_latest)
        ));
        show(quote)
    })
}

/// What calls of a function cost.
pub(super) fn ask(
    client: &Client,
    tenant: &TenantName,
    function: &FunctionName,
    calls: u64,
) -> Result<Value> {
    let body = json!({ "function": function, "calls": calls });
    client.post(&format!("/api/v1/tenants/{tenant}/quote"), &body)
}

fn show(quote: Quote) -> String {
    let row = |name: String, spread: Option<Spread>, bound: String| match spread {
        Some(Spread { p50, p95, max }) => vec![name, p50, p95, max, bound],
        None => vec![name, "-".to_owned(), "-".to_owned(), "-".to_owned(), bound],
    };
    let mut rows = vec![row("1".to_owned(), quote.one, quote.bound.one)];
    if quote.calls > 1 {
        rows.push(row(count(quote.calls), quote.all, quote.bound.all));
    }
    table(&["calls>", "p50>", "p95>", "max>", "bound>"], &rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_history_the_bound_alone_is_told() {
        let quote = |one, all| Quote {
            calls: 1_000,
            stands_on: 0,
            of_latest: 0,
            one,
            all,
            bound: Bound { one: "1 USD".into(), all: "1000 USD".into() },
        };
        let expected = "calls  p50  p95  max     bound\n    1    -    -    -     1 USD\n1,000    -    -    -  1000 USD\n";
        assert_eq!(show(quote(None, None)), expected);
        let spread =
            |n: &str| Some(Spread { p50: format!("{n}1"), p95: format!("{n}2"), max: format!("{n}3") });
        assert!(show(quote(spread("a"), spread("b"))).contains("1,000   b1   b2   b3  1000 USD"));
    }
}
