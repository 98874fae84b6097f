use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use tokio::io::AsyncReadExt;
use tokio::process::Command;
use tokio::task::spawn_blocking;

use super::REFUSED;
use super::turns::{Full, Turns};

/// How the compile child is run.
#[derive(Clone, Debug)]
pub struct CompileOptions {
    /// The program; it is given the argument `compile`.
    pub exe: PathBuf,
    /// Wall time of one compilation; its CPU time is limited inside the child.
    pub wall: Duration,
    /// Compilations at one time; of several, one tenant gets all but one.
    pub parallel: usize,
    /// Compilations that wait; of these, one tenant gets half.
    pub waiting: usize,
}

/// How far a compilation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CompileStage {
    /// It waits; the place in the line begins with 1.
    Queued(usize),
    /// Its child runs.
    Compiling,
}

/// Compiles components, each in a confined child process of its own. Cheap to clone.
#[derive(Clone)]
pub struct Compiler {
    options: Arc<CompileOptions>,
    turns: Turns,
}

/// A component that was not compiled.
#[derive(Debug, thiserror::Error)]
pub enum CompileError {
    /// It is not a valid component.
    #[error("{0}")]
    Refused(String),
    /// It took more than a compilation may.
    #[error("compiling took more than {0}: make the component smaller")]
    TooMuch(&'static str),
    /// It had no room in the line, or not enough of a busy processor: it may succeed later.
    #[error("{0}: retry later")]
    Busy(String),
    /// The tenant has its share of the line already.
    #[error("{0} components of the tenant wait to be compiled, its share of this host: retry later")]
    Share(usize),
    /// The child could not do its work.
    #[error("compile child: {0}")]
    Child(String),
}

impl From<Full> for CompileError {
    fn from(full: Full) -> Self {
        match full {
            Full::Host(n) => Self::Busy(format!("{n} components wait to be compiled, the most on this host")),
            Full::Tenant(n) => Self::Share(n),
        }
    }
}

impl From<io::Error> for CompileError {
    fn from(e: io::Error) -> Self {
        Self::Child(e.to_string())
    }
}

/// The reason that a child may give is cut here.
const MAX_REASON: u64 = 4096;

impl Compiler {
    /// A compiler with these options.
    #[must_use]
    pub fn new(options: CompileOptions) -> Self {
        let turns = Turns::new(options.parallel, options.waiting);
        Self { options: Arc::new(options), turns }
    }

    /// The artifact of a tenant's component. Waits for its turn; a caller that goes away ends its child.
    ///
    /// # Errors
    /// See [`CompileError`].
    pub async fn compile(
        &self,
        tenant: &str,
        component: Bytes,
        told: &(dyn Fn(CompileStage) + Send + Sync),
    ) -> Result<Vec<u8>, CompileError> {
        let _turn = self.turns.take(tenant, |place| told(CompileStage::Queued(place))).await?;
        told(CompileStage::Compiling);
        let input = blocking(move || sealed_copy(&component)).await?;
        let output = File::from(memfd_create("artifact", MemfdFlags::CLOEXEC).map_err(io::Error::from)?);
        // The parent-death signal that the child asks for comes when this thread ends: a tokio worker lives as long
        // as the runtime, a blocking thread does not, so the child is spawned here.
        let mut child = Command::new(&self.options.exe)
            .arg("compile")
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::from(input))
            .stdout(Stdio::from(output.try_clone()?))
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let mut reason = String::new();
        let stderr = child.stderr.take();
        let finish = async {
            if let Some(stderr) = stderr {
                let mut bytes = Vec::new();
                stderr.take(MAX_REASON).read_to_end(&mut bytes).await?;
                reason = String::from_utf8_lossy(&bytes).trim().to_owned();
            }
            child.wait().await
        };
        let status = match tokio::time::timeout(self.options.wall, finish).await {
            Ok(status) => status?,
            // Its processor time is bounded too, and below this: others had the processor.
            Err(_) => {
                return Err(CompileError::Busy("the host was too busy to compile the component".into()));
            }
        };
        judge(status, reason)?;
        Ok(blocking(move || whole(output)).await?)
    }
}

/// Copies of large components and artifacts take milliseconds.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    spawn_blocking(work).await.map_err(io::Error::other)?
}

fn whole(mut file: File) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(usize::try_from(file.metadata()?.len()).unwrap_or(0));
    file.seek(SeekFrom::Start(0))?;
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn judge(status: ExitStatus, reason: String) -> Result<(), CompileError> {
    match (status.code(), status.signal()) {
        (Some(0), _) => Ok(()),
        (Some(code), _) if code == i32::from(REFUSED) => Err(CompileError::Refused(reason)),
        (Some(code), _) => Err(CompileError::Child(format!("ended with status {code}: {reason}"))),
        (None, Some(libc::SIGXCPU | libc::SIGKILL)) => Err(CompileError::TooMuch("its CPU time")),
        // An allocation over the address space limit aborts.
        (None, Some(libc::SIGABRT)) => Err(CompileError::TooMuch("its memory")),
        (None, signal) => Err(CompileError::Child(format!("ended by signal {signal:?}"))),
    }
}

/// A file in memory that nobody can change any more.
fn sealed_copy(bytes: &[u8]) -> io::Result<File> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let mut file = File::from(memfd_create("component", flags)?);
    file.write_all(bytes)?;
    file.seek(SeekFrom::Start(0))?;
    fcntl_add_seals(&file, SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE)?;
    Ok(file)
}
