use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};

/// The file that says how far the time of this process lies ahead of the wall clock. None but in tests.
static AHEAD: OnceLock<PathBuf> = OnceLock::new();

/// The time, nanoseconds since the Unix epoch: the wall clock's; 0 for a clock before it.
pub(crate) fn now_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let wall = u64::try_from(since.as_nanos()).unwrap_or(u64::MAX);
    let Some(file) = AHEAD.get() else { return wall };
    let seconds = std::fs::read_to_string(file).ok().and_then(|text| text.trim().parse::<i64>().ok());
    wall.saturating_add_signed(seconds.unwrap_or(0).saturating_mul(1_000_000_000))
}

/// The time in seconds since the Unix epoch.
pub(crate) fn now_s() -> i64 {
    i64::try_from(now_ns() / 1_000_000_000).unwrap_or(i64::MAX)
}

/// Has the time run ahead of the wall clock by the seconds in a file, which is read each time: days of outage pass in
/// seconds of a test.
pub(crate) fn follow(file: &Path) {
    // Said twice, the first counts.
    let _ = AHEAD.set(file.to_owned());
}
