use anyhow::Result;
use serde::Deserialize;
use serde_json::json;
use wasmeter_types::FunctionName;

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
struct Quote {
    calls: u64,
    stands_on: u64,
    of_latest: u64,
    one: Option<Spread>,
    all: Option<Spread>,
    bound: Bound,
}

#[derive(Deserialize)]
struct Spread {
    p50: String,
    p95: String,
    max: String,
}

#[derive(Deserialize)]
struct Bound {
    one: String,
    all: String,
}

pub(crate) fn run(args: &QuoteArgs) -> Result<()> {
    let (client, tenant) = args.connect.client()?;
    let body = json!({ "function": args.function, "calls": args.calls });
    args.output.show(client.post(&format!("/api/v1/tenants/{tenant}/quote"), &body)?, |quote: Quote| {
        talk(&format!(
            "stands on {} charged calls of {}, among the tenant's latest {}; the bound on its limits",
            count(quote.stands_on),
            args.function,
            count(quote.of_latest)
        ));
        show(quote)
    })
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
