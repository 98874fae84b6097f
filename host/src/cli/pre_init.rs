use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use wasmeter_runtime::pre_initialize;
use wasmeter_types::Limits;

use super::deploy::MAX_COMPONENT;
use super::output::{count, size, talk};

/// Pre-initialises a component; the result is beside it, as `NAME.init.wasm`.
pub(crate) fn run(component: &Path, limits: &Limits) -> Result<PathBuf> {
    let path = || component.display().to_string();
    let length = fs::metadata(component).with_context(path)?.len();
    if length > MAX_COMPONENT {
        bail!("{} is {}: at most 64 MiB can be deployed", path(), size(length));
    }
    let bytes = fs::read(component).with_context(path)?;
    let memory = usize::try_from(limits.memory.0).unwrap_or(usize::MAX);
    let done =
        pre_initialize(&bytes, memory).with_context(|| format!("{} cannot be pre-initialised", path()))?;
    let to = component.with_extension("init.wasm");
    let folder = component.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // Whole or not at all: `--no-build` may deploy it later.
    let mut file = tempfile::NamedTempFile::new_in(folder).with_context(|| folder.display().to_string())?;
    file.write_all(&done.component).with_context(|| to.display().to_string())?;
    file.persist(&to).with_context(|| to.display().to_string())?;
    let (fuel, before, after) = (count(done.fuel), bytes.len() as u64, done.component.len() as u64);
    talk(&format!(
        "pre-initialised: {fuel} fuel once and not in each call, {} became {}",
        size(before),
        size(after)
    ));
    Ok(to)
}
