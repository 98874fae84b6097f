use std::path::PathBuf;
use std::thread::available_parallelism;
use std::time::Duration;

use anyhow::ensure;
use serde::Deserialize;
use wasmeter_runtime::{CompileOptions, LoaderOptions};
use wasmeter_types::{ByteSize, WallTime};

/// Wall time of one compilation. The child stands back behind calls, so this is much more than its 60 s of processor time
/// beside a full load.
const COMPILE_WALL: Duration = Duration::from_secs(300);

/// `[functions]`: what functions take while nobody calls them, and how they are compiled.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub(crate) struct FunctionsSection {
    /// Functions that are held in memory; the next call to another one waits until it is loaded.
    pub(crate) loaded: usize,
    /// How long one stays in memory that nobody calls.
    pub(crate) idle_after: WallTime,
    /// Compiled artifacts on disk; one that had to go is compiled again when it is called.
    pub(crate) artifacts: ByteSize,
    /// Compilations at one time; 0 is one for each processor, two at least. Of several, one tenant gets all but one.
    pub(crate) compilers: usize,
    /// Uploads that may wait for a compiler; of these, one tenant gets half.
    pub(crate) compile_queue: usize,
}

impl Default for FunctionsSection {
    fn default() -> Self {
        let options = LoaderOptions::default();
        Self {
            loaded: options.loaded,
            idle_after: WallTime(options.idle),
            artifacts: ByteSize(32 << 30),
            compilers: 0,
            compile_queue: 64,
        }
    }
}

impl FunctionsSection {
    /// Everything that can be told before the first port opens.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        ensure!((1..=1_000_000).contains(&self.loaded), "functions.loaded must be 1 to 1000000");
        let (least, most) = (WallTime(Duration::from_secs(1)), WallTime(Duration::from_secs(24 * 3600)));
        ensure!(
            (least.0..=most.0).contains(&self.idle_after.0),
            "functions.idle-after is {}: it must be {least} to {most}",
            self.idle_after
        );
        ensure!(self.artifacts.0 >= 1 << 30, "functions.artifacts must be at least 1GiB");
        ensure!(self.compilers <= 256, "functions.compilers must be 0 to 256");
        ensure!((2..=10_000).contains(&self.compile_queue), "functions.compile-queue must be 2 to 10000");
        Ok(())
    }

    /// What is held in memory.
    pub(crate) fn loader(&self) -> LoaderOptions {
        LoaderOptions { loaded: self.loaded, idle: self.idle_after.0 }
    }

    /// How components are compiled.
    pub(crate) fn compile(&self) -> CompileOptions {
        let processors = available_parallelism().map_or(1, usize::from);
        CompileOptions {
            exe: PathBuf::from("/proc/self/exe"),
            wall: COMPILE_WALL,
            parallel: if self.compilers == 0 { processors.max(2) } else { self.compilers },
            waiting: self.compile_queue,
        }
    }
}
