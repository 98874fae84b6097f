//! The worker's confinement. Landlock takes the file system and the network away, the system call filter
//! leaves what computing needs: memory, threads of its own, time, and the one inherited socket.

use std::{
    collections::BTreeMap,
    fs, io,
    os::fd::{AsRawFd, BorrowedFd},
    path::{Path, PathBuf},
};

use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, Ruleset, RulesetAttr, RulesetCreatedAttr,
    RulesetStatus, Scope, path_beneath_rules,
};
use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen as Len, SeccompCmpOp as Op, SeccompCondition as Condition,
    SeccompFilter, SeccompRule, TargetArch, apply_filter_all_threads,
};

use crate::{
    target::{Library, Target},
    wire::SandboxReport,
};

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// No core dumps of tensors, and no other process of the same user reads this one's memory.
pub(super) fn hide_memory() -> io::Result<()> {
    Ok(set_dumpable_behavior(DumpableBehavior::NotDumpable)?)
}

/// The first lock, before any foreign code: no network, no other programs, no looking into other processes.
/// What is left open, files to read and threads, is what loading a library needs.
pub(super) fn lock_early() -> io::Result<()> {
    let rules = EARLY.iter().map(|call| (*call, Vec::new())).collect();
    apply(rules, SeccompAction::Allow, libc::EPERM).map_err(io::Error::other)
}

/// The second lock, before any model.
pub(super) fn lock(socket: BorrowedFd<'_>, target: &Target, library: &Path) -> io::Result<SandboxReport> {
    let threads = fs::read_dir("/proc/self/task")?.count();
    if threads != 1 {
        // Such as the telemetry of an engine that ignores its switch.
        return Err(io::Error::other(format!(
            "the engine has started {} threads by itself, which Landlock would not confine",
            threads - 1
        )));
    }
    // OpenVINO lists the folder of its libraries whenever it reads a model, though they are all loaded.
    let listed = library.parent().filter(|_| target.library() == Library::OpenVino);
    let landlock = no_files(listed).map_err(io::Error::other)?;
    only_computing(socket, target.library() == Library::OpenVino).map_err(io::Error::other)?;
    Ok(SandboxReport { landlock: landlock.to_owned(), seccomp: true })
}

/// The lock of a worker on an accelerator, before its engine: the driver opens devices and files, starts threads and
/// makes code whenever it likes, so what is left to it is reading below the folders of programs and libraries, and its
/// own devices. Weaker than [`lock`]: `seccomp` is not in force beyond [`lock_early`].
pub(super) fn lock_for_accelerator(library: &Path) -> io::Result<SandboxReport> {
    let landlock = libraries_and_devices(library).map_err(io::Error::other)?;
    Ok(SandboxReport { landlock: landlock.to_owned(), seccomp: false })
}

fn libraries_and_devices(library: &Path) -> Result<&'static str, landlock::RulesetError> {
    let abi = ABI::V6;
    let folder = library.parent().unwrap_or(library);
    let mut readable: Vec<PathBuf> =
        ["/usr", "/lib", "/lib64", "/opt", "/proc", "/sys", "/etc/ld.so.cache"].map(PathBuf::from).to_vec();
    // Two up from `onnxruntime/capi` lie the folders of CUDA's wheels.
    readable.push(folder.to_owned());
    if folder.ends_with("onnxruntime/capi") {
        readable.extend(folder.ancestors().nth(2).map(|packages| packages.join("nvidia")));
    }
    let mut devices: Vec<PathBuf> = vec!["/dev/null".into(), "/dev/dri".into(), "/dev/shm".into()];
    for entry in fs::read_dir("/dev").into_iter().flatten().flatten() {
        if entry.file_name().as_encoded_bytes().starts_with(b"nvidia") {
            devices.push(entry.path());
        }
    }
    let status = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(abi))?
        .handle_access(AccessNet::from_all(abi))?
        .scope(Scope::from_all(abi))?
        .create()?
        .add_rules(path_beneath_rules(&readable, AccessFs::from_read(abi)))?
        .add_rules(path_beneath_rules(&devices, AccessFs::from_all(abi)))?
        .restrict_self()?;
    Ok(name(status.ruleset))
}

/// Handles all rights and grants none, but for the listing of one folder. Best effort: older kernels know fewer rights or no Landlock at all.
fn no_files(listed: Option<&Path>) -> Result<&'static str, landlock::RulesetError> {
    let abi = ABI::V6;
    let status = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(abi))?
        .handle_access(AccessNet::from_all(abi))?
        .scope(Scope::from_all(abi))?
        .create()?
        .add_rules(path_beneath_rules(listed, AccessFs::ReadDir))?
        .restrict_self()?;
    Ok(name(status.ruleset))
}

fn name(status: RulesetStatus) -> &'static str {
    match status {
        RulesetStatus::FullyEnforced => "full",
        RulesetStatus::PartiallyEnforced => "partial",
        RulesetStatus::NotEnforced => "none",
    }
}

/// Leaves the system calls that computing needs and answers EPERM to the rest. One more filter answers ENOSYS to
/// `clone3`, whose flags lie in memory where no filter can look, so that the C library falls back to `clone`,
/// whose flags are checked. Of several filters the stricter answer counts.
fn only_computing(socket: BorrowedFd<'_>, openvino: bool) -> Result<(), seccompiler::Error> {
    let mut rules = BTreeMap::new();
    for call in ALLOWED {
        rules.insert(*call, Vec::new());
    }
    let fd = u64::try_from(socket.as_raw_fd()).unwrap_or(u64::MAX);
    for call in [libc::SYS_sendmsg, libc::SYS_recvmsg] {
        rules.insert(call, vec![rule(0, Op::Eq, fd)?]);
    }
    // Looking at descriptors only: F_SETOWN and F_SETSIG would make a socket signal other processes.
    let mut looks = vec![libc::F_GETFD, libc::F_GETFL, libc::F_GET_SEALS];
    if openvino {
        // Listing a folder marks its descriptor for an exec that never comes.
        looks.push(libc::F_SETFD);
    }
    let looks = looks.into_iter().map(|command| rule(1, Op::Eq, u64::from(command.cast_unsigned())));
    rules.insert(libc::SYS_fcntl, looks.collect::<Result<_, _>>()?);
    // Threads, but no processes.
    let thread = u64::from(libc::CLONE_THREAD.cast_unsigned());
    rules.insert(libc::SYS_clone, vec![rule(0, Op::MaskedEq(thread), thread)?]);
    // Memory, but no new code: an exploit has to live with what is already mapped as code.
    let exec = u64::from(libc::PROT_EXEC.cast_unsigned());
    for call in [libc::SYS_mmap, libc::SYS_mprotect] {
        rules.insert(call, vec![rule(2, Op::MaskedEq(exec), 0)?]);
    }
    if openvino {
        // OpenVINO writes its kernels at run time, into pages that it makes executable and leaves writable.
        rules.insert(libc::SYS_mprotect, Vec::new());
        // Folders may be opened to be listed, files may not, and looking at names is no right that Landlock knows.
        let flags = libc::O_DIRECTORY | libc::O_ACCMODE | libc::O_CREAT | libc::O_TMPFILE;
        let flags = u64::from(flags.cast_unsigned());
        let folder = u64::from(libc::O_DIRECTORY.cast_unsigned());
        rules.insert(libc::SYS_openat, vec![rule(2, Op::MaskedEq(flags), folder)?]);
        for call in [libc::SYS_getdents64, libc::SYS_newfstatat] {
            rules.insert(call, Vec::new());
        }
        #[cfg(target_arch = "x86_64")]
        rules.insert(libc::SYS_stat, Vec::new());
        // It looks for the tile registers of the processor.
        #[cfg(target_arch = "x86_64")]
        rules.insert(libc::SYS_arch_prctl, tiles()?);
    }
    // `abort` and thread cancellation signal the process itself.
    let own = u64::from(std::process::id());
    rules.insert(libc::SYS_tgkill, vec![rule(0, Op::Eq, own)?]);
    // Threads get names.
    let name = u64::from(libc::PR_SET_NAME.cast_unsigned());
    rules.insert(libc::SYS_prctl, vec![rule(0, Op::Eq, name)?]);
    let clone3 = BTreeMap::from([(libc::SYS_clone3, Vec::new())]);
    // The order matters: the last filter does not let another one be installed.
    apply(clone3, SeccompAction::Allow, libc::ENOSYS)?;
    let refuse = SeccompAction::Errno(libc::EPERM.cast_unsigned());
    install(rules, refuse, SeccompAction::Allow)
}

/// Asking for the processor's tile registers, and what there is of them.
#[cfg(target_arch = "x86_64")]
fn tiles() -> Result<Vec<SeccompRule>, seccompiler::Error> {
    // ARCH_GET_XCOMP_SUPP, ARCH_GET_XCOMP_PERM, ARCH_REQ_XCOMP_PERM
    [0x1021, 0x1022, 0x1023].into_iter().map(|command| rule(0, Op::Eq, command)).collect()
}

/// A filter that answers `errno` to the calls of `rules`.
fn apply(rules: Rules, otherwise: SeccompAction, errno: i32) -> Result<(), seccompiler::Error> {
    install(rules, otherwise, SeccompAction::Errno(errno.cast_unsigned()))
}

fn install(
    rules: Rules,
    otherwise: SeccompAction,
    matching: SeccompAction,
) -> Result<(), seccompiler::Error> {
    let arch: TargetArch = std::env::consts::ARCH.try_into()?;
    let program: BpfProgram = SeccompFilter::new(rules, otherwise, matching, arch)?.try_into()?;
    apply_filter_all_threads(&program)
}

fn rule(argument: u8, op: Op, value: u64) -> Result<SeccompRule, seccompiler::Error> {
    Ok(SeccompRule::new(vec![Condition::new(argument, Len::Dword, op, value)?])?)
}

/// System calls that are refused from the start.
const EARLY: &[i64] = &[
    libc::SYS_bpf,
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_io_uring_setup,
    libc::SYS_mount,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_ptrace,
    libc::SYS_setns,
    libc::SYS_socket,
    libc::SYS_unshare,
];

/// System calls that are allowed whatever their arguments.
const ALLOWED: &[i64] = &[
    libc::SYS_brk,
    libc::SYS_clock_getres,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_clone3, // ENOSYS by the other filter
    libc::SYS_close,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_fstat,
    libc::SYS_futex,
    libc::SYS_getcpu,
    libc::SYS_getpid,
    libc::SYS_getrandom,
    libc::SYS_getrusage,
    libc::SYS_gettid,
    libc::SYS_gettimeofday,
    libc::SYS_madvise,
    libc::SYS_membarrier,
    libc::SYS_mremap,
    libc::SYS_munmap,
    libc::SYS_nanosleep,
    libc::SYS_restart_syscall,
    libc::SYS_rseq,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_yield,
    libc::SYS_set_robust_list,
    libc::SYS_sigaltstack,
    libc::SYS_sysinfo,
    libc::SYS_write, // stderr: there is no other descriptor that it could write to
];
