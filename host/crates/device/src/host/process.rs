//! The child process: how it starts, what it inherits, how its end is noticed.

use std::{
    fs,
    io::{self, Read},
    os::{
        fd::{AsRawFd, OwnedFd, RawFd},
        unix::process::CommandExt,
    },
    path::Path,
    process::{Child, ChildStderr, Command, ExitStatus, Stdio},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::WorkerOptions;
use crate::{
    clock::ProcessClock,
    target::{Library, Target},
    worker::{ARG_DEVICE, ARG_DEVICE_MEMORY, ARG_ONNXRUNTIME, ARG_OPENVINO, ARG_SOCKET},
};

/// The inherited socket gets a number above those that programs use by themselves, so that nothing that the
/// fork needs has the same one.
const SOCKET_MIN: RawFd = 100;
/// Longest line of a worker's stderr that is logged, and how many lines in its life.
const MAX_LINE: usize = 1024;
const MAX_LINES: u32 = 1000;

/// A running or dead worker. Dropping it kills it.
pub(super) struct Process {
    pub(super) pid: u32,
    pub(super) kill: Arc<Kill>,
    pub(super) clock: Option<ProcessClock>,
    watch: Arc<Watch>,
}

/// Ends the process; safe against reuse of its number.
#[derive(Debug)]
pub(super) struct Kill(OwnedFd);

impl Kill {
    pub(super) fn kill(&self) {
        // The only failure is that it is dead already.
        let _ = pidfd_send_signal(&self.0, Signal::KILL);
    }
}

#[derive(Default)]
struct Watch {
    state: Mutex<State>,
    dead: Condvar,
}

#[derive(Default)]
struct State {
    /// Set when the process is dead and reaped.
    status: Option<String>,
    last_line: String,
}

impl Process {
    /// Starts a worker. Call it on a thread that lives as long as the worker should: the kernel kills the
    /// worker when the thread that started it ends.
    pub(super) fn start(
        options: &WorkerOptions,
        target: &Target,
        library: &Path,
        socket: OwnedFd,
        name: &str,
    ) -> io::Result<Self> {
        let socket = rustix::io::fcntl_dupfd_cloexec(&socket, SOCKET_MIN)?;
        let number = socket.as_raw_fd();
        let mut command = Command::new(&options.exe);
        command
            .arg0("wasmeter-device-worker")
            .args(&options.arguments)
            .arg(ARG_SOCKET)
            .arg(number.to_string())
            .arg(match target.library() {
                Library::OnnxRuntime => ARG_ONNXRUNTIME,
                Library::OpenVino => ARG_OPENVINO,
            })
            .arg(library)
            .arg(ARG_DEVICE)
            .arg(target.to_string())
            .arg(ARG_DEVICE_MEMORY)
            .arg(options.device_memory_limit.to_string())
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let parent = std::process::id();
        let memory_limit = options.memory_limit;
        #[allow(unsafe_code, reason = "what a child must do between fork and exec")]
        // SAFETY: `prepare` makes plain system calls only: it neither allocates nor takes locks.
        unsafe {
            command.pre_exec(move || prepare(parent, number, memory_limit));
        }
        let mut child = command.spawn()?;
        drop(socket);
        let pid = child.id();
        let opened = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::NotFound.into());
        let pidfd = match opened.and_then(|pid| Ok(pidfd_open(pid, PidfdFlags::empty())?)) {
            Ok(pidfd) => pidfd,
            Err(error) => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(error);
            }
        };
        let watch = Arc::new(Watch::default());
        let process = Self {
            pid,
            kill: Arc::new(Kill(pidfd)),
            clock: ProcessClock::of(pid),
            watch: Arc::clone(&watch),
        };
        let stderr = child.stderr.take();
        let spawned = thread::Builder::new().name("worker-watch".to_owned()).spawn({
            let name = name.to_owned();
            move || watch.follow(child, stderr, &name, pid)
        });
        // Without a watcher nobody would reap it; `process` kills it on the way out.
        spawned.map(|_| process)
    }

    /// Private memory that it has in use, in bytes, as the kernel tells (proc_pid_status(5), `RssAnon`); `None` where it is
    /// dead, or `/proc` is not to be seen.
    pub(super) fn memory(&self) -> Option<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid)).ok()?;
        let memory = rss_anon(&status)?;
        // Else the number may be another process's by now.
        (!self.is_dead()).then_some(memory)
    }

    pub(super) fn is_dead(&self) -> bool {
        self.watch.state.lock().status.is_some()
    }

    /// Kills the worker and waits until it is reaped; says how it ended.
    pub(super) fn end(&self) -> String {
        self.kill.kill();
        self.reaped()
    }

    /// How a worker ended that closed its socket, which it does only by dying; kills it if it does not.
    pub(super) fn reaped_or_killed(&self) -> String {
        let until = Instant::now() + Duration::from_secs(1);
        let mut state = self.watch.state.lock();
        while state.status.is_none() {
            if self.watch.dead.wait_until(&mut state, until).timed_out() {
                drop(state);
                return self.end();
            }
        }
        drop(state);
        self.reaped()
    }

    /// Waits until a dying worker is reaped; says how it ended. A killed process takes milliseconds, unless
    /// the kernel has much memory to give back.
    fn reaped(&self) -> String {
        let until = Instant::now() + Duration::from_secs(10);
        let mut state = self.watch.state.lock();
        while state.status.is_none() {
            if self.watch.dead.wait_until(&mut state, until).timed_out() {
                return "it does not end".to_owned();
            }
        }
        let status = state.status.clone().unwrap_or_default();
        if state.last_line.is_empty() { status } else { format!("{status}: {}", state.last_line) }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !self.is_dead() {
            self.end();
        }
    }
}

impl Watch {
    /// Logs what the worker writes, and reaps it.
    fn follow(&self, mut child: Child, stderr: Option<ChildStderr>, name: &str, pid: u32) {
        if let Some(stderr) = stderr {
            // The worker cannot start processes, so the pipe ends when it does.
            self.log(stderr, name, pid);
        }
        let status = match child.wait() {
            Ok(status) => describe(status),
            Err(error) => error.to_string(),
        };
        tracing::debug!(worker = name, pid, status, "device worker ended");
        self.state.lock().status = Some(status);
        self.dead.notify_all();
    }

    fn log(&self, mut stderr: ChildStderr, name: &str, pid: u32) {
        let mut lines = 0;
        let mut line = Vec::with_capacity(MAX_LINE);
        let mut chunk = [0; 4096];
        loop {
            let len = match stderr.read(&mut chunk) {
                Ok(0) => break,
                Ok(len) => len,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => break,
            };
            for byte in &chunk[..len] {
                if *byte == b'\n' {
                    self.line(&mut line, &mut lines, name, pid);
                } else if line.len() < MAX_LINE {
                    line.push(*byte);
                }
            }
        }
        self.line(&mut line, &mut lines, name, pid);
    }

    fn line(&self, line: &mut Vec<u8>, lines: &mut u32, name: &str, pid: u32) {
        let text = printable(&String::from_utf8_lossy(line));
        line.clear();
        if text.is_empty() || *lines >= MAX_LINES {
            return;
        }
        *lines += 1;
        tracing::debug!(worker = name, pid, stderr = text);
        self.state.lock().last_line = text;
    }
}

/// Text from a worker, without what could confuse a terminal or a log.
pub(super) fn printable(text: &str) -> String {
    text.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

fn rss_anon(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok()?.checked_mul(1024)
}

fn describe(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;
    match (status.signal(), status.code()) {
        (Some(signal), _) => format!("killed by signal {signal}"),
        (None, Some(code)) => format!("ended with status {code}"),
        (None, None) => "ended".to_owned(),
    }
}

/// In the child, between fork and exec.
#[allow(unsafe_code, reason = "system calls that must not allocate")]
fn prepare(parent: u32, socket: RawFd, memory_limit: u64) -> io::Result<()> {
    let check = |result: libc::c_int| if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) };
    // SAFETY: plain system calls with plain numbers; `limit` outlives its calls.
    unsafe {
        check(libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL))?;
        // The parent may have died before the line above.
        if u32::try_from(libc::getppid()).ok() != Some(parent) {
            libc::_exit(1);
        }
        check(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))?;
        for (resource, value) in [
            (libc::RLIMIT_CORE, 0),
            (libc::RLIMIT_FSIZE, 0),
            (libc::RLIMIT_NOFILE, 256),
            (libc::RLIMIT_DATA, memory_limit),
        ] {
            let limit = libc::rlimit { rlim_cur: value, rlim_max: value };
            check(libc::setrlimit(resource, &raw const limit))?;
        }
        // Rust opens everything close-on-exec; a C library might not. Kernels before 5.11 lack the flag, and
        // there the worker has what such libraries leak, as every program has.
        let flags = libc::c_int::try_from(libc::CLOSE_RANGE_CLOEXEC).unwrap_or(0);
        libc::close_range(3, libc::c_uint::MAX, flags);
        check(libc::fcntl(socket, libc::F_SETFD, 0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_memory_is_read_in_bytes() {
        assert_eq!(rss_anon("VmRSS:\t 9 kB\nRssAnon:\t   5120 kB\nRssFile:\t 7 kB\n"), Some(5120 * 1024));
        assert_eq!(rss_anon("VmRSS:\t 9 kB\n"), None);
        let own = fs::read_to_string("/proc/self/status").unwrap();
        assert!(rss_anon(&own).unwrap() > 0);
    }
}
