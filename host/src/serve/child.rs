//! Processes of ours that are started again whenever they end.

use std::io::{BufRead as _, BufReader};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};

/// A child that lived this long starts over with the shortest wait.
const HEALTHY: Duration = Duration::from_secs(10);
const RESTART: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));
/// How long a child may take to end.
const END: Duration = Duration::from_secs(10);

/// What is run.
pub(crate) trait Program: Send + 'static {
    /// For messages and the thread.
    const NAME: &'static str;
    /// What its end means meanwhile.
    const MEANWHILE: &'static str;
    /// Whether its first line on standard output is wanted.
    const SPEAKS: bool = false;

    /// The command of the next start.
    fn command(&mut self) -> Command;

    /// Its first line.
    fn said(&mut self, _line: &str) {}
}

/// A child that runs, or is about to again.
pub(crate) struct Supervised {
    name: &'static str,
    stop: Arc<AtomicBool>,
    pid: Arc<AtomicU32>,
    thread: JoinHandle<()>,
}

/// Starts the program, and starts it again whenever it ends.
pub(crate) fn supervise<P: Program>(mut program: P) -> std::io::Result<Supervised> {
    let (stop, pid) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
    let (stopped, shared_pid) = (stop.clone(), pid.clone());
    // The child dies with the thread that started it (PR_SET_PDEATHSIG): this one lives as long as the process.
    let thread = std::thread::Builder::new().name(P::NAME.to_owned()).spawn(move || {
        let mut wait = RESTART.0;
        while !stopped.load(Ordering::Acquire) {
            let started = Instant::now();
            match prepare(&mut program).spawn() {
                Ok(mut child) => {
                    shared_pid.store(child.id(), Ordering::Release);
                    listen(&mut program, &mut child);
                    let status = child.wait();
                    shared_pid.store(0, Ordering::Release);
                    if stopped.load(Ordering::Acquire) {
                        return;
                    }
                    let signal = status.as_ref().ok().and_then(|s| s.signal());
                    tracing::warn!(
                        ?status,
                        signal,
                        "{} ended; it is started again, {}",
                        P::NAME,
                        P::MEANWHILE
                    );
                }
                Err(error) => tracing::error!(%error, "{} cannot be started", P::NAME),
            }
            if started.elapsed() > HEALTHY {
                wait = RESTART.0;
            }
            std::thread::park_timeout(wait);
            wait = (wait * 2).min(RESTART.1);
        }
    })?;
    Ok(Supervised { name: P::NAME, stop, pid, thread })
}

fn prepare<P: Program>(program: &mut P) -> Command {
    let mut command = program.command();
    command.arg(format!("--die-with-parent={}", std::process::id()));
    // An interrupt of the terminal goes to the host alone, which ends its children last.
    command.process_group(0);
    command.env_clear().stdin(Stdio::null());
    command.stdout(if P::SPEAKS { Stdio::piped() } else { Stdio::null() });
    for name in ["WASMETER_LOG", "WASMETER_LOG_FORMAT"] {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    command
}

/// Reads its first line, and whatever it writes after that, so that it never finds the pipe closed or full.
fn listen<P: Program>(program: &mut P, child: &mut Child) {
    let Some(stdout) = child.stdout.take() else { return };
    let mut lines = BufReader::new(stdout).lines();
    if let Some(Ok(line)) = lines.next() {
        program.said(&line);
    }
    lines.for_each(drop);
}

impl Supervised {
    /// Lets it start anew, with a new command. It finishes what it does first.
    pub(crate) fn renew(&self) {
        self.signal(Signal::TERM);
    }

    /// Ends it: it finishes what it does and exits. Blocking, at most ten seconds.
    pub(crate) fn end(&self) {
        self.stop.store(true, Ordering::Release);
        self.thread.thread().unpark();
        let deadline = Instant::now() + END;
        let mut told = false;
        while !self.thread.is_finished() {
            if Instant::now() > deadline {
                tracing::warn!("{} did not end within {END:?} and is killed", self.name);
                self.signal(Signal::KILL);
                break;
            }
            told = told || self.signal(Signal::TERM);
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn signal(&self, signal: Signal) -> bool {
        let pid = i32::try_from(self.pid.load(Ordering::Acquire)).ok().and_then(Pid::from_raw);
        // The child is reaped by the thread that watches it, so its number is still its own.
        pid.is_some_and(|pid| rustix::process::kill_process(pid, signal).is_ok())
    }
}
