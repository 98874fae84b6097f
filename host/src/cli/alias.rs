use std::collections::BTreeMap;
use std::str::FromStr;

use anyhow::{Result, bail};
use serde_json::json;
use wasmeter_types::{AliasName, FunctionName};

use super::connect::TenantConnect;
use super::functions::Function;
use super::output::{Output, table, talk};

#[derive(clap::Subcommand)]
pub(crate) enum AliasCommand {
    /// Point an alias to a revision, or to several with weights
    Set(SetArgs),
    /// List the aliases of a function
    List(ListArgs),
    /// Remove an alias; its revisions stay
    Rm(RemoveArgs),
}

#[derive(clap::Args)]
pub(crate) struct SetArgs {
    /// The function
    function: FunctionName,
    /// The alias; `live` is the function's plain address
    alias: AliasName,
    /// Revision, or revision=weight: `3f2a=90 77c1=10` sends one call in ten to 77c1
    #[arg(required = true, value_name = "REVISION[=WEIGHT]")]
    revisions: Vec<Weighted>,
    #[command(flatten)]
    connect: TenantConnect,
    #[command(flatten)]
    output: Output,
}

#[derive(clap::Args)]
pub(crate) struct ListArgs {
    /// The function
    function: FunctionName,
    #[command(flatten)]
    connect: TenantConnect,
    #[command(flatten)]
    output: Output,
}

#[derive(clap::Args)]
pub(crate) struct RemoveArgs {
    /// The function
    function: FunctionName,
    /// The alias
    alias: AliasName,
    #[command(flatten)]
    connect: TenantConnect,
}

/// `revision` or `revision=weight`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Weighted(String, u32);

impl FromStr for Weighted {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (revision, weight) = match text.split_once('=') {
            None => (text, 1),
            Some((revision, weight)) => {
                (revision, weight.parse().map_err(|_| format!("weight {weight:?} is not a whole number"))?)
            }
        };
        if revision.is_empty() {
            return Err("the revision is missing: `wasmeter functions show` lists them".to_owned());
        }
        Ok(Self(revision.to_owned(), weight))
    }
}

pub(crate) fn run(command: &AliasCommand) -> Result<()> {
    match command {
        AliasCommand::Set(args) => set(args),
        AliasCommand::List(args) => {
            let (client, tenant) = args.connect.client()?;
            let path = format!("/api/v1/tenants/{tenant}/functions/{}", args.function);
            args.output.show(client.get(&path)?, aliases)
        }
        AliasCommand::Rm(args) => {
            let (client, tenant) = args.connect.client()?;
            let RemoveArgs { function, alias, .. } = args;
            client.delete(&format!("/api/v1/tenants/{tenant}/functions/{function}/aliases/{alias}"))?;
            talk(&format!("removed {function}@{alias} of {tenant}"));
            Ok(())
        }
    }
}

fn set(args: &SetArgs) -> Result<()> {
    let mut revisions = BTreeMap::new();
    for Weighted(revision, weight) in &args.revisions {
        if revisions.insert(revision, weight).is_some() {
            bail!("revision {revision} is named twice");
        }
    }
    let (client, tenant) = args.connect.client()?;
    let path = format!("/api/v1/tenants/{tenant}/functions/{}/aliases/{}", args.function, args.alias);
    args.output.show(client.put_json(&path, &json!({ "revisions": revisions }))?, aliases)
}

/// Each alias with the parts of its traffic.
pub(super) fn aliases(function: Function) -> String {
    let mut rows = Vec::new();
    for (alias, revisions) in function.aliases {
        let sum: u64 = revisions.values().map(|w| u64::from(*w)).sum();
        for (revision, weight) in revisions {
            let part = f64::from(weight) * 100.0 / sum.max(1) as f64;
            rows.push(vec![alias.to_string(), revision, weight.to_string(), format!("{part:.1} %")]);
        }
    }
    table(&["alias", "revision", "weight>", "traffic>"], &rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_revisions_with_and_without_weights() {
        assert_eq!("ab".parse(), Ok(Weighted("ab".into(), 1)));
        assert_eq!("ab=90".parse(), Ok(Weighted("ab".into(), 90)));
        assert!("=1".parse::<Weighted>().unwrap_err().contains("missing"));
        assert!("ab=-1".parse::<Weighted>().unwrap_err().contains("\"-1\""));
    }
}
