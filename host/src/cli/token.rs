use anyhow::{Result, bail};
use serde::Deserialize;
use serde_json::json;
use wasmeter_types::WallTime;

use super::connect::{Connect, TenantConnect};
use super::output::{Output, talk};

#[derive(clap::Args)]
pub(crate) struct TokenArgs {
    /// What it allows; may be repeated or separated by commas
    #[arg(long = "scope", value_enum, value_delimiter = ',', default_value = "invoke")]
    scopes: Vec<ScopeArg>,
    /// How long it lives: 90s, 15m, 24h; at most 720h and no longer than your own
    #[arg(long, default_value = "1h")]
    ttl: WallTime,
    /// Tells it from your other tokens, for caps and logs
    #[arg(long)]
    name: Option<String>,
    #[command(flatten)]
    connect: TenantConnect,
    #[command(flatten)]
    output: Output,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum ScopeArg {
    /// Trigger functions and call models
    Invoke,
    /// Read functions, logs, usage and bill
    Read,
    /// Change functions
    Deploy,
    /// Everything, for every tenant (operator)
    Operator,
}

impl ScopeArg {
    fn as_str(self) -> &'static str {
        match self {
            ScopeArg::Invoke => "invoke",
            ScopeArg::Read => "read",
            ScopeArg::Deploy => "deploy",
            ScopeArg::Operator => "operator",
        }
    }
}

#[derive(Deserialize)]
struct Minted {
    token: String,
    expires: String,
}

/// Prints the token alone.
pub(crate) fn run(args: &TokenArgs) -> Result<()> {
    let seconds = args.ttl.0.as_secs();
    if seconds == 0 {
        bail!("--ttl is {}: a token lives for whole seconds", args.ttl);
    }
    let scopes: Vec<_> = args.scopes.iter().map(|s| s.as_str()).collect();
    let answer = if args.scopes.contains(&ScopeArg::Operator) {
        let connect: &Connect = args.connect.connect();
        connect
            .operator()?
            .post("/api/v1/token", &json!({ "scopes": scopes, "ttl_seconds": seconds, "name": args.name }))?
    } else {
        let (client, tenant) = args.connect.client()?;
        let grant = json!({ "tenant": tenant, "scopes": scopes, "ttl_seconds": seconds, "name": args.name });
        client.post("/api/v1/token", &grant)?
    };
    args.output.show(answer, |minted: Minted| {
        talk(&format!("until {}", minted.expires));
        format!("{}\n", minted.token)
    })
}
