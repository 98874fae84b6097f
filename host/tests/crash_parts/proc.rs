//! Processes as /proc shows them. Only descendants of the test itself are ever signalled.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// One process; with its start time, a number that is used again is another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Process {
    pub pid: u32,
    started: u64,
}

struct Stat {
    state: char,
    parent: u32,
    /// Processor time in ticks.
    used: u64,
    started: u64,
}

fn stat(pid: u32) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in brackets may hold anything.
    let fields: Vec<&str> = text.get(text.rfind(')')? + 2..)?.split(' ').collect();
    Some(Stat {
        state: fields.first()?.chars().next()?,
        parent: fields.get(1)?.parse().ok()?,
        used: fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?,
        started: fields.get(19)?.parse().ok()?,
    })
}

impl Process {
    pub fn of(pid: u32) -> Option<Self> {
        Some(Self { pid, started: stat(pid)?.started })
    }

    /// Whether it runs still; a zombie runs nothing any more.
    pub fn lives(self) -> bool {
        stat(self.pid).is_some_and(|s| s.started == self.started && !matches!(s.state, 'Z' | 'X'))
    }

    /// Its children that live.
    pub fn children(self) -> Vec<Process> {
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse().ok()) else { continue };
            if let Some(stat) = stat(pid).filter(|s| s.parent == self.pid && !matches!(s.state, 'Z' | 'X')) {
                found.push(Process { pid, started: stat.started });
            }
        }
        found
    }

    /// The child of this kind: `billing`, `twin`, `device-worker`, `compile`.
    pub fn child(self, kind: &str) -> Option<Process> {
        self.children().into_iter().find(|c| c.is(kind))
    }

    /// Waits for the child of this kind.
    pub fn wait_for_child(self, kind: &str) -> Process {
        let until = Instant::now() + Duration::from_secs(20);
        loop {
            if let Some(child) = self.child(kind) {
                return child;
            }
            assert!(Instant::now() < until, "no {kind} child of process {}", self.pid);
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Its children and theirs.
    pub fn family(self) -> Vec<Process> {
        let mut found = self.children();
        let mut next = 0;
        while let Some(child) = found.get(next).copied() {
            found.extend(child.children());
            next += 1;
        }
        found
    }

    /// Waits until its parent has taken notice of its death: its last thread has ended, all it held is closed.
    pub fn wait_until_reaped(self) {
        let until = Instant::now() + Duration::from_secs(5);
        while Self::of(self.pid) == Some(self) {
            assert!(Instant::now() < until, "process {} is not reaped", self.pid);
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Stops it, and waits until all its threads stand: the signal is taken by one of them, and until that one gets a processor
    /// the others run on.
    pub fn stop(self) {
        self.signal(Signal::STOP);
        let until = Instant::now() + Duration::from_secs(5);
        let stands = |thread: fs::DirEntry| {
            let stat = fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
            stat.rsplit(')').next().is_none_or(|rest| rest.is_empty() || rest.starts_with(" T"))
        };
        while !fs::read_dir(format!("/proc/{}/task", self.pid)).unwrap().flatten().all(stands) {
            assert!(Instant::now() < until, "process {} does not stop", self.pid);
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Processor time that it has used, in hundredths of a second.
    pub fn used(self) -> u64 {
        stat(self.pid).map_or(0, |s| s.used)
    }

    /// Waits until it has worked for a fifth of a second more.
    pub fn wait_until_busy(self) {
        let (before, until) = (self.used(), Instant::now() + Duration::from_secs(10));
        while self.used() < before + 20 {
            assert!(Instant::now() < until, "process {} has nothing to do", self.pid);
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Whether the command line says so. A child that has not called exec yet is of no kind.
    pub fn is(self, kind: &str) -> bool {
        let line = self.text("cmdline");
        let words: Vec<&str> = line.split('\0').collect();
        match kind {
            "billing" => {
                words.first().is_some_and(|w| w.ends_with("wasmeter-billing"))
                    && words.get(1) == Some(&"serve")
            }
            "twin" => {
                words.first().is_some_and(|w| w.ends_with("wasmeter-billing"))
                    && words.get(1) == Some(&"twin")
            }
            "compile" => words.get(1) == Some(&"compile"),
            "device-worker" => words.first().is_some_and(|w| w.ends_with("wasmeter-device-worker")),
            other => panic!("no kind {other}"),
        }
    }

    /// A file of its /proc directory; empty if it is gone.
    pub fn text(self, file: &str) -> String {
        fs::read(self.dir().join(file)).map(|b| String::from_utf8_lossy(&b).into_owned()).unwrap_or_default()
    }

    pub fn dir(self) -> PathBuf {
        PathBuf::from(format!("/proc/{}", self.pid))
    }

    /// A line of `status`, such as `NoNewPrivs`.
    pub fn status(self, name: &str) -> String {
        let text = self.text("status");
        let line = text.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(':'));
        line.unwrap_or_default().trim().to_owned()
    }

    /// What its descriptors stand for, by number.
    pub fn descriptors(self) -> HashMap<u32, String> {
        let Ok(entries) = fs::read_dir(self.dir().join("fd")) else { return HashMap::new() };
        let target = |entry: fs::DirEntry| {
            let number = entry.file_name().to_str()?.parse().ok()?;
            Some((number, fs::read_link(entry.path()).ok()?.display().to_string()))
        };
        entries.flatten().filter_map(target).collect()
    }

    /// Whether any of these bytes are in its memory; `None` where this machine does not let us look. What it shares
    /// with the host to pass tensors is left out: reading the holes would fill them.
    pub fn remembers(self, secrets: &[Vec<u8>]) -> Option<bool> {
        let memory = fs::File::open(self.dir().join("mem")).ok()?;
        let maps = self.text("maps");
        // The stack, where an environment is, comes last.
        for line in maps.lines().rev() {
            let mut fields = line.split_whitespace();
            let (range, rights, name) = (fields.next()?, fields.next()?, fields.nth(3).unwrap_or(""));
            if !rights.starts_with("rw") || name.starts_with("/memfd:") {
                continue;
            }
            let (start, end) = range.split_once('-')?;
            let (mut at, end) = (u64::from_str_radix(start, 16).ok()?, u64::from_str_radix(end, 16).ok()?);
            let mut piece = vec![0; 1 << 20];
            // The end of the piece before: nothing hides on a border.
            let mut seen = Vec::new();
            while at < end {
                let size = piece.len().min(usize::try_from(end - at).ok()?);
                // Memory that was given back meanwhile.
                let Ok(count @ 1..) = memory.read_at(&mut piece[..size], at) else { break };
                at += count as u64;
                if piece[..count].iter().all(|b| *b == 0) {
                    seen.clear();
                    continue;
                }
                seen.drain(..seen.len().saturating_sub(256));
                seen.extend_from_slice(&piece[..count]);
                if secrets.iter().any(|s| holds(&seen, s)) {
                    return Some(true);
                }
            }
        }
        Some(false)
    }

    /// Sends the signal, through a handle that cannot come to mean another process.
    pub fn signal(self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.pid).unwrap()).unwrap();
        let Ok(handle) = pidfd_open(pid, PidfdFlags::empty()) else { return };
        if !self.lives() {
            return;
        }
        assert!(self.is_ours(), "process {} was not started by this test", self.pid);
        let _ = pidfd_send_signal(handle, signal);
    }

    fn is_ours(self) -> bool {
        let mut pid = self.pid;
        for _ in 0..8 {
            let Some(stat) = stat(pid) else { return false };
            pid = stat.parent;
            if pid == std::process::id() {
                return true;
            }
        }
        false
    }
}

/// By the first byte first: most of memory differs there.
fn holds(memory: &[u8], secret: &[u8]) -> bool {
    let mut rest = memory;
    while let Some(at) = rest.iter().position(|b| *b == secret[0]) {
        if rest[at..].starts_with(secret) {
            return true;
        }
        rest = &rest[at + 1..];
    }
    false
}

/// None of them may live longer than two seconds from now.
pub fn assert_gone(processes: &[Process]) {
    let until = Instant::now() + Duration::from_secs(2);
    for process in processes {
        while process.lives() {
            let line = process.text("cmdline");
            assert!(Instant::now() < until, "process {} ({line:?}) outlives its parent", process.pid);
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}
