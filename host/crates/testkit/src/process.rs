use std::collections::HashMap;

/// A process, as `/proc` shows it.
#[derive(Clone, Debug)]
pub struct Process {
    /// Number.
    pub pid: u32,
    /// The one that started it.
    pub parent: u32,
    /// Its command line, joined by spaces.
    pub command: String,
}

/// The children of a process and theirs, without the dead.
#[must_use]
pub fn descendants(root: u32) -> Vec<Process> {
    let all: HashMap<u32, Process> = std::fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(|pid| Some((pid, process(pid)?)))
        .collect();
    let is_below = |process: &Process| {
        let mut parent = process.parent;
        // A chain is never longer than there are processes.
        for _ in 0..all.len() {
            if parent == root {
                return true;
            }
            match all.get(&parent) {
                Some(next) => parent = next.parent,
                None => return false,
            }
        }
        false
    };
    let mut found: Vec<_> = all.values().filter(|p| is_below(p)).cloned().collect();
    found.sort_by_key(|p| p.pid);
    found
}

fn process(pid: u32) -> Option<Process> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name is in brackets and may hold anything (proc_pid_stat(5)).
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?;
    let parent = fields.next()?.parse().ok()?;
    if matches!(state, "Z" | "X") {
        return None;
    }
    let command = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let command = String::from_utf8_lossy(&command).trim_end_matches('\0').replace('\0', " ");
    Some(Process { pid, parent, command })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_a_child() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let found = descendants(std::process::id());
        assert!(found.iter().any(|p| p.pid == child.id()), "{found:?}");
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!descendants(std::process::id()).iter().any(|p| p.pid == child.id()));
    }
}
