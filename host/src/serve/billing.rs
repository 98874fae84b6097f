use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use rustix::process::{Pid, Signal};

/// How billing is started.
#[derive(Clone, Debug)]
pub(crate) struct BillingChild {
    pub(crate) data: PathBuf,
    pub(crate) socket: PathBuf,
    pub(crate) prices: Option<PathBuf>,
}

/// The supervised billing process of a single machine.
pub(crate) struct BillingProcess {
    stop: Arc<AtomicBool>,
    pid: Arc<AtomicU32>,
    thread: JoinHandle<()>,
}

/// A child that lived this long starts over with the shortest wait.
const HEALTHY: Duration = Duration::from_secs(10);
const RESTART: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));

/// `wasmeter-billing` beside this program.
pub(crate) fn program() -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe().context("cannot find this program's own path")?;
    let program = own.with_file_name("wasmeter-billing");
    ensure!(
        program.is_file(),
        "{} is not there: wasmeter-billing is installed beside wasmeter (`make build` builds both)",
        program.display()
    );
    Ok(program)
}

impl BillingChild {
    /// Starts billing, and starts it again whenever it ends.
    pub(crate) fn supervise(self) -> anyhow::Result<BillingProcess> {
        let program = program()?;
        let (stop, pid) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
        let (stopped, shared_pid) = (stop.clone(), pid.clone());
        // The child dies with the thread that started it (PR_SET_PDEATHSIG): this one lives as long as the process.
        let thread = std::thread::Builder::new().name("billing".to_owned()).spawn(move || {
            let mut wait = RESTART.0;
            while !stopped.load(Ordering::Acquire) {
                let started = Instant::now();
                match self.command(&program).spawn() {
                    Ok(mut child) => {
                        shared_pid.store(child.id(), Ordering::Release);
                        let status = child.wait();
                        shared_pid.store(0, Ordering::Release);
                        if stopped.load(Ordering::Acquire) {
                            return;
                        }
                        let signal = status.as_ref().ok().and_then(ExitStatusExt::signal);
                        tracing::warn!(
                            ?status,
                            signal,
                            "billing ended; it is started again, usage waits in the spool"
                        );
                    }
                    Err(error) => tracing::error!(%error, "billing cannot be started"),
                }
                if started.elapsed() > HEALTHY {
                    wait = RESTART.0;
                }
                std::thread::park_timeout(wait);
                wait = (wait * 2).min(RESTART.1);
            }
        })?;
        Ok(BillingProcess { stop, pid, thread })
    }

    fn command(&self, program: &std::path::Path) -> Command {
        let mut command = Command::new(program);
        command.arg("serve").arg("--data").arg(&self.data).arg("--socket").arg(&self.socket);
        command.arg(format!("--die-with-parent={}", std::process::id()));
        if let Some(prices) = &self.prices {
            command.arg("--prices").arg(prices);
        }
        // An interrupt of the terminal goes to the host alone, which ends billing last.
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        command.env_clear().stdin(Stdio::null()).stdout(Stdio::null());
        for name in ["WASMETER_LOG", "WASMETER_LOG_FORMAT"] {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        command
    }
}

impl BillingProcess {
    /// Ends billing: it finishes its transaction and exits. Blocking, at most ten seconds.
    pub(crate) fn end(self) {
        self.stop.store(true, Ordering::Release);
        self.thread.thread().unpark();
        let deadline = Instant::now() + Duration::from_secs(10);
        let mut told = false;
        while !self.thread.is_finished() {
            let pid = i32::try_from(self.pid.load(Ordering::Acquire)).ok().and_then(Pid::from_raw);
            let late = Instant::now() > deadline;
            if let Some(pid) = pid.filter(|_| !told || late) {
                let signal = if late { Signal::KILL } else { Signal::TERM };
                // The child is reaped by the thread that watches it, so its number is still its own.
                told = rustix::process::kill_process(pid, signal).is_ok();
            }
            if late {
                break;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}
