use std::fs::File;
use std::io::{self, IsTerminal as _, Read as _};

use anyhow::{Context as _, Result, bail, ensure};
use http::Method;
use serde::Deserialize;
use wasmeter_types::SecretName;

use super::client::json;
use super::connect::TenantConnect;
use super::output::{Output, facts, table, talk};

/// As the server's.
const MAX_VALUE: u64 = 16 << 10;

#[derive(clap::Subcommand)]
pub(crate) enum SecretsCommand {
    /// Set a secret to what standard input or a file holds
    Set(SetArgs),
    /// List the names of the secrets
    List(ListArgs),
    /// Remove a secret; functions that list it are told that it is missing
    Rm(RemoveArgs),
}

#[derive(clap::Args)]
pub(crate) struct SetArgs {
    /// The secret
    secret: SecretName,
    /// @FILE reads a file, @- standard input; a value itself is refused, since command lines are seen by others
    #[arg(default_value = "@-", value_name = "@FILE", hide_default_value = true)]
    value: String,
    /// Keep a line end at the end of the value
    #[arg(long)]
    exact: bool,
    #[command(flatten)]
    connect: TenantConnect,
    #[command(flatten)]
    output: Output,
}

#[derive(clap::Args)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    connect: TenantConnect,
    #[command(flatten)]
    output: Output,
}

#[derive(clap::Args)]
pub(crate) struct RemoveArgs {
    /// The secret
    secret: SecretName,
    #[command(flatten)]
    connect: TenantConnect,
}

#[derive(Deserialize)]
struct List {
    secrets: Vec<Secret>,
}

#[derive(Deserialize)]
struct Secret {
    secret: String,
    updated: String,
}

pub(crate) fn run(command: &SecretsCommand) -> Result<()> {
    match command {
        SecretsCommand::Set(args) => set(args),
        SecretsCommand::List(args) => {
            let (client, tenant) = args.connect.client()?;
            args.output.show(client.get(&format!("/api/v1/tenants/{tenant}/secrets"))?, |list: List| {
                let rows: Vec<_> = list.secrets.into_iter().map(|s| vec![s.secret, s.updated]).collect();
                table(&["secret", "updated"], &rows)
            })
        }
        SecretsCommand::Rm(args) => {
            let (client, tenant) = args.connect.client()?;
            client.delete(&format!("/api/v1/tenants/{tenant}/secrets/{}", args.secret))?;
            talk(&format!("removed {} of {tenant}", args.secret));
            Ok(())
        }
    }
}

fn set(args: &SetArgs) -> Result<()> {
    let value = value(&args.value, args.exact)?;
    let (client, tenant) = args.connect.client()?;
    let path = format!("/api/v1/tenants/{tenant}/secrets/{}", args.secret);
    let request =
        client.request(Method::PUT, &path).header("content-type", "application/octet-stream").body(value)?;
    args.output
        .show(json(client.ask(request)?)?, |s: Secret| facts(&[("secret", s.secret), ("updated", s.updated)]))
}

fn value(source: &str, exact: bool) -> Result<Vec<u8>> {
    let Some(file) = source.strip_prefix('@') else {
        bail!("a value in the command line is seen by others: give it on standard input, or as @FILE");
    };
    let mut value = Vec::new();
    if file == "-" {
        let stdin = io::stdin();
        ensure!(
            !stdin.is_terminal(),
            "the value comes from standard input or @FILE: a terminal would show it"
        );
        stdin.lock().take(MAX_VALUE + 3).read_to_end(&mut value).context("cannot read standard input")?;
    } else {
        let file_error = || format!("cannot read {file}");
        let file = File::open(file).with_context(file_error)?;
        file.take(MAX_VALUE + 3).read_to_end(&mut value).with_context(file_error)?;
    }
    if !exact {
        // Editors and echo end a file with a line end that nobody means.
        let end = if value.ends_with(b"\r\n") { 2 } else { usize::from(value.ends_with(b"\n")) };
        value.truncate(value.len() - end);
    }
    ensure!(!value.is_empty(), "the value is empty");
    ensure!(value.len() as u64 <= MAX_VALUE, "the value has more than {MAX_VALUE} bytes");
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_come_from_files_and_lose_one_line_end() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let at = format!("@{}", file.path().display());
        std::fs::write(file.path(), "key\n\n").unwrap();
        assert_eq!(value(&at, false).unwrap(), b"key\n");
        assert_eq!(value(&at, true).unwrap(), b"key\n\n");
        std::fs::write(file.path(), "\r\n").unwrap();
        assert!(value(&at, false).unwrap_err().to_string().contains("empty"));
        std::fs::write(file.path(), vec![b'x'; 16385]).unwrap();
        assert!(value(&at, false).unwrap_err().to_string().contains("16384"));
        assert!(value("hunter2", false).unwrap_err().to_string().contains("seen by others"));
    }
}
