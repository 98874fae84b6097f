use std::path::PathBuf;

use anyhow::Result;

use super::output::{data, size, talk};
use super::pre_init;
use super::project::Project;

#[derive(clap::Args)]
pub(crate) struct BuildArgs {
    /// Folder with wasmeter.toml
    #[arg(default_value = ".")]
    path: PathBuf,
}

/// Prints the component's path.
pub(crate) fn run(args: &BuildArgs) -> Result<()> {
    let project = Project::open(&args.path)?;
    project.build()?;
    let mut component = project.component()?;
    if project.pre_init() {
        component = pre_init::run(&component, &project.manifest.limits)?;
    }
    talk(&format!("built {}: {}", project.manifest.function.name, size(component.metadata()?.len())));
    data(&format!("{}\n", component.display()))
}
