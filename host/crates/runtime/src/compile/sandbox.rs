use std::collections::BTreeMap;
use std::io;

use landlock::{ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, Ruleset, RulesetAttr};
use rustix::process::{Resource, Rlimit, Signal};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch};

/// CPU seconds of one compilation.
const CPU_SECONDS: u64 = 60;
/// Address space of one compilation.
const ADDRESS_SPACE: u64 = 6 << 30;
/// The largest artifact.
const FILE_SIZE: u64 = 1 << 30;

/// How far it stands back, in the scheduler's terms: beside one busy thread of the host it gets a tenth of a processor.
const NICE: i32 = 10;

/// Dies with the parent, has bounded resources, and reaches nothing but the three descriptors it was given.
pub(super) fn enter() -> io::Result<()> {
    die_with_parent()?;
    close_others()?;
    // Calls go first: an upload must not be felt by those who are served.
    rustix::process::nice(NICE)?;
    let limit = |resource, value| {
        rustix::process::setrlimit(resource, Rlimit { current: Some(value), maximum: Some(value) })
            .map_err(io::Error::from)
    };
    limit(Resource::Cpu, CPU_SECONDS)?;
    limit(Resource::As, ADDRESS_SPACE)?;
    limit(Resource::Fsize, FILE_SIZE)?;
    limit(Resource::Nofile, 16)?;
    limit(Resource::Core, 0)?;
    rustix::thread::set_no_new_privs(true)?;
    no_files()?;
    allow_only(ALLOWED)
}

/// Set here and not between fork and exec; the parent may have died before, so its id is checked after.
fn die_with_parent() -> io::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    if rustix::process::getppid().is_none_or(|p| p.is_init()) {
        return Err(io::Error::other("the parent is gone"));
    }
    Ok(())
}

/// The host's own descriptors close by themselves; one that was handed down to the host by whoever started it does not.
fn close_others() -> io::Result<()> {
    #[allow(unsafe_code, reason = "a plain system call")]
    // SAFETY: nothing in this process has opened a descriptor yet, so none is owned by a Rust value.
    let closed = unsafe { libc::close_range(3, libc::c_uint::MAX, 0) };
    let error = io::Error::last_os_error();
    // Kernels before 5.9 lack the call; there the child has what every program has.
    if closed == 0 || error.raw_os_error() == Some(libc::ENOSYS) { Ok(()) } else { Err(error) }
}

/// Landlock without a single rule: no path can be opened. Older kernels enforce what they know.
fn no_files() -> io::Result<()> {
    let rules = || {
        Ruleset::default()
            .set_compatibility(CompatLevel::BestEffort)
            .handle_access(AccessFs::from_all(ABI::V5))?
            .handle_access(AccessNet::from_all(ABI::V5))?
            .create()?
            .restrict_self()
    };
    rules().map(drop).map_err(|e: landlock::RulesetError| io::Error::other(e))
}

/// What memory, threads and the three descriptors need. Everything else, such as socket, open and execve, fails.
const ALLOWED: &[i64] = &[
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_readv,
    libc::SYS_writev,
    libc::SYS_pread64,
    libc::SYS_lseek,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_close,
    libc::SYS_fcntl,
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_mprotect,
    libc::SYS_madvise,
    libc::SYS_brk,
    libc::SYS_futex,
    libc::SYS_clone,
    libc::SYS_clone3,
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_getrandom,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_gettid,
    libc::SYS_getpid,
    libc::SYS_tgkill,
    libc::SYS_prctl,
    libc::SYS_membarrier,
    libc::SYS_restart_syscall,
    libc::SYS_exit,
    libc::SYS_exit_group,
];

fn allow_only(calls: &[i64]) -> io::Result<()> {
    let rules: BTreeMap<i64, Vec<seccompiler::SeccompRule>> =
        calls.iter().map(|call| (*call, vec![])).collect();
    let denied = SeccompAction::Errno(libc::EPERM.unsigned_abs());
    let arch = TargetArch::try_from(std::env::consts::ARCH).map_err(io::Error::other)?;
    let filter = SeccompFilter::new(rules, denied, SeccompAction::Allow, arch).map_err(io::Error::other)?;
    let program: BpfProgram =
        filter.try_into().map_err(|e: seccompiler::BackendError| io::Error::other(e))?;
    seccompiler::apply_filter(&program).map_err(io::Error::other)
}
