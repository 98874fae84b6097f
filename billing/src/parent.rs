use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};

/// Asks the kernel to kill this process when its parent's thread that started it ends. The ledger is safe against that
/// at any instant, and nothing softer is sure.
///
/// The parent may have died before this call: with its id the check is exact; without, it covers this call only.
pub(crate) fn die_with(expected: Option<u32>) -> anyhow::Result<()> {
    let raw = |pid: Option<Pid>| pid.map_or(0, |pid| pid.as_raw_nonzero().get().unsigned_abs());
    let before = expected.unwrap_or_else(|| raw(getppid()));
    set_parent_process_death_signal(Some(Signal::KILL)).context("cannot tie this process to its parent")?;
    let parent = raw(getppid());
    if parent != before {
        bail!(
            "the parent, process {before}, has ended (the parent is now {parent}); nobody is left to serve"
        );
    }
    Ok(())
}
