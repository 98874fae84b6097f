use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;
use wasmeter_types::{AliasName, FunctionManifest, FunctionName, ModelName};

use super::connect::TenantConnect;
use super::output::{Output, Paint, facts, size, talk};
use super::project::Project;
use super::upload::Form;

/// As the server's: it is better to be told before the upload.
const MAX_COMPONENT: u64 = 64 << 20;

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
    args.output.show(answer, |d: Deployed| {
        talk(&Paint::stderr().dim(&format!("try: wasmeter invoke {}", d.function)));
        let state = if created { "new" } else { "as before" };
        facts(&[
            ("url", d.url),
            ("revision", format!("{} ({state})", d.revision)),
            ("size", size(d.size)),
            ("trigger", if d.public { "public" } else { "with a token" }.to_owned()),
            ("imports", d.imports.join(", ")),
        ])
    })
}

/// The component and the manifest with what the flags say.
fn prepare(args: &DeployArgs) -> Result<(PathBuf, FunctionManifest)> {
    let (component, mut manifest) = if args.path.is_file() {
        (args.path.clone(), FunctionManifest::new(file_name(&args.path, args.name.as_ref())?))
    } else {
        let project = Project::open(&args.path)?;
        if !args.no_build {
            project.build()?;
        }
        (project.component()?, project.manifest)
    };
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
    fn a_manifest_survives_its_way() {
        let mut manifest = FunctionManifest::new("f".parse().unwrap());
        manifest.function.public = true;
        manifest.models.allow.push("minilm".parse().unwrap());
        manifest.env.insert("TOP_K".into(), "5 \"x\"\n".into());
        let text = toml::to_string(&manifest.for_host()).unwrap();
        assert_eq!(FunctionManifest::from_toml(&text).unwrap(), manifest);
    }
}
