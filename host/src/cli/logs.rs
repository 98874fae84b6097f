use std::io::{BufRead as _, BufReader};

use anyhow::{Context as _, Result};
use serde::Deserialize;
use wasmeter_types::FunctionName;

use super::connect::TenantConnect;
use super::output::{Output, Paint, data, harmless};

#[derive(clap::Args)]
pub(crate) struct LogsArgs {
    /// The function
    function: FunctionName,
    /// Go on with every new line
    #[arg(long, short)]
    follow: bool,
    #[command(flatten)]
    connect: TenantConnect,
    #[command(flatten)]
    output: Output,
}

#[derive(Deserialize)]
struct Line {
    time: String,
    invocation: Option<String>,
    stream: String,
    #[serde(default)]
    level: Option<String>,
    text: String,
}

pub(crate) fn run(args: &LogsArgs) -> Result<()> {
    let (client, tenant) = args.connect.client()?;
    let query = if args.follow { "?follow=true" } else { "" };
    let path = format!("/api/v1/tenants/{tenant}/functions/{}/logs{query}", args.function);
    let paint = Paint::stdout();
    for line in BufReader::new(client.get_stream(&path)?).lines() {
        let line = line.context("the log broke off")?;
        if args.output.is_json() {
            data(&format!("{line}\n"))?;
        } else {
            data(&show(&serde_json::from_str(&line).context("a line of the log")?, paint))?;
        }
    }
    Ok(())
}

fn show(line: &Line, paint: Paint) -> String {
    // Ids are time-ordered: their ends tell them apart.
    let invocation = line.invocation.as_deref().and_then(|id| id.rsplit('-').next()).unwrap_or("-");
    let head = paint.dim(&format!(
        "{} {invocation:<12} {:<8}",
        line.time,
        line.level.as_ref().unwrap_or(&line.stream)
    ));
    let text = harmless(&line.text);
    let failed = matches!(line.level.as_deref(), Some("error" | "critical"));
    let text = if failed || line.stream == "platform" { paint.red(&text) } else { text };
    format!("{head} {text}\n")
}
