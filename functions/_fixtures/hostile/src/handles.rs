//! Resources that are kept, forged, or dropped in the wrong order.

use std::mem::forget;

use wasmeter_guest::raw::wasi::clocks::monotonic_clock::subscribe_duration;
use wasmeter_guest::raw::wasi::http::types::{Fields, OutgoingResponse};
use wasmeter_guest::raw::wasi::nn::graph::load_by_name;

use crate::case::Case;

pub(crate) fn leak_fields() -> ! {
    loop {
        forget(Fields::new());
    }
}

pub(crate) fn leak_pollables() -> ! {
    loop {
        forget(subscribe_duration(u64::MAX));
    }
}

/// Each refusal is a resource too.
pub(crate) fn leak_errors() -> ! {
    loop {
        forget(load_by_name("nobody-has-this"));
    }
}

/// A handle that was never given.
pub(crate) fn forged() {
    #[allow(unsafe_code, reason = "the forged handle is the case")]
    let fields = unsafe { Fields::from_handle(1_000_000) };
    fields.entries();
}

pub(crate) fn dropped_twice() {
    let fields = Fields::new();
    #[allow(unsafe_code, reason = "the forged handle is the case")]
    let again = unsafe { Fields::from_handle(fields.handle()) };
    drop(fields);
    drop(again);
}

/// Drops a request while its headers are still held.
pub(crate) fn parent_first(case: Case) {
    let headers = case.request.headers();
    drop(case);
    headers.entries();
}

/// Takes the one body of a response twice, and the one of the request.
pub(crate) fn body_twice(case: Case) {
    let response = OutgoingResponse::new(Fields::new());
    let own = (response.body().is_ok(), response.body().is_ok());
    let first = case.request.consume();
    let text = format!("{own:?} {:?}\n", (first.is_ok(), case.request.consume().is_ok()));
    drop(first);
    case.say(&text);
}
