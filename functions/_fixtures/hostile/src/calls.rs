//! Host calls: too many of them, or too much in one.

use std::hint::black_box;
use std::io::Write as _;

use wasmeter_guest::raw::wasi::cli::environment::get_environment;
use wasmeter_guest::raw::wasi::clocks::monotonic_clock::now;
use wasmeter_guest::raw::wasi::http::types::Fields;
use wasmeter_guest::raw::wasi::random::random::get_random_bytes;

use crate::case::Case;

/// `?n=` of the cheapest (default a million).
pub(crate) fn cheap(case: Case) {
    let calls = case.number(1_000_000);
    for _ in 0..calls {
        black_box(now());
    }
    case.say(&format!("{calls} calls\n"));
}

pub(crate) fn random_for_ever() -> ! {
    loop {
        black_box(get_random_bytes(64 << 10));
    }
}

/// A terabyte.
pub(crate) fn random_at_once(case: Case) {
    let got = get_random_bytes(1 << 40).len();
    case.say(&format!("{got} bytes\n"));
}

pub(crate) fn environment_for_ever() -> ! {
    loop {
        black_box(get_environment());
    }
}

/// One argument of `?n=` bytes (default 64 MiB).
pub(crate) fn big_argument(case: Case) {
    let value = vec![b'x'; case.number(64 << 20)];
    let taken = Fields::from_list(&[("x-big".to_owned(), value)]).is_ok();
    case.say(if taken { "taken\n" } else { "refused\n" });
}

pub(crate) fn print_for_ever() -> ! {
    loop {
        println!("a line that nobody asked for");
    }
}

/// A megabyte without a line break.
pub(crate) fn print_one_line(case: Case) {
    let written = std::io::stdout().write_all(&[b'x'; 1 << 20]).is_ok();
    case.say(&format!("{written}\n"));
}
