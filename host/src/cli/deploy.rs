use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;
use wasmeter_types::{AliasName, FunctionManifest, FunctionName, ModelName};

use super::bill::rate;
use super::connect::TenantConnect;
use super::output::{Output, Paint, count, facts, size, talk};
use super::pre_init;
use super::project::Project;
use super::quote::{self, Quote, Spread};
use super::upload::Form;

/// As the server's: it is better to be told before the upload.
pub(super) const MAX_COMPONENT: u64 = 64 << 20;

#[derive(clap::Args)]
pub(crate) struct DeployArgs {
    /// Folder with wasmeter.toml, or a .wasm file
    #[arg(default_value = ".")]
    path: PathBuf,
    /// Deploy under this name
    #[arg(long)]
    name: Option<FunctionName>,
    /// Allow a model, as [models] allow does; may be repeated
    #[arg(long = "model", value_name = "MODEL")]
    models: Vec<ModelName>,
    /// Let anyone trigger it, without a token
    #[arg(long)]
    public: bool,
    /// Move this alias to the revision, not `live`: `wasmeter alias set` gives it a part of the traffic
    #[arg(long)]
    alias: Option<AliasName>,
    /// Deploy what was built before
    #[arg(long)]
    no_build: bool,
    /// Run its wizer-initialize first and deploy it with what that left in memory, as [build] pre-init does
    #[arg(long)]
    pre_init: bool,
    #[command(flatten)]
    connect: TenantConnect,
    #[command(flatten)]
    output: Output,
}

#[derive(Deserialize)]
struct Deployed {
    function: String,
    url: String,
    revision: String,
    size: u64,
    imports: Vec<String>,
    public: bool,
    models: Vec<String>,
    /// Absent while the host has not reached billing.
    price_preview: Option<Prices>,
}

#[derive(Deserialize)]
struct Prices {
    currency: String,
    request_pico: String,
    fuel_million_pico: String,
    cpu_second_pico: String,
    gpu_second_pico: String,
    egress_gb_pico: String,
}

pub(crate) fn run(args: &DeployArgs) -> Result<()> {
    // First, so that a missing token is told before a long build.
    let (client, tenant) = args.connect.client()?;
    let (component, manifest) = prepare(args)?;
    let length = component.metadata()?.len();
    if length > MAX_COMPONENT {
        bail!("{} is {}: at most 64 MiB can be deployed", component.display(), size(length));
    }
    let function = &manifest.function.name;
    let mut form = Form::new();
    form.bytes("manifest", toml::to_string(&manifest.for_host()).context("manifest")?);
    form.file("component", &component)?;
    let alias = args.alias.as_ref().map(|alias| format!("?alias={alias}")).unwrap_or_default();
    let path = format!("/api/v1/tenants/{tenant}/functions/{function}{alias}");
    let (status, answer) = form.put_watched(&client, &path, &format!("deploying {function}"))?;
    let created = status == 201;
    // What its calls have cost so far; a token that may deploy need not be one that may read.
    let quote = (!args.output.is_json())
        .then(|| quote::ask(&client, &tenant, function, 1_000).ok())
        .flatten()
        .and_then(|quote| serde_json::from_value(quote).ok());
    args.output.show(answer, |d: Deployed| {
        talk(&Paint::stderr().dim(&format!("try: wasmeter invoke {}", d.function)));
        let state = if created { "new" } else { "as before" };
        let mut lines = vec![
            ("url", d.url),
            ("revision", format!("{} ({state})", d.revision)),
            ("size", size(d.size)),
            ("trigger", if d.public { "public" } else { "with a token" }.to_owned()),
            ("imports", d.imports.join(", ")),
        ];
        if let Some(prices) = &d.price_preview {
            lines.push(("price", list(prices, !d.models.is_empty())));
        }
        if let Some(quote) = quote {
            lines.extend(costs(&quote));
        }
        facts(&lines)
    })
}

/// The list prices of what the function can use.
fn list(prices: &Prices, models: bool) -> String {
    let per = |pico: &String, unit: &str| format!("{} per {unit}", rate(pico, &prices.currency));
    let mut list = vec![per(&prices.request_pico, "call"), per(&prices.fuel_million_pico, "million fuel")];
    if models {
        list.push(per(&prices.cpu_second_pico, "second of CPU time"));
        list.push(per(&prices.gpu_second_pico, "second of GPU time"));
    }
    list.push(per(&prices.egress_gb_pico, "GB answered"));
    list.join(", ")
}

/// What one call and a thousand cost: by its latest calls, where there are any, and at most.
fn costs(quote: &Quote) -> [(&'static str, String); 2] {
    let cost = |of: Option<&Spread>, bound: &str| match of {
        Some(Spread { p50, .. }) => {
            format!("{p50} (median of its latest {}), at most {bound}", count(quote.stands_on))
        }
        None => format!("at most {bound}"),
    };
    [
        ("a call", cost(quote.one.as_ref(), &quote.bound.one)),
        ("1,000 calls", cost(quote.all.as_ref(), &quote.bound.all)),
    ]
}

/// The component and the manifest with what the flags say.
fn prepare(args: &DeployArgs) -> Result<(PathBuf, FunctionManifest)> {
    let (mut component, mut manifest, pre_init) = if args.path.is_file() {
        (args.path.clone(), FunctionManifest::new(file_name(&args.path, args.name.as_ref())?), false)
    } else {
        let project = Project::open(&args.path)?;
        if !args.no_build {
            project.build()?;
        }
        let pre_init = project.pre_init();
        (project.component()?, project.manifest, pre_init)
    };
    if pre_init || args.pre_init {
        component = pre_init::run(&component, &manifest.limits)?;
    }
    if let Some(name) = &args.name {
        manifest.function.name = name.clone();
    }
    for model in &args.models {
        if !manifest.models.allow.contains(model) {
            manifest.models.allow.push(model.clone());
        }
    }
    manifest.function.public |= args.public;
    Ok((component, manifest))
}

/// The function's name for a bare file.
fn file_name(path: &Path, name: Option<&FunctionName>) -> Result<FunctionName> {
    if let Some(name) = name {
        return Ok(name.clone());
    }
    let header = fs::File::open(path).map(|mut file| {
        let mut bytes = [0; 4];
        std::io::Read::read_exact(&mut file, &mut bytes).map(|()| bytes)
    });
    if !matches!(header, Ok(Ok([0, b'a', b's', b'm']))) {
        bail!("{} is not WebAssembly: name a .wasm file or a folder with wasmeter.toml", path.display());
    }
    let stem = path.file_stem().unwrap_or_default().to_string_lossy().to_lowercase().replace(['_', '.'], "-");
    stem.parse().with_context(|| format!("no name in {}: give one with --name", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_files_name_is_the_functions() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("My_Fn.wasm");
        fs::write(&path, b"\0asm\x0d").unwrap();
        assert_eq!(file_name(&path, None).unwrap().as_str(), "my-fn");
        fs::write(&path, b"ELF").unwrap();
        assert!(file_name(&path, None).unwrap_err().to_string().contains("not WebAssembly"));
    }

    #[test]
    fn what_it_costs_is_told_in_its_currency() {
        let prices = Prices {
            currency: "EUR".into(),
            request_pico: "200000".into(),
            fuel_million_pico: "2400".into(),
            cpu_second_pico: "24000000".into(),
            gpu_second_pico: "0".into(),
            egress_gb_pico: "90000000000".into(),
        };
        let little = "0.0000002 EUR per call, 0.0000000024 EUR per million fuel, 0.09 EUR per GB answered";
        assert_eq!(list(&prices, false), little);
        assert!(list(&prices, true).contains("0.000024 EUR per second of CPU time, 0 EUR per second of GPU"));
        let quote = |text: &str| serde_json::from_str::<Quote>(text).unwrap();
        let bound = r#""bound": {"one": "1 EUR", "all": "1000 EUR"}"#;
        let new = quote(&format!(r#"{{"calls": 1000, "stands_on": 0, "of_latest": 0, {bound}}}"#));
        assert_eq!(
            costs(&new),
            [("a call", "at most 1 EUR".into()), ("1,000 calls", "at most 1000 EUR".into())]
        );
        let spread = |p50: &str| format!(r#"{{"p50": "{p50}", "p95": "", "max": ""}}"#);
        let known = quote(&format!(
            r#"{{"calls": 1000, "stands_on": 20, "of_latest": 30, "one": {}, "all": {}, {bound}}}"#,
            spread("0.1 EUR"),
            spread("100 EUR")
        ));
        let [one, all] = costs(&known).map(|(_, text)| text);
        assert_eq!(one, "0.1 EUR (median of its latest 20), at most 1 EUR");
        assert_eq!(all, "100 EUR (median of its latest 20), at most 1000 EUR");
    }

    #[test]
    fn a_manifest_survives_its_way() {
        let mut manifest = FunctionManifest::new("f".parse().unwrap());
        manifest.function.public = true;
        manifest.models.allow.push("minilm".parse().unwrap());
        manifest.env.insert("TOP_K".into(), "5 \"x\"\n".into());
        let text = toml::to_string(&manifest.for_host()).unwrap();
        assert_eq!(FunctionManifest::from_toml(&text).unwrap(), manifest);
    }
}
