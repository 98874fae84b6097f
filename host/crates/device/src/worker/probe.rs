//! Tries what the sandbox must refuse, so that `doctor` and the tests see the confinement and not its description.

use std::{ffi::CStr, io, ptr};

use crate::wire::Probe;

/// Tries, and undoes what should have failed.
#[allow(unsafe_code, reason = "bare system calls: a library could answer without asking the kernel")]
pub(super) fn probe() -> Vec<Probe> {
    let mut probes = Vec::new();
    let mut open = |what: &str, path: &CStr, flags: i32| {
        // SAFETY: `path` ends with a zero byte and outlives the call.
        let fd = unsafe { libc::open(path.as_ptr(), flags, 0o600) };
        attempt(&mut probes, what, i64::from(fd), close);
    };
    open("read /etc/passwd", c"/etc/passwd", libc::O_RDONLY);
    open("read the current folder", c".", libc::O_RDONLY);
    open("read /proc/self/environ", c"/proc/self/environ", libc::O_RDONLY);
    open("write a file", c"/tmp/wasmeter-probe", libc::O_WRONLY | libc::O_CREAT);

    for (what, family, kind) in [
        ("internet socket", libc::AF_INET, libc::SOCK_STREAM),
        ("datagram socket", libc::AF_INET6, libc::SOCK_DGRAM),
        ("local socket", libc::AF_UNIX, libc::SOCK_STREAM),
        ("netlink socket", libc::AF_NETLINK, libc::SOCK_RAW),
    ] {
        // SAFETY: no pointers.
        let fd = unsafe { libc::socket(family, kind, 0) };
        attempt(&mut probes, what, i64::from(fd), close);
    }
    for (what, call) in [
        ("connect", libc::SYS_connect),
        ("bind", libc::SYS_bind),
        ("accept", libc::SYS_accept4),
        ("pidfd", libc::SYS_pidfd_open),
        ("io_uring", libc::SYS_io_uring_setup),
        ("bpf", libc::SYS_bpf),
        ("user namespace", libc::SYS_unshare),
        ("memory of another process", libc::SYS_process_vm_readv),
        ("load a kernel module", libc::SYS_finit_module),
        ("mount", libc::SYS_mount),
        ("keyrings", libc::SYS_keyctl),
    ] {
        // SAFETY: all arguments are zero or -1, with which none of these calls does or touches anything.
        let result = unsafe { libc::syscall(call, -1i64, 0, 0, 0, 0, 0) };
        attempt(&mut probes, what, result, |_| ());
    }
    // SAFETY: no pointers; signal 0 signals nobody.
    attempt(&mut probes, "signal the parent", i64::from(unsafe { libc::kill(libc::getppid(), 0) }), |_| ());
    // SAFETY: no request but the attachment to nobody.
    let traced =
        unsafe { libc::ptrace(libc::PTRACE_TRACEME, 0, ptr::null_mut::<u8>(), ptr::null_mut::<u8>()) };
    attempt(&mut probes, "ptrace", traced, |_| ());
    // SAFETY: a fork whose child ends at once.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // SAFETY: ends the child without running anything of the parent.
        unsafe { libc::_exit(0) };
    }
    attempt(&mut probes, "fork", i64::from(child), |_| ());
    let argv = [c"/bin/true".as_ptr(), ptr::null()];
    // SAFETY: both lists end with a null pointer and outlive the call.
    let executed = unsafe { libc::execve(argv[0], argv.as_ptr(), argv[1..].as_ptr()) };
    attempt(&mut probes, "execute a program", i64::from(executed), |_| ());
    let protection = libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: a fresh mapping at an address of the kernel's choice.
    let code = unsafe { libc::mmap(ptr::null_mut(), 4096, protection, flags, -1, 0) };
    attempt(&mut probes, "writable code", if code == libc::MAP_FAILED { -1 } else { 0 }, |_| ());
    probes
}

#[allow(unsafe_code, reason = "closing a bare descriptor")]
fn close(fd: i32) {
    // SAFETY: a descriptor that the caller has just opened and does not use any more.
    unsafe {
        libc::close(fd);
    }
}

fn attempt(probes: &mut Vec<Probe>, what: &str, result: i64, undo: impl FnOnce(i32)) {
    let errno = if result < 0 { io::Error::last_os_error().raw_os_error().unwrap_or(-1) } else { 0 };
    if let (0, Ok(result)) = (errno, i32::try_from(result)) {
        undo(result);
    }
    probes.push(Probe { what: what.to_owned(), errno });
}
