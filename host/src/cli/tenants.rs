use anyhow::{Result, bail};
use serde::Deserialize;
use serde_json::json;
use wasmeter_types::TenantName;

use super::connect::Connect;
use super::output::{Output, count, facts, table, talk};

#[derive(clap::Subcommand)]
pub(crate) enum TenantsCommand {
    /// List all tenants
    List(ListArgs),
    /// Create a tenant
    Create(CreateArgs),
    /// Change what the operator decides about a tenant
    Set(SetArgs),
    /// Remove a tenant and its functions; the ledger keeps its entries
    Rm(RemoveArgs),
}

#[derive(clap::Args)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    connect: Connect,
    #[command(flatten)]
    output: Output,
}

#[derive(clap::Args)]
pub(crate) struct CreateArgs {
    /// The tenant
    tenant: TenantName,
    #[command(flatten)]
    connect: Connect,
    #[command(flatten)]
    output: Output,
}

#[derive(clap::Args)]
pub(crate) struct SetArgs {
    /// The tenant
    tenant: TenantName,
    /// Whether it may deploy components that handle HTTP with WASI 0.3
    #[arg(long)]
    wasi3: Switch,
    #[command(flatten)]
    connect: Connect,
    #[command(flatten)]
    output: Output,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Switch {
    On,
    Off,
}

#[derive(clap::Args)]
pub(crate) struct RemoveArgs {
    /// The tenant
    tenant: TenantName,
    /// Yes, with all its functions
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    connect: Connect,
}

#[derive(Deserialize)]
struct List {
    tenants: Vec<Tenant>,
}

#[derive(Deserialize)]
struct Tenant {
    tenant: String,
    created: String,
    functions: u64,
    #[serde(default)]
    wasi3: bool,
}

pub(crate) fn run(command: &TenantsCommand) -> Result<()> {
    match command {
        TenantsCommand::List(args) => {
            args.output.show(args.connect.operator()?.get("/api/v1/tenants")?, |list: List| {
                let row = |t: Tenant| vec![t.tenant, count(t.functions), t.created];
                let rows: Vec<_> = list.tenants.into_iter().map(row).collect();
                table(&["tenant", "functions>", "created"], &rows)
            })
        }
        TenantsCommand::Create(args) => {
            let answer = args.connect.operator()?.put(&format!("/api/v1/tenants/{}", args.tenant))?;
            args.output.show(answer, |t: Tenant| {
                let advice = format!("wasmeter token --tenant {} --scope deploy,invoke,read", t.tenant);
                talk(&format!("a token for it: {advice}"));
                facts(&[("tenant", t.tenant), ("created", t.created)])
            })
        }
        TenantsCommand::Set(args) => {
            let path = format!("/api/v1/tenants/{}/settings", args.tenant);
            let settings = json!({ "wasi3": args.wasi3 == Switch::On });
            let answer = args.connect.operator()?.put_json(&path, &settings)?;
            args.output.show(answer, |t: Tenant| {
                facts(&[("tenant", t.tenant), ("wasi3", if t.wasi3 { "on" } else { "off" }.to_owned())])
            })
        }
        TenantsCommand::Rm(args) => {
            if !args.yes {
                bail!("this removes {} with all its functions: say --yes if you mean it", args.tenant);
            }
            args.connect.operator()?.delete(&format!("/api/v1/tenants/{}", args.tenant))?;
            talk(&format!("removed {}", args.tenant));
            Ok(())
        }
    }
}
