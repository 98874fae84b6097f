use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;
use serde_json::Value;
use wasmeter_types::{ModelCard, ModelName};

use super::client::{Client, Refused, json};
use super::connect::Connect;
use super::output::{Output, facts, harmless, size, table, talk};
use super::upload::Form;

/// As the server's.
const MAX_MODEL: u64 = 1 << 30;

#[derive(clap::Subcommand)]
pub(crate) enum ModelsCommand {
    /// Push a version of a model (operator)
    Push(PushArgs),
    /// List the operator's models
    List(ListArgs),
    /// Show one model with its versions
    Show(ShowArgs),
    /// Remove a version (operator)
    Rm(RemoveArgs),
}

#[derive(clap::Args)]
pub(crate) struct PushArgs {
    /// Folder with model.toml and the files that it names
    dir: PathBuf,
    /// Name; must be the card's
    #[arg(long)]
    name: Option<ModelName>,
    /// Version number [default: the next]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    version: Option<u32>,
    #[command(flatten)]
    connect: Connect,
    #[command(flatten)]
    output: Output,
}

#[derive(clap::Args)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    connect: Connect,
    #[command(flatten)]
    output: Output,
}

#[derive(clap::Args)]
pub(crate) struct ShowArgs {
    /// The model
    model: ModelName,
    #[command(flatten)]
    connect: Connect,
    #[command(flatten)]
    output: Output,
}

#[derive(clap::Args)]
pub(crate) struct RemoveArgs {
    /// The model
    model: ModelName,
    /// Version number
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    version: u32,
    #[command(flatten)]
    connect: Connect,
}

#[derive(Deserialize)]
struct List {
    models: Vec<Model>,
}

#[derive(Deserialize)]
struct Model {
    versions: Vec<Version>,
}

#[derive(Deserialize)]
struct Version {
    model: String,
    version: u32,
    backend: String,
    devices: Vec<String>,
    size: u64,
    files: BTreeMap<String, Value>,
    licence: String,
    task: String,
    public: bool,
    created: String,
    state: String,
    signature: Option<Value>,
}

pub(crate) fn run(command: &ModelsCommand) -> Result<()> {
    match command {
        ModelsCommand::Push(args) => push(args),
        ModelsCommand::List(args) => {
            args.output.show(args.connect.any()?.get("/api/v1/models")?, |list: List| {
                rows(list.models.into_iter().flat_map(|m| m.versions))
            })
        }
        ModelsCommand::Show(args) => {
            let answer = args.connect.any()?.get(&format!("/api/v1/models/{}", args.model))?;
            args.output
                .show(answer, |m: Model| m.versions.into_iter().map(show).collect::<Vec<_>>().join("\n"))
        }
        ModelsCommand::Rm(args) => {
            let path = format!("/api/v1/models/{}/versions/{}", args.model, args.version);
            args.connect.operator()?.delete(&path)?;
            talk(&format!("removed {} version {}", args.model, args.version));
            Ok(())
        }
    }
}

fn push(args: &PushArgs) -> Result<()> {
    let client = args.connect.operator()?;
    let (text, card) = card(&args.dir, args.name.as_ref())?;
    let model = &card.model.name;
    let version = match args.version {
        Some(version) => version,
        None => next_version(&client, model)?,
    };
    let mut form = Form::new();
    form.bytes("card", text);
    for file in &card.model.files {
        form.file(file, &args.dir.join(file))?;
    }
    let path = format!("/api/v1/models/{model}/versions/{version}");
    let response = form.put(&client, &path, &format!("pushing {model} version {version}"))?;
    let created = response.status() == 201;
    args.output.show(json(response)?, |v: Version| {
        talk(if created { "stored" } else { "there already, with the same content" });
        show(v)
    })
}

/// The card as text and checked, and its files there.
fn card(dir: &Path, name: Option<&ModelName>) -> Result<(String, ModelCard)> {
    let path = dir.join("model.toml");
    let text = fs::read_to_string(&path)
        .with_context(|| format!("{}: a model's folder has a card, model.toml", path.display()))?;
    let card = ModelCard::from_toml(&text).with_context(|| path.display().to_string())?;
    if let Some(name) = name.filter(|n| **n != card.model.name) {
        bail!("--name is {name}, but {} says {}: make them equal", path.display(), card.model.name);
    }
    let mut total = 0u64;
    for file in &card.model.files {
        let path = dir.join(file);
        total += fs::metadata(&path).with_context(|| format!("file {} of the card", path.display()))?.len();
    }
    if total > MAX_MODEL {
        bail!("the files of {} are {}: at most 1 GiB can be pushed", card.model.name, size(total));
    }
    Ok((text, card))
}

fn next_version(client: &Client, model: &ModelName) -> Result<u32> {
    match client.get(&format!("/api/v1/models/{model}")) {
        Ok(answer) => {
            let known: Model = serde_json::from_value(answer).context("the server's list of versions")?;
            Ok(known.versions.iter().map(|v| v.version).max().unwrap_or(0) + 1)
        }
        Err(error) if error.downcast_ref::<Refused>().is_some_and(|r| r.status == 404) => Ok(1),
        Err(error) => Err(error),
    }
}

fn rows(versions: impl Iterator<Item = Version>) -> String {
    let row = |v: Version| {
        vec![
            v.model,
            v.version.to_string(),
            harmless(&v.state),
            size(v.size),
            harmless(&v.task),
            harmless(&v.licence),
        ]
    };
    let rows: Vec<_> = versions.map(row).collect();
    table(&["model", "version>", "state", "size>", "task", "licence"], &rows)
}

fn show(v: Version) -> String {
    let mut lines = vec![
        ("model", format!("{} version {}", v.model, v.version)),
        ("state", harmless(&v.state)),
        ("backend", format!("{} on {}", v.backend, v.devices.join(", "))),
        ("files", format!("{} ({})", v.files.into_keys().collect::<Vec<_>>().join(", "), size(v.size))),
        ("task", harmless(&v.task)),
        ("licence", harmless(&v.licence)),
        ("public", if v.public { "yes" } else { "no" }.to_owned()),
        ("created", v.created),
    ];
    if let Some(signature) = v.signature {
        lines.push(("signature", harmless(&signature.to_string())));
    }
    facts(&lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_card_is_checked_before_anything_is_sent() {
        let dir = tempfile::tempdir().unwrap();
        let error = |name: Option<&str>| {
            let name = name.map(|n| n.parse().unwrap());
            card(dir.path(), name.as_ref()).err().map(|e| format!("{e:#}")).unwrap_or_default()
        };
        assert!(error(None).contains("model.toml"));
        let text = "[model]\nname = \"m\"\nbackend = \"onnx\"\nfiles = [\"model.onnx\"]";
        fs::write(dir.path().join("model.toml"), text).unwrap();
        assert!(error(None).contains("model.onnx"));
        fs::write(dir.path().join("model.onnx"), "x").unwrap();
        assert_eq!(error(None), "");
        assert!(error(Some("n")).contains("make them equal"));
    }
}
