//! Processes as /proc shows them. Only descendants of the test itself are ever signalled.

use std::collections::HashMap;
use std::fs;
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
    started: u64,
}

fn stat(pid: u32) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in brackets may hold anything.
    let fields: Vec<&str> = text.get(text.rfind(')')? + 2..)?.split(' ').collect();
    Some(Stat {
        state: fields.first()?.chars().next()?,
        parent: fields.get(1)?.parse().ok()?,
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

    /// The child of this kind: `billing`, `device-worker`, `compile`.
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

    /// Whether the command line says so. A child that has not called exec yet is of no kind.
    pub fn is(self, kind: &str) -> bool {
        let line = self.text("cmdline");
        let words: Vec<&str> = line.split('\0').collect();
        match kind {
            "billing" => words.first().is_some_and(|w| w.ends_with("wasmeter-billing")),
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
