use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;
use wasmeter_types::FunctionManifest;

use super::output::talk;

const TARGET: &str = "wasm32-wasip2";

/// A folder with a function.
pub(crate) struct Project {
    pub(crate) dir: PathBuf,
    pub(crate) manifest: FunctionManifest,
}

impl Project {
    /// Reads `wasmeter.toml` of the folder.
    pub(crate) fn open(dir: &Path) -> Result<Self> {
        let path = dir.join("wasmeter.toml");
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == io::ErrorKind::NotFound => bail!(
                "no wasmeter.toml in {}: name a function's folder or a .wasm file, or make one with `wasmeter new`",
                dir.display()
            ),
            Err(e) => return Err(e).with_context(|| path.display().to_string()),
        };
        let manifest = FunctionManifest::from_toml(&text).with_context(|| path.display().to_string())?;
        // Absolute, because the tools run in it.
        let dir = dir.canonicalize().with_context(|| dir.display().to_string())?;
        Ok(Self { dir, manifest })
    }

    /// Builds the component: the manifest's command, or cargo.
    pub(crate) fn build(&self) -> Result<()> {
        let mut command = match self.manifest.build.as_ref().and_then(|build| build.command.as_ref()) {
            Some(build) => {
                talk(&format!("building {}: {build}", self.manifest.function.name));
                let mut shell = Command::new("sh");
                shell.arg("-c").arg(build);
                shell
            }
            None => {
                if !self.dir.join("Cargo.toml").is_file() {
                    bail!(
                        "{} has no Cargo.toml and wasmeter.toml no [build] command: say how it is built, or deploy \
                         with --no-build",
                        self.dir.display()
                    );
                }
                let mut cargo = Command::new("cargo");
                cargo.args(["build", "--release", "--target", TARGET]);
                if let Some(toolchain) = toolchain(&self.dir)? {
                    cargo.env("RUSTUP_TOOLCHAIN", toolchain);
                }
                cargo
            }
        };
        // What a build prints is talk, not data.
        command.current_dir(&self.dir).stdin(Stdio::null()).stdout(Stdio::from(io::stderr()));
        let status = command.status().context("the build could not be started: is cargo installed?")?;
        if !status.success() {
            bail!("the build of {} failed ({status})", self.manifest.function.name);
        }
        Ok(())
    }

    /// The built component.
    pub(crate) fn component(&self) -> Result<PathBuf> {
        let path = match &self.manifest.function.component {
            Some(path) => self.dir.join(path),
            None => self.cargo_component()?,
        };
        if !path.is_file() {
            bail!("no component at {}: build it with `wasmeter build`", path.display());
        }
        Ok(path)
    }

    /// Whether the manifest says that the component is pre-initialised before it is deployed.
    pub(crate) fn pre_init(&self) -> bool {
        self.manifest.build.as_ref().is_some_and(|build| build.pre_init)
    }

    /// Where cargo puts it, which the environment and `.cargo/config.toml` may move.
    fn cargo_component(&self) -> Result<PathBuf> {
        let output = Command::new("cargo")
            .args(["metadata", "--no-deps", "--format-version", "1"])
            .current_dir(&self.dir)
            .stderr(Stdio::inherit())
            .output()
            .context(
                "`cargo metadata` could not be started; [function] component says where the component is",
            )?;
        if !output.status.success() {
            bail!(
                "`cargo metadata` failed; [function] component in wasmeter.toml says where the component is"
            );
        }
        let metadata: Metadata = serde_json::from_slice(&output.stdout).context("`cargo metadata`")?;
        metadata.component(&self.dir.join("Cargo.toml")).with_context(|| {
            format!("{} has no cdylib or bin: add `[lib] crate-type = [\"cdylib\"]`", self.dir.display())
        })
    }
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    target_directory: PathBuf,
}

#[derive(Deserialize)]
struct Package {
    manifest_path: PathBuf,
    targets: Vec<Target>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
    kind: Vec<String>,
}

impl Metadata {
    fn component(&self, manifest: &Path) -> Option<PathBuf> {
        let package = self.packages.iter().find(|p| p.manifest_path == manifest)?;
        let of = |kind: &str| package.targets.iter().find(|t| t.kind.iter().any(|k| k == kind));
        // A library's file has underscores, a program's keeps its name.
        let file = match (of("cdylib"), of("bin")) {
            (Some(lib), _) => lib.name.replace('-', "_"),
            (None, Some(bin)) => bin.name.clone(),
            (None, None) => return None,
        };
        Some(self.target_directory.join(TARGET).join("release").join(format!("{file}.wasm")))
    }
}

/// The toolchain to name, if the folder's own cannot build for Wasm.
fn toolchain(dir: &Path) -> Result<Option<&'static str>> {
    if has_target(dir, None) {
        return Ok(None);
    }
    if has_target(dir, Some("wasm")) {
        return Ok(Some("wasm"));
    }
    bail!(
        "rustc has no standard library for {TARGET}: `rustup target add {TARGET}` adds it; where rustup's server \
         cannot be reached, deploy/wasm-toolchain.sh of wasmeter builds it"
    )
}

fn has_target(dir: &Path, toolchain: Option<&str>) -> bool {
    let mut rustc = Command::new("rustc");
    rustc.args(["--print", "target-libdir", "--target", TARGET]).current_dir(dir).stderr(Stdio::null());
    if let Some(toolchain) = toolchain {
        rustc.env("RUSTUP_TOOLCHAIN", toolchain);
    }
    let Ok(output) = rustc.output() else { return false };
    let libdir = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let Ok(files) = fs::read_dir(&libdir) else { return false };
    output.status.success() && files.flatten().any(|f| f.file_name().to_string_lossy().starts_with("libstd-"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cargos_file_names() {
        let metadata = |kind: &str| Metadata {
            packages: vec![Package {
                manifest_path: "/p/Cargo.toml".into(),
                targets: vec![Target { name: "my-fn".into(), kind: vec![kind.into()] }],
            }],
            target_directory: "/t".into(),
        };
        let component = |kind: &str| metadata(kind).component(Path::new("/p/Cargo.toml"));
        assert_eq!(component("cdylib"), Some("/t/wasm32-wasip2/release/my_fn.wasm".into()));
        assert_eq!(component("bin"), Some("/t/wasm32-wasip2/release/my-fn.wasm".into()));
        assert_eq!(component("lib"), None);
    }

    #[test]
    fn a_folder_without_a_manifest_says_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let error = Project::open(dir.path()).err().unwrap();
        assert!(error.to_string().contains("wasmeter new"), "{error}");
    }
}
