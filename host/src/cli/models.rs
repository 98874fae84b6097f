mod bench;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;
use serde_json::{Value, json};
use wasmeter_types::{LabelName, ModelCard, ModelName, TenantName};

use super::client::{self, Client, Refused};
use super::connect::{Connect, TenantConnect};
use super::output::{Output, facts, harmless, size, table, talk};
use super::upload::Form;

/// As the server's.
const MAX_MODEL: u64 = 1 << 30;

#[derive(clap::Subcommand)]
pub(crate) enum ModelsCommand {
    /// Push a version of a model, or of each model in a folder of folders (operator, or --own)
    Push(PushArgs),
    /// List the operator's models, or the tenant's own
    List(ListArgs),
    /// Show one model with its versions
    Show(ShowArgs),
    /// Point a label to a version (operator, or --own); a name alone means the label stable
    Label(LabelArgs),
    /// Lift the quarantine of a version, and load it again (operator, or --own)
    Lift(VersionArgs),
    /// Say which tenants may use a model (operator)
    Grant(GrantArgs),
    /// Measure batches of a model on its device and say what its card should have (operator, or --own)
    Bench(bench::BenchArgs),
    /// Remove a version (operator, or --own)
    Rm(VersionArgs),
}

/// Whose models a command is about.
#[derive(clap::Args)]
pub(crate) struct Whose {
    /// The tenant's own models, not the operator's
    #[arg(long)]
    own: bool,
    #[command(flatten)]
    connect: TenantConnect,
}

impl Whose {
    /// The path of the models, and a client that may change them.
    fn change(&self) -> Result<(Client, String)> {
        if self.own { self.own() } else { Ok((self.connect.connect().operator()?, OPERATORS.to_owned())) }
    }

    /// The path of the models, and a client that may look at them.
    fn look(&self) -> Result<(Client, String)> {
        if self.own { self.own() } else { Ok((self.connect.connect().any()?, OPERATORS.to_owned())) }
    }

    fn own(&self) -> Result<(Client, String)> {
        let (client, tenant) = self.connect.client()?;
        Ok((client, format!("/api/v1/tenants/{tenant}/models")))
    }
}

/// The path of the operator's models.
const OPERATORS: &str = "/api/v1/models";

#[derive(clap::Args)]
pub(crate) struct PushArgs {
    /// Folder with model.toml and the files that it names, or with such folders
    dir: PathBuf,
    /// Name; must be the card's
    #[arg(long)]
    name: Option<ModelName>,
    /// Version number [default: the next]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    version: Option<u32>,
    #[command(flatten)]
    whose: Whose,
    #[command(flatten)]
    output: Output,
}

#[derive(clap::Args)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    whose: Whose,
    #[command(flatten)]
    output: Output,
}

#[derive(clap::Args)]
pub(crate) struct ShowArgs {
    /// The model
    model: ModelName,
    #[command(flatten)]
    whose: Whose,
    #[command(flatten)]
    output: Output,
}

#[derive(clap::Args)]
pub(crate) struct LabelArgs {
    /// The model
    model: ModelName,
    /// The label, such as stable or canary
    label: LabelName,
    /// Version number
    #[arg(value_parser = clap::value_parser!(u32).range(1..), required_unless_present = "remove")]
    version: Option<u32>,
    /// Remove the label; its version stays
    #[arg(long, conflicts_with = "version")]
    remove: bool,
    #[command(flatten)]
    whose: Whose,
}

#[derive(clap::Args)]
pub(crate) struct GrantArgs {
    /// The model
    model: ModelName,
    /// The tenants that may use it; all others no longer may
    tenants: Vec<TenantName>,
    /// Every tenant may use it
    #[arg(long, conflicts_with_all = ["tenants", "nobody"])]
    all: bool,
    /// No tenant may use it
    #[arg(long, conflicts_with = "tenants")]
    nobody: bool,
    #[command(flatten)]
    connect: Connect,
}

#[derive(clap::Args)]
pub(crate) struct VersionArgs {
    /// The model
    model: ModelName,
    /// Version number
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    version: u32,
    #[command(flatten)]
    whose: Whose,
}

#[derive(Deserialize)]
struct List {
    models: Vec<Model>,
}

#[derive(Deserialize)]
struct Model {
    versions: Vec<Version>,
    #[serde(default)]
    labels: BTreeMap<String, u32>,
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
    #[serde(default)]
    reason: Option<String>,
    signature: Option<Value>,
}

pub(crate) fn run(command: &ModelsCommand) -> Result<()> {
    match command {
        ModelsCommand::Push(args) => push(args),
        ModelsCommand::List(args) => {
            let (client, path) = args.whose.look()?;
            args.output.show(client.get(&path)?, |list: List| rows(list.models))
        }
        ModelsCommand::Show(args) => {
            let (client, path) = args.whose.look()?;
            let answer = client.get(&format!("{path}/{}", args.model))?;
            args.output.show(answer, |model: Model| {
                let Model { versions, labels } = model;
                versions.into_iter().map(|v| show(v, &labels)).collect::<Vec<_>>().join("\n")
            })
        }
        ModelsCommand::Label(args) => label(args),
        ModelsCommand::Grant(args) => grant(args),
        ModelsCommand::Lift(args) => {
            let (client, path) = args.whose.change()?;
            client.delete(&format!("{path}/{}/versions/{}/quarantine", args.model, args.version))?;
            talk(&format!("{} version {} is loaded again", args.model, args.version));
            Ok(())
        }
        ModelsCommand::Bench(args) => bench::bench(args),
        ModelsCommand::Rm(args) => {
            let (client, path) = args.whose.change()?;
            client.delete(&format!("{path}/{}/versions/{}", args.model, args.version))?;
            talk(&format!("removed {} version {}", args.model, args.version));
            Ok(())
        }
    }
}

fn label(args: &LabelArgs) -> Result<()> {
    let (client, path) = args.whose.change()?;
    let LabelArgs { model, label, .. } = args;
    let path = format!("{path}/{model}/labels/{label}");
    match args.version {
        Some(version) => {
            client.post(&path, &json!({ "version": version }))?;
            talk(&format!("{model}@{label} is version {version}"));
        }
        None => {
            client.delete(&path)?;
            talk(&format!("{model}@{label} is gone"));
        }
    }
    Ok(())
}

fn grant(args: &GrantArgs) -> Result<()> {
    let GrantArgs { model, tenants, all, nobody, connect } = args;
    let (body, whom) = match (all, tenants.is_empty() && !nobody) {
        (true, _) => (json!({ "all": true }), "every tenant".to_owned()),
        (false, true) => bail!("name tenants, or say --all or --nobody"),
        (false, false) if *nobody => (json!({ "tenants": [] }), "no tenant".to_owned()),
        (false, false) => {
            let names: Vec<&str> = tenants.iter().map(TenantName::as_str).collect();
            (json!({ "tenants": names }), names.join(", "))
        }
    };
    connect.operator()?.put_json(&format!("{OPERATORS}/{model}/grants"), &body)?;
    talk(&format!("{model} is granted to {whom}"));
    Ok(())
}

fn push(args: &PushArgs) -> Result<()> {
    if args.dir.join("model.toml").is_file() {
        return push_one(args, &args.dir);
    }
    let folders = folders(&args.dir)?;
    if folders.is_empty() {
        // The error of one model says what its folder needs.
        return push_one(args, &args.dir);
    }
    if args.name.is_some() || args.version.is_some() {
        bail!("{} holds several models: --name and --version are for one", args.dir.display());
    }
    let (all, mut failed) = (folders.len(), 0);
    for (done, folder) in folders.iter().enumerate() {
        talk(&format!("{}/{all} {}", done + 1, folder.display()));
        if let Err(error) = push_one(args, folder) {
            failed += 1;
            talk(&format!("{}: {error:#}", folder.display()));
        }
    }
    if failed > 0 {
        bail!("{failed} of {all} models were not pushed");
    }
    Ok(())
}

/// The folders in a folder that are models, by name.
fn folders(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).with_context(|| format!("folder {}", dir.display()))? {
        let path = entry?.path();
        if path.join("model.toml").is_file() {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

fn push_one(args: &PushArgs, dir: &Path) -> Result<()> {
    let (text, card) = card(dir, args.name.as_ref())?;
    let (client, models) = args.whose.change()?;
    let model = &card.model.name;
    let version = match args.version {
        Some(version) => version,
        None => next_version(&client, &format!("{models}/{model}"))?,
    };
    let mut form = Form::new();
    form.bytes("card", text);
    for file in &card.model.files {
        form.file(file, &dir.join(file))?;
    }
    let path = format!("{models}/{model}/versions/{version}");
    let response = form.put(&client, &path, &format!("pushing {model} version {version}"))?;
    let created = response.status() == 201;
    args.output.show(client::json(response)?, |v: Version| {
        talk(if created { "stored" } else { "there already, with the same content" });
        show(v, &BTreeMap::new())
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

fn next_version(client: &Client, model: &str) -> Result<u32> {
    match client.get(model) {
        Ok(answer) => {
            let known: Model = serde_json::from_value(answer).context("the server's list of versions")?;
            Ok(known.versions.iter().map(|v| v.version).max().unwrap_or(0) + 1)
        }
        Err(error) if error.downcast_ref::<Refused>().is_some_and(|r| r.status == 404) => Ok(1),
        Err(error) => Err(error),
    }
}

fn rows(models: Vec<Model>) -> String {
    let row = |v: Version, labels: &BTreeMap<String, u32>| {
        vec![
            v.model,
            v.version.to_string(),
            labels_of(labels, v.version),
            harmless(&v.state),
            size(v.size),
            harmless(&v.task),
            harmless(&v.licence),
        ]
    };
    let rows: Vec<_> = models
        .into_iter()
        .flat_map(|Model { versions, labels }| versions.into_iter().map(move |v| row(v, &labels)))
        .collect();
    table(&["model", "version>", "labels", "state", "size>", "task", "licence"], &rows)
}

/// The labels that point to a version.
fn labels_of(labels: &BTreeMap<String, u32>, version: u32) -> String {
    let here = labels.iter().filter(|(_, labelled)| **labelled == version);
    here.map(|(label, _)| label.as_str()).collect::<Vec<_>>().join(", ")
}

fn show(v: Version, labels: &BTreeMap<String, u32>) -> String {
    let state = match &v.reason {
        Some(reason) => harmless(&format!("{}: {reason}", v.state)),
        None => harmless(&v.state),
    };
    let mut lines = vec![
        ("model", format!("{} version {}", v.model, v.version)),
        ("state", state),
        ("backend", format!("{} on {}", v.backend, v.devices.join(", "))),
        ("files", format!("{} ({})", v.files.into_keys().collect::<Vec<_>>().join(", "), size(v.size))),
        ("task", harmless(&v.task)),
        ("licence", harmless(&v.licence)),
        ("public", if v.public { "yes" } else { "no" }.to_owned()),
        ("created", v.created),
    ];
    let here = labels_of(labels, v.version);
    if !here.is_empty() {
        lines.push(("labels", here));
    }
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

    #[test]
    fn a_folder_of_models_is_its_folders_with_cards() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["b", "a", "no-model"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        for name in ["b", "a"] {
            fs::write(dir.path().join(name).join("model.toml"), "").unwrap();
        }
        assert_eq!(folders(dir.path()).unwrap(), [dir.path().join("a"), dir.path().join("b")]);
        assert!(folders(&dir.path().join("none")).is_err());
    }
}
