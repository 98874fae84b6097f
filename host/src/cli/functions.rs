use std::collections::BTreeMap;

use anyhow::Result;
use serde::Deserialize;
use serde_json::json;
use wasmeter_types::{AliasName, FunctionName};

use super::connect::TenantConnect;
use super::output::{Output, count, facts, size, table, talk, time};

#[derive(clap::Subcommand)]
pub(crate) enum FunctionsCommand {
    /// List the tenant's functions
    List(ListArgs),
    /// Show one function with its revisions
    Show(ShowArgs),
    /// Point an alias to where it pointed before its last change
    Rollback(RollbackArgs),
    /// Remove a function with its revisions
    Rm(RemoveArgs),
}

#[derive(clap::Args)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    connect: TenantConnect,
    #[command(flatten)]
    output: Output,
}

#[derive(clap::Args)]
pub(crate) struct ShowArgs {
    /// The function
    function: FunctionName,
    #[command(flatten)]
    connect: TenantConnect,
    #[command(flatten)]
    output: Output,
}

#[derive(clap::Args)]
pub(crate) struct RollbackArgs {
    /// The function
    function: FunctionName,
    /// The alias that goes back
    #[arg(long, default_value = "live")]
    alias: AliasName,
    #[command(flatten)]
    connect: TenantConnect,
    #[command(flatten)]
    output: Output,
}

#[derive(clap::Args)]
pub(crate) struct RemoveArgs {
    /// The function
    function: FunctionName,
    #[command(flatten)]
    connect: TenantConnect,
}

#[derive(Deserialize)]
struct List {
    functions: Vec<Function>,
}

#[derive(Deserialize)]
pub(super) struct Function {
    function: String,
    url: String,
    public: bool,
    live: Option<String>,
    revisions: u64,
    updated: String,
    #[serde(default)]
    provisioned: u64,
    #[serde(default)]
    pub(super) aliases: BTreeMap<String, BTreeMap<String, u32>>,
    revision: Option<Revision>,
}

#[derive(Deserialize)]
struct Revision {
    digest: String,
    size: u64,
    imports: Vec<String>,
    exports: Vec<String>,
    models: Vec<String>,
    limits: Limits,
}

#[derive(Deserialize)]
struct Limits {
    memory: u64,
    fuel: u64,
    deadline_ms: u64,
    concurrency: u64,
    #[serde(default)]
    provisioned: u64,
}

pub(crate) fn run(command: &FunctionsCommand) -> Result<()> {
    match command {
        FunctionsCommand::List(args) => {
            let (client, tenant) = args.connect.client()?;
            args.output.show(client.get(&format!("/api/v1/tenants/{tenant}/functions"))?, list)
        }
        FunctionsCommand::Show(args) => {
            let (client, tenant) = args.connect.client()?;
            let path = format!("/api/v1/tenants/{tenant}/functions/{}", args.function);
            args.output.show(client.get(&path)?, show)
        }
        FunctionsCommand::Rollback(args) => {
            let (client, tenant) = args.connect.client()?;
            let path = format!("/api/v1/tenants/{tenant}/functions/{}/rollback", args.function);
            args.output.show(client.post(&path, &json!({ "alias": args.alias }))?, super::alias::aliases)
        }
        FunctionsCommand::Rm(args) => {
            let (client, tenant) = args.connect.client()?;
            client.delete(&format!("/api/v1/tenants/{tenant}/functions/{}", args.function))?;
            talk(&format!("removed {} of {tenant}", args.function));
            Ok(())
        }
    }
}

fn trigger(public: bool) -> String {
    if public { "public" } else { "token" }.to_owned()
}

fn list(list: List) -> String {
    let row = |f: Function| {
        let live = f.live.unwrap_or_default();
        vec![f.function, trigger(f.public), live, count(f.revisions), f.updated, f.url]
    };
    let rows: Vec<_> = list.functions.into_iter().map(row).collect();
    table(&["function", "trigger", "live", "revisions>", "updated", "url"], &rows)
}

fn show(f: Function) -> String {
    let target = |(revision, weight): (&String, &u32)| format!("{revision}={weight}");
    let line = |(alias, revisions): (&String, &BTreeMap<String, u32>)| match revisions.len() {
        1 => format!("{alias} -> {}", revisions.keys().cloned().collect::<String>()),
        _ => format!("{alias} -> {}", revisions.iter().map(target).collect::<Vec<_>>().join(" ")),
    };
    let aliases: Vec<_> = f.aliases.iter().map(line).collect();
    let mut lines = vec![
        ("function", f.function),
        ("url", f.url),
        ("trigger", trigger(f.public)),
        ("revisions", count(f.revisions)),
        ("aliases", aliases.join(", ")),
        ("provisioned", count(f.provisioned)),
        ("updated", f.updated),
    ];
    if let Some(r) = f.revision {
        let l = r.limits;
        let limits = format!(
            "memory {}, fuel {}, deadline {}, concurrency {}, provisioned {}",
            wasmeter_types::ByteSize(l.memory),
            count(l.fuel),
            time(l.deadline_ms.saturating_mul(1_000_000)),
            l.concurrency,
            l.provisioned
        );
        lines.extend([
            ("digest", r.digest),
            ("size", size(r.size)),
            ("models", r.models.join(", ")),
            ("limits", limits),
            ("imports", r.imports.join(", ")),
            ("exports", r.exports.join(", ")),
        ]);
    }
    facts(&lines)
}
