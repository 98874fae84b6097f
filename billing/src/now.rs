use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, Ordering};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How far the time of this process lies from the wall clock, in nanoseconds. Zero but in tests.
static AHEAD_NS: AtomicI64 = AtomicI64::new(0);

/// The time, nanoseconds since the Unix epoch: the wall clock's; 0 for a clock before it.
pub(crate) fn now_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let wall = u64::try_from(since.as_nanos()).unwrap_or(u64::MAX);
    wall.saturating_add_signed(AHEAD_NS.load(Ordering::Relaxed))
}

/// The time in seconds since the Unix epoch.
pub(crate) fn now_s() -> i64 {
    i64::try_from(now_ns() / 1_000_000_000).unwrap_or(i64::MAX)
}

/// Has the time run ahead of the wall clock by the seconds in a file, read again and again: days of outage pass in
/// seconds of a test.
pub(crate) fn follow(file: &Path) {
    let read = |file: &PathBuf| {
        let ahead = std::fs::read_to_string(file).ok().and_then(|text| text.trim().parse::<i64>().ok());
        if let Some(ahead) = ahead {
            AHEAD_NS.store(ahead.saturating_mul(1_000_000_000), Ordering::Relaxed);
        }
    };
    let file = file.to_owned();
    read(&file);
    thread::spawn(move || {
        loop {
            thread::sleep(Duration::from_millis(10));
            read(&file);
        }
    });
}
