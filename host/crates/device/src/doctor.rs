//! What this machine gives to device workers: the mechanisms that confine them, and the engines.

use std::{io, ptr};

use rustix::{
    fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create},
    process::{PidfdFlags, getpid, pidfd_open},
};

use crate::{WorkerOptions, find_onnxruntime, find_openvino};

/// How good it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Health {
    /// As it should be.
    Good,
    /// Works, but protects or offers less.
    Weak,
    /// Not there.
    Missing,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// A short name, such as `landlock`.
    pub name: &'static str,
    /// How good it is.
    pub health: Health,
    /// What was found.
    pub detail: String,
    /// What to do; empty where nothing is to be done.
    pub advice: &'static str,
}

/// The Landlock version that knows all that workers are denied: files, network, signals and abstract sockets.
const LANDLOCK_FULL: i64 = 6;

/// Looks without changing anything. [`WorkerBackend::probe_sandbox`](crate::WorkerBackend::probe_sandbox) goes
/// further and lets a real worker try to break out.
#[must_use]
pub fn doctor(options: &WorkerOptions) -> Vec<Finding> {
    let mut findings = vec![
        landlock(),
        mechanism(
            "seccomp",
            seccomp(),
            "use a kernel with CONFIG_SECCOMP_FILTER: workers do not start without",
        ),
        mechanism("no_new_privs", no_new_privs(), "use Linux 3.5 or later: workers do not start without"),
        mechanism("memfd seals", memfd(), "use Linux 3.17 or later: workers do not start without"),
        mechanism("pidfd", pidfd(), "use Linux 5.3 or later: workers do not start without"),
    ];
    let mut close_range = mechanism("close_range", close_range(), "use Linux 5.11 or later");
    if close_range.health == Health::Missing {
        close_range.health = Health::Weak;
        close_range.detail += ": descriptors that C libraries leave open reach the workers";
    }
    findings.push(close_range);
    findings.push(match find_onnxruntime(options.onnxruntime.as_deref()) {
        Ok(path) => good("onnxruntime", path.display().to_string()),
        Err(error) => missing("onnxruntime", error.to_string(), "without it models for onnx answer 503"),
    });
    findings.push(match find_openvino(options.openvino.as_deref()) {
        Ok(path) => good("openvino", path.display().to_string()),
        Err(error) => missing("openvino", error.to_string(), "without it models for openvino answer 503"),
    });
    findings
}

fn good(name: &'static str, detail: String) -> Finding {
    Finding { name, health: Health::Good, detail, advice: "" }
}

fn missing(name: &'static str, detail: String, advice: &'static str) -> Finding {
    Finding { name, health: Health::Missing, detail, advice }
}

fn mechanism(name: &'static str, result: io::Result<()>, advice: &'static str) -> Finding {
    match result {
        Ok(()) => good(name, "available".to_owned()),
        Err(error) => missing(name, format!("not available: {error}"), advice),
    }
}

fn landlock() -> Finding {
    const ADVICE: &str = "use Linux 6.12 or later with landlock in the list of security modules (lsm=): with [engines] require-sandbox no worker starts without";
    const VERSION: libc::c_uint = 1;
    #[allow(unsafe_code, reason = "the crate does not tell the kernel's version")]
    // SAFETY: with this flag the call only answers a number and reads no memory.
    let version =
        unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, ptr::null::<u8>(), 0usize, VERSION) };
    let detail = format!("version {version}");
    match version {
        LANDLOCK_FULL.. => good("landlock", detail),
        1.. => Finding {
            name: "landlock",
            health: Health::Weak,
            detail: format!("{detail}: the system call filter alone denies network, signals or both"),
            advice: ADVICE,
        },
        _ => Finding {
            name: "landlock",
            health: Health::Weak,
            detail: format!("{}: the system call filter alone confines workers", io::Error::last_os_error()),
            advice: ADVICE,
        },
    }
}

fn seccomp() -> io::Result<()> {
    let action: u32 = libc::SECCOMP_RET_ERRNO;
    #[allow(unsafe_code, reason = "rustix has no seccomp")]
    // SAFETY: the kernel reads one number at a valid place; the operation installs nothing.
    let result =
        unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_GET_ACTION_AVAIL, 0, &raw const action) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn no_new_privs() -> io::Result<()> {
    rustix::thread::no_new_privs().map(drop).map_err(Into::into)
}

fn memfd() -> io::Result<()> {
    let fd = memfd_create("doctor", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    Ok(fcntl_add_seals(&fd, SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE | SealFlags::SEAL)?)
}

fn pidfd() -> io::Result<()> {
    Ok(pidfd_open(getpid(), PidfdFlags::empty()).map(drop)?)
}

fn close_range() -> io::Result<()> {
    let last = libc::c_uint::MAX;
    #[allow(unsafe_code, reason = "rustix has no close_range")]
    // SAFETY: there is no descriptor of this number.
    let result = unsafe { libc::syscall(libc::SYS_close_range, last, last, libc::CLOSE_RANGE_CLOEXEC) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_what_workers_need() {
        let findings = doctor(&WorkerOptions::default());
        for name in
            ["landlock", "seccomp", "no_new_privs", "memfd seals", "pidfd", "close_range", "onnxruntime"]
        {
            let finding = findings.iter().find(|finding| finding.name == name).unwrap();
            assert_eq!(finding.health, Health::Good, "{finding:?}");
        }
    }

    #[test]
    fn a_missing_engine_says_what_to_do() {
        let onnxruntime = Some("/nowhere/lib.so".into());
        let findings = doctor(&WorkerOptions { onnxruntime, ..WorkerOptions::default() });
        let finding = findings.iter().find(|finding| finding.name == "onnxruntime").unwrap();
        assert_eq!(finding.health, Health::Missing);
        assert!(finding.detail.contains("/nowhere/lib.so") && finding.detail.contains("deploy/setup.sh"));
    }
}
