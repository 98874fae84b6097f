//! Guests that do not end.

use std::hint::{black_box, spin_loop};

use wasmeter_guest::raw::wasi::clocks::monotonic_clock::{now, subscribe_duration};
use wasmeter_guest::raw::wasi::io::poll::poll;

use crate::case::Case;

/// No host call at all.
pub(crate) fn spin() -> ! {
    loop {
        spin_loop();
    }
}

/// Nothing but host calls.
pub(crate) fn call_for_ever() -> ! {
    loop {
        black_box(now());
    }
}

/// Waits for what is ready, again and again.
pub(crate) fn poll_for_ever() -> ! {
    loop {
        subscribe_duration(0).block();
    }
}

/// For half a thousand years.
pub(crate) fn sleep() {
    subscribe_duration(u64::MAX).block();
}

/// On as many timers as a poll may have.
pub(crate) fn sleep_on_many() {
    let all: Vec<_> = (0..1000).map(|n| subscribe_duration(u64::MAX - n)).collect();
    let all: Vec<_> = all.iter().collect();
    poll(&all);
}

/// Reads a body to its end, whenever that comes.
pub(crate) fn wait_for_body(case: Case) {
    let mut bytes = 0;
    if let Ok(body) = case.request.consume()
        && let Ok(stream) = body.stream()
    {
        while let Ok(piece) = stream.blocking_read(64 << 10) {
            bytes += piece.len();
        }
    }
    case.say(&format!("{bytes} bytes\n"));
}
