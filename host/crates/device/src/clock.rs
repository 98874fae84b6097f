//! Processor time, of this process and of a child.

use std::time::Duration;

/// Processor time that this process has used, all threads together.
pub(crate) fn own() -> Duration {
    read(libc::CLOCK_PROCESS_CPUTIME_ID).unwrap_or_default()
}

/// The processor clock of another process.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ProcessClock(libc::clockid_t);

impl ProcessClock {
    /// `None` where the process is gone.
    #[allow(unsafe_code, reason = "rustix has no clock_getcpuclockid")]
    pub(crate) fn of(pid: u32) -> Option<Self> {
        let pid = libc::pid_t::try_from(pid).ok()?;
        let mut clock = 0;
        // SAFETY: `clock` is a valid place for the result and outlives the call.
        let status = unsafe { libc::clock_getcpuclockid(pid, &raw mut clock) };
        (status == 0).then_some(Self(clock))
    }

    /// Processor time so far; `None` after the process was reaped.
    pub(crate) fn now(self) -> Option<Duration> {
        read(self.0)
    }
}

#[allow(unsafe_code, reason = "rustix reads only clocks that it knows by name")]
fn read(clock: libc::clockid_t) -> Option<Duration> {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid place for the result and outlives the call; any clock id may be asked for.
    let status = unsafe { libc::clock_gettime(clock, &raw mut time) };
    if status != 0 {
        return None;
    }
    Some(Duration::new(u64::try_from(time.tv_sec).ok()?, u32::try_from(time.tv_nsec).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_clocks_agree_on_this_process() {
        let clock = ProcessClock::of(std::process::id()).unwrap();
        let before = clock.now().unwrap();
        let work = (0..2_000_000u64).fold(1u64, |a, b| std::hint::black_box(a.wrapping_mul(b | 1)));
        assert!(work != 0);
        let own = own();
        assert!(before < own && own <= clock.now().unwrap());
        assert!(ProcessClock::of(u32::MAX).is_none());
    }
}
