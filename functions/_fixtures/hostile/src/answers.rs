//! Answers that are none, are wrong, or never end.

use wasmeter_guest::raw::wasi::clocks::monotonic_clock::subscribe_duration;
use wasmeter_guest::raw::wasi::http::types::{ErrorCode, Fields, OutgoingResponse, ResponseOutparam};

use crate::case::{Case, fail, start};

/// Keeps the right to answer, and ends.
pub(crate) fn keep_outparam(case: Case) {
    std::mem::forget(case);
}

/// Answers a second time, by a handle that it gave away.
pub(crate) fn twice(case: Case) {
    let handle = case.out.handle();
    case.say("once\n");
    #[allow(unsafe_code, reason = "the forged handle is the case")]
    let again = unsafe { ResponseOutparam::from_handle(handle) };
    ResponseOutparam::set(again, Ok(OutgoingResponse::new(Fields::new())));
}

/// An error in place of an answer, with a megabyte of words.
pub(crate) fn error(case: Case) {
    ResponseOutparam::set(case.out, Err(ErrorCode::InternalError(Some("x".repeat(1 << 20)))));
}

/// `?n=` as the status.
pub(crate) fn status(case: Case) {
    let response = OutgoingResponse::new(Fields::new());
    let status = case.number(200);
    if u16::try_from(status).is_ok_and(|status| response.set_status_code(status).is_ok()) {
        let body = start(case.out, response);
        body.write(b"odd\n");
        body.finish(None);
    } else {
        case.say("refused\n");
    }
}

/// `?n=` small headers, or as many as the host takes.
pub(crate) fn many_headers(case: Case) {
    let fields = Fields::new();
    for n in 0..case.number(100_000) {
        if fields.append(&format!("x-{n}"), b"y").is_err() {
            break;
        }
    }
    let body = start(case.out, OutgoingResponse::new(fields));
    body.finish(None);
}

/// One header of `?n=` bytes.
pub(crate) fn big_header(case: Case) {
    let fields = Fields::new();
    let taken = fields.append("x-big", &vec![b'y'; case.number(1 << 20)]).is_ok();
    if taken {
        let body = start(case.out, OutgoingResponse::new(fields));
        body.finish(None);
    } else {
        case.say("refused\n");
    }
}

/// A header with another one inside.
pub(crate) fn split_header(case: Case) {
    let fields = Fields::new();
    let values: [&[u8]; 3] = [b"a\r\nset-cookie: b=c", b"a\nb", b"a\0b"];
    let taken = values.iter().filter(|value| fields.append("x-split", value).is_ok()).count();
    let names = ["x split", "x-split:", "", "x\r\ny"];
    let taken = taken + names.iter().filter(|name| fields.append(name, b"v").is_ok()).count();
    case.say(&format!("{taken} taken\n"));
}

/// Headers that are the platform's to set.
pub(crate) fn our_headers(case: Case) {
    let fields = Fields::new();
    let names = ["x-wasmeter-cost", "x-wasmeter-error-source", "connection", "transfer-encoding", "upgrade"];
    for name in names {
        // Refused or dropped: the caller sees the platform's own or none.
        let _ = fields.append(name, b"forged");
    }
    let body = start(case.out, OutgoingResponse::new(fields));
    body.write(b"forged\n");
    body.finish(None);
}

/// As many trailers as the host takes.
pub(crate) fn big_trailers(case: Case) {
    let body = start(case.out, OutgoingResponse::new(Fields::new()));
    body.write(b"body\n");
    let fields = Fields::new();
    for n in 0..100_000 {
        if fields.append(&format!("x-{n}"), &[b'y'; 100]).is_err() {
            break;
        }
    }
    // The caller's side may object.
    let _ = body.finish(Some(fields));
}

/// Says ten bytes, writes `?n=`.
pub(crate) fn wrong_length(case: Case) {
    let fields = Fields::new();
    if fields.append("content-length", b"10").is_err() {
        fail("content-length is refused");
    }
    let bytes = vec![b'x'; case.number(3)];
    let body = start(case.out, OutgoingResponse::new(fields));
    body.write(&bytes);
    if let Some(error) = body.finish(None) {
        eprintln!("the host objects: {error:?}");
    }
}

/// `?n=` bytes, by default without an end.
pub(crate) fn body(case: Case) {
    let mut left = case.number(usize::MAX);
    let body = start(case.out, OutgoingResponse::new(Fields::new()));
    let piece = [b'x'; 4096];
    while left > 0 {
        let count = left.min(piece.len());
        if !body.write(&piece[..count]) {
            return;
        }
        left -= count;
    }
    body.finish(None);
}

/// A byte each ten milliseconds, for ever.
pub(crate) fn trickle(case: Case) {
    let body = start(case.out, OutgoingResponse::new(Fields::new()));
    while body.write(b"x") {
        subscribe_duration(10_000_000).block();
    }
}

/// A body of `?n=` bytes that is dropped in the middle.
pub(crate) fn unfinished(case: Case) {
    let bytes = vec![b'x'; case.number(100)];
    let body = start(case.out, OutgoingResponse::new(Fields::new()));
    body.write(&bytes);
    drop(body);
}

/// Fails after the head and 100,000 bytes have gone.
pub(crate) fn trap_in_body(case: Case) {
    let body = start(case.out, OutgoingResponse::new(Fields::new()));
    body.write(&[b'x'; 100_000]);
    deliberate_panic("after 100000 bytes")
}

/// Ends with a body of `?n=` bytes in its hands.
pub(crate) fn keep_body(case: Case) {
    let bytes = vec![b'x'; case.number(100)];
    let body = start(case.out, OutgoingResponse::new(Fields::new()));
    body.write(&bytes);
    std::mem::forget(body);
}

pub(crate) fn panics() -> ! {
    deliberate_panic("as asked")
}

/// A named frame for the backtrace.
#[inline(never)]
fn deliberate_panic(when: &str) -> ! {
    panic!("the hostile fixture panics, {when}")
}

/// The bare instruction.
#[inline(never)]
pub(crate) fn unreachable() -> ! {
    #[cfg(target_arch = "wasm32")]
    core::arch::wasm32::unreachable();
    #[cfg(not(target_arch = "wasm32"))]
    std::process::abort()
}

pub(crate) fn exit() -> ! {
    std::process::exit(1)
}
